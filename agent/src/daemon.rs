//! The agent's one loop: events in, decisions by the core, actions out.
//!
//! ```text
//! session, keeper thread, pulls, networks, HTTP ──▶ inbox (bounded) ──▶ Daemon ──▶ Tasks::step
//!        ▲                                                                 │
//!        └──────────────── actions, after their saves are on disk ◀────────┘
//! ```
//! It runs on a thread of its own, where writing checkpoints may block. A batch of events is taken
//! in before its actions are carried out, so that many tasks share one directory flush. Invariant:
//! the loop never waits for a worker; workers wait for the loop.

mod act;
mod answer;
mod custom;
pub(crate) mod drain;
mod hear;
mod launch;
mod launched;
mod stop;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::panic::AssertUnwindSafe;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gantry_agent_core::{Action, Event as Change, KeeperId, Now, Tasks};
use gantry_isolation::keeper;
use gantry_wire::agent::FromAgent;
use gantry_wire::ids::TaskId;
use gantry_wire::time::Millis;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::checks::Prober;
use crate::container::NodeFacts;
use crate::ends::Ends;
use crate::execs::Execs;
use crate::executors::Executors;
use crate::facts::Facts;
use crate::identity::Identity;
use crate::inbox::Event;
use crate::keeper::{Found, KeeperLink};
use crate::launched::Launched;
use crate::layout::Layout;
use crate::provision::Provision;
use crate::sandboxes::{Layers, Sandboxes};
use crate::saves::Saves;
use drain::Draining;
pub(crate) use stop::FINISH_MAX_MS;
use stop::Stopping;

/// Events whose actions are carried out together.
const BATCH_MAX: usize = 256;
/// How often finished sandboxes are looked at, in milliseconds.
const COLLECT_MS: u64 = 60_000;
/// How often a lost keeper is looked for, in milliseconds.
const KEEPER_RETRY_MS: u64 = 1_000;

/// The connection to the coordinator as the loop sees it.
#[derive(Debug, Default)]
struct Session {
    generation: u64,
    outbound: Option<mpsc::Sender<FromAgent>>,
    /// A registration is to be sent once the batch is on disk.
    greet: bool,
    registered: bool,
}

pub(crate) struct Daemon {
    pub(crate) tasks: Tasks,
    pub(crate) saves: Saves,
    pub(crate) keeper: KeeperLink,
    pub(crate) provision: Provision,
    pub(crate) prober: Prober,
    pub(crate) identity: Identity,
    pub(crate) sandboxes: Sandboxes,
    pub(crate) launched: Launched,
    pub(crate) layout: Layout,
    pub(crate) facts: std::sync::Arc<Facts>,
    pub(crate) node: NodeFacts,
    pub(crate) executors: Executors,
    pub(crate) clock: Instant,
    session: Session,
    execs: Execs,
    /// Those who follow output.
    ends: Ends,
    /// Bytes of output in files, files rotated, streams held up, as the keeper last said.
    output: [u64; 3],
    /// Bytes in the sandboxes and roots of tasks that are not over, where they were looked at.
    disk_used: BTreeMap<TaskId, u64>,
    layers: Layers,
    /// Tasks whose end is counted but not acknowledged.
    ended: BTreeSet<TaskId>,
    stopping: Stopping,
    draining: Draining,
    actions: Vec<Action>,
    keeper_id: KeeperId,
    /// What the keeper said before the loop began.
    said: Vec<keeper::Event>,
    collect_at_ms: u64,
    keeper_retry_ms: Option<u64>,
    /// Whether containers without owner were removed after the last listing.
    swept: bool,
}

/// What a [`Daemon`] is made of.
pub(crate) struct Parts {
    pub(crate) tasks: Tasks,
    pub(crate) saves: Saves,
    pub(crate) keeper: KeeperLink,
    pub(crate) found: Found,
    pub(crate) provision: Provision,
    pub(crate) prober: Prober,
    pub(crate) identity: Identity,
    pub(crate) draining: Draining,
    pub(crate) sandboxes: Sandboxes,
    pub(crate) launched: Launched,
    pub(crate) layout: Layout,
    pub(crate) facts: std::sync::Arc<Facts>,
    pub(crate) node: NodeFacts,
    pub(crate) executors: Executors,
}

impl Daemon {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            tasks: parts.tasks,
            saves: parts.saves,
            keeper: parts.keeper,
            provision: parts.provision,
            prober: parts.prober,
            identity: parts.identity,
            sandboxes: parts.sandboxes,
            launched: parts.launched,
            layout: parts.layout,
            facts: parts.facts,
            node: parts.node,
            executors: parts.executors,
            clock: Instant::now(),
            session: Session::default(),
            execs: Execs::default(),
            ends: Ends::default(),
            output: [0; 3],
            disk_used: BTreeMap::new(),
            layers: Layers::default(),
            ended: BTreeSet::new(),
            stopping: Stopping::default(),
            draining: parts.draining,
            actions: Vec::new(),
            keeper_id: parts.found.id,
            said: parts.found.said,
            collect_at_ms: 0,
            keeper_retry_ms: None,
            swept: false,
        }
    }

    /// Runs on a thread of its own; the receiver tells if it ends by a panic.
    pub(crate) fn spawn(
        self,
        inbox: mpsc::Receiver<Event>,
        cancel: &CancellationToken,
    ) -> io::Result<(JoinHandle<()>, oneshot::Receiver<String>)> {
        let (failed, failure) = oneshot::channel();
        let (cancel, runtime) = (cancel.clone(), Handle::current());
        let body = move || {
            let body = AssertUnwindSafe(|| self.run(inbox, &cancel, &runtime));
            if std::panic::catch_unwind(body).is_err() {
                // Nobody may be listening any more.
                let _ = failed.send("the agent's loop panicked (a bug)".to_owned());
            }
        };
        let thread = std::thread::Builder::new().name("agent".to_owned());
        Ok((thread.spawn(body)?, failure))
    }

    /// Runs until told to finish or cancelled.
    fn run(
        mut self,
        mut inbox: mpsc::Receiver<Event>,
        cancel: &CancellationToken,
        runtime: &Handle,
    ) {
        // Before any launch, and so that nothing is said of tasks before it is known of them.
        for event in std::mem::take(&mut self.said) {
            self.keeper_said(event);
        }
        self.settle();
        loop {
            let wait = Duration::from_millis(self.wake_ms().saturating_sub(self.uptime_ms()));
            let first = runtime.block_on(async {
                tokio::select! {
                    biased;
                    () = cancel.cancelled() => None,
                    event = inbox.recv() => event,
                    () = tokio::time::sleep(wait) => Some(Event::Tick),
                }
            });
            let Some(first) = first else { return };
            self.take(first);
            for _ in 1..BATCH_MAX {
                match inbox.try_recv() {
                    Ok(event) => self.take(event),
                    Err(_) => break,
                }
            }
            self.settle();
            if self.stopping.is_done() {
                return;
            }
        }
    }

    fn uptime_ms(&self) -> u64 {
        u64::try_from(self.clock.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// When to look at the clock at the latest.
    fn wake_ms(&self) -> u64 {
        [
            self.tasks.deadline_ms(),
            self.saves.deadline_ms(),
            self.keeper_retry_ms,
            self.stopping.deadline_ms(),
        ]
        .into_iter()
        .flatten()
        .fold(self.collect_at_ms, u64::min)
    }

    fn now(&self) -> Now {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Now {
            wall: Millis(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)),
            uptime_ms: self.uptime_ms(),
            seed: uuid::Uuid::new_v4().as_u128(),
        }
    }

    /// Lets the core decide; what it wants is done in [`Self::settle`].
    fn step(&mut self, change: Change) {
        let now = self.now();
        self.tasks.step(now, change, &mut self.actions);
    }

    /// Carries out what was decided, and what that leads to.
    fn settle(&mut self) {
        loop {
            let batch = std::mem::take(&mut self.actions);
            let now_ms = self.uptime_ms();
            for action in self.saves.settle(&self.tasks, batch, now_ms) {
                self.act(action);
            }
            if self.actions.is_empty() {
                break;
            }
        }
        self.greet();
    }
}
