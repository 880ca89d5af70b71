//! The groups of one container: which directories, which files, in which order.
//!
//! It is pure: what the host has is in [`Hierarchies`], and a limit that it cannot keep is refused
//! here, by the name of the controller or file that is missing, never ignored. Directories in the
//! trees of `cpuset`, `blkio`, `hugetlb`, `freezer` and `devices` are only for those who ask (making
//! and removing one of `cpuset` alone costs a tenth of a start); the keeper's others share one of
//! `cpuset`, so that all have a group there to look at.

use std::path::{Path, PathBuf};

use super::devices::{DeviceFilter, DeviceRule};
use super::{CgroupPath, Freezer, Hierarchies, Setting};
use super::{cpu, cpuset, hugetlb, io, memory, pids, view};
use crate::spec::{Limits, SpecError};

/// Controllers that every v2 group below the keeper's has.
pub(super) const USUAL_CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// A limit that this host cannot keep.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum GroupError {
    /// The whole controller is missing.
    #[error("this host has no cgroup controller {controller} (limit {limit})")]
    NoController {
        /// Which.
        controller: String,
        /// What needed it.
        limit: &'static str,
    },
    /// The controller cannot do it here.
    #[error("this host's cgroup controller {controller} has no file {file} (limit {limit})")]
    NoFile {
        /// Which.
        controller: &'static str,
        /// What is missing.
        file: String,
        /// What needed it.
        limit: &'static str,
    },
    /// No host could keep it.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// Version 1 has nothing like it.
    #[error("this host has cgroup v1, which has nothing like {file} (limit {limit})")]
    OnlyV2 {
        /// The file of v2.
        file: &'static str,
        /// What needed it.
        limit: &'static str,
    },
}

/// The device filter of one v2 group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GroupFilter {
    /// That of every container.
    Usual,
    /// One of its own.
    Own(DeviceFilter),
}

/// One container's groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// What it was made from: where it is, how devices are filtered, what is limited.
    path: PathBuf,
    place: Filter,
    limits: Limits,
    /// The group of `cpuset` of those who ask for no CPUs of their own; None: they stay where they
    /// come from.
    any_cpu: Option<PathBuf>,
    /// In the v2 tree; the keeper makes it, since a process can be started right in it.
    pub(crate) unified: Option<PathBuf>,
    /// What to write to which `cgroup.subtree_control` above it first, outermost first.
    pub(crate) enable: Vec<(PathBuf, String)>,
    /// What filters devices in the v2 tree; the keeper attaches it.
    pub(crate) filter: Option<GroupFilter>,
    /// Directories that the child makes in the v1 trees.
    pub(crate) make: Vec<PathBuf>,
    /// Limits, in the order in which to write them.
    pub(crate) settings: Vec<(PathBuf, Setting)>,
    /// Directories whose `tasks` file the child joins.
    pub(crate) join: Vec<PathBuf>,
    /// What the container sees of them on v1: the name of a tree, and the directory in it.
    pub(crate) shown: Vec<(String, PathBuf)>,
    /// The one of `make` that needs lists of CPUs and memory before anybody can join it.
    pub(super) cpuset: Option<PathBuf>,
    /// Where `memory.oom_control` (v1) or `memory.events` (v2) tells of kills.
    pub(crate) oom_file: Option<PathBuf>,
    /// How it is frozen, where the kernel can.
    pub(crate) freezer: Option<Freezer>,
}

/// Where devices are filtered.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Filter {
    /// In a v1 group that is there already; on v2 by the usual program.
    Shared(PathBuf),
    /// In a group of its own, named so below the tree of v1.
    Own(PathBuf, DeviceFilter),
    /// Nowhere.
    None,
}

impl Group {
    /// The groups of the keeper's container `id` below `parent`, which [`super::prepare_parent`]
    /// has made. `extra` devices may be used beside the harmless ones.
    pub(crate) fn new(
        hosts: &Hierarchies,
        parent: &str,
        id: &str,
        limits: &Limits,
        extra: &[DeviceRule],
    ) -> Result<Self, GroupError> {
        let filter = if extra.is_empty() {
            Filter::Shared(PathBuf::from(parent))
        } else {
            let dir = Path::new(&device_parent(parent)).join(id);
            Filter::Own(dir, DeviceFilter::with(extra))
        };
        let any_cpu = Some(cpuset_parent(parent).into());
        let path = Path::new(parent).join(id);
        Self::build(hosts, path, limits.clone(), filter, any_cpu)
    }

    /// The groups at `path`, whose parent [`super::prepare`] has made; None filters no devices.
    ///
    /// # Errors
    /// A limit that this host cannot keep.
    pub fn at(
        hosts: &Hierarchies,
        path: &CgroupPath,
        limits: &Limits,
        filter: Option<DeviceFilter>,
    ) -> Result<Self, GroupError> {
        let path: &Path = path.as_ref();
        let filter = filter.map_or(Filter::None, |filter| Filter::Own(path.to_owned(), filter));
        Self::build(hosts, path.to_owned(), limits.clone(), filter, None)
    }

    /// The same groups with everything that `change` says in place of what was there.
    ///
    /// # Errors
    /// The whole makes no sense, or this host cannot keep it.
    pub(crate) fn changed(&self, hosts: &Hierarchies, change: &Limits) -> Result<Self, GroupError> {
        let limits = self.limits.changed(change);
        limits.check()?;
        let (path, place) = (self.path.clone(), self.place.clone());
        Self::build(hosts, path, limits, place, self.any_cpu.clone())
    }

    fn build(
        hosts: &Hierarchies,
        path: PathBuf,
        limits: Limits,
        place: Filter,
        any_cpu: Option<PathBuf>,
    ) -> Result<Self, GroupError> {
        let mut group = Self {
            unified: hosts.unified.as_ref().map(|tree| tree.join(&path)),
            path,
            place,
            limits,
            any_cpu,
            enable: Vec::new(),
            filter: None,
            make: Vec::new(),
            settings: Vec::new(),
            join: Vec::new(),
            shown: Vec::new(),
            cpuset: None,
            oom_file: None,
            freezer: None,
        };
        if hosts.pure_v2 {
            group.v2(hosts)?;
            group.v2_filter(hosts)?;
        } else {
            group.v1(hosts)?;
            group.shown = view::of(hosts, &group.join);
            group.v1_filter(hosts)?;
        }
        group.raw(hosts)?;
        let tracking = group.tracking().map(Path::to_owned);
        group.freezer = match (&group.unified, &hosts.freezer) {
            (Some(dir), _) => Some(Freezer::V2(dir.clone())),
            (None, Some(tree)) => tracking.map(|tracking| Freezer::V1 {
                dir: tree.join(&group.path),
                tracking,
            }),
            (None, None) => None,
        };
        Ok(group)
    }

    fn v1(&mut self, hosts: &Hierarchies) -> Result<(), GroupError> {
        let limits = &self.limits;
        let limits_memory = limits.memory_bytes.is_some();
        let blkio = hosts.blkio.as_deref();
        let has = |file: &str| blkio.is_none_or(|tree| hosts.has_file(tree, file));
        let in_unified = hosts.controllers.contains("hugetlb");
        let (huge_pages, huge_pages_v1) = if in_unified {
            (hugetlb::v2(limits, &hosts.huge_pages)?, Vec::new())
        } else {
            (Vec::new(), hugetlb::v1(limits, &hosts.huge_pages)?)
        };
        let memory = memory::v1(limits, hosts.swap)?;
        let cpuset = cpuset::v1(limits, &hosts.cpuset_above);
        // Whether a directory is made without settings, too.
        for (controller, tree, always, settings) in [
            ("cpu", &hosts.cpu, true, cpu::v1(limits)),
            ("cpuacct", &hosts.cpuacct, true, Vec::new()),
            ("cpuset", &hosts.cpuset, false, cpuset),
            ("memory", &hosts.memory, true, memory),
            ("pids", &hosts.pids, true, pids::both(limits)),
            ("blkio", &hosts.blkio, false, io::v1(limits, has)),
            ("hugetlb", &hosts.hugetlb, false, huge_pages_v1),
        ] {
            check(hosts, controller, tree.as_deref(), &settings)?;
            let Some(tree) = tree else { continue };
            if always || !settings.is_empty() {
                self.live_in(tree.join(&self.path), settings);
            }
        }
        for tree in &hosts.others {
            self.live_in(tree.join(&self.path), Vec::new());
        }
        let cpuset = hosts.cpuset.as_ref().map(|tree| tree.join(&self.path));
        self.cpuset = cpuset.filter(|dir| self.make.contains(dir));
        self.raw_v1(hosts)?;
        self.limit_unified(hosts, "hugetlb", huge_pages);
        if let (Some(tree), Some(shared)) = (&hosts.cpuset, &self.any_cpu)
            && !self.make.iter().any(|dir| dir.starts_with(tree))
        {
            self.join.push(tree.join(shared));
        }
        self.oom_file = hosts
            .memory
            .as_ref()
            .filter(|_| limits_memory)
            .map(|tree| tree.join(&self.path).join(memory::V1_OOM));
        Ok(())
    }

    fn v2(&mut self, hosts: &Hierarchies) -> Result<(), GroupError> {
        let limits = &self.limits;
        if let Some(file) = limits.raw_v1.keys().next() {
            return Err(no_v1_controller(file));
        }
        let limits_memory = limits.memory_bytes.is_some();
        let Some(tree) = &hosts.unified else {
            return Ok(());
        };
        let has = |file: &str| hosts.has_file(tree, file);
        for (controller, settings) in [
            ("cpu", cpu::v2(limits)),
            ("cpuset", cpuset::v2(limits)),
            ("memory", memory::v2(limits, has("memory.swap.max"))),
            ("pids", pids::both(limits)),
            ("io", io::v2(limits, has)),
            ("hugetlb", hugetlb::v2(limits, &hosts.huge_pages)?),
        ] {
            let there = hosts.controllers.contains(controller);
            let tree = there.then_some(tree.as_path());
            check(hosts, controller, tree, &settings)?;
            self.limit_unified(hosts, controller, settings);
        }
        self.oom_file = limits_memory.then(|| tree.join(&self.path).join(memory::V2_EVENTS));
        Ok(())
    }

    /// Raw v1 files of those controllers in whose trees every group has a directory.
    fn raw_v1(&mut self, hosts: &Hierarchies) -> Result<(), GroupError> {
        for (file, value) in self.limits.raw_v1.clone() {
            let tree = match file.split('.').next() {
                Some("cpu") => &hosts.cpu,
                Some("memory") => &hosts.memory,
                _ => &None,
            };
            let tree = tree.as_ref().ok_or_else(|| no_v1_controller(&file))?;
            let setting = Setting::new("raw_v1", file, value);
            self.settings.push((tree.join(&self.path), setting));
        }
        Ok(())
    }

    /// Raw v2 files come last: they were asked for by name. The kernel takes one line at a time.
    fn raw(&mut self, hosts: &Hierarchies) -> Result<(), GroupError> {
        for (file, value) in self.limits.raw.clone() {
            let controller = file.split('.').next().unwrap_or_default();
            if !hosts.controllers.contains(controller) {
                return Err(GroupError::NoController {
                    controller: format!("{controller} in its v2 tree"),
                    limit: "raw",
                });
            }
            let controller = controller.to_owned();
            let lines = value.lines().filter(|line| !line.trim().is_empty());
            let settings = lines.map(|line| Setting::new("raw", file.clone(), line));
            self.limit_unified(hosts, &controller, settings.collect());
        }
        Ok(())
    }

    fn live_in(&mut self, dir: PathBuf, settings: Vec<Setting>) {
        let settings = settings.into_iter();
        self.settings
            .extend(settings.map(|setting| (dir.clone(), setting)));
        // Controllers may share a tree.
        if !self.make.contains(&dir) {
            self.make.push(dir.clone());
            self.join.push(dir);
        }
    }

    /// Adds settings of a controller of the v2 tree, which the groups above may have to hand down.
    fn limit_unified(&mut self, hosts: &Hierarchies, controller: &str, settings: Vec<Setting>) {
        let (Some(tree), Some(dir)) = (&hosts.unified, self.unified.clone()) else {
            return;
        };
        if settings.is_empty() {
            return;
        }
        let usual = hosts.pure_v2 && USUAL_CONTROLLERS.contains(&controller);
        if !usual {
            let above: Vec<&Path> = self.path.ancestors().skip(1).collect();
            for dir in above.into_iter().rev() {
                let file = tree.join(dir).join("cgroup.subtree_control");
                let line = (file, format!("+{controller}"));
                if !self.enable.contains(&line) {
                    self.enable.push(line);
                }
            }
        }
        self.settings
            .extend(settings.into_iter().map(|setting| (dir.clone(), setting)));
    }

    fn v1_filter(&mut self, hosts: &Hierarchies) -> Result<(), GroupError> {
        match (self.place.clone(), &hosts.devices) {
            (Filter::Own(path, filter), Some(tree)) => {
                let dir = tree.join(path);
                self.live_in(dir, filter.v1());
            }
            (Filter::Shared(path), Some(tree)) => self.join.push(tree.join(path)),
            (Filter::Own(..), None) => return Err(no_device_filter()),
            // No node can be made there either: the plan withholds the right.
            (Filter::Shared(_), None) | (Filter::None, _) => {}
        }
        Ok(())
    }

    fn v2_filter(&mut self, hosts: &Hierarchies) -> Result<(), GroupError> {
        self.filter = match (self.place.clone(), hosts.device_programs) {
            (Filter::Own(_, filter), true) => Some(GroupFilter::Own(filter)),
            (Filter::Shared(_), true) => Some(GroupFilter::Usual),
            (Filter::Own(..), false) => return Err(no_device_filter()),
            (Filter::Shared(_), false) | (Filter::None, _) => None,
        };
        Ok(())
    }

    /// Directories to remove, all of them; some may not exist.
    pub(crate) fn dirs(&self) -> Vec<PathBuf> {
        let frozen = self.freezer.as_ref().and_then(Freezer::dir);
        let made = self.unified.iter().chain(&self.make).cloned();
        made.chain(frozen.map(Path::to_owned)).collect()
    }

    /// A directory whose `cgroup.procs` lists every process of the container.
    pub(crate) fn tracking(&self) -> Option<&Path> {
        self.unified
            .as_deref()
            .or(self.make.first().map(PathBuf::as_path))
    }

    /// Lets what was killed have all the CPU that it needs to end: thousands of processes on a tenth
    /// of one take minutes. A failure only makes it take longer.
    pub(crate) fn unthrottle(&self) {
        for (dir, setting) in &self.settings {
            let lifted = match setting.file.as_ref() {
                "cpu.cfs_quota_us" => "-1",
                "cpu.max" => "max",
                _ => continue,
            };
            let _ = std::fs::write(dir.join(&*setting.file), lifted);
        }
    }

    /// How many processes the kernel killed in this group for want of memory.
    pub(crate) fn oom_kills(&self) -> u64 {
        let Some(file) = &self.oom_file else { return 0 };
        let text = std::fs::read_to_string(file).unwrap_or_default();
        memory::oom_kills(&text)
    }
}

/// Where v1 groups lie that filter devices of their own.
pub(super) fn device_parent(parent: &str) -> String {
    format!("{parent}-devices")
}

/// The v1 group of `cpuset` that containers without CPUs of their own share. Not the one that the
/// others lie in: whoever sees a group sees what is in it.
pub(super) fn cpuset_parent(parent: &str) -> String {
    format!("{parent}-cpuset")
}

fn no_v1_controller(file: &str) -> GroupError {
    let controller = file.split('.').next().unwrap_or_default();
    GroupError::NoController {
        controller: format!("{controller} of version 1"),
        limit: "raw_v1",
    }
}

fn no_device_filter() -> GroupError {
    GroupError::NoController {
        controller: "devices, nor device programs".to_owned(),
        limit: "devices",
    }
}

/// Whether the host has what the settings of a controller need; `tree` is None without the
/// controller.
fn check(
    hosts: &Hierarchies,
    controller: &'static str,
    tree: Option<&Path>,
    settings: &[Setting],
) -> Result<(), GroupError> {
    let Some(tree) = tree else {
        return settings.first().map_or(Ok(()), |setting| {
            Err(GroupError::NoController {
                controller: controller.to_owned(),
                limit: setting.limit,
            })
        });
    };
    let missing = |setting: &&Setting| !hosts.has_file(tree, &setting.file);
    match settings.iter().find(missing) {
        Some(setting) => Err(GroupError::NoFile {
            controller,
            file: setting.file.clone().into_owned(),
            limit: setting.limit,
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
