//! Leftovers: containers that no keeper holds (it was killed, or the machine lost power), and what
//! this host lacks.
//!
//! It removes only below the cgroup parent and the directory that it is given. It goes on after a
//! failure and tells all of them.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::cgroup::{self, Hierarchies, container_parents, kill_group, remove_group};
use crate::disk::DiskError;
use crate::keeper;
use crate::spec::ContainerId;

/// How long the processes of one group may take to die.
const PATIENCE: Duration = Duration::from_secs(10);
/// `mount_setattr(2)` is the newest call that nothing stands in for.
const OLDEST_KERNEL: (u32, u32) = (5, 12);
const PAUSE: Duration = Duration::from_millis(1);

/// What was removed, and what could not be.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Ids whose cgroups or directories were removed, in order.
    pub removed: Vec<String>,
    /// What could not be removed, with the reason; the rest was still done.
    pub failures: Vec<String>,
}

/// Kills and removes everything below `cgroup_parent` in every cgroup hierarchy, and every entry of
/// `containers_dir`, whose name is not in `known` (the ids that a keeper lists). Call it when no
/// start can happen meanwhile.
pub fn leftovers(containers_dir: &Path, cgroup_parent: &str, known: &[ContainerId]) -> Leftovers {
    let hosts = Hierarchies::detect();
    let mut left = Leftovers::default();
    let mut names = BTreeSet::new();
    let parents = container_parents(&hosts, cgroup_parent);
    for parent in &parents {
        names.extend(unknown_in(parent, known, true));
    }
    names.extend(unknown_in(containers_dir, known, false));
    for name in names {
        let before = left.failures.len();
        remove_one(
            &parents,
            containers_dir,
            Path::new(&name),
            &mut left.failures,
        );
        if left.failures.len() == before {
            left.removed.push(name.to_string_lossy().into_owned());
        }
    }
    left
}

/// As [`leftovers`] of all containers, and what the keeper of `dir` had for itself: its slots, the
/// parents of the groups, its socket. Call it when no keeper lives and none is to come; one that ended
/// by request did this itself.
pub fn everything(dir: &Path, containers_dir: &Path, cgroup_parent: &str) -> Leftovers {
    let mut left = leftovers(containers_dir, cgroup_parent, &[]);
    let slots = keeper::remove_dead(containers_dir).into_iter();
    left.failures.extend(slots.map(|error| words(&error)));
    left.failures.extend(cgroup::remove_parent(cgroup_parent));
    if let Err(error) = keeper::remove_socket(dir) {
        left.failures
            .push(format!("remove the keeper's socket: {error}"));
    }
    left
}

/// An error with its reason.
fn words(error: &DiskError) -> String {
    let reason = std::error::Error::source(error);
    reason.map_or_else(|| error.to_string(), |why| format!("{error}: {why}"))
}

/// Names in `dir` that are not known; of directories only, if so wanted. Names with a dot are the
/// keeper's slots, which its successor removes.
fn unknown_in(dir: &Path, known: &[ContainerId], dirs_only: bool) -> Vec<OsString> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| !dirs_only || entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.file_name())
        .filter(|name| !name.as_encoded_bytes().starts_with(b"."))
        .filter(|name| !known.iter().any(|id| name == id.as_str()))
        .collect()
}

fn remove_one(parents: &[PathBuf], containers_dir: &Path, name: &Path, failures: &mut Vec<String>) {
    let groups: Vec<_> = parents.iter().map(|parent| parent.join(name)).collect();
    // A v1 freezer holds even the killed.
    for group in groups.iter().filter(|group| group.exists()) {
        // Each is killed again, and its failure told, below.
        let _ = kill_group(group, libc::SIGKILL);
        let state = group.join("freezer.state");
        if state.exists()
            && let Err(error) = std::fs::write(&state, "THAWED")
        {
            failures.push(format!("thaw {}: {error}", group.display()));
        }
    }
    // All are killed before any is removed: a group is busy while a process is in it.
    for group in groups.iter().filter(|group| group.exists()) {
        if let Err(error) = kill_and_wait(group) {
            failures.push(format!("kill {}: {error}", group.display()));
        }
    }
    for group in &groups {
        if let Err(error) = remove_group(group) {
            failures.push(format!("remove {}: {error}", group.display()));
        }
    }
    let dir = containers_dir.join(name);
    let removed = match std::fs::symlink_metadata(&dir) {
        Ok(found) if found.is_dir() => crate::tree::remove(&dir),
        Ok(_) => std::fs::remove_file(&dir),
        Err(_) => Ok(()),
    };
    if let Err(error) = removed {
        failures.push(format!("remove {}: {error}", dir.display()));
    }
}

fn kill_and_wait(group: &Path) -> std::io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        kill_group(group, libc::SIGKILL)?;
        if std::fs::read_to_string(group.join("cgroup.procs"))?.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(PAUSE);
    }
}

/// What the host lacks to run containers, one sentence each; empty when nothing.
pub fn preflight() -> Vec<String> {
    let mut lacks = Vec::new();
    if !rustix::process::geteuid().is_root() {
        lacks.push("Containers need root: this process does not run as user 0.".to_owned());
        return lacks;
    }
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    if version(&release).is_some_and(|found| found < OLDEST_KERNEL) {
        let (major, minor) = OLDEST_KERNEL;
        lacks.push(format!(
            "Linux {release} is too old: {major}.{minor} is needed."
        ));
    }
    let hosts = Hierarchies::detect();
    if hosts.pure_v2 {
        lacks.extend(missing_v2_controllers(&hosts));
    } else {
        let trees = [
            ("cpu", &hosts.cpu),
            ("memory", &hosts.memory),
            ("pids", &hosts.pids),
            ("devices", &hosts.devices),
        ];
        for (name, _) in trees.iter().filter(|(_, tree)| tree.is_none()) {
            lacks.push(format!(
                "No cgroup v1 tree of the controller {name} is mounted."
            ));
        }
    }
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    for kind in ["overlay", "tmpfs", "proc", "sysfs", "devpts", "mqueue"] {
        if !known
            .lines()
            .any(|line| line.split_whitespace().next_back() == Some(kind))
        {
            lacks.push(format!("The kernel does not have the file system {kind}."));
        }
    }
    for kind in ["mnt", "pid", "ipc", "uts", "net", "cgroup"] {
        if !Path::new("/proc/self/ns").join(kind).exists() {
            lacks.push(format!("The kernel does not have {kind} namespaces."));
        }
    }
    lacks
}

fn missing_v2_controllers(hosts: &Hierarchies) -> Vec<String> {
    let Some(tree) = &hosts.unified else {
        return Vec::new();
    };
    let there = std::fs::read_to_string(tree.join("cgroup.controllers")).unwrap_or_default();
    ["cpu", "memory", "pids"]
        .into_iter()
        .filter(|name| {
            !there
                .split_whitespace()
                .any(|controller| controller == *name)
        })
        .map(|name| format!("The cgroup v2 controller {name} is not available."))
        .collect()
}

/// The first two numbers of a kernel's release; None when it does not begin with them.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions_are_compared_as_numbers() {
        assert_eq!(version("6.18.44-fc"), Some((6, 18)));
        assert_eq!(version("5.10-amd64"), Some((5, 10)));
        assert!(version("5.4.0").is_some_and(|found| found < OLDEST_KERNEL));
        assert!(version("10.0").is_some_and(|found| found > OLDEST_KERNEL));
        assert_eq!(version("strange"), None);
    }
}
