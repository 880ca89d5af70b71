//! How much each limited task has on disk, in its sandbox, its root and in deleted files that it
//! keeps open, looked at in turn beside the loop.
//!
//! ```text
//! every TICK: what is free? ─▶ who may be full, or has its turn (`pace`) ─▶ did it do anything?
//!             ─▶ counted a turn at a time (`count`) ─▶ over: counted again ─▶ Event::Measured
//! ```
//! It decides only whether a count is over the limit; what becomes of the task is the core's. Where
//! the kernel refuses what is too much, nobody is ever over. Invariants: counting takes at most one
//! tenth of one processor's and the disk's time, however much tasks write, and stops at the limit;
//! one that seems to be over is counted a second time, since a tree that changes meanwhile may be
//! counted twice in part; a long count waits for shorter ones, and one that hangs (a process may
//! wait for a dead server, and with it whoever asks for its maps) holds up the others for
//! [`TURN_MAX`] a minute.
//!
//! Descriptors that wait in sockets (`SCM_RIGHTS`) hide what they hold from every count. Programs
//! pass descriptors like that, for moments, and an overloaded one's socket may never be empty: ending
//! them all would punish the innocent. They are told in the log, and a task that has left some in one
//! socket for [`PARKED_FOR`] is ended when the disk is nearly full: it is then the only one that can
//! have more than it may.

mod count;
mod pace;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gantry_agent_core::DiskExcess;
use gantry_isolation::cgroup::Activity;
use gantry_isolation::disk::Backend;
use gantry_wire::ids::{ContainerId, TaskId};
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::count::{Count, Found, Means, Room};
use self::pace::{Beginning, Pace, ROUND_MS, Urgency};
use crate::inbox::{Ask, Event};
use crate::layout::Layout;

/// How often what is free is looked at while there is something to watch; else rarely.
const TICK: Duration = Duration::from_millis(100);
const TICK_IDLE: Duration = Duration::from_millis(500);
/// What the file system loses before it is looked for new tasks at once, and least time between.
const NEW_FELL_BYTES: u64 = 8 << 20;
const NEW_LEAST_MS: u64 = 250;
/// How many times as long as a turn took, nothing is done after it.
const REST: u32 = 9;
/// Turns after which others are let pass.
const FAIR_TURNS: u32 = 8;
/// Counts in progress; each has some descriptors.
const COUNTS_MAX: usize = 8;
/// Tasks whose activity is looked at in a tick.
const GLANCES_MAX: usize = 128;
/// A turn that takes longer hangs.
const TURN_MAX: Duration = Duration::from_secs(10);
/// Looks in a row, and time, in which a task could not be counted to the end, after which it is
/// over. A tree that is moved about can be missed now and then; a minute long is on purpose.
const UNCOUNTED_MAX: u32 = 12;
const UNCOUNTED_FOR: Duration = Duration::from_secs(60);
/// After this time, a descriptor in a socket is kept there: nobody means to receive it.
const PARKED_FOR: Duration = Duration::from_secs(30);
/// In percent: a disk with less is nearly full. The images and finished sandboxes that could go are
/// gone long before.
const SHORT_PERCENT: u64 = 5;

/// A running task with a limit.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    pub(crate) task: TaskId,
    pub(crate) container: ContainerId,
    pub(crate) sandbox: PathBuf,
    /// Where its root is written to, unless the sandbox's quota bounds that, too.
    pub(crate) layer: Option<PathBuf>,
    /// Its first process, as the keeper says.
    pub(crate) pid: u32,
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

/// How far a look is.
enum Stage {
    Resting,
    /// It did something since the last one.
    Due(Beginning),
    Counting(Beginning, Box<Count>),
}

/// One that is watched.
struct Tracked {
    watched: Watched,
    pace: Pace,
    stage: Stage,
    turns: u32,
    /// A first count was over.
    suspect: bool,
    /// Looks that did not see everything, and since when.
    uncounted: Option<(u32, Instant)>,
    /// Sockets with descriptors in them, since when.
    parked: BTreeMap<u64, Instant>,
    /// It was said that there are some.
    told: bool,
}

impl Tracked {
    fn new(watched: Watched) -> Self {
        Self {
            watched,
            pace: Pace::default(),
            stage: Stage::Resting,
            turns: 0,
            suspect: false,
            uncounted: None,
            parked: BTreeMap::new(),
            told: false,
        }
    }

    /// Who goes on first: the smallest.
    fn rank(&self, now_ms: u64, free_bytes: u64) -> Option<(Urgency, u32, u64)> {
        if matches!(self.stage, Stage::Resting) {
            return None;
        }
        let urgency = self.pace.urgency(now_ms, free_bytes);
        let urgency = urgency.unwrap_or(Urgency::Turn);
        Some((urgency, self.turns / FAIR_TURNS, self.pace.room_bytes()))
    }

    /// A look is over. Whether the task is past its limit; None: it is looked at again, to be sure.
    fn looked(&mut self, found: &Found, at: Beginning, room: Room) -> Option<Option<DiskExcess>> {
        let limit_bytes = self.watched.limit_bytes;
        let is_over = found.is_over(limit_bytes);
        if is_over && !std::mem::replace(&mut self.suspect, is_over) {
            return None;
        }
        self.suspect = false;
        let mut excess = found.excess(limit_bytes);
        self.uncounted = if found.usage.complete || !found.counted {
            None
        } else {
            let (times, since) = self.uncounted.unwrap_or((0, Instant::now()));
            if times + 1 >= UNCOUNTED_MAX && since.elapsed() >= UNCOUNTED_FOR {
                let mut of = found.of(limit_bytes);
                of.uncounted = true;
                excess = excess.or(Some(of));
            }
            Some((times + 1, since))
        };
        excess = excess.or_else(|| self.excess_parked(found, room));
        let watchful = !self.parked.is_empty() || self.uncounted.is_some();
        let amounts = (found.usage.bytes, limit_bytes);
        self.pace.counted(at, amounts, watchful);
        Some(excess)
    }

    /// What is parked in sockets, if that is too much by now.
    fn excess_parked(&mut self, found: &Found, room: Room) -> Option<DiskExcess> {
        let now = Instant::now();
        let before = std::mem::take(&mut self.parked);
        let since = |socket: &u64| before.get(socket).copied().unwrap_or(now);
        self.parked = found.parked.keys().map(|it| (*it, since(it))).collect();
        let kept = |socket: &u64| now.duration_since(since(socket)) >= PARKED_FOR;
        let kept = found.parked.iter().filter(|(socket, _)| kept(socket));
        let parked: u64 = kept.map(|(_, count)| count).sum();
        if parked == 0 {
            return None;
        }
        let task = &self.watched.task;
        if !std::mem::replace(&mut self.told, true) {
            tracing::warn!(%task, parked, "open files that nobody receives wait in its sockets: what they hold of the disk cannot be counted");
        }
        let short = room.free_bytes < room.total_bytes / 100 * SHORT_PERCENT;
        short.then(|| DiskExcess {
            parked,
            ..found.of(self.watched.limit_bytes)
        })
    }
}

/// All that are watched.
struct Gauge {
    means: Arc<Means>,
    events: mpsc::Sender<Event>,
    began: Instant,
    tracked: BTreeMap<ContainerId, Tracked>,
    listed_ms: Option<u64>,
    /// The most that was free since then.
    listed_free_bytes: u64,
}

/// Runs until cancelled, or until the loop is gone.
pub(crate) async fn run(
    (backend, layout): (Backend, Layout),
    events: mpsc::Sender<Event>,
    cancel: CancellationToken,
) {
    let (slaves, parent) = (layout.slaves(), layout.cgroup_parent());
    let means = spawn_blocking(move || Means::new(backend, &slaves, &parent)).await;
    let Ok(means) = means else { return };
    let mut gauge = Gauge {
        means: Arc::new(means),
        events,
        began: Instant::now(),
        tracked: BTreeMap::new(),
        listed_ms: None,
        listed_free_bytes: 0,
    };
    tokio::select! {
        () = cancel.cancelled() => {}
        _ = gauge.rounds() => {}
    }
}

impl Gauge {
    /// Until the loop is gone.
    async fn rounds(&mut self) -> Option<()> {
        loop {
            let room = self.means.room();
            self.list(room.free_bytes).await?;
            self.glance(room.free_bytes).await;
            match self.next(room.free_bytes) {
                Some(container) => self.go_on(&container, room).await?,
                None if self.tracked.is_empty() => sleep(TICK_IDLE).await,
                None => sleep(TICK).await,
            }
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Asks who is to be watched, now and then, and when someone new may be writing.
    async fn list(&mut self, free_bytes: u64) -> Option<()> {
        let since_ms = self.listed_ms.map(|at| self.now_ms().saturating_sub(at));
        self.listed_free_bytes = self.listed_free_bytes.max(free_bytes);
        let fell = self.listed_free_bytes - free_bytes >= NEW_FELL_BYTES;
        if since_ms.is_some_and(|ms| ms < ROUND_MS && !(fell && ms >= NEW_LEAST_MS)) {
            return Some(());
        }
        let (reply, answer) = oneshot::channel();
        let ask = Event::Ask(Ask::Sandboxes(reply));
        self.events.send(ask).await.ok()?;
        let listed = answer.await.ok()?;
        (self.listed_ms, self.listed_free_bytes) = (Some(self.now_ms()), free_bytes);
        let names: BTreeSet<_> = listed.iter().map(|one| one.container.clone()).collect();
        self.tracked
            .retain(|container, _| names.contains(container));
        for watched in listed {
            match self.tracked.get_mut(&watched.container) {
                Some(tracked) => tracked.watched = watched,
                None => {
                    let container = watched.container.clone();
                    self.tracked.insert(container, Tracked::new(watched));
                }
            }
        }
        Some(())
    }

    /// Finds out which of those whose time has come did something since they were looked at.
    async fn glance(&mut self, free_bytes: u64) {
        let now_ms = self.now_ms();
        let is_due = |tracked: &&Tracked| {
            let rests = matches!(tracked.stage, Stage::Resting);
            rests && tracked.pace.urgency(now_ms, free_bytes).is_some()
        };
        let due = self.tracked.values().filter(is_due).take(GLANCES_MAX);
        let due: Vec<Watched> = due.map(|tracked| tracked.watched.clone()).collect();
        if due.is_empty() {
            return;
        }
        let means = Arc::clone(&self.means);
        let look = move || {
            let one = |watched: Watched| {
                let activity = means.activity(&watched);
                (watched.container, activity)
            };
            due.into_iter().map(one).collect()
        };
        let found: Vec<(ContainerId, Option<Activity>)> =
            spawn_blocking(look).await.unwrap_or_default();
        for (container, activity) in found {
            let at = Beginning {
                now_ms,
                free_bytes,
                activity,
            };
            if let Some(tracked) = self.tracked.get_mut(&container)
                && !tracked.pace.is_idle(at)
            {
                (tracked.stage, tracked.turns) = (Stage::Due(at), 0);
            }
        }
    }

    /// Whose turn it is.
    fn next(&self, free_bytes: u64) -> Option<ContainerId> {
        let now_ms = self.now_ms();
        let counting = |tracked: &Tracked| matches!(tracked.stage, Stage::Counting(..));
        let many = self.tracked.values().filter(|it| counting(it)).count() >= COUNTS_MAX;
        let ranked = self.tracked.iter().filter(|(_, it)| !many || counting(it));
        let ranked = ranked.filter_map(|(id, it)| Some((it.rank(now_ms, free_bytes)?, id)));
        ranked.min().map(|(_, id)| id.clone())
    }

    /// One turn of a count.
    async fn go_on(&mut self, container: &ContainerId, room: Room) -> Option<()> {
        let Some(tracked) = self.tracked.get_mut(container) else {
            return Some(());
        };
        tracked.turns += 1;
        let (watched, means) = (tracked.watched.clone(), Arc::clone(&self.means));
        let (at, count) = match std::mem::replace(&mut tracked.stage, Stage::Resting) {
            Stage::Resting => return Some(()),
            Stage::Due(at) => (at, None),
            Stage::Counting(at, count) => (at, Some(count)),
        };
        let started = Instant::now();
        let turn = spawn_blocking(move || {
            let new = || Box::new(Count::new(&means, &watched));
            let mut count = count.unwrap_or_else(new);
            let found = count.turn(&means);
            (count, found)
        });
        let turn = timeout(TURN_MAX, turn).await;
        sleep(started.elapsed() * REST).await;
        let now_ms = self.now_ms();
        let Some(tracked) = self.tracked.get_mut(container) else {
            return Some(());
        };
        let hung = turn.is_err();
        let found = match turn {
            Ok(Ok((count, Some(None)))) => {
                tracked.stage = Stage::Counting(at, count);
                return Some(());
            }
            Ok(Ok((_, Some(Some(found))))) => found,
            // Mostly gone already; else it is tried again.
            Ok(_) => {
                tracked.pace.failed(now_ms);
                return Some(());
            }
            Err(_) => Found::hung(),
        };
        let Some(excess) = tracked.looked(&found, at, room) else {
            (tracked.stage, tracked.turns) = (Stage::Due(at), 0);
            return Some(());
        };
        if hung {
            tracked.pace.hung(now_ms);
        }
        let measured = Measured {
            task: tracked.watched.task.clone(),
            container: container.clone(),
            used_bytes: found.usage.bytes,
            excess,
        };
        self.events.send(Event::Measured(measured)).await.ok()
    }
}
