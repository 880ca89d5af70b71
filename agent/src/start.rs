//! Start of an agent, in the order that recovery needs: lock, identity, checkpoints, keeper,
//! network (told which containers live), then the loop, and only then the coordinator and HTTP.
//! Containers of a former life are kept from the API before it answers.
//!
//! What the node lacks is found here once, told to the coordinator, and does not stop the start;
//! what would make the agent lie or lose tasks does.

mod bridge;

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use gantry_agent_core::Tasks;
use gantry_fetch::{Config as FetchConfig, Fetcher};
use gantry_image::{RegistryConfig, Store, StoreConfig};
use gantry_isolation::cgroup::{self, Hierarchies};
use gantry_isolation::gpu::{self, Gpu};
use gantry_isolation::spec::Limits;
use gantry_net::Network;
use gantry_wire::time::Millis;
use gantry_wire::units::MilliCpu;
use rustix::fs::FlockOperation;
use rustix::process::{Resource, Rlimit};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::checkpoints::{Checkpoints, Found};
use crate::checks::Prober;
use crate::config::Config;
use crate::container::NodeFacts;
use crate::coordinators::Connect;
use crate::daemon::drain::Draining;
use crate::daemon::{Daemon, Parts};
use crate::executors::endpoint;
use crate::facts::Facts;
use crate::fetches::Fetches;
use crate::http::executor::{Beside, serve_tcp};
use crate::http::images::Images;
use crate::identity::{Identity, IdentityError};
use crate::ids::PrivateIds;
use crate::inbox::{EVENTS_MAX, Event};
use crate::keeper::{Found as KeeperFound, KeeperError, KeeperLink};
use crate::launched::Launched;
use crate::layout::Layout;
use crate::logger::OutputLimitsError;
use crate::metrics::Counter;
use crate::provision::Provision;
use crate::resources::{Offered, ResourcesError};
use crate::running::Running;
use crate::sandboxes::Sandboxes;
use crate::saves::Saves;
use crate::shield::Shield;
use crate::statistics::Statistics;
use crate::{durable, gauge, gpus, http, resources, session};

/// Longest `/etc/resolv.conf` that is given to containers.
const RESOLV_CONF_MAX_BYTES: u64 = 64 * 1024;

/// Why the agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be made or read.
    #[error("the data directory {path:?}")]
    DataDir {
        /// It.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another agent runs on it.
    #[error("another agent is running on {path:?}")]
    Busy {
        /// The data directory.
        path: PathBuf,
    },
    /// Who this agent is cannot be read.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The images cannot be opened.
    #[error("opening the images: {0}")]
    Images(String),
    /// There is no keeper.
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    /// The node cannot offer what it is told to.
    #[error(transparent)]
    Resources(#[from] ResourcesError),
    /// The listener is not for the outside.
    #[error("{0} is not a loopback address: the agent listens only there")]
    NotLoopback(SocketAddr),
    /// What is to be kept of output makes no sense.
    #[error(transparent)]
    Output(#[from] OutputLimitsError),
    /// The HTTP address cannot be had.
    #[error("listening on {address}")]
    Listen {
        /// It.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Executors of frameworks' own cannot reach the agent.
    #[error("making what executors reach the agent by")]
    Executors(#[source] io::Error),
    /// No thread for the loop.
    #[error("starting the agent's thread")]
    Thread(#[source] io::Error),
    /// A blocking step of the start panicked.
    #[error("a step of the start did not end well")]
    Step,
}

/// What is read from the disk, all of it blocking.
struct OnDisk {
    lock: File,
    layout: Layout,
    identity: Identity,
    draining: Draining,
    checkpoints: Checkpoints,
    found: Found,
    sandboxes: Sandboxes,
    launched: Launched,
    over: Vec<gantry_wire::ids::TaskId>,
    store: Store,
    fetcher: Fetcher,
}

/// The keeper, and where its events come in.
struct Held {
    keeper: KeeperLink,
    found: KeeperFound,
    shield: Shield,
    events: mpsc::Sender<Event>,
    inbox: mpsc::Receiver<Event>,
}

/// Starts an agent. `coordinators` opens a connection to the coordinator and is asked again after
/// every loss. Needs a multi-threaded tokio runtime.
///
/// # Errors
/// See [`StartError`]; nothing is left running then but the keeper.
pub async fn start<C: Connect>(config: Config, coordinators: C) -> Result<Running, StartError> {
    if !config.http.ip().is_loopback() {
        return Err(StartError::NotLoopback(config.http));
    }
    config.output.check()?;
    // The allocator asks for huge pages: two thirds of what a node with a thousand tasks had in memory
    // were theirs, and the free parts of one are never given back. Without the call it is as before.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    let (data_dir, fetch) = (config.data_dir.clone(), config.fetch.clone());
    let registries = config.registries.clone();
    let opened = tokio::task::spawn_blocking(move || open(&data_dir, registries, fetch)).await;
    let disk = opened.map_err(|_| StartError::Step)??;
    let mut lacks = gantry_isolation::reap::preflight();
    let ids = PrivateIds::detect(disk.layout.root(), &mut lacks);
    let network = bridge::open(&disk.layout, &disk.found.saved, &mut lacks).await;

    let gpus = gpu::detect(Path::new("/"));
    let count = gpus.len() as u64;
    let offered = resources::offered(&config, disk.layout.root(), count)?;
    // Without a group of this node nothing of a former life runs: this may be another boot.
    if cgroup::parent_id(&disk.layout.cgroup_parent()).is_some() {
        resources::keeps(&config.resources, &offered, &disk.found.saved)?;
    }
    let (plain, own) = listen(config.http).await?;
    let (address, secured) = match &config.secured {
        None => (own, None),
        Some(secured) => {
            let (listener, address) = listen(secured.address).await?;
            (address, Some((listener, secured.accepting.clone())))
        }
    };
    let listeners = http::Listeners { plain, secured };

    let (layout, at) = (&disk.layout, config.executor_port);
    let calls = endpoint::listen(layout, network.as_ref().ok(), at).await;
    let calls = calls.map_err(StartError::Executors)?;

    let gateway = network.as_ref().ok().map(Network::gateway);
    let hostname = config.hostname.clone();
    let outside = config.secured.as_ref().map(|s| s.address.ip().to_string());
    let hostname = hostname.or(outside);
    let hostname = hostname.or_else(|| gateway.map(|ip| ip.to_string()));
    let hostname = hostname.unwrap_or_else(|| config.http.ip().to_string());
    let host_ip = gateway.or_else(|| hostname.parse().ok());
    let node = node_facts(&config, &disk.layout, host_ip, gpus);
    let held = hold_keeper(&config, &disk.layout, own.port())?;
    lacks.extend(held.keeper.exposed.clone());
    lacks.extend(bound_tasks(&disk.layout, &offered));
    let offered = (offered.resources, offered.inventory);
    let facts = Facts::new(hostname, address, offered, lacks, wall());
    run(
        config,
        disk,
        held,
        (network, ids),
        Arc::new(facts),
        (node, listeners, calls),
        coordinators,
    )
}

/// Bounds all tasks together, so that the system keeps its share of a node whose tasks use more than
/// they asked for; or says that it may not.
fn bound_tasks(layout: &Layout, offered: &Offered) -> Option<String> {
    /// The kernel's default period, in which the quota is counted.
    const PERIOD_US: u64 = 100_000;
    let quota = |cpus: MilliCpu| cpus.0.saturating_mul(PERIOD_US / 1_000);
    let limits = Limits {
        memory_bytes: Some(offered.mem_bound.0),
        cpu_period_us: Some(PERIOD_US),
        cpu_quota_us: Some(offered.cpus_bound.map_or(Limits::UNLIMITED, quota)),
        ..Limits::default()
    };
    let bounded = cgroup::limit_parent(&layout.cgroup_parent(), &limits);
    bounded.err().map(|error| {
        let why = crate::chain(&error);
        format!("tasks can take what is kept for the system: {why}")
    })
}

/// A listener, and where it really is.
async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let real = listener.local_addr().map_err(failed)?;
    Ok((listener, real))
}

/// Finds or starts the keeper, and keeps its containers from the API.
fn hold_keeper(config: &Config, layout: &Layout, agent_port: u16) -> Result<Held, StartError> {
    let (events, inbox) = mpsc::channel(EVENTS_MAX);
    let shield = Shield::new(layout, config, agent_port);
    let (exe, args) = (config.keeper_exe.clone(), &config.keeper_args);
    let mut keeper = KeeperLink::new(layout.clone(), exe, args, shield.clone());
    let found = tokio::task::block_in_place(|| keeper.connect(&events))?;
    raise_descriptor_limit();
    Ok(Held {
        keeper,
        found,
        shield,
        events,
        inbox,
    })
}

/// From everything at hand to a running loop with its session and HTTP side.
fn run<C: Connect>(
    config: Config,
    disk: OnDisk,
    held: Held,
    (network, ids): (Result<Network, String>, PrivateIds),
    facts: Arc<Facts>,
    (node, listeners, calls): (NodeFacts, http::Listeners, (TcpListener, Beside)),
    coordinators: C,
) -> Result<Running, StartError> {
    facts.count(Counter::RecoveryErrors, disk.found.set_aside.len());
    let (runtime, cancel) = (Handle::current(), CancellationToken::new());
    let (events, inbox) = (held.events, held.inbox);
    let at = calls.0.local_addr().map_err(StartError::Executors)?;
    let executors = endpoint::open(&config, (&disk.layout, &disk.found.saved), &events, at);
    let executors = executors.map_err(StartError::Executors)?;
    let images = Images::new(disk.store.clone());
    let provision = Provision::new(
        disk.store.clone(),
        network.clone(),
        (ids, Fetches::new(disk.fetcher, disk.sandboxes.backend())),
        runtime.clone(),
        events.clone(),
    );
    let api = executors.api();
    let server = http::Server {
        executors: api.clone(),
        events: events.clone(),
        facts: facts.clone(),
        slaves: disk.layout.slaves(),
        node: node.clone(),
        store: disk.store,
        images: Arc::new(images),
        statistics: Statistics::new(Hierarchies::detect(), disk.layout.cgroup_parent()),
        joined: Arc::default(),
        allowed_hosts: config.allowed_hosts,
        streams: http::Streams::default(),
        verbosity: config.verbosity,
    };
    let prober = Prober::new(runtime.clone(), &server).map_err(StartError::Thread)?;
    let gauged = (disk.sandboxes.backend(), disk.layout.clone());
    let daemon = Daemon::new(Parts {
        tasks: Tasks::restore_with(disk.found.saved, disk.over, config.executor_times)
            .with_gpus(gpus::names(&node.gpus)),
        saves: Saves::new(disk.checkpoints),
        keeper: held.keeper,
        found: held.found,
        provision,
        prober,
        identity: disk.identity,
        draining: disk.draining,
        sandboxes: disk.sandboxes,
        launched: disk.launched,
        layout: disk.layout,
        facts: facts.clone(),
        node,
        executors,
    });
    let (looping, failure) = daemon.spawn(inbox, &cancel).map_err(StartError::Thread)?;
    let parts = vec![
        runtime.spawn(session::run(coordinators, events.clone(), cancel.clone())),
        runtime.spawn(http::serve(listeners, server, cancel.clone())),
        runtime.spawn(serve_tcp(calls.0, calls.1, api, cancel.clone())),
        runtime.spawn(gauge::run(gauged, events.clone(), cancel.clone())),
    ];
    let (looping, network) = (Some(looping), network.ok());
    Ok(Running {
        facts,
        network,
        shield: held.shield,
        events,
        cancel,
        parts,
        looping,
        failure,
        _lock: disk.lock,
    })
}

fn open(
    data_dir: &Path,
    registries: RegistryConfig,
    fetch: FetchConfig,
) -> Result<OnDisk, StartError> {
    let at = |source| StartError::DataDir {
        path: data_dir.to_owned(),
        source,
    };
    let layout = Layout::create(data_dir).map_err(at)?;
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(layout.lock());
    let lock = lock.map_err(at)?;
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
        StartError::Busy {
            path: data_dir.to_owned(),
        }
    })?;
    let identity = Identity::open(layout.identity())?;
    let draining = Draining::open(layout.drain()).map_err(at)?;
    let executors = (layout.executors(), layout.customs());
    let opened = Checkpoints::open(layout.tasks(), executors, &layout.corrupt());
    let (checkpoints, found) = opened.map_err(at)?;
    for file in &found.set_aside {
        tracing::error!("a checkpoint cannot be read, its task is not known any more: {file}");
    }
    let tasks = found.saved.tasks.iter().map(|saved| &saved.sandbox);
    let executors = found.saved.executors.iter().map(|saved| &saved.sandbox);
    let customs = found
        .saved
        .customs
        .iter()
        .map(|saved| &saved.process.sandbox);
    let launched = Launched::open(layout.launched()).map_err(at)?;
    let others = launched.iter().filter(|record| record.is_live());
    let others = others.map(|record| record.saved.sandbox.clone());
    let live = tasks
        .chain(executors)
        .chain(customs)
        .map(PathBuf::from)
        .chain(others);
    let live: BTreeSet<PathBuf> = live.collect();
    let scanned = Sandboxes::scan(&layout.slaves(), &layout.containers(), &live);
    let (sandboxes, over) = scanned.map_err(at)?;
    let store = StoreConfig {
        registry: registries,
        ..StoreConfig::default()
    };
    let store = Store::open_with(&layout.images(), store)
        .map_err(|e| StartError::Images(crate::chain(&e)))?;
    let fetcher = Fetcher::open(&layout.fetch(), fetch).map_err(at)?;
    Ok(OnDisk {
        lock,
        layout,
        identity,
        draining,
        checkpoints,
        found,
        sandboxes,
        launched,
        over,
        store,
        fetcher,
    })
}

fn node_facts(
    config: &Config,
    layout: &Layout,
    host_ip: Option<IpAddr>,
    gpus: Vec<Gpu>,
) -> NodeFacts {
    let mut hide = vec![layout.root().to_owned()];
    hide.extend(config.hide.iter().filter_map(|dir| dir.canonicalize().ok()));
    let resolv_conf = durable::read_bounded(Path::new("/etc/resolv.conf"), RESOLV_CONF_MAX_BYTES);
    NodeFacts {
        output: config.output,
        containers: layout.containers(),
        hide,
        host_ip,
        gpus,
        node_name: rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned(),
        resolv_conf: resolv_conf
            .ok()
            .and_then(|text| String::from_utf8(text).ok()),
    }
}

/// The network holds a descriptor for every mapped port. Raised after the keeper was started, so
/// that containers do not inherit it.
fn raise_descriptor_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, raised) {
        tracing::warn!("raising the limit of open files: {error}");
    }
}

fn wall() -> Millis {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Millis(u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}
