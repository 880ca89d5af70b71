//! Looks at running tasks, from inside: each probe is a small job beside the loop, answered by one
//! event. HTTP and TCP start no process; a command is one more process of the container.
//!
//! It decides neither when a task is looked at nor what follows (`agent/core`). Invariants: every
//! probe is answered, also one that fails on our side (as [`Found::Unclear`]); at most
//! [`CONNECTIONS_MAX`] and [`COMMANDS_MAX`] are out at a time.

mod command;
mod sockets;
mod web;

use std::sync::Arc;
use std::time::Duration;

use gantry_agent_core::Found;
use gantry_image::Store;
use gantry_wire::agent::NetworkMode;
use gantry_wire::check::{Check, Probe};
use gantry_wire::ids::TaskId;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use crate::container::NodeFacts;
use crate::facts::Facts;
use crate::http::Server;
use crate::inbox::{Event, TaskRow};
use sockets::Sockets;

/// HTTP and TCP probes at the same time: each is a socket.
const CONNECTIONS_MAX: usize = 1_024;
/// Commands at the same time: each is a process.
const COMMANDS_MAX: usize = 64;
/// How long a probe without a time limit of its own may take.
const PROBE_MAX: Duration = Duration::from_secs(3_600);
/// Longest words about a probe that failed, in bytes.
const CAUSE_MAX_BYTES: usize = 512;

/// Makes probes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Prober {
    runtime: Handle,
    events: mpsc::Sender<Event>,
    connections: Arc<Semaphore>,
    commands: Arc<Semaphore>,
    sockets: Sockets,
    tls: tokio_rustls::TlsConnector,
    /// What a command inside a container needs to know.
    store: Store,
    facts: Arc<Facts>,
    node: NodeFacts,
}

impl Prober {
    /// # Errors
    /// When the thread for sockets cannot be started.
    pub(crate) fn new(runtime: Handle, server: &Server) -> std::io::Result<Self> {
        Ok(Self {
            runtime,
            events: server.events.clone(),
            connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            commands: Arc::new(Semaphore::new(COMMANDS_MAX)),
            sockets: Sockets::start()?,
            tls: web::tls(),
            store: server.store.clone(),
            facts: server.facts.clone(),
            node: server.node.clone(),
        })
    }

    /// Looks at a task. Answer: [`Event::Probed`].
    pub(crate) fn probe(&self, task: TaskId, index: usize, check: &Check, row: TaskRow) {
        let (prober, check) = (self.clone(), check.clone());
        self.runtime.spawn(async move {
            let found = bounded(prober.look(&check, &row).await);
            let probed = Event::Probed {
                task,
                check: index,
                found,
            };
            // A closed inbox means that the agent ends.
            let _ = prober.events.send(probed).await;
        });
    }

    async fn look(&self, check: &Check, row: &TaskRow) -> Found {
        let limit = match check.timeout_ms {
            0 => PROBE_MAX,
            ms => Duration::from_millis(ms),
        };
        let Some(probe) = &check.probe else {
            return Found::Unclear;
        };
        let seats = match probe {
            Probe::Command(_) => &self.commands,
            Probe::Http(_) | Probe::Tcp(_) => &self.connections,
        };
        let Ok(_seat) = seats.acquire().await else {
            return Found::Unclear;
        };
        let pid = (row.launch.network != NetworkMode::Host as i32).then_some(row.pid);
        let from = web::From {
            sockets: &self.sockets,
            pid,
        };
        let found = match probe {
            Probe::Command(command) => {
                return command::run(self, command, row, limit).await;
            }
            Probe::Http(http) => timeout(limit, web::http(http, from, &self.tls)).await,
            Probe::Tcp(tcp) => timeout(limit, web::tcp(tcp, from)).await,
        };
        found.unwrap_or_else(|_| late(limit))
    }
}

fn late(limit: Duration) -> Found {
    Found::Nothing {
        cause: format!("no answer within {limit:?}"),
    }
}

fn bounded(found: Found) -> Found {
    match found {
        Found::Nothing { mut cause } => {
            cause.truncate(cause.floor_char_boundary(CAUSE_MAX_BYTES));
            Found::Nothing { cause }
        }
        found => found,
    }
}
