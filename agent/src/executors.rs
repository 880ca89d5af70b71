//! Executors of frameworks' own, as the loop reaches them: the stream of each that has subscribed,
//! and its door, a socket in its container behind which only that executor is.
//!
//! It decides who a caller is ([`Executors::identify`]), not what a call comes to. A caller is known
//! by the door that it came through, by its token, or, on the node's bridge, by the address that is
//! the executor's alone. An executor whose framework says so by a label ([`LABEL`]) is believed
//! without any of that: it gives away nobody but itself. Invariants: a door is open as long as its
//! container may be there, also across restarts of the agent; nothing else of the node's API is
//! behind one.

pub(crate) mod endpoint;
pub(crate) mod environment;
pub(crate) mod streams;
pub(crate) mod token;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gantry_agent_core::{CustomView, ExecutorKey};
use gantry_wire::ids::ContainerId;
use gantry_wire::mesos::Encoding;
use gantry_wire::mesos::v1::executor::Event;
use tokio::net::UnixListener;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::http::executor::{Api, serve_door};
use environment::{DOOR_SOCKET, OfNode};
use streams::{Events, Stream};
use token::{Claims, Tokens};

/// Label of an executor, and the value, with which it need not prove who it is.
const LABEL: (&str, &str) = ("GANTRY_EXECUTOR_TOKEN", "optional");

/// What is known of a caller before its call is read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Caller {
    /// The container whose door it came through.
    pub(crate) door: Option<ContainerId>,
    /// Whom its token is for.
    pub(crate) claims: Option<Claims>,
    /// Where it called from, on the bridge.
    pub(crate) address: Option<IpAddr>,
}

/// Why a caller is not heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stranger {
    /// It is another executor.
    Other,
    /// It does not say who it is.
    Nobody,
}

struct Door {
    sandbox: PathBuf,
    dir: PathBuf,
    _open: DropGuard,
}

/// The streams of one executor. What was decided before it subscribed anew is carried out after
/// that was heard, and must not be the first it is told on the new one.
#[derive(Default)]
struct Streams {
    now: Option<Stream>,
    /// Subscribed, and not yet welcome.
    next: VecDeque<Stream>,
}

impl Streams {
    fn latest(&self) -> Option<&Stream> {
        self.next.back().or(self.now.as_ref())
    }
}

pub(crate) struct Executors {
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) of_node: OfNode,
    doors_dir: PathBuf,
    api: Arc<Api>,
    runtime: Handle,
    streams: BTreeMap<ExecutorKey, Streams>,
    doors: BTreeMap<ContainerId, Door>,
    next_stream: u64,
}

impl Executors {
    /// To be called in the runtime that serves. Removes the doors of containers that are not in `live`: those of another life.
    pub(crate) fn new(
        doors_dir: PathBuf,
        (tokens, of_node): (Arc<Tokens>, OfNode),
        events: mpsc::Sender<crate::inbox::Event>,
        live: &[&ContainerId],
    ) -> Self {
        let entries = std::fs::read_dir(&doors_dir)
            .into_iter()
            .flatten()
            .flatten();
        for entry in entries {
            let name = entry.file_name();
            if live
                .iter()
                .all(|id| *id.as_str() != *name.to_string_lossy())
            {
                remove(&entry.path());
            }
        }
        let api = Arc::new(Api {
            events,
            tokens: tokens.clone(),
        });
        Self {
            tokens,
            of_node,
            doors_dir,
            api,
            runtime: Handle::current(),
            streams: BTreeMap::new(),
            doors: BTreeMap::new(),
            next_stream: 1,
        }
    }

    /// What serves their calls.
    pub(crate) fn api(&self) -> Arc<Api> {
        self.api.clone()
    }

    /// Opens the door of a container; gives the directory that is to be mounted there.
    pub(crate) fn open(&mut self, container: &ContainerId, sandbox: &Path) -> io::Result<PathBuf> {
        let dir = self.doors_dir.join(container.as_str());
        if self.doors.contains_key(container) {
            return Ok(dir);
        }
        let listener = listen(&dir)?;
        let cancel = CancellationToken::new();
        {
            let _inside = self.runtime.enter();
            let listener = UnixListener::from_std(listener)?;
            let (api, open) = (self.api.clone(), cancel.clone());
            let serving = serve_door(listener, container.clone(), api, open);
            self.runtime.spawn(serving);
        }
        let door = Door {
            sandbox: sandbox.to_owned(),
            dir: dir.clone(),
            _open: cancel.drop_guard(),
        };
        self.doors.insert(container.clone(), door);
        Ok(dir)
    }

    /// The container is gone; its sandbox comes back.
    pub(crate) fn close(&mut self, container: &ContainerId) -> Option<PathBuf> {
        let door = self.doors.remove(container)?;
        remove(&door.dir);
        Some(door.sandbox)
    }

    /// Whether a caller may speak for an executor.
    pub(crate) fn identify(caller: &Caller, custom: &CustomView<'_>) -> Result<(), Stranger> {
        let container = custom.process.container;
        let door = caller.door.as_ref().map(|door| door == container);
        let claims = caller.claims.as_ref();
        let claims = claims.map(|claims| *claims == Claims::of(custom.key, container));
        if door == Some(false) || claims == Some(false) {
            return Err(Stranger::Other);
        }
        let ip: Option<IpAddr> = custom.process.ip.parse().ok();
        let by_address = ip.is_some() && ip == caller.address;
        let labels = &custom.process.launch.labels;
        let need_not = labels.get(LABEL.0).is_some_and(|value| value == LABEL.1);
        if door.or(claims).unwrap_or(by_address || need_not) {
            Ok(())
        } else {
            Err(Stranger::Nobody)
        }
    }

    /// A new stream, which takes the place of the one before when [`Self::turn_over`] says so.
    pub(crate) fn subscribe(&mut self, executor: &ExecutorKey, encoding: Encoding) -> Events {
        let number = self.next_stream;
        self.next_stream += 1;
        let (stream, events) = streams::pair(number, encoding);
        let streams = self.streams.entry(executor.clone()).or_default();
        streams.next.push_back(stream);
        events
    }

    /// What is delivered from now on is for the next stream; the one before ends.
    pub(crate) fn turn_over(&mut self, executor: &ExecutorKey) {
        if let Some(streams) = self.streams.get_mut(executor)
            && let Some(next) = streams.next.pop_front()
        {
            streams.now = Some(next);
        }
    }

    pub(crate) fn is_subscribed(&self, executor: &ExecutorKey) -> bool {
        let latest = self.streams.get(executor).and_then(Streams::latest);
        latest.is_some_and(Stream::is_open)
    }

    /// A stream has no reader any more; whether it was the executor's latest.
    pub(crate) fn lost(&mut self, executor: &ExecutorKey, number: u64) -> bool {
        let latest = self.streams.get(executor).and_then(Streams::latest);
        latest.is_some_and(|stream| stream.number == number)
    }

    /// The executor is gone: its stream ends.
    pub(crate) fn forget(&mut self, executor: &ExecutorKey) {
        self.streams.remove(executor);
    }

    /// Whether the executor will get it, or has no stream at all; one that does not read loses it.
    pub(crate) fn deliver(&mut self, executor: &ExecutorKey, event: &Event) -> bool {
        let Some(streams) = self.streams.get_mut(executor) else {
            return true;
        };
        let sent = streams.now.as_ref().is_none_or(|now| now.send(event));
        if !sent {
            streams.now = None;
        }
        // One that came back already has not lost its connection.
        sent || !streams.next.is_empty()
    }
}

/// The directory holds nothing but the socket, which anyone inside may use. The path of a socket is
/// short (unix(7)), that of a data directory need not be.
fn listen(dir: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    crate::layout::private_dir(dir)?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755))?;
    let path = dir.join(DOOR_SOCKET);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let opened = std::fs::File::open(dir)?;
    let number = std::os::fd::AsRawFd::as_raw_fd(&opened);
    let short = format!("/proc/self/fd/{number}/{DOOR_SOCKET}");
    let listener = std::os::unix::net::UnixListener::bind(short)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn remove(dir: &Path) {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(?dir, "removing the socket of an executor: {error}");
        }
        _ => {}
    }
}
