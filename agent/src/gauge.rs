//! How much each limited sandbox holds, looked at in turn beside the loop.
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
use gantry_isolation::disk::{Backend, Turn, Usage, Walk};
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

/// A limited sandbox of a running task.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    pub(crate) task: TaskId,
    pub(crate) container: ContainerId,
    pub(crate) sandbox: PathBuf,
    pub(crate) limit_bytes: u64,
}

/// What was found in a sandbox.
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

/// What a sandbox holds, and how that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    usage: Usage,
    counted: bool,
}

impl Found {
    fn excess(self, limit_bytes: u64) -> Option<DiskExcess> {
        let over = self.counted && self.usage.bytes > limit_bytes;
        over.then_some(DiskExcess {
            used_bytes: self.usage.bytes,
            limit_bytes,
            uncounted: false,
        })
    }

    fn uncounted(self, limit_bytes: u64) -> DiskExcess {
        DiskExcess {
            used_bytes: self.usage.bytes,
            limit_bytes,
            uncounted: true,
        }
    }
}

async fn look(backend: Backend, watched: &Watched) -> Option<Found> {
    if backend.refuses_writes() {
        let sandbox = watched.sandbox.clone();
        let usage = spawn_blocking(move || backend.usage(&sandbox)).await.ok()?;
        // Else it was made before there were quotas, and has none.
        if let Ok(usage) = usage {
            return Some(Found {
                usage,
                counted: false,
            });
        }
    }
    let first = count(watched).await?;
    if first.bytes <= watched.limit_bytes {
        return Some(Found {
            usage: first,
            counted: true,
        });
    }
    let second = count(watched).await?;
    Some(Found {
        usage: second,
        counted: true,
    })
}

/// Counts until it is known whether it is too much.
async fn count(watched: &Watched) -> Option<Usage> {
    let sandbox = watched.sandbox.clone();
    let mut walk = spawn_blocking(move || Walk::new(&sandbox))
        .await
        .ok()?
        .ok()?;
    loop {
        let started = Instant::now();
        let work = move || {
            let turn = walk.turn(TURN_ENTRIES);
            (walk, turn)
        };
        let (back, turn) = spawn_blocking(work).await.ok()?;
        sleep(started.elapsed() * REST).await;
        walk = back;
        match turn.ok()? {
            Turn::Done(usage) => return Some(usage),
            Turn::More(bytes) if bytes > watched.limit_bytes => {
                let complete = false;
                return Some(Usage { bytes, complete });
            }
            Turn::More(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(sandbox: PathBuf, limit_bytes: u64) -> Watched {
        Watched {
            task: TaskId::parse("t").unwrap(),
            container: ContainerId::parse("c").unwrap(),
            sandbox,
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
