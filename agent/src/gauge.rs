//! How much each limited task has on disk, in its sandbox and its root, looked at in turn beside the
//! loop.
//!
//! ```text
//! every ROUND: ask the loop which sandboxes there are ─▶ each: its quota group or project says, or
//!              it is counted, TURN_ENTRIES at a time ─▶ Event::Measured
//! ```
//! It decides only whether a count is over the limit; what becomes of the task is the core's. Where
//! the kernel refuses what is too much, nobody is ever over. Invariants: counting takes at most one
//! tenth of one processor's and the disk's time, however much tasks write, and stops at the limit;
//! one that seems to be over is counted a second time, since a tree that changes meanwhile may be
//! counted twice in part; at most one sandbox is counted at a time.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use gantry_agent_core::DiskExcess;
use gantry_isolation::disk::{Backend, Turn, Usage, Walk, max_files};
use gantry_wire::ids::{ContainerId, TaskId};
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::inbox::{Ask, Event};

/// Least time between two looks at a sandbox.
const ROUND: Duration = Duration::from_secs(5);
/// Files and directories that are counted at a time; some milliseconds' work.
const TURN_ENTRIES: usize = 1_000;
/// How many times as long as a turn took, nothing is done after it.
const REST: u32 = 9;
/// Rounds in a row in which a sandbox could not be counted to the end, after which it is over. A
/// tree that is moved about can be missed now and then; a minute long is on purpose.
const UNCOUNTED_MAX: u32 = 12;

/// A running task with a limit.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    pub(crate) task: TaskId,
    pub(crate) container: ContainerId,
    pub(crate) sandbox: PathBuf,
    /// Where its root is written to, unless the sandbox's quota bounds that, too.
    pub(crate) layer: Option<PathBuf>,
    pub(crate) limit_bytes: u64,
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) task: TaskId,
    pub(crate) container: ContainerId,
    pub(crate) used_bytes: u64,
    /// It holds more than it may.
    pub(crate) excess: Option<DiskExcess>,
}

/// Runs until cancelled, or until the loop is gone.
pub(crate) async fn run(backend: Backend, events: mpsc::Sender<Event>, cancel: CancellationToken) {
    tokio::select! {
        () = cancel.cancelled() => {}
        () = rounds(backend, &events) => {}
    }
}

async fn rounds(backend: Backend, events: &mpsc::Sender<Event>) {
    let mut uncounted: BTreeMap<ContainerId, u32> = BTreeMap::new();
    loop {
        sleep(ROUND).await;
        let Some(sandboxes) = ask(events).await else {
            return;
        };
        let mut still = BTreeMap::new();
        for watched in sandboxes {
            // One that cannot be looked at is mostly gone already; the next round asks again.
            let Some(found) = look(backend, &watched).await else {
                continue;
            };
            let mut excess = found.excess(watched.limit_bytes);
            if found.counted && !found.usage.complete {
                let times = uncounted
                    .get(&watched.container)
                    .map_or(1, |times| times + 1);
                let given_up = times >= UNCOUNTED_MAX;
                excess = excess.or_else(|| given_up.then(|| found.uncounted(watched.limit_bytes)));
                still.insert(watched.container.clone(), times);
            }
            let measured = Measured {
                task: watched.task,
                container: watched.container,
                used_bytes: found.usage.bytes,
                excess,
            };
            if events.send(Event::Measured(measured)).await.is_err() {
                return;
            }
        }
        uncounted = still;
    }
}

/// The sandboxes to look at; None when the loop is gone.
async fn ask(events: &mpsc::Sender<Event>) -> Option<Vec<Watched>> {
    let (reply, answer) = oneshot::channel();
    events.send(Event::Ask(Ask::Sandboxes(reply))).await.ok()?;
    answer.await.ok()
}

/// What a task has on disk, and how that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    usage: Usage,
    /// Whether some of it was counted: what quotas hold is never too much.
    counted: bool,
}

impl Found {
    fn excess(self, limit_bytes: u64) -> Option<DiskExcess> {
        let over = self.counted && is_over(self.usage, limit_bytes);
        over.then(|| self.of(limit_bytes, false))
    }

    fn uncounted(self, limit_bytes: u64) -> DiskExcess {
        self.of(limit_bytes, true)
    }

    fn of(self, limit_bytes: u64, uncounted: bool) -> DiskExcess {
        DiskExcess {
            used_bytes: self.usage.bytes,
            limit_bytes,
            used_files: self.usage.files,
            limit_files: max_files(limit_bytes),
            uncounted,
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

async fn look(backend: Backend, watched: &Watched) -> Option<Found> {
    let mut held = Usage {
        bytes: 0,
        files: 0,
        complete: true,
    };
    let mut dirs: Vec<PathBuf> = watched.layer.iter().cloned().collect();
    match quota(backend, watched.sandbox.clone()).await? {
        Some(usage) => held = usage,
        None => dirs.push(watched.sandbox.clone()),
    }
    if dirs.is_empty() {
        return Some(Found {
            usage: held,
            counted: false,
        });
    }
    let mut usage = count(&dirs, held, watched.limit_bytes).await?;
    if is_over(usage, watched.limit_bytes) {
        usage = count(&dirs, held, watched.limit_bytes).await?;
    }
    Some(Found {
        usage,
        counted: true,
    })
}

/// What the kernel says that the sandbox holds; None where it keeps no limit for it, or did not when
/// it was made.
async fn quota(backend: Backend, sandbox: PathBuf) -> Option<Option<Usage>> {
    if !backend.refuses_writes() {
        return Some(None);
    }
    let asked = spawn_blocking(move || backend.usage(&sandbox)).await.ok()?;
    Some(asked.ok())
}

/// Counts on from what is `held` until it is known whether it is too much.
async fn count(dirs: &[PathBuf], held: Usage, limit_bytes: u64) -> Option<Usage> {
    let mut before = held;
    for dir in dirs {
        let dir = dir.clone();
        let mut walk = spawn_blocking(move || Walk::new(&dir)).await.ok()?.ok()?;
        before = loop {
            let started = Instant::now();
            let work = move || {
                let turn = walk.turn(TURN_ENTRIES);
                (walk, turn)
            };
            let (back, turn) = spawn_blocking(work).await.ok()?;
            sleep(started.elapsed() * REST).await;
            walk = back;
            match turn.ok()? {
                Turn::Done(usage) => break sum(before, usage),
                Turn::More(usage) if is_over(sum(before, usage), limit_bytes) => {
                    return Some(sum(before, usage));
                }
                Turn::More(_) => {}
            }
        };
        if is_over(before, limit_bytes) {
            break;
        }
    }
    Some(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(sandbox: PathBuf, limit_bytes: u64) -> Watched {
        Watched {
            task: TaskId::parse("t").unwrap(),
            container: ContainerId::parse("c").unwrap(),
            sandbox,
            layer: None,
            limit_bytes,
        }
    }

    #[tokio::test]
    async fn what_holds_too_much_is_told_from_what_does_not() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        for number in 0..3 * TURN_ENTRIES {
            std::fs::write(dir.path().join(number.to_string()), [1; 10]).unwrap();
        }
        let found = look(Backend::Accounting, &watched(dir.path().into(), 1 << 30)).await;
        let found = found.unwrap();
        assert!(found.usage.complete && found.usage.bytes >= 3 * 4096 * TURN_ENTRIES as u64);
        assert_eq!(found.excess(1 << 30), None);
        // It is counted no further than the limit.
        let few = look(Backend::Accounting, &watched(dir.path().into(), 1 << 20)).await;
        let few = few.unwrap();
        assert!(few.usage.bytes < found.usage.bytes);
        let excess = few.excess(1 << 20).unwrap();
        assert!(excess.used_bytes > excess.limit_bytes && !excess.uncounted);
        // Files count as well as bytes, and so does the root.
        let many = look(Backend::Accounting, &watched(dir.path().into(), 1 << 29)).await;
        assert_eq!(many.unwrap().usage.files, 3 * TURN_ENTRIES as u64 + 1);
        let root = tempfile::tempdir_in("/var/tmp").unwrap();
        let both = Watched {
            layer: Some(root.path().to_owned()),
            ..watched(dir.path().into(), 64 << 20)
        };
        for number in 0..max_files(64 << 20) {
            std::fs::File::create(root.path().join(number.to_string())).unwrap();
        }
        let too_many = look(Backend::Accounting, &both).await.unwrap();
        let excess = too_many.excess(64 << 20).unwrap();
        assert!(excess.used_files > excess.limit_files && excess.used_bytes < excess.limit_bytes);
        // What a quota keeps is nobody's excess; what is gone is nothing.
        let kept = Found {
            counted: false,
            ..few
        };
        assert_eq!(kept.excess(1 << 20), None);
        let gone = watched(dir.path().join("gone"), 1);
        assert_eq!(look(Backend::Accounting, &gone).await, None);
    }
}
