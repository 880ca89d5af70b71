//! Containers seen from beside the keeper: which processes are in one, and whether they did anything
//! since one last looked. Cheap enough for a thousand containers every few seconds.
//!
//! It decides nothing and changes nothing. A process that used no CPU time made no system call, so
//! it neither wrote, opened nor removed a file; that is what [`Activity`] is for.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use super::{CgroupPath, Hierarchies, members, text};
use crate::spec::ContainerId;

/// CPU time that all processes of a container used since its start. Equal ones mean that it did
/// nothing in between; no other meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Activity(u64);

/// The groups of one keeper's containers.
#[derive(Clone, Debug)]
pub struct Groups {
    /// Where processes are listed.
    tracking: PathBuf,
    /// Where CPU time is, and in which words.
    time: Option<(PathBuf, &'static str)>,
}

impl Groups {
    /// Those below `cgroup_parent`; None where this host has no trees.
    #[must_use]
    pub fn find(cgroup_parent: &str) -> Option<Self> {
        let hosts = Hierarchies::locate();
        let parent = CgroupPath::new(cgroup_parent).ok()?;
        // The first tree in which every container has a directory.
        let trees = [&hosts.unified, &hosts.cpu, &hosts.cpuacct, &hosts.memory];
        let tracking = trees.into_iter().chain([&hosts.pids]).flatten().next()?;
        let time = if hosts.pure_v2 {
            Some((tracking.join(&parent), "cpu.stat"))
        } else {
            let tree = hosts.cpuacct.as_ref().or(hosts.cpu.as_ref());
            tree.map(|tree| (tree.join(&parent), "cpuacct.usage"))
        };
        Some(Self {
            tracking: tracking.join(&parent),
            time,
        })
    }

    /// The processes of a container, and of groups within its own.
    ///
    /// # Errors
    /// It has none, or no group any more.
    pub fn processes(&self, id: &ContainerId) -> io::Result<BTreeSet<i32>> {
        members(&self.tracking.join(id.as_str()))
    }

    /// How much a container did; None where that cannot be told.
    #[must_use]
    pub fn activity(&self, id: &ContainerId) -> Option<Activity> {
        let (dir, file) = self.time.as_ref()?;
        let text = std::fs::read_to_string(dir.join(id.as_str()).join(file)).ok()?;
        let used = text.trim().parse().ok();
        used.or_else(|| text::keyed(&text, "usage_usec"))
            .map(Activity)
    }
}
