//! The coordinator: replicated state, the schedulers' loop, agents' sessions and the HTTP APIs,
//! joined and started here.
//!
//! It decides no scheduling: that is coordinator-core. Invariants: two processes never share a
//! data directory; [`start`] returns when this member leads and its state is replayed; there is
//! no authentication of clients yet, so the API is on loopback; agents come by a 0600 socket, or by
//! TCP with the cluster's secret.

mod agents;
mod consensus;
mod directory;
mod handle;
mod http;
mod leader;
mod log;
mod marker;
mod mint;
mod replicated;
mod serve;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;

use gantry_link::{Accepting, Connecting, End, KeysError, Secret};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

pub use agents::SocketError;
pub use consensus::{ConsensusError, MachineError};
pub use directory::DirectoryError;
pub use handle::{Handle, Node, PROPOSE_TIMEOUT, ProposeError, Proposed};
pub use log::LogError;
pub use marker::MarkerError;
pub use replicated::Latest;

use consensus::Member;
use directory::DataDirectory;
use gantry_coordinator_core::Outcome;
use marker::Marker;
use replicated::Replicated;
use serve::Server;

/// The id of the only member of a group.
const MEMBER: u64 = 1;

/// How to run a coordinator.
#[derive(Debug, Clone)]
pub struct Config {
    /// The coordinator's own directory; created, 0700.
    pub data_dir: PathBuf,
    /// Where HTTP is served: loopback only. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// The Unix socket for agents of this machine; its directory must exist or be `data_dir`.
    pub agent_socket: PathBuf,
    /// Where agents of other machines connect, and how they and their own listeners are known.
    pub agents: Option<AgentPort>,
    /// For people.
    pub cluster_name: String,
    /// Name or address under which clients reach this coordinator.
    pub hostname: String,
}

/// The listener for agents of other machines.
#[derive(Debug, Clone)]
pub struct AgentPort {
    /// Where. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// What they and this coordinator prove to know.
    pub secret: Secret,
}

/// Why the coordinator does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no authentication yet.
    #[error(
        "refusing to serve the API on {0}: there is no authentication yet, so only loopback \
         addresses are allowed"
    )]
    NotLoopback(SocketAddr),
    /// Data directory.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// HTTP port.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The cluster's secret gives no keys.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// Agents' socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The cluster is gone or another one.
    #[error(transparent)]
    Marker(#[from] MarkerError),
    /// Log or state.
    #[error(transparent)]
    Consensus(#[from] ConsensusError),
    /// It failed while it started.
    #[error("the coordinator failed at its start: {0}")]
    Failed(String),
}

/// A running coordinator. Dropping it without [`Running::shutdown`] leaves its threads until the
/// process ends.
pub struct Running {
    handle: Handle,
    http_address: SocketAddr,
    member: Member<Outcome>,
    failed: watch::Receiver<Option<String>>,
    server: Server,
    accepting: Vec<JoinHandle<()>>,
    agents_address: Option<SocketAddr>,
    leading: JoinHandle<()>,
    agent_socket: PathBuf,
    _directory: DataDirectory,
}

/// Starts a coordinator; returns when it leads and its state is as it was.
///
/// # Errors
/// See [`StartError`]; nothing runs then.
pub async fn start(config: Config) -> Result<Running, StartError> {
    if !config.listen.ip().is_loopback() {
        return Err(StartError::NotLoopback(config.listen));
    }
    let directory = DataDirectory::open(&config.data_dir)?;
    let (listener, http_address) = listen(config.listen).await?;
    let agent_listener = agents::listen(&config.agent_socket)?;
    let outside = outside(config.agents.as_ref()).await?;

    let (machine, mut latest, rounds) = Replicated::new();
    let (member, marker) = join(&directory, &config.data_dir, machine).await?;

    let (events, agents) = mpsc::channel(agents::EVENTS_MAX);
    let (ask, questions) = mpsc::channel(leader::QUESTIONS_MAX);
    let (to_directory, connected) = watch::channel(agents::Directory::default());
    let ends = leader::Ends {
        rounds,
        agents,
        questions,
        proposer: member.proposer(),
        directory: to_directory,
    };
    let (leading, failed) = supervise(ends, member.failed());
    let ready = match ready(&mut latest, failed.clone()).await {
        Ok(cluster) => blocking(move || marker.settle(&cluster)).await,
        Err(error) => Err(error),
    };
    let handle = Handle::new(handle::Wiring {
        node: node(&config, http_address),
        latest,
        agents: connected,
        proposer: member.proposer(),
        questions: ask,
    });
    // The leader's loop answers once it has seen what makes it lead.
    let asked = handle.queue().await;
    let failed_text = |error: ProposeError| StartError::Failed(error.to_string());
    if let Err(error) = ready.and_then(|()| asked.map_err(failed_text)) {
        stop(member).await;
        return Err(error);
    }
    let to_agents = outside.as_ref().map(|outside| outside.to_agents.clone());
    let agents_address = outside.as_ref().map(|outside| outside.address);
    let accepting = accept(agent_listener, outside, &events);
    let server = Server::start(listener, http::router(handle.clone(), to_agents.as_ref()));
    let agent_socket = config.agent_socket;
    let _directory = directory;
    Ok(Running {
        handle,
        http_address,
        member,
        failed,
        server,
        accepting,
        agents_address,
        leading,
        agent_socket,
        _directory,
    })
}

/// What speaks to agents of other machines.
struct Outside {
    listener: TcpListener,
    address: SocketAddr,
    accepting: Accepting,
    to_agents: Connecting,
}

async fn outside(port: Option<&AgentPort>) -> Result<Option<Outside>, StartError> {
    let Some(port) = port else { return Ok(None) };
    let accepting = Accepting::new(&port.secret, End::SessionCoordinator)?;
    let to_agents = Connecting::new(&port.secret, End::HttpCoordinator)?;
    let (listener, address) = listen(port.listen).await?;
    Ok(Some(Outside {
        listener,
        address,
        accepting,
        to_agents,
    }))
}

fn accept(
    socket: UnixListener,
    outside: Option<Outside>,
    events: &mpsc::Sender<agents::AgentEvent>,
) -> Vec<JoinHandle<()>> {
    let seats = agents::Seats::default();
    let ends = || (seats.clone(), events.clone());
    let mut accepting = vec![tokio::spawn(agents::accept(socket, ends()))];
    if let Some(outside) = outside {
        let (listener, keys) = (outside.listener, outside.accepting);
        accepting.push(tokio::spawn(agents::tcp::accept(listener, keys, ends())));
    }
    accepting
}

/// Runs what waits for the disk.
async fn blocking<T: Send + 'static, E: Into<StartError> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, StartError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| StartError::Failed(error.to_string()))?
        .map_err(Into::into)
}

/// Becomes the member that the directory holds, or a new one.
async fn join(
    directory: &DataDirectory,
    data_dir: &std::path::Path,
    machine: Replicated,
) -> Result<(Member<Outcome>, Marker), StartError> {
    let path = data_dir.to_owned();
    let marker = blocking(move || Marker::open(&path)).await?;
    let consensus = consensus::Config {
        member: MEMBER,
        log_disk: log::thread::real_disk(&directory.log()),
        snapshots: directory.snapshots(),
        founded: marker.founded(),
        fresh_salt: mint::salt(),
        snapshot_entries: consensus::SNAPSHOT_ENTRIES,
    };
    match blocking(move || consensus::start(consensus, machine)).await {
        Ok(member) => Ok((member, marker)),
        Err(StartError::Consensus(ConsensusError::Lost)) => Err(marker.lost().into()),
        Err(error) => Err(error),
    }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let real = listener.local_addr().map_err(failed)?;
    Ok((listener, real))
}

fn node(config: &Config, http_address: SocketAddr) -> Node {
    Node {
        cluster_name: config.cluster_name.clone(),
        hostname: config.hostname.clone(),
        http_port: http_address.port(),
        coordinator_id: mint::uuid(),
        version: env!("CARGO_PKG_VERSION"),
        started: mint::now(),
    }
}

/// Runs the leader's loop; its end, or that of consensus, is a failure to tell.
fn supervise(
    ends: leader::Ends,
    mut consensus: watch::Receiver<Option<String>>,
) -> (JoinHandle<()>, watch::Receiver<Option<String>>) {
    let (tell, failed) = watch::channel(None);
    let leading = tokio::spawn(async move {
        let mut leading = tokio::spawn(leader::run(ends));
        tokio::select! {
            ended = &mut leading => {
                if let Err(error) = ended {
                    tracing::error!(%error, "the leader's loop has failed");
                    tell.send_replace(Some(format!("the leader's loop has failed: {error}")));
                }
            }
            Ok(reason) = consensus.wait_for(Option::is_some) => {
                tell.send_replace(reason.clone());
            }
        }
        // Reads go on; the loop ends with consensus.
        tell.closed().await;
        leading.abort();
    });
    (leading, failed)
}

async fn stop(member: Member<Outcome>) {
    if let Err(error) = tokio::task::spawn_blocking(move || member.stop()).await {
        tracing::error!(%error, "consensus did not stop cleanly");
    }
}

/// Waits until this member leads and the cluster has an id, which it answers.
async fn ready(
    latest: &mut watch::Receiver<Latest>,
    mut failed: watch::Receiver<Option<String>>,
) -> Result<String, StartError> {
    tokio::select! {
        found = latest.wait_for(|now| now.leads && now.state.cluster().is_some()) => {
            let found = found.map_err(|_| StartError::Failed("consensus has ended".to_owned()))?;
            Ok(found.state.cluster().map(|cluster| cluster.id.clone()).unwrap_or_default())
        }
        reason = failed.wait_for(Option::is_some) => {
            let reason = reason.ok().and_then(|reason| reason.clone());
            Err(StartError::Failed(reason.unwrap_or_else(|| "its tasks have ended".to_owned())))
        }
    }
}

impl Running {
    /// For everything that reads and proposes.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Where HTTP is served, with the real port.
    #[must_use]
    pub fn http_address(&self) -> SocketAddr {
        self.http_address
    }

    /// Where agents of other machines connect, with the real port.
    #[must_use]
    pub fn agents_address(&self) -> Option<SocketAddr> {
        self.agents_address
    }

    /// Resolves only if the coordinator cannot go on: says why. Reads still work, writes are
    /// refused; the process should end.
    pub async fn failed(&self) -> String {
        let mut failed = self.failed.clone();
        match failed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "the coordinator's tasks have ended".to_owned(),
        }
    }

    /// Stops: answers the requests that are running, ends the agents' sessions, finishes the log.
    pub async fn shutdown(self) {
        self.server.shutdown().await;
        self.accepting.iter().for_each(JoinHandle::abort);
        stop(self.member).await;
        self.leading.abort();
        if let Err(error) = std::fs::remove_file(&self.agent_socket) {
            tracing::debug!(%error, "the agents' socket was gone already");
        }
    }
}
