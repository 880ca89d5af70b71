//! The directory that holds all containers of one keeper, in every tree.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Hierarchies, devices};

/// Why the parent could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// This host has no cgroup file system that we know.
    #[error("no cgroup file system at /sys/fs/cgroup")]
    NoHierarchy,
    /// A name that is not one directory.
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
}

fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    std::fs::write(path, value).map_err(|source| CgroupError::Write {
        path: path.to_owned(),
        value: value.to_owned(),
        source,
    })
}

/// Makes the parent in every tree, with the device filter on v1 and the controllers on v2.
pub(crate) fn prepare_parent(hosts: &Hierarchies, parent: &str) -> Result<(), CgroupError> {
    if parent.is_empty() || parent.starts_with('.') || parent.contains('/') {
        return Err(CgroupError::Name(parent.to_owned()));
    }
    if hosts.all().next().is_none() {
        return Err(CgroupError::NoHierarchy);
    }
    for tree in hosts.all() {
        let path = tree.join(parent);
        match std::fs::create_dir(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(CgroupError::Make { path, source });
            }
            _ => {}
        }
    }
    if let Some(tree) = &hosts.devices {
        for setting in devices::v1() {
            write(&tree.join(parent).join(setting.file), &setting.value)?;
        }
    }
    if hosts.pure_v2
        && let Some(tree) = &hosts.unified
    {
        let controllers = wanted_controllers(tree);
        write(&tree.join("cgroup.subtree_control"), &controllers)?;
        write(
            &tree.join(parent).join("cgroup.subtree_control"),
            &controllers,
        )?;
    }
    Ok(())
}

/// Those that the host has; a limit that needs another one is refused when it is asked for.
fn wanted_controllers(tree: &Path) -> String {
    let there = std::fs::read_to_string(tree.join("cgroup.controllers")).unwrap_or_default();
    let wanted = ["cpu", "memory", "pids"];
    let found = there
        .split_whitespace()
        .filter(|name| wanted.contains(name));
    found
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

/// Removes the parent from every tree; what could not be removed, with the reason. Groups of
/// containers must be gone by then.
pub fn remove_parent(parent: &str) -> Vec<String> {
    let mut failures = Vec::new();
    for tree in Hierarchies::detect().all() {
        let path = tree.join(parent);
        if let Err(error) = std::fs::remove_dir(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            failures.push(format!("remove {}: {error}", path.display()));
        }
    }
    failures
}
