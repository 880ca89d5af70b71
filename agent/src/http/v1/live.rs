//! Sessions whose process runs, as others than the client that started them can join in: one who
//! types, and several who watch.
//!
//! Invariant: who watches never holds the process up. One that lags by [`LAG_MAX`] records is cut
//! off. (Mesos keeps everything for it in memory.) The client that started the session is no such
//! one: what it does not read, the process waits with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use gantry_isolation::spec::ContainerId;
use gantry_wire::mesos::Encoding;
use tokio::sync::{OwnedMutexGuard, mpsc};
use tokio_util::sync::CancellationToken;

use super::super::problem::Problem;
use super::process_io::Piece;
use super::stdin::Stdin;

/// Watchers of one session, besides its own client.
const WATCHERS_MAX: usize = 16;
/// Records that wait for a watcher.
const LAG_MAX: usize = 64;

/// One session.
#[derive(Debug)]
pub(super) struct Live {
    stdin: Arc<tokio::sync::Mutex<Stdin>>,
    watchers: Mutex<Vec<(Encoding, mpsc::Sender<Bytes>)>>,
    /// Cancelled when it ends.
    pub(super) ended: CancellationToken,
}

/// What clients can join, shared by all requests.
#[derive(Debug, Default)]
pub(crate) struct Joined {
    sessions: Mutex<BTreeMap<ContainerId, Arc<Live>>>,
    /// Containers of tasks whose terminal someone types into.
    typed: Mutex<BTreeSet<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn taken() -> Problem {
    Problem::Conflict("Multiple input connections are not allowed".to_owned())
}

impl Joined {
    /// A session that has started; it is here until the guard goes.
    pub(super) fn begin(self: &Arc<Self>, name: ContainerId, stdin: Stdin) -> Running {
        let live = Arc::new(Live {
            stdin: Arc::new(tokio::sync::Mutex::new(stdin)),
            watchers: Mutex::default(),
            ended: CancellationToken::new(),
        });
        lock(&self.sessions).insert(name.clone(), live.clone());
        let joined = self.clone();
        Running { joined, name, live }
    }

    pub(super) fn find(&self, name: &ContainerId) -> Option<Arc<Live>> {
        lock(&self.sessions).get(name).cloned()
    }

    /// Who types into the terminal of a task.
    pub(super) fn type_into(self: &Arc<Self>, container: &str) -> Result<Typing, Problem> {
        if !lock(&self.typed).insert(container.to_owned()) {
            return Err(taken());
        }
        let (joined, container) = (self.clone(), container.to_owned());
        Ok(Typing { joined, container })
    }
}

/// Holds a session among those that run.
pub(super) struct Running {
    joined: Arc<Joined>,
    name: ContainerId,
    live: Arc<Live>,
}

impl Drop for Running {
    fn drop(&mut self) {
        lock(&self.joined.sessions).remove(&self.name);
        lock(&self.live.watchers).clear();
        self.live.ended.cancel();
    }
}

impl Running {
    /// Shows something to all who watch.
    pub(super) fn show(&self, piece: Piece<'_>) {
        lock(&self.live.watchers)
            .retain(|(encoding, records)| records.try_send(piece.record(*encoding)).is_ok());
    }
}

/// Holds the keyboard of a task.
pub(super) struct Typing {
    joined: Arc<Joined>,
    container: String,
}

impl Drop for Typing {
    fn drop(&mut self) {
        lock(&self.joined.typed).remove(&self.container);
    }
}

impl Live {
    /// Its stdin, unless someone else has it.
    pub(super) fn stdin(&self) -> Result<OwnedMutexGuard<Stdin>, Problem> {
        self.stdin.clone().try_lock_owned().map_err(|_| taken())
    }

    pub(super) fn watch(&self, encoding: Encoding) -> Result<mpsc::Receiver<Bytes>, Problem> {
        let mut watchers = lock(&self.watchers);
        watchers.retain(|(_, records)| !records.is_closed());
        if watchers.len() >= WATCHERS_MAX {
            let text = format!("{WATCHERS_MAX} clients are attached already");
            return Err(Problem::Conflict(text));
        }
        let (records, shown) = mpsc::channel(LAG_MAX);
        if !self.ended.is_cancelled() {
            watchers.push((encoding, records));
        }
        Ok(shown)
    }
}
