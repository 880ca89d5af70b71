//! Where the trees of this host are, and what they offer.
//!
//! Version 1, hybrid (v1 controllers beside a v2 tree with few or none) and version 2 hosts are told
//! apart by `statfs(2)` alone: nothing parses /proc/mounts, and cgroups-rs, whose detection takes a
//! hybrid host for v1 and writes into a tmpfs when asked for v2, is not asked.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::statfs;
use serde::{Deserialize, Serialize};

use super::cpuset::Lists;
use super::{bpf, cpuset, hugetlb, memory};

pub(super) const ROOT: &str = "/sys/fs/cgroup";
/// `CGROUP_SUPER_MAGIC` of `linux/magic.h`.
const V1_MAGIC: u64 = 0x0027_e0eb;
/// `CGROUP2_SUPER_MAGIC` of `linux/magic.h`.
const V2_MAGIC: u64 = 0x6367_7270;

/// Where the trees of this host are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hierarchies {
    /// The v2 tree: all controllers on a v2 host, mostly tracking on a hybrid one.
    pub unified: Option<PathBuf>,
    /// Whether the v2 tree holds the controllers.
    pub pure_v2: bool,
    /// Controllers that the v2 tree has.
    pub controllers: BTreeSet<String>,
    /// v1 tree of `cpu`.
    pub cpu: Option<PathBuf>,
    /// v1 tree of `cpuacct`; None when it is the same as `cpu`'s.
    pub cpuacct: Option<PathBuf>,
    /// v1 tree of `cpuset`.
    pub cpuset: Option<PathBuf>,
    /// v1 tree of `memory`.
    pub memory: Option<PathBuf>,
    /// Whether v1 `memory` also counts swap.
    pub swap: bool,
    /// v1 tree of `pids`.
    pub pids: Option<PathBuf>,
    /// v1 tree of `devices`.
    pub devices: Option<PathBuf>,
    /// v1 tree of `blkio`.
    pub blkio: Option<PathBuf>,
    /// v1 tree of `hugetlb`.
    pub hugetlb: Option<PathBuf>,
    /// v1 tree of `freezer`; None where the v2 tree serves.
    pub freezer: Option<PathBuf>,
    /// v1 trees in which a group has a directory whatever its limits: for a container of others'
    /// (`oci`) those that only track it, and all that it is shown.
    pub others: Vec<PathBuf>,
    /// Whether v2 groups take device programs (`CONFIG_CGROUP_BPF`); only looked at on v2 hosts.
    pub device_programs: bool,
    /// Bytes of each size of huge pages.
    pub huge_pages: BTreeSet<u64>,
    /// What a v1 group of `cpuset` begins with; empty until looked at.
    #[serde(skip)]
    pub cpuset_above: Lists,
    /// Names of the files that a group has, by tree; a tree that nobody looked into is missing.
    #[serde(skip)]
    pub files: BTreeMap<PathBuf, BTreeSet<String>>,
}

fn magic(path: &Path) -> Option<u64> {
    statfs(path)
        .ok()
        .map(|fs| u64::try_from(fs.f_type).unwrap_or(0))
}

fn controllers(unified: Option<&PathBuf>) -> BTreeSet<String> {
    let file = unified.map(|tree| tree.join("cgroup.controllers"));
    let text = file.and_then(|file| std::fs::read_to_string(file).ok());
    let text = text.unwrap_or_default();
    text.split_whitespace().map(ToOwned::to_owned).collect()
}

/// Whether the only tree is that of v2.
pub(crate) fn is_pure_v2() -> bool {
    magic(Path::new(ROOT)) == Some(V2_MAGIC)
}

impl Hierarchies {
    /// Looks at this host's `/sys/fs/cgroup`, and what its controllers can do.
    pub fn detect() -> Self {
        let mut found = Self::locate();
        found.device_programs = found.pure_v2 && bpf::available();
        found.look_at_huge_pages();
        found
    }

    /// Looks where the trees are, and no further.
    pub(crate) fn locate() -> Self {
        let root = Path::new(ROOT);
        if is_pure_v2() {
            let unified = Some(root.to_owned());
            return Self {
                controllers: controllers(unified.as_ref()),
                unified,
                pure_v2: true,
                ..Self::default()
            };
        }
        // Controllers that share a tree appear as links to it.
        let v1 = |name: &str| {
            let path = root.join(name);
            let found = magic(&path) == Some(V1_MAGIC);
            found.then(|| {
                let link = std::fs::read_link(&path).ok();
                link.map_or(path, |target| root.join(target))
            })
        };
        let cpu = v1("cpu");
        let device = |path: &PathBuf| std::fs::metadata(path).map(|found| found.dev()).ok();
        let cpu_device = cpu.as_ref().and_then(device);
        let memory = v1("memory");
        let swap = |path: &PathBuf| path.join(memory::SWAP_LIMIT).exists();
        let unified = Some(root.join("unified")).filter(|path| magic(path) == Some(V2_MAGIC));
        Self {
            freezer: v1("freezer").filter(|_| unified.is_none()),
            controllers: controllers(unified.as_ref()),
            unified,
            pure_v2: false,
            cpuacct: v1("cpuacct").filter(|path| device(path) != cpu_device),
            cpu,
            cpuset: v1("cpuset"),
            swap: memory.as_ref().is_some_and(swap),
            memory,
            pids: v1("pids"),
            devices: v1("devices"),
            blkio: v1("blkio"),
            hugetlb: v1("hugetlb"),
            ..Self::default()
        }
    }

    /// Notes which sizes of huge pages this host has.
    pub(crate) fn look_at_huge_pages(&mut self) {
        self.huge_pages = hugetlb::sizes();
    }

    /// Whether a container can be kept from opening devices that it makes nodes of.
    pub fn filters_devices(&self) -> bool {
        self.devices.is_some() || self.device_programs
    }

    /// Trees in which every container has a directory.
    fn usual(&self) -> impl Iterator<Item = &PathBuf> {
        [
            &self.unified,
            &self.cpu,
            &self.cpuacct,
            &self.memory,
            &self.pids,
        ]
        .into_iter()
        .flatten()
    }

    /// Every tree once: controllers may share one.
    pub(crate) fn trees(&self) -> BTreeSet<&Path> {
        let others = [
            &self.cpuset,
            &self.devices,
            &self.blkio,
            &self.hugetlb,
            &self.freezer,
        ];
        let others = others.into_iter().flatten().chain(&self.others);
        self.usual().chain(others).map(PathBuf::as_path).collect()
    }

    /// Notes which files the groups below `parent`, which exists in every tree, have.
    pub(super) fn look_in(&mut self, parent: &Path) {
        self.files.clear();
        let trees: Vec<PathBuf> = self.trees().into_iter().map(Path::to_owned).collect();
        for tree in trees {
            self.look_at(&tree, parent);
        }
        let cpuset = self.cpuset.as_ref().map(|tree| tree.join(parent));
        self.cpuset_above = cpuset.as_deref().map(cpuset::lists).unwrap_or_default();
    }

    /// Notes which files the group at `path` in one tree has.
    pub(super) fn look_at(&mut self, tree: &Path, path: &Path) {
        if let Ok(entries) = std::fs::read_dir(tree.join(path)) {
            let names = entries.flatten().map(|entry| entry.file_name());
            let names = names.filter_map(|name| name.into_string().ok()).collect();
            self.files.insert(tree.to_owned(), names);
        }
    }

    /// Whether block I/O can be weighed here, as far as was looked.
    pub(crate) fn weighs_io(&self) -> bool {
        let tree = if self.pure_v2 {
            &self.unified
        } else {
            &self.blkio
        };
        let files = [
            "io.weight",
            "io.bfq.weight",
            "blkio.weight",
            "blkio.bfq.weight",
        ];
        let has = |tree: &PathBuf| files.iter().any(|file| self.has_file(tree, file));
        tree.as_ref().is_some_and(has)
    }

    /// Whether groups in `tree` have the file, as far as was looked.
    pub(super) fn has_file(&self, tree: &Path, file: &str) -> bool {
        self.files
            .get(tree)
            .is_none_or(|names| names.contains(file))
    }
}
