//! The agent's end of the keeper: finds a running one or starts one, remembers which it is, and
//! turns its events into the agent's. Decides nothing about containers.
//!
//! A keeper's id is minted and on disk before it is started: whoever finds a running keeper knows
//! whether it is the one that was asked to start a task (see `gantry_agent_core`'s recovery).

use std::ffi::OsString;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use gantry_agent_core::KeeperId;
use gantry_isolation::keeper::{self, Client, ClientError, Received, Request};
use gantry_isolation::reap::{self, Leftovers};
use gantry_isolation::spec::ContainerId;
use tokio::sync::mpsc;

use crate::durable;
use crate::inbox::Event;
use crate::layout::Layout;
use crate::shield::Shield;

const ID_FILE_MAX_BYTES: u64 = 64;
/// How long a keeper may take to say what it has; it never waits for anything itself.
const LISTING_MAX: Duration = Duration::from_secs(10);

/// Why there is no keeper.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// Its id could not be written.
    #[error("writing the keeper's id to {path:?}")]
    Id {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It could not be reached or started.
    #[error("reaching the keeper")]
    Client(#[from] ClientError),
    /// No thread for its events.
    #[error("starting the thread that listens to the keeper")]
    Thread(#[source] io::Error),
    /// It did not say what it has.
    #[error("the keeper does not say which containers it has")]
    Silent,
    /// There is no connection at the moment.
    #[error("the keeper of this node is not reachable")]
    Away,
}

/// A keeper that was connected to.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) id: KeeperId,
    /// What it said first; its listing is the last of it.
    pub(crate) said: Vec<keeper::Event>,
}

#[derive(Debug)]
pub(crate) struct KeeperLink {
    layout: Layout,
    exe: PathBuf,
    args: Vec<OsString>,
    client: Option<Client>,
    shield: Shield,
    /// What is open to its containers that should not be, in words.
    pub(crate) exposed: Option<String>,
    /// Counts connections; events of an older one are old news.
    pub(crate) generation: u64,
}

impl KeeperLink {
    pub(crate) fn new(layout: Layout, exe: PathBuf, args: &[String], shield: Shield) -> Self {
        let args = args.iter().map(OsString::from).collect();
        Self {
            layout,
            exe,
            args,
            client: None,
            shield,
            exposed: None,
            generation: 0,
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.client.is_some()
    }

    /// Connects, starting a keeper if none runs; before that, what a dead one left is removed. Its
    /// containers are kept from the API.
    /// Its events go to `events` from then on. What it has is asked for here and waited for: a listing
    /// that was made before a container was asked for, and heard after, would say that there is none.
    pub(crate) fn connect(&mut self, events: &mpsc::Sender<Event>) -> Result<Found, KeeperError> {
        let (client, id) = match Client::connect(self.layout.root())? {
            Some(client) => (client, self.stored_id()?),
            None => {
                self.reap(&[]);
                let id = self.mint_id()?;
                let (root, parent) = (self.layout.root(), self.layout.cgroup_parent());
                (
                    Client::connect_or_spawn(root, &self.exe, &self.args, &parent)?,
                    id,
                )
            }
        };
        // Before it is asked to start anything: a new keeper's containers are in a new cgroup.
        self.exposed = self.shield.raise().err();
        if let Some(why) = &self.exposed {
            tracing::error!("{why}");
        }
        let said = listing(&client)?;
        self.generation += 1;
        let (reader, events, generation) = (client.clone(), events.clone(), self.generation);
        std::thread::Builder::new()
            .name("keeper-events".to_owned())
            .spawn(move || listen(&reader, &events, generation))
            .map_err(KeeperError::Thread)?;
        self.client = Some(client);
        Ok(Found { id, said })
    }

    pub(crate) fn request(
        &mut self,
        request: &Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), KeeperError> {
        let client = self.client.as_ref().ok_or(KeeperError::Away)?;
        Ok(client.request(request, fds)?)
    }

    /// Lets go of the connection; the reading thread ends.
    pub(crate) fn disconnect(&mut self) {
        if let Some(client) = self.client.take() {
            client.shutdown();
        }
    }

    /// Kills and removes what no keeper holds. Reports what it could not, and goes on.
    pub(crate) fn reap(&self, known: &[ContainerId]) -> Vec<String> {
        let (dir, parent) = (self.layout.containers(), self.layout.cgroup_parent());
        reported(reap::leftovers(&dir, &parent, known))
    }

    /// As [`Self::reap`], after the last keeper of this node: it may have died before its work was done.
    pub(crate) fn reap_all(&self) -> Vec<String> {
        let (dir, parent) = (self.layout.containers(), self.layout.cgroup_parent());
        reported(reap::everything(self.layout.root(), &dir, &parent))
    }

    /// The id on disk; a keeper without one is taken for a stranger.
    fn stored_id(&self) -> Result<KeeperId, KeeperError> {
        let text = durable::read_bounded(&self.layout.keeper_id(), ID_FILE_MAX_BYTES);
        let text = text.ok().and_then(|text| String::from_utf8(text).ok());
        match text.and_then(|text| text.trim().parse().ok()) {
            Some(id) => Ok(KeeperId(id)),
            None => self.mint_id(),
        }
    }

    fn mint_id(&self) -> Result<KeeperId, KeeperError> {
        let (id, _) = uuid::Uuid::new_v4().as_u64_pair();
        let path = self.layout.keeper_id();
        durable::replace(&path, format!("{id}\n").as_bytes(), true)
            .and_then(|()| durable::sync_dir(self.layout.root()))
            .map_err(|source| KeeperError::Id { path, source })?;
        Ok(KeeperId(id))
    }
}

impl Drop for KeeperLink {
    fn drop(&mut self) {
        self.disconnect();
    }
}

/// Says in the log what was removed; what could not be.
fn reported(left: Leftovers) -> Vec<String> {
    if !left.removed.is_empty() {
        tracing::info!(removed = ?left.removed, "removed what a former life left behind");
    }
    for failure in &left.failures {
        tracing::error!("removing what a former life left behind: {failure}");
    }
    left.failures
}

/// What a keeper says up to its listing: first of all every exit that is not forgotten.
fn listing(client: &Client) -> Result<Vec<keeper::Event>, KeeperError> {
    client.request(&Request::List, &[])?;
    let mut said = Vec::new();
    let deadline = Instant::now() + LISTING_MAX;
    loop {
        match client.recv_timeout(deadline.saturating_duration_since(Instant::now()))? {
            Received::Event(event) => {
                let last = matches!(event, keeper::Event::Listing { .. });
                said.push(event);
                if last {
                    return Ok(said);
                }
            }
            Received::Timeout | Received::Closed => return Err(KeeperError::Silent),
        }
    }
}

/// Passes events on until the connection ends. A full inbox holds this thread, and so the keeper's
/// bounded queue for us: when that is full too it drops us, and we list anew.
fn listen(client: &Client, events: &mpsc::Sender<Event>, generation: u64) {
    loop {
        let event = match client.recv() {
            Ok(Some(event)) => Event::Keeper { generation, event },
            Ok(None) => break,
            Err(error) => {
                tracing::warn!("listening to the keeper: {}", crate::chain(&error));
                break;
            }
        };
        if events.blocking_send(event).is_err() {
            return;
        }
    }
    // A closed inbox means that the agent is gone: nobody to tell.
    let _ = events.blocking_send(Event::KeeperGone { generation });
}
