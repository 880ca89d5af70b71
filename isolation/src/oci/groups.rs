//! The cgroups of one OCI container: those that every container of ours has, at the path that the
//! configuration names.
//!
//! What is made, written, joined and removed is `cgroup`'s business; here is what only an OCI runtime
//! has: the path, which may lie below this process's own groups, as runc has it, and trees that only
//! track (`name=systemd`), or that the container is shown. Where trees were when it was made is kept
//! with its state: whoever deletes it may be elsewhere. Invariant: a path never climbs, so every
//! directory lies in its tree (crun and runc refuse `..` for the same reason).

use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::config::{Config, Resources};
use super::error::{OciError, call};
use super::limits;
use crate::cgroup::{
    self, CgroupError, CgroupPath, Change, ChangeError, DeviceFilter, Door, Freezer, Group,
    Hierarchies, OwnTree, Update,
};
use crate::spec::Limits;

/// There while systemd runs (sd_booted(3)).
const SYSTEMD: &str = "/run/systemd/system";

/// The trees that this process is in.
pub(super) fn own_trees() -> Result<Vec<OwnTree>, OciError> {
    let path = "/proc/self/cgroup";
    let text = std::fs::read_to_string(path).map_err(call(format!("read {path}")))?;
    let mut trees = OwnTree::all(&text, cgroup::is_pure_v2());
    trees.retain(|tree| tree.mount.is_dir());
    Ok(trees)
}

/// Where the configuration wants the groups.
pub(super) fn wanted_path(cgroups_path: &str, id: &str, systemd: bool) -> Result<String, OciError> {
    if !systemd {
        let path = if cgroups_path.is_empty() {
            id
        } else {
            cgroups_path
        };
        let climbs = Path::new(path)
            .components()
            .any(|part| matches!(part, Component::ParentDir));
        if climbs {
            return Err(OciError::Refused(format!(
                "cgroupsPath {path:?} must not contain \"..\""
            )));
        }
        return Ok(path.to_owned());
    }
    if !Path::new(SYSTEMD).is_dir() {
        return Err(OciError::Refused(
            "systemd not running on this host, cannot use systemd cgroups manager".to_owned(),
        ));
    }
    let default = format!("system.slice:gantry:{id}");
    let text = if cgroups_path.is_empty() {
        &default
    } else {
        cgroups_path
    };
    let parts: Vec<&str> = text.split(':').collect();
    let [slice, prefix, name] = parts[..] else {
        return Err(OciError::Refused(format!(
            "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {text:?} instead"
        )));
    };
    if text.contains('/') || text.contains("..") {
        return Err(OciError::Refused(format!("invalid slice name: {text}")));
    }
    let slice = if slice.is_empty() {
        "system.slice"
    } else {
        slice
    };
    Ok(format!("/{}/{prefix}-{name}.scope", expand_slice(slice)))
}

/// `a-b.slice` lies in `a.slice` (systemd.slice(5)).
fn expand_slice(slice: &str) -> String {
    let name = slice.strip_suffix(".slice").unwrap_or(slice);
    if name.is_empty() || name == "-" {
        return String::new();
    }
    let mut path = Vec::new();
    let mut prefix = String::new();
    for part in name.split('-') {
        prefix.push_str(part);
        path.push(format!("{prefix}.slice"));
        prefix.push('-');
    }
    path.join("/")
}

/// Whether the container is shown its groups. They are its own, so it needs one in every tree then,
/// before they are mounted.
pub(super) fn are_shown(config: &Config) -> bool {
    let mut mounts = config.mounts.iter();
    mounts.any(|mount| matches!(mount.kind.as_str(), "cgroup" | "cgroup2"))
}

/// Whether a tree that only tracks is of use: systemd's only where systemd runs.
fn tracks(tree: &OwnTree) -> bool {
    let systemds = tree.controllers == "name=systemd";
    tree.is_named() && (!systemds || Path::new(SYSTEMD).is_dir())
}

/// The groups of one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Groups {
    /// Trees as its creator saw them, from where `path` leads.
    hosts: Hierarchies,
    path: CgroupPath,
    limits: Limits,
}

impl Groups {
    /// Where they will be, and their limits.
    pub(super) fn new(
        config: &Config,
        id: &str,
        systemd: bool,
        own: &[OwnTree],
    ) -> Result<Self, OciError> {
        let wanted = wanted_path(&config.linux.cgroups_path, id, systemd)?;
        let mut hosts = Hierarchies::locate();
        let shown = are_shown(config);
        if !hosts.pure_v2 {
            let joined = own
                .iter()
                .filter(|tree| tracks(tree) || (shown && tree.is_v1()));
            hosts.others = joined.map(|tree| tree.mount.clone()).collect();
        }
        if !wanted.starts_with('/') {
            hosts = hosts.below(own);
        }
        let none = Resources::default();
        let resources = config.linux.resources.as_ref().unwrap_or(&none);
        if !resources.hugepage_limits.is_empty() {
            hosts.look_at_huge_pages();
        }
        let normal = |part| match part {
            Component::Normal(name) => name.to_str(),
            _ => None,
        };
        let parts: Vec<&str> = Path::new(&wanted).components().filter_map(normal).collect();
        let path = CgroupPath::new(&parts.join("/")).map_err(from_cgroup)?;
        Ok(Self {
            limits: limits::changed(&hosts, &Limits::default(), resources)?,
            hosts,
            path,
        })
    }

    /// Whether devices are filtered by files of v1.
    pub(super) fn filters_by_files(&self) -> bool {
        self.hosts.devices.is_some()
    }

    /// Whether the only tree is v2's.
    pub(super) fn pure_v2(&self) -> bool {
        self.hosts.pure_v2
    }

    /// What is made of them. A filter that is a program is attached elsewhere, while the process is
    /// set up.
    fn group(&self, filter: Option<&DeviceFilter>) -> Result<Group, OciError> {
        let filter = filter.filter(|_| self.filters_by_files()).cloned();
        Group::at(&self.hosts, &self.path, &self.limits, filter)
            .map_err(|error| OciError::Refused(error.to_string()))
    }

    /// The same, whose filter is as it was: nothing but the container's start writes it.
    fn made(&self) -> Result<Group, OciError> {
        self.group(Some(&DeviceFilter::default()))
    }

    fn prepare(&mut self) -> Result<(), OciError> {
        cgroup::prepare_one(&mut self.hosts, &self.path, &self.limits).map_err(from_cgroup)?;
        if self.limits.weighs_io() && !self.hosts.weighs_io() {
            // No I/O scheduler with weights: runc lets it pass as well.
            self.limits.io_weight = None;
            for device in &mut self.limits.io_devices {
                device.weight = None;
            }
        }
        Ok(())
    }

    /// Refuses groups in which somebody is: they would be killed with the container, as runc has it.
    pub(super) fn check_nobody_is_there(&self) -> Result<(), OciError> {
        match self.processes().len() {
            0 => Ok(()),
            found => Err(OciError::Refused(format!(
                "container's cgroup is not empty: {found} process(es) found"
            ))),
        }
    }

    /// Makes the v2 directory, to start in. The rest is [`make`]'s, while the process is set up.
    pub(super) fn begin(
        &mut self,
        filter: &DeviceFilter,
    ) -> Result<(Group, Option<OwnedFd>), OciError> {
        self.prepare()?;
        let group = self.group(Some(filter))?;
        let unified = cgroup::establish_unified(&group).map_err(from_change)?;
        Ok((group, unified))
    }

    /// The ways in for one more process; `below` are groups that the container made: for which
    /// controllers (none: all), and where below its own.
    pub(super) fn enter(
        &self,
        below: &[(Option<String>, String)],
    ) -> Result<(Vec<Door>, Option<OwnedFd>), OciError> {
        let group = self.made()?;
        let inner = |dir: PathBuf| {
            let wanted = below.iter().filter(|(controllers, _)| {
                let tree = controllers.as_deref().map(|list| self.tree(list));
                tree.is_none_or(|tree| tree.is_some_and(|tree| dir.starts_with(tree)))
            });
            wanted.fold(dir.clone(), |dir, (_, path)| {
                dir.join(path.trim_start_matches('/'))
            })
        };
        let unified = group.unified.map(inner);
        let unified = unified.map(|dir| {
            use rustix::fs::{Mode, OFlags};
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(&dir, flags, Mode::empty())
                .map_err(call(format!("open cgroup {}", dir.display())))
        });
        Ok((
            doors(group.join.into_iter().map(inner))?,
            unified.transpose()?,
        ))
    }

    /// The tree of a v1 controller or `name=…`; of the empty name v2's.
    fn tree(&self, controller: &str) -> Option<&Path> {
        let hosts = &self.hosts;
        let tree = match controller {
            "" => &hosts.unified,
            "cpu" => &hosts.cpu,
            "cpuacct" if hosts.cpuacct.is_none() => &hosts.cpu,
            "cpuacct" => &hosts.cpuacct,
            "cpuset" => &hosts.cpuset,
            "memory" => &hosts.memory,
            "pids" => &hosts.pids,
            "devices" => &hosts.devices,
            "blkio" => &hosts.blkio,
            "hugetlb" => &hosts.hugetlb,
            other => {
                let name = other.strip_prefix("name=").unwrap_or(other);
                let mut others = hosts.others.iter();
                let found =
                    others.find(|tree| tree.components().any(|part| part.as_os_str() == name));
                return found.map(PathBuf::as_path);
            }
        };
        tree.as_deref()
    }

    /// The container's directory in the tree that is mounted there.
    pub(super) fn dir_in(&self, mount: &Path) -> Option<PathBuf> {
        let trees = self.hosts.trees();
        let tree = trees.into_iter().find(|tree| tree.starts_with(mount))?;
        Some(tree.join(&self.path))
    }

    /// The v2 directory.
    pub(super) fn unified(&self) -> Option<PathBuf> {
        let tree = self.hosts.unified.as_ref()?;
        Some(tree.join(&self.path))
    }

    /// Changes the limits. Directories that only the new ones need are made now, and every process
    /// of the container is moved into them.
    pub(super) fn update(&mut self, wanted: &Resources) -> Result<(), OciError> {
        let mut new = self.clone();
        if !wanted.hugepage_limits.is_empty() {
            new.hosts.look_at_huge_pages();
        }
        new.limits = limits::changed(&new.hosts, &self.limits, wanted)?;
        new.prepare()?;
        self.hosts = new.hosts.clone();
        if let Some(update) = Update::between(&self.made()?, &new.made()?) {
            Change::Update(update).make().map_err(from_change)?;
        }
        *self = new;
        Ok(())
    }

    /// What it uses.
    pub(super) fn usage(&self) -> Option<cgroup::Usage> {
        cgroup::usage_at(&self.hosts, &self.path)
    }

    /// The directory of a v1 controller, or the v2 one, for what [`Groups::usage`] does not tell.
    pub(super) fn dir(&self, controller: &str) -> Option<PathBuf> {
        Some(self.tree(controller)?.join(&self.path))
    }

    /// Removes the directories of every tree, whoever made them; goes on after a failure.
    pub(super) fn remove(&self) -> Result<(), OciError> {
        let mut failures = Vec::new();
        for tree in self.hosts.trees() {
            let dir = tree.join(&self.path);
            if let Err(error) = cgroup::remove_group(&dir) {
                failures.push(format!("remove cgroup {}: {error}", dir.display()));
            }
        }
        if failures.is_empty() {
            Ok(())
        } else {
            Err(OciError::Refused(failures.join("; ")))
        }
    }

    /// All processes, those of groups below included.
    pub(super) fn processes(&self) -> Vec<i32> {
        let group = self.made().ok();
        let tracking = group.as_ref().and_then(Group::tracking);
        let members = tracking.and_then(|dir| cgroup::members(dir).ok());
        members.unwrap_or_default().into_iter().collect()
    }

    /// Removes the v2 group, which every process is born in and which the kernel keeps as long as one
    /// is left. Whether nobody is left.
    pub(super) fn dissolve(&self) -> bool {
        let removed = self.unified().map(std::fs::remove_dir);
        removed.is_some_and(|removed| removed.is_ok()) || self.processes().is_empty()
    }

    /// Sends a signal to every process.
    pub(super) fn signal(&self, signo: i32) -> Result<(), OciError> {
        let group = self.made()?;
        let Some(tracking) = group.tracking().filter(|dir| dir.exists()) else {
            return Ok(());
        };
        match (&group.unified, &group.freezer) {
            (None, Some(freezer)) if signo == libc::SIGKILL => {
                let (freezer, tracking) = (freezer.clone(), tracking.to_owned());
                let kill = Change::Kill { freezer, tracking };
                kill.make().map_err(from_change)
            }
            _ => cgroup::kill_group(tracking, signo).map_err(call("signal the container")),
        }
    }

    fn freezer(&self) -> Result<Freezer, OciError> {
        let none = || OciError::Refused("this host has no freezer".to_owned());
        self.made()?.freezer.ok_or_else(none)
    }

    /// Whether the processes are frozen.
    pub(super) fn frozen(&self) -> bool {
        self.freezer().is_ok_and(|freezer| freezer.is_frozen())
    }

    /// Stops or lets go all processes.
    pub(super) fn freeze(&self, freeze: bool) -> Result<(), OciError> {
        let freezer = self.freezer()?;
        let change = if freeze {
            Change::Freeze(freezer)
        } else {
            Change::Thaw(freezer)
        };
        change.make().map_err(from_change)
    }
}

/// Makes the other directories and sets the limits; the ways in.
pub(super) fn make(group: Group) -> Result<Vec<Door>, OciError> {
    cgroup::establish(&group).map_err(from_change)?;
    doors(group.join)
}

fn doors(dirs: impl IntoIterator<Item = PathBuf>) -> Result<Vec<Door>, OciError> {
    let doors = dirs.into_iter().map(cgroup::door);
    doors.collect::<Result<_, _>>().map_err(from_change)
}

fn from_cgroup(error: CgroupError) -> OciError {
    let words = error.to_string();
    match error {
        CgroupError::Make { path, source } => {
            call(format!("make cgroup {}", path.display()))(source)
        }
        CgroupError::Write { source, .. } => call(words)(source),
        _ => OciError::Refused(words),
    }
}

fn from_change(error: ChangeError) -> OciError {
    match error {
        ChangeError::Freeze(source) => call("freeze the container")(source),
        ChangeError::Thaw(source) => call("thaw the container")(source),
        ChangeError::Kill(source) => call("kill the container")(source),
        ChangeError::Make(dir, source) => call(format!("make cgroup {}", dir.display()))(source),
        ChangeError::Join(dir, source) => call(format!("join cgroup {}", dir.display()))(source),
        ChangeError::Set {
            file,
            value,
            source,
        } => call(format!("write {value:?} to {}", file.display()))(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_never_climb() {
        assert!(wanted_path("/a/../../b", "c", false).is_err());
        assert_eq!(wanted_path("", "c", false).unwrap(), "c");
        assert_eq!(expand_slice("a-b.slice"), "a.slice/a-b.slice");
        for (path, group) in [("/a//b/", "/a/b"), ("./c", "/c")] {
            let mut config = Config::default();
            config.linux.cgroups_path = path.to_owned();
            let groups = Groups::new(&config, "id", false, &[]).unwrap();
            assert_eq!(groups.path.to_string(), group);
        }
        let mut config = Config::default();
        config.linux.cgroups_path = "/".to_owned();
        assert!(Groups::new(&config, "id", false, &[]).is_err());
    }

    #[test]
    fn only_what_is_shown_has_a_group_in_every_tree() {
        let own = own_trees().unwrap();
        let mut config = Config::default();
        let groups = |config: &Config| Groups::new(config, "id", false, &own).unwrap();
        let count = |groups: Groups| groups.hosts.others.len();
        let named = own.iter().filter(|tree| tracks(tree)).count();
        assert_eq!(count(groups(&config)), named);
        config.mounts.push(crate::oci::config::Mount {
            destination: "/sys/fs/cgroup".to_owned(),
            kind: "cgroup".to_owned(),
            ..Default::default()
        });
        let v1 = own.iter().filter(|tree| tree.is_v1()).count();
        assert_eq!(count(groups(&config)), v1);
    }
}
