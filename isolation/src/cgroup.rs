//! Control groups: where each controller's tree is, and the files that make and limit one group.
//!
//! It decides the directories and file contents ([`Group`] is pure once [`Hierarchies`] is known);
//! the keeper's child writes them. Version 1, hybrid (v1 controllers beside a controller-less v2
//! tree) and version 2 hosts are told apart by `statfs(2)` alone: nothing parses /proc/mounts.
//! Invariant: all of a container's directories are named `<parent>/<id>` in every tree.

mod cpu;
mod devices;
mod memory;
mod parent;
mod pids;
mod remove;
mod unified;
mod usage;

pub use parent::CgroupError;
pub use parent::parent_id;
pub(crate) use parent::prepare_parent;
pub use parent::remove_parent;
pub(crate) use remove::remove_group;
pub(crate) use unified::kill_group;
pub use usage::{Usage, usage};

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::statfs;

use crate::spec::Limits;

const ROOT: &str = "/sys/fs/cgroup";
/// `CGROUP_SUPER_MAGIC` of `linux/magic.h`.
const V1_MAGIC: u64 = 0x0027_e0eb;
/// `CGROUP2_SUPER_MAGIC` of `linux/magic.h`.
const V2_MAGIC: u64 = 0x6367_7270;

/// Where the trees of this host are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hierarchies {
    /// The v2 tree: all controllers on a v2 host, only tracking on a hybrid one.
    pub unified: Option<PathBuf>,
    /// Whether the v2 tree holds the controllers.
    pub pure_v2: bool,
    /// v1 tree of `cpu`.
    pub cpu: Option<PathBuf>,
    /// v1 tree of `cpuacct`; None when it is the same as `cpu`'s.
    pub cpuacct: Option<PathBuf>,
    /// v1 tree of `memory`.
    pub memory: Option<PathBuf>,
    /// Whether v1 `memory` also counts swap.
    pub swap: bool,
    /// v1 tree of `pids`.
    pub pids: Option<PathBuf>,
    /// v1 tree of `devices`.
    pub devices: Option<PathBuf>,
}

fn magic(path: &Path) -> Option<u64> {
    statfs(path)
        .ok()
        .map(|fs| u64::try_from(fs.f_type).unwrap_or(0))
}

impl Hierarchies {
    /// Looks at this host's `/sys/fs/cgroup`.
    pub fn detect() -> Self {
        let root = Path::new(ROOT);
        if magic(root) == Some(V2_MAGIC) {
            return Self {
                unified: Some(root.to_owned()),
                pure_v2: true,
                ..Self::default()
            };
        }
        let v1 = |name: &str| Some(root.join(name)).filter(|path| magic(path) == Some(V1_MAGIC));
        let cpu = v1("cpu");
        let device = |path: &PathBuf| std::fs::metadata(path).map(|found| found.dev()).ok();
        let cpu_device = cpu.as_ref().and_then(device);
        let memory = v1("memory");
        let swap = |path: &PathBuf| path.join(memory::SWAP_LIMIT).exists();
        Self {
            unified: Some(root.join("unified")).filter(|path| magic(path) == Some(V2_MAGIC)),
            pure_v2: false,
            cpuacct: v1("cpuacct").filter(|path| device(path) != cpu_device),
            cpu,
            swap: memory.as_ref().is_some_and(swap),
            memory,
            pids: v1("pids"),
            devices: v1("devices"),
        }
    }

    /// The trees that hold a directory of its own for each container.
    pub(crate) fn per_container(&self) -> impl Iterator<Item = &Path> {
        [
            &self.unified,
            &self.cpu,
            &self.cpuacct,
            &self.memory,
            &self.pids,
        ]
        .into_iter()
        .flatten()
        .map(PathBuf::as_path)
    }

    /// Every tree, those that hold only the parent included.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Path> {
        self.per_container().chain(self.devices.as_deref())
    }
}

/// A value for a file of a controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    /// Name of the file.
    pub(crate) file: &'static str,
    /// What to write.
    pub(crate) value: String,
}

impl Setting {
    fn new(file: &'static str, value: impl fmt::Display) -> Self {
        Self {
            file,
            value: value.to_string(),
        }
    }
}

/// One container's groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    /// In the v2 tree; the keeper makes it, since a process can be started right in it.
    pub(crate) unified: Option<PathBuf>,
    /// Directories that the child makes in the v1 trees.
    pub(crate) make: Vec<PathBuf>,
    /// Limits, in the order in which to write them.
    pub(crate) settings: Vec<(PathBuf, Setting)>,
    /// Directories whose `tasks` file the child joins.
    pub(crate) join: Vec<PathBuf>,
    /// Where `memory.oom_control` (v1) or `memory.events` (v2) tells of kills.
    pub(crate) oom_file: Option<PathBuf>,
}

impl Group {
    /// The groups of container `id` below `parent`.
    pub(crate) fn new(hosts: &Hierarchies, parent: &str, id: &str, limits: &Limits) -> Self {
        let below = |tree: &PathBuf| tree.join(parent).join(id);
        let mut group = Self {
            unified: hosts.unified.as_ref().map(below),
            make: Vec::new(),
            settings: Vec::new(),
            join: Vec::new(),
            oom_file: None,
        };
        if hosts.pure_v2 {
            if let Some(dir) = &group.unified {
                let settings = [cpu::v2(limits), memory::v2(limits), pids::v2(limits)];
                group.settings = settings
                    .into_iter()
                    .flatten()
                    .map(|setting| (dir.clone(), setting))
                    .collect();
                group.oom_file = limits.memory_bytes.map(|_| dir.join(memory::V2_EVENTS));
            }
            return group;
        }
        let v1 = [
            (&hosts.cpu, cpu::v1(limits)),
            (&hosts.cpuacct, Vec::new()),
            (&hosts.memory, memory::v1(limits, hosts.swap)),
            (&hosts.pids, pids::v1(limits)),
        ];
        for (tree, settings) in v1 {
            let Some(tree) = tree else { continue };
            let dir = below(tree);
            group
                .settings
                .extend(settings.into_iter().map(|setting| (dir.clone(), setting)));
            group.make.push(dir.clone());
            group.join.push(dir);
        }
        // One device filter serves every container: the parent's own group holds it.
        group
            .join
            .extend(hosts.devices.as_ref().map(|tree| tree.join(parent)));
        group.oom_file = hosts
            .memory
            .as_ref()
            .filter(|_| limits.memory_bytes.is_some())
            .map(|tree| below(tree).join(memory::V1_OOM));
        group
    }

    /// Directories to remove, all of them.
    pub(crate) fn dirs(&self) -> Vec<PathBuf> {
        self.unified.iter().chain(&self.make).cloned().collect()
    }

    /// A directory whose `cgroup.procs` lists every process of the container.
    pub(crate) fn tracking(&self) -> Option<&Path> {
        self.unified
            .as_deref()
            .or(self.make.first().map(PathBuf::as_path))
    }

    /// How many processes the kernel killed in this group for want of memory.
    pub(crate) fn oom_kills(&self) -> u64 {
        let Some(file) = &self.oom_file else { return 0 };
        let text = std::fs::read_to_string(file).unwrap_or_default();
        memory::oom_kills(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hybrid() -> Hierarchies {
        let tree = |name: &str| Some(PathBuf::from("/cg").join(name));
        Hierarchies {
            unified: tree("unified"),
            pure_v2: false,
            cpu: tree("cpu"),
            cpuacct: None,
            memory: tree("memory"),
            swap: false,
            pids: tree("pids"),
            devices: tree("devices"),
        }
    }

    #[test]
    fn a_hybrid_group_is_tracked_in_the_unified_tree_and_limited_in_the_others() {
        let limits = Limits {
            memory_bytes: Some(1 << 20),
            ..Limits::default()
        };
        let group = Group::new(&hybrid(), "gantry-x", "c1", &limits);
        assert_eq!(
            group.unified.as_deref(),
            Some(Path::new("/cg/unified/gantry-x/c1"))
        );
        assert_eq!(group.make.len(), 3);
        assert_eq!(
            group.join.last().map(PathBuf::as_path),
            Some(Path::new("/cg/devices/gantry-x"))
        );
        assert_eq!(
            group.oom_file.as_deref(),
            Some(Path::new("/cg/memory/gantry-x/c1/memory.oom_control"))
        );
        assert_eq!(group.dirs().len(), 4);
    }

    #[test]
    fn a_v2_group_has_one_directory() {
        let hosts = Hierarchies {
            unified: Some(PathBuf::from("/cg")),
            pure_v2: true,
            ..Hierarchies::default()
        };
        let limits = Limits {
            memory_bytes: Some(4096),
            pids_max: Some(7),
            ..Limits::default()
        };
        let group = Group::new(&hosts, "p", "c", &limits);
        assert!(group.make.is_empty() && group.join.is_empty());
        let names: Vec<&str> = group.settings.iter().map(|(_, s)| s.file).collect();
        assert_eq!(names, ["memory.max", "memory.swap.max", "pids.max"]);
        assert_eq!(group.dirs(), [PathBuf::from("/cg/p/c")]);
    }

    #[test]
    fn without_a_memory_limit_nothing_is_read_at_exit() {
        assert_eq!(
            Group::new(&hybrid(), "p", "c", &Limits::default()).oom_file,
            None
        );
    }
}
