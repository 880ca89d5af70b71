//! The directories that hold groups: those of one keeper's containers, or of any given path.
//!
//! On v2 it has the groups on the way hand the usual controllers down. A group that does so can have
//! no processes of its own, unless it is the root: one that has is refused, nobody's processes are
//! moved out of the way.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::group::{USUAL_CONTROLLERS, cpuset_parent, device_parent};
use super::{CgroupPath, DeviceFilter, Hierarchies, Setting, cpuset};
use crate::spec::Limits;

/// Controllers that are handed down only where a container asks, but to the parent beforehand: it
/// then shows which files there are.
const OTHER_CONTROLLERS: [&str; 3] = ["cpuset", "io", "hugetlb"];

/// Why the parent could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// This host has no cgroup file system that we know.
    #[error("no cgroup file system at /sys/fs/cgroup")]
    NoHierarchy,
    /// A name that is no path of groups.
    #[error("{0:?} cannot name a cgroup")]
    Name(String),
    /// A directory.
    #[error("make the cgroup {path:?}")]
    Make {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file.
    #[error("write {value:?} to {path:?}")]
    Write {
        /// Which.
        path: PathBuf,
        /// What.
        value: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The no-internal-process rule of v2.
    #[error("the cgroup {0:?} has processes of its own: it cannot hold groups with limits")]
    Inhabited(PathBuf),
}

fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    std::fs::write(path, value).map_err(|source| CgroupError::Write {
        path: path.to_owned(),
        value: value.to_owned(),
        source,
    })
}

fn make(path: PathBuf) -> Result<(), CgroupError> {
    match std::fs::create_dir(&path) {
        Err(source) if source.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(CgroupError::Make { path, source })
        }
        _ => Ok(()),
    }
}

/// Makes the keeper's parent in every tree, with the device filter that its containers share.
pub(crate) fn prepare_parent(hosts: &mut Hierarchies, parent: &str) -> Result<(), CgroupError> {
    if parent.starts_with('.') || parent.contains('/') {
        return Err(CgroupError::Name(parent.to_owned()));
    }
    prepare(hosts, &CgroupPath::new(parent)?)?;
    if let Some(tree) = &hosts.devices {
        make(tree.join(device_parent(parent)))?;
        for setting in DeviceFilter::default().v1() {
            write(&tree.join(parent).join(&*setting.file), &setting.value)?;
        }
    }
    if let Some(tree) = &hosts.cpuset {
        let group = tree.join(cpuset_parent(parent));
        make(group.clone())?;
        let done = cpuset::stay(tree, &group);
        done.map_err(|source| CgroupError::Write {
            path: group,
            value: "the lists of the keeper's own group".to_owned(),
            source,
        })?;
    }
    Ok(())
}

/// Makes the groups down to `path` in every tree, so that groups can be made in it, and notes what
/// they will have.
///
/// # Errors
/// The first that cannot be made, or that cannot hand down the usual controllers.
pub fn prepare(hosts: &mut Hierarchies, path: &CgroupPath) -> Result<(), CgroupError> {
    let trees = hosts.trees();
    if trees.is_empty() {
        return Err(CgroupError::NoHierarchy);
    }
    for dir in path.downwards() {
        for tree in &trees {
            make(tree.join(dir))?;
        }
        if let Some(tree) = &hosts.cpuset {
            inherit(tree.join(dir))?;
        }
    }
    hand_all_down(hosts, Some(path), false)?;
    hosts.look_in(path.as_ref());
    Ok(())
}

fn inherit(group: PathBuf) -> Result<(), CgroupError> {
    cpuset::inherit(&group).map_err(|source| CgroupError::Write {
        path: group,
        value: "the lists of the group above".to_owned(),
        source,
    })
}

/// On v2, has every group down to `path` hand controllers down; None is the tree's root. The last one
/// hands down `all` or the usual ones.
fn hand_all_down(
    hosts: &Hierarchies,
    path: Option<&CgroupPath>,
    all: bool,
) -> Result<(), CgroupError> {
    let Some(tree) = hosts.unified.as_ref().filter(|_| hosts.pure_v2) else {
        return Ok(());
    };
    let last = path.map_or(Path::new(""), AsRef::as_ref);
    let below = path.into_iter().flat_map(CgroupPath::downwards);
    for dir in std::iter::once(Path::new("")).chain(below) {
        let group = tree.join(dir);
        hand_down(&group)?;
        if all || dir != last {
            for controller in OTHER_CONTROLLERS {
                // Without it a limit that needs it is refused when it is asked for.
                let file = group.join("cgroup.subtree_control");
                let _ = std::fs::write(file, format!("+{controller}"));
            }
        }
    }
    Ok(())
}

/// Makes ready what a group at `path` with these limits needs, for a container that comes alone: on
/// v2 what [`prepare`] does, and the group itself, with every controller, as engines expect it; on v1
/// only what the limits ask for, so that no tree gets a directory that nobody needs.
pub(crate) fn prepare_one(
    hosts: &mut Hierarchies,
    path: &CgroupPath,
    limits: &Limits,
) -> Result<(), CgroupError> {
    let parent = path.parent();
    if let Some(tree) = hosts.unified.clone().filter(|_| hosts.pure_v2) {
        make_down(&tree, parent.as_ref(), false)?;
        match hand_all_down(hosts, parent.as_ref(), true) {
            // Nothing is to be limited there.
            Err(CgroupError::Inhabited(_)) if *limits == Limits::default() => {}
            done => done?,
        }
        make(tree.join(path))?;
        hosts.look_in(path.as_ref());
        return Ok(());
    }
    if let Some(tree) = &hosts.cpuset
        && (limits.cpuset_cpus.is_some() || limits.cpuset_mems.is_some())
    {
        let above = make_down(tree, parent.as_ref(), true)?;
        hosts.cpuset_above = cpuset::lists(&above);
    }
    if let Some(tree) = hosts.blkio.clone()
        && limits.weighs_io()
    {
        // Which files there are for weights depends on the schedulers; the tree's root has none.
        make_down(&tree, parent.as_ref(), false)?;
        make(tree.join(path))?;
        hosts.look_at(&tree, path.as_ref());
    }
    Ok(())
}

/// Makes the groups down to `path` in one tree, that of `cpuset` or another; the last one.
fn make_down(tree: &Path, path: Option<&CgroupPath>, cpuset: bool) -> Result<PathBuf, CgroupError> {
    let mut last = tree.to_owned();
    for dir in path.into_iter().flat_map(CgroupPath::downwards) {
        last = tree.join(dir);
        make(last.clone())?;
        if cpuset {
            inherit(last.clone())?;
        }
    }
    Ok(last)
}

/// Has a v2 group hand the usual controllers down, as far as it has them: a limit that needs another
/// one is refused when it is asked for.
fn hand_down(group: &Path) -> Result<(), CgroupError> {
    let read = |file: &str| std::fs::read_to_string(group.join(file)).unwrap_or_default();
    let (there, already) = (read("cgroup.controllers"), read("cgroup.subtree_control"));
    let lines = wanted(&there, &already);
    if lines.is_empty() {
        return Ok(());
    }
    let file = group.join("cgroup.subtree_control");
    std::fs::write(&file, &lines).map_err(|source| {
        if source.kind() == std::io::ErrorKind::ResourceBusy {
            return CgroupError::Inhabited(group.to_owned());
        }
        CgroupError::Write {
            path: file,
            value: lines,
            source,
        }
    })
}

fn wanted(there: &str, already: &str) -> String {
    let has = |text: &str, name: &str| text.split_whitespace().any(|word| word == name);
    USUAL_CONTROLLERS
        .into_iter()
        .filter(|name| has(there, name) && !has(already, name))
        .map(|name| format!("+{name}"))
        .collect::<Vec<_>>()
        .join(" ")
}

/// The id that the kernel knows the parent's v2 group by: the inode number of its directory. None
/// while there is no such group, or no v2 tree.
#[must_use]
pub fn parent_id(parent: &str) -> Option<u64> {
    let tree = Hierarchies::detect().unified?;
    let found = std::fs::metadata(tree.join(parent)).ok()?;
    Some(found.ino())
}

/// Bounds all containers of a keeper together, by memory and processors; what `limits` leaves open
/// is not touched, `Limits::UNLIMITED` takes a bound away. The parent must be there.
///
/// # Errors
/// The first file that does not take its value: memory is not bounded below what is in use and
/// cannot be taken back.
pub fn limit_parent(parent: &str, limits: &Limits) -> Result<(), CgroupError> {
    let hosts = Hierarchies::detect();
    let put = |tree: &Path, settings: Vec<Setting>| {
        let dir = tree.join(parent);
        let mut settings = settings.into_iter();
        settings.try_for_each(|setting| write(&dir.join(&*setting.file), &setting.value))
    };
    // Swap is left to the containers' own limits: the two files of v1 would have to be written in
    // an order that depends on what was there before.
    if hosts.pure_v2 {
        let Some(tree) = &hosts.unified else {
            return Ok(());
        };
        put(tree, super::memory::v2(limits, false))?;
        return put(tree, super::cpu::v2(limits));
    }
    if let Some(tree) = &hosts.memory {
        let settings = super::memory::v1(limits, false).unwrap_or_default();
        put(tree, settings)?;
    }
    match &hosts.cpu {
        Some(tree) => put(tree, super::cpu::v1(limits)),
        None => Ok(()),
    }
}

/// The directories that hold the groups of a keeper's containers, each of them in any tree.
pub(crate) fn container_parents(hosts: &Hierarchies, parent: &str) -> Vec<PathBuf> {
    let own = hosts.trees().into_iter().map(|tree| tree.join(parent));
    let filtered = hosts.devices.as_ref();
    let filtered = filtered.map(|tree| tree.join(device_parent(parent)));
    let shared = hosts.cpuset.as_ref();
    let shared = shared.map(|tree| tree.join(cpuset_parent(parent)));
    own.chain(filtered).chain(shared).collect()
}

/// Removes the parent from every tree; what could not be removed, with the reason. Groups of
/// containers must be gone by then.
pub fn remove_parent(parent: &str) -> Vec<String> {
    let mut failures = Vec::new();
    for path in container_parents(&Hierarchies::detect(), parent) {
        if let Err(error) = std::fs::remove_dir(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            failures.push(format!("remove {}: {error}", path.display()));
        }
    }
    failures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_there_and_not_yet_handed_down_is_asked_for() {
        assert_eq!(
            wanted("cpuset cpu io memory pids", ""),
            "+cpu +memory +pids"
        );
        assert_eq!(wanted("cpu io memory", "cpu"), "+memory");
        assert_eq!(wanted("hugetlb", ""), "");
    }

    #[test]
    fn every_group_on_the_way_hands_down_and_is_looked_into() {
        // Plain files stand in for a v2 tree with controllers, which a hybrid host has not.
        let tree = tempfile::tempdir().unwrap();
        let groups = ["", "a", "a/b"].map(|dir| tree.path().join(dir));
        for group in &groups {
            std::fs::create_dir_all(group).unwrap();
            std::fs::write(group.join("cgroup.controllers"), "cpu memory pids io\n").unwrap();
        }
        std::fs::write(groups[2].join("io.max"), "").unwrap();
        let mut hosts = Hierarchies {
            unified: Some(tree.path().to_owned()),
            pure_v2: true,
            ..Hierarchies::default()
        };
        prepare(&mut hosts, &CgroupPath::new("/a/b").unwrap()).unwrap();
        let read = |at: usize| std::fs::read_to_string(groups[at].join("cgroup.subtree_control"));
        // The last one written is seen; a real file adds them up.
        assert_eq!(read(0).unwrap(), "+hugetlb");
        assert_eq!(read(1).unwrap(), "+hugetlb");
        assert_eq!(read(2).unwrap(), "+cpu +memory +pids");
        assert!(hosts.has_file(tree.path(), "io.max"));
        assert!(!hosts.has_file(tree.path(), "io.weight"));
    }
}
