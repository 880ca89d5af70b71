//! What a task needs before its container starts: its image, what it has fetched, its volumes and
//! its network. Runs as small async jobs beside the loop, each answered by one event.
//!
//! It decides nothing about the task, nor how many pulls run at a time (the store does). Invariant:
//! `made` holds only tasks that are neither running under a keeper nor over.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gantry_agent_core::{ExecutorKey, ExecutorView, GpuName, TaskView};
use gantry_image::{Headroom, Image, ProgressFn, PullOptions, Reference, Store};
use gantry_isolation::spec::Ids;
use gantry_net::{Attachment, NetError, Network, PortMap, Protocol};
use gantry_wire::agent::{Launch, NetworkMode, PortMapping};
use gantry_wire::ids::{ContainerId, TaskId};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::container::Given;
use crate::fetches::Fetches;
use crate::ids::PrivateIds;
use crate::inbox::Event;
use crate::{container, gpus, volumes};

/// Between two reports of one task's pull, each of which is replicated: short at first, then twice
/// as long each time, since a thousand tasks may wait for one slow image.
const REPORT_FIRST: Duration = Duration::from_secs(2);
const REPORT_MAX: Duration = Duration::from_secs(32);

/// What was made for a task so far.
#[derive(Debug, Default)]
pub(crate) struct Made {
    pub(crate) image: Option<Image>,
    pub(crate) attachment: Option<Attachment>,
    pub(crate) given: Given,
    pull: Option<AbortHandle>,
}

pub(crate) struct Provision {
    pub(crate) store: Store,
    /// Or why there is none.
    pub(crate) network: Result<Network, String>,
    pub(crate) runtime: Handle,
    pub(crate) events: mpsc::Sender<Event>,
    fetches: Fetches,
    ids: Arc<PrivateIds>,
    made: BTreeMap<TaskId, Made>,
    /// Networks of executors that are not handed over.
    networks: BTreeMap<ExecutorKey, Option<Attachment>>,
}

impl Provision {
    pub(crate) fn new(
        store: Store,
        network: Result<Network, String>,
        (ids, fetches): (PrivateIds, Fetches),
        runtime: Handle,
        events: mpsc::Sender<Event>,
    ) -> Self {
        let made = BTreeMap::new();
        Self {
            store,
            network,
            fetches,
            ids: Arc::new(ids),
            runtime,
            events,
            made,
            networks: BTreeMap::new(),
        }
    }

    pub(crate) fn made(&mut self, task: &TaskId) -> &mut Made {
        self.made.entry(task.clone()).or_default()
    }

    /// Pulls the image of a task and brings what it has fetched, at the same time, then places the
    /// latter. Answer: [`Event::Pulled`].
    /// `nested`: its sandbox is in that of an executor.
    pub(crate) fn pull(&mut self, task: &TaskId, view: TaskView<'_>, nested: bool) {
        let events = self.events.clone();
        let job = Pull {
            store: self.store.clone(),
            fetches: self.fetches.clone(),
            launch: view.launch.clone(),
            sandbox: (PathBuf::from(view.sandbox), nested),
            report: report(task.clone(), events.clone()),
        };
        let id = task.clone();
        let job = self.runtime.spawn(async move {
            let result = job.run().await;
            // A closed inbox means that the agent ends.
            let _ = events.send(Event::Pulled { task: id, result }).await;
        });
        self.made(task).pull = Some(job.abort_handle());
    }

    pub(crate) fn cancel_pull(&mut self, task: &TaskId) {
        if let Some(pull) = self.made.get_mut(task).and_then(|made| made.pull.take()) {
            pull.abort();
        }
    }

    /// Gives a task its volumes and its network, unless its executor has that. Answer:
    /// [`Event::Attached`].
    pub(crate) fn attach(
        &mut self,
        task: &TaskId,
        view: TaskView<'_>,
        executor: Option<ExecutorView<'_>>,
        hide: &[PathBuf],
    ) {
        // What an earlier attempt made goes first: its namespace dies with the descriptor.
        self.made(task).attachment = None;
        let job = Attach {
            bridge: self.bridge(view.container, &view.launch.ports),
            shares: executor.is_some(),
            launch: view.launch.clone(),
            gpus: view.gpus.to_vec(),
            hide: hide.to_owned(),
            ids: Arc::clone(&self.ids),
        };
        let (events, task) = (self.events.clone(), task.clone());
        self.runtime.spawn(async move {
            let result = job.run().await;
            // A closed inbox means that the agent ends.
            let _ = events.send(Event::Attached { task, result }).await;
        });
    }

    /// Gives an executor its network. Answer: [`Event::ExecutorAttached`].
    pub(crate) fn attach_executor(&mut self, view: ExecutorView<'_>) {
        self.networks.remove(view.key);
        let bridged = view.info.network == NetworkMode::Bridge as i32;
        let bridge = bridged.then(|| self.bridge(view.container, view.ports));
        let (events, executor) = (self.events.clone(), view.key.clone());
        self.runtime.spawn(async move {
            let result = match bridge {
                None => Ok(None),
                Some(bridge) => bridge.attach().await.map(Some),
            };
            // A closed inbox means that the agent ends.
            let _ = events
                .send(Event::ExecutorAttached { executor, result })
                .await;
        });
    }

    fn bridge(&self, container: &ContainerId, ports: &[PortMapping]) -> Bridge {
        Bridge {
            network: self.network.clone(),
            container: container.clone(),
            ports: ports.to_vec(),
        }
    }

    /// The network of an executor that is about to be started.
    pub(crate) fn network_of(&mut self, executor: &ExecutorKey) -> &mut Option<Attachment> {
        self.networks.entry(executor.clone()).or_default()
    }

    /// Whose users the tasks of one executor are, unless one needs those of the host.
    pub(crate) fn shared_ids(&self) -> Ids {
        self.ids.shared()
    }

    /// Gives back what an executor's container had.
    pub(crate) fn release_executor(&mut self, executor: &ExecutorKey, container: &ContainerId) {
        self.networks.remove(executor);
        self.give_back(container);
    }

    /// Keeps the image of a container that is about to be started, over restarts of the agent.
    pub(crate) fn hold(&mut self, task: &TaskId, container: &ContainerId) -> Result<(), String> {
        let Some(image) = self.made.get(task).and_then(|made| made.image.as_ref()) else {
            return Ok(());
        };
        let held = self.store.hold(container.as_str(), image);
        held.map_err(|error| format!("noting that the image is in use: {error}"))
    }

    /// Lets go of the images of containers that are not there any more.
    pub(crate) fn release_others(&self, known: &BTreeSet<String>) {
        for container in self.store.holders().difference(known) {
            self.let_go(container);
        }
    }

    fn let_go(&self, container: &str) {
        if let Err(error) = self.store.release(container) {
            tracing::error!(
                container,
                "its image stays in use until the next start: {error}"
            );
        }
    }

    /// Removes images that nothing uses when the disk runs full, beside the loop.
    pub(crate) fn collect_images(&self) {
        let store = self.store.clone();
        self.runtime.spawn(async move {
            match store.collect(Headroom::default()).await {
                Ok(report) if report.images.is_empty() && report.layers == 0 => {}
                Ok(report) => tracing::info!(
                    images = ?report.images,
                    layers = report.layers,
                    bytes = report.bytes,
                    "removed images to make room"
                ),
                Err(error) => tracing::error!("removing images: {}", crate::chain(&error)),
            }
        });
    }

    /// Gives back what a container had.
    pub(crate) fn release(&mut self, task: &TaskId, container: &ContainerId) {
        self.cancel_pull(task);
        self.made.remove(task);
        self.give_back(container);
    }

    /// Gives back what a container without task had.
    pub(crate) fn give_back(&self, container: &ContainerId) {
        self.let_go(container.as_str());
        self.detach(container);
    }

    /// The keeper holds the namespace now.
    pub(crate) fn handed_over(&mut self, task: &TaskId) {
        if let Some(made) = self.made.get_mut(task) {
            made.attachment = None;
        }
    }

    /// Gives the network of a container back; one without is fine.
    fn detach(&self, container: &ContainerId) {
        let Ok(network) = self.network.clone() else {
            return;
        };
        let container = container.clone();
        self.runtime.spawn(async move {
            if let Err(error) = network.detach(container.as_str()).await {
                let why = crate::chain(&error);
                tracing::error!(%container, "giving back the network: {why}");
            }
        });
    }
}

type Report = Arc<dyn Fn(&dyn Display) + Send + Sync>;

/// An image on its way, and what is fetched meanwhile.
struct Pull {
    store: Store,
    fetches: Fetches,
    launch: Launch,
    sandbox: (PathBuf, bool),
    report: Report,
}

impl Pull {
    async fn run(self) -> Result<Option<Image>, String> {
        container::check(&self.launch).map_err(|problem| problem.to_string())?;
        let told = Arc::clone(&self.report);
        let fetching: gantry_fetch::ProgressFn = Arc::new(move |progress| told(progress));
        // The first failure ends the other too.
        let (image, fetched) =
            tokio::try_join!(self.image(), self.fetches.fetch(&self.launch, &fetching))?;
        let placing = self
            .fetches
            .place(&self.launch, image.as_ref(), self.sandbox, fetched);
        placing.await?;
        Ok(image)
    }

    async fn image(&self) -> Result<Option<Image>, String> {
        if self.launch.image.is_empty() {
            return Ok(None);
        }
        let told = Arc::clone(&self.report);
        let progress: ProgressFn = Arc::new(move |progress| told(progress));
        let options = PullOptions {
            force: self.launch.force_pull,
            progress: Some(progress),
            ..PullOptions::default()
        };
        let pulled = pull(&self.store, &self.launch.image, options);
        pulled.await.map(Some)
    }
}

/// Tells the loop how far a pull is, now and then; not at once, since a short one is of no
/// interest. A report that the loop has no room for is left out.
fn report(task: TaskId, events: mpsc::Sender<Event>) -> Report {
    let next = Mutex::new((Instant::now() + REPORT_FIRST, REPORT_FIRST));
    Arc::new(move |progress: &dyn Display| {
        let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if now < next.0 {
            return;
        }
        let pause = (next.1 * 2).min(REPORT_MAX);
        *next = (now + pause, pause);
        let (task, message) = (task.clone(), progress.to_string());
        let _ = events.try_send(Event::Pulling { task, message });
    })
}

async fn pull(store: &Store, name: &str, options: PullOptions) -> Result<Image, String> {
    let reference = Reference::parse(name).map_err(|error| error.to_string())?;
    let pulled = store.pull(&reference, options).await;
    pulled.map_err(|error| format!("pulling the image '{name}': {}", error.message()))
}

/// What a task got besides its image.
#[derive(Debug)]
pub(crate) struct Attached {
    /// None in host mode.
    pub(crate) attachment: Option<Attachment>,
    pub(crate) given: Given,
}

struct Attach {
    bridge: Bridge,
    /// The network is another's.
    shares: bool,
    launch: Launch,
    gpus: Vec<GpuName>,
    /// What no volume may show.
    hide: Vec<PathBuf>,
    ids: Arc<PrivateIds>,
}

impl Attach {
    async fn run(self) -> Result<Attached, String> {
        container::check(&self.launch).map_err(|problem| problem.to_string())?;
        let mode = container::network_mode(&self.launch).map_err(|problem| problem.to_string())?;
        // First: nothing has to be given back when they cannot be had.
        let given = self.given().await?;
        let attachment = match mode {
            NetworkMode::Host => check_host_ports(&self.launch.ports).map(|()| None),
            NetworkMode::Bridge if self.shares => Ok(None),
            NetworkMode::Bridge => self.bridge.attach().await.map(Some),
        }?;
        Ok(Attached { attachment, given })
    }

    /// Beside the loop: a file system that hangs must not hang the agent.
    async fn given(&self) -> Result<Given, String> {
        if self.launch.volumes.is_empty() && self.gpus.is_empty() {
            return Ok(Given {
                ids: self.ids.of(&self.launch, &[]),
                ..Given::default()
            });
        }
        let (launch, gpus) = (self.launch.clone(), self.gpus.clone());
        let (hide, ids) = (self.hide.clone(), self.ids.clone());
        let look = move || {
            let mounts = volumes::resolve(&launch, &hide).map_err(|why| crate::chain(&why))?;
            let mut given = gpus::given(Path::new("/"), &gpus, !launch.image.is_empty())
                .map_err(|why| why.to_string())?;
            given.mounts.extend(mounts);
            given.ids = ids.of(&launch, &given.mounts);
            Ok(given)
        };
        let looked = tokio::task::spawn_blocking(look).await;
        looked.map_err(|_| "looking at volumes and GPUs failed (a bug)".to_owned())?
    }
}

/// A place on the bridge.
struct Bridge {
    network: Result<Network, String>,
    container: ContainerId,
    ports: Vec<PortMapping>,
}

impl Bridge {
    async fn attach(&self) -> Result<Attachment, String> {
        let network = self.network.as_ref();
        let network = network.map_err(|why| format!("this node has no bridge network: {why}"))?;
        let ports = port_maps(&self.ports)?;
        let id = self.container.as_str();
        let attached = match network.attach(id, &ports).await {
            Err(NetError::AlreadyAttached { .. }) => {
                let again = async {
                    network.detach(id).await?;
                    network.attach(id, &ports).await
                };
                again.await
            }
            other => other,
        };
        attached.map_err(|error| format!("network: {}", crate::chain(&error)))
    }
}

/// The mapped ports of a task in bridge mode; unmapped ones need nothing.
pub(crate) fn port_maps(ports: &[PortMapping]) -> Result<Vec<PortMap>, String> {
    let mut maps = Vec::new();
    for port in ports.iter().filter(|port| port.host_port != 0) {
        for protocol in protocols(&port.protocol)? {
            let host_port = checked_port(port.host_port)?;
            let container_port = checked_port(port.container_port)?;
            maps.push(PortMap {
                host_port,
                container_port,
                protocol,
            });
        }
    }
    Ok(maps)
}

fn check_host_ports(ports: &[PortMapping]) -> Result<(), String> {
    for port in ports.iter().filter(|port| port.host_port != 0) {
        for protocol in protocols(&port.protocol)? {
            let number = checked_port(port.host_port)?;
            if !gantry_net::host_port_free(number, protocol) {
                return Err(format!(
                    "port {number}/{protocol} is already in use on this node"
                ));
            }
        }
    }
    Ok(())
}

fn checked_port(port: u32) -> Result<u16, String> {
    u16::try_from(port).map_err(|_| format!("{port} is not a port"))
}

/// `tcp`, `udp`, `udp,tcp`; empty is `tcp`.
fn protocols(text: &str) -> Result<Vec<Protocol>, String> {
    let text = if text.is_empty() { "tcp" } else { text };
    let one = |name: &str| match name.trim() {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        other => Err(format!("unknown protocol '{other}' of a port")),
    };
    text.split(',').map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(host_port: u32, container_port: u32, protocol: &str) -> PortMapping {
        let (protocol, name) = (protocol.to_owned(), String::new());
        PortMapping {
            host_port,
            container_port,
            protocol,
            name,
        }
    }

    #[test]
    fn ports_become_maps_or_a_sentence() {
        let maps = port_maps(&[port(31_000, 80, "udp,tcp"), port(0, 81, "tcp")]).unwrap();
        let both = [Protocol::Udp, Protocol::Tcp];
        let want = both.map(|protocol| PortMap {
            host_port: 31_000,
            container_port: 80,
            protocol,
        });
        assert_eq!(maps, want);
        for bad in [port(70_000, 1, "tcp"), port(1, 1, "sctp")] {
            assert!(port_maps(&[bad]).is_err());
        }
    }

    #[test]
    fn a_taken_port_is_named() {
        let socket = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let taken = u32::from(socket.local_addr().unwrap().port());
        let error = check_host_ports(&[port(taken, 0, "tcp")]).unwrap_err();
        assert_eq!(
            error,
            format!("port {taken}/tcp is already in use on this node")
        );
    }
}
