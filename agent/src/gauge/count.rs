//! One count of what a task has on disk, in turns: what the kernel says of it, then its directories,
//! then what its processes hold of deleted files. Blocking.
//!
//! It stops at the limit, so that much too much takes no longer than a little too much.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use gantry_agent_core::DiskExcess;
use gantry_isolation::cgroup::{Activity, Groups};
use gantry_isolation::disk::{
    Backend, Held, Place, Scope, Sweep, Sweeping, Turn, Usage, Walk, max_files,
};
use gantry_isolation::spec::ContainerId;

use super::Watched;

/// Files and directories that are counted in a turn, or descriptors: some milliseconds' work.
pub(super) const TURN_ENTRIES: usize = 1_000;

/// What this node counts with.
#[derive(Debug)]
pub(super) struct Means {
    backend: Backend,
    slaves: Option<OwnedFd>,
    groups: Option<Groups>,
    place: Option<Place>,
}

/// What a file system has.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Room {
    pub(super) free_bytes: u64,
    pub(super) total_bytes: u64,
}

/// What a task has on disk, and how that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) usage: Usage,
    /// Whether some of it was counted: what quotas hold is never too much.
    pub(super) counted: bool,
    /// Sockets that hold descriptors, and how many.
    pub(super) parked: BTreeMap<u64, u64>,
}

enum Part {
    Dir(PathBuf),
    Walk(Box<Walk>),
    Processes,
    Sweep(Box<Sweep>),
}

/// A count in progress.
pub(super) struct Count {
    watched: Watched,
    found: Found,
    left: Vec<Part>,
    root_only: bool,
}

impl Means {
    /// `slaves` is where all sandboxes are.
    pub(super) fn new(backend: Backend, slaves: &Path, cgroup_parent: &str) -> Self {
        let groups = Groups::find(cgroup_parent);
        let place = match Place::find(slaves) {
            Ok(place) => Some(place),
            Err(error) => {
                tracing::error!("deleted files that tasks keep open are not counted: {error}");
                None
            }
        };
        Self {
            backend,
            slaves: std::fs::File::open(slaves).ok().map(OwnedFd::from),
            groups,
            place,
        }
    }

    pub(super) fn room(&self) -> Room {
        let found = self.slaves.as_ref().map(rustix::fs::fstatvfs);
        let Some(Ok(found)) = found else {
            return Room::default();
        };
        Room {
            free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
            total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
        }
    }

    pub(super) fn activity(&self, watched: &Watched) -> Option<Activity> {
        let id = ContainerId::try_from(watched.container.as_str()).ok()?;
        self.groups.as_ref()?.activity(&id)
    }

    fn sweep(&self, watched: &Watched, root_only: bool) -> Option<Sweep> {
        let id = ContainerId::try_from(watched.container.as_str()).ok()?;
        let scope = Scope {
            groups: self.groups.as_ref()?,
            container: &id,
            first: watched.pid.cast_signed(),
            place: self.place.as_ref()?,
            sandbox: &watched.sandbox,
            root_only,
        };
        Sweep::new(scope).ok()
    }
}

impl Found {
    /// Of a task whose count does not come to an end.
    pub(super) fn hung() -> Self {
        Self {
            usage: Usage {
                bytes: 0,
                files: 0,
                complete: false,
            },
            counted: true,
            parked: BTreeMap::new(),
        }
    }

    pub(super) fn is_over(&self, limit_bytes: u64) -> bool {
        self.counted && is_over(self.usage, limit_bytes)
    }

    pub(super) fn excess(&self, limit_bytes: u64) -> Option<DiskExcess> {
        self.is_over(limit_bytes).then(|| self.of(limit_bytes))
    }

    pub(super) fn of(&self, limit_bytes: u64) -> DiskExcess {
        DiskExcess {
            used_bytes: self.usage.bytes,
            limit_bytes,
            used_files: self.usage.files,
            limit_files: max_files(limit_bytes),
            uncounted: false,
            parked: 0,
        }
    }
}

fn is_over(usage: Usage, limit_bytes: u64) -> bool {
    usage.bytes > limit_bytes || usage.files > max_files(limit_bytes)
}

fn sum(one: Usage, other: Usage) -> Usage {
    Usage {
        bytes: one.bytes.saturating_add(other.bytes),
        files: one.files.saturating_add(other.files),
        complete: one.complete && other.complete,
    }
}

fn usage(held: &Held) -> Usage {
    Usage {
        bytes: held.bytes,
        files: held.files,
        complete: held.complete,
    }
}

impl Count {
    /// Begins.
    pub(super) fn new(means: &Means, watched: &Watched) -> Self {
        let mut count = Self {
            watched: watched.clone(),
            found: Found {
                usage: Usage {
                    bytes: 0,
                    files: 0,
                    complete: true,
                },
                counted: false,
                parked: BTreeMap::new(),
            },
            left: Vec::new(),
            root_only: false,
        };
        // None where the kernel keeps no limit for it, or did not when it was made.
        let quota = means.backend.refuses_writes();
        let quota = quota.then(|| means.backend.usage(&watched.sandbox));
        match quota {
            Some(Ok(usage)) => {
                count.found.usage = usage;
                count.root_only = true;
            }
            _ => count.left.push(Part::Dir(watched.sandbox.clone())),
        }
        let layer = watched.layer.iter().cloned().map(Part::Dir);
        count.left.extend(layer);
        if !count.left.is_empty() {
            count.found.counted = true;
            count.left.insert(0, Part::Processes);
        }
        count
    }

    /// Counts on; what was found, once that is known. None: it is mostly gone already.
    pub(super) fn turn(&mut self, means: &Means) -> Option<Option<Found>> {
        let limit_bytes = self.watched.limit_bytes;
        let Some(part) = self.left.pop() else {
            return Some(Some(self.found.clone()));
        };
        let so_far = match part {
            Part::Dir(dir) => {
                let walk = Walk::new(&dir).ok()?;
                self.left.push(Part::Walk(Box::new(walk)));
                return Some(None);
            }
            Part::Walk(mut walk) => match walk.turn(TURN_ENTRIES).ok()? {
                Turn::Done(usage) => {
                    self.found.usage = sum(self.found.usage, usage);
                    self.found.usage
                }
                Turn::More(usage) => {
                    self.left.push(Part::Walk(walk));
                    sum(self.found.usage, usage)
                }
            },
            Part::Processes => {
                let sweep = means.sweep(&self.watched, self.root_only);
                let sweep = sweep.map(|sweep| Part::Sweep(Box::new(sweep)));
                self.left.extend(sweep);
                self.found.usage
            }
            Part::Sweep(mut sweep) => match sweep.turn(TURN_ENTRIES).ok()? {
                Sweeping::Done(held) => {
                    self.found.usage = sum(self.found.usage, usage(&held));
                    self.found.parked = held.parked;
                    self.found.usage
                }
                Sweeping::More(held) => {
                    self.left.push(Part::Sweep(sweep));
                    sum(self.found.usage, usage(&held))
                }
            },
        };
        if self.found.counted && is_over(so_far, limit_bytes) {
            self.found.usage = so_far;
            return Some(Some(self.found.clone()));
        }
        Some(self.left.is_empty().then(|| self.found.clone()))
    }
}

#[cfg(test)]
mod tests;
