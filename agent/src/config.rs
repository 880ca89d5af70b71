//! What an agent is told at its start. Decides defaults; checks nothing (see `start`).

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use gantry_agent_core::ExecutorTimes;
use gantry_fetch::Config as FetchConfig;
use gantry_image::RegistryConfig;
use gantry_link::Accepting;
use gantry_wire::mesos::v1::Attribute;
use gantry_wire::units::{Bytes, MilliCpu};

use crate::offer::Overrides;
use crate::verbosity::Verbosity;

use crate::logger::OutputLimits;

/// Mesos's recovery timeout, a quarter of an hour.
const RECOVERY_MS: u64 = 15 * 60_000;
/// Default port of the agent's HTTP listener, Mesos's.
pub const HTTP_PORT: u16 = 5051;

/// Everything that [`crate::start`] needs besides the connector.
#[derive(Debug, Clone)]
pub struct Config {
    /// The agent's own directory; made with mode 0700 and locked.
    pub data_dir: PathBuf,
    /// Host directories that native tasks must not see, beside `data_dir`.
    pub hide: Vec<PathBuf>,
    /// Name or address under which tasks are reached. None: the bridge's gateway, or 127.0.0.1
    /// on a node without bridge.
    pub hostname: Option<String>,
    /// Where to listen; a loopback address. Port 0 takes any free one.
    pub http: SocketAddr,
    /// Where a coordinator on another machine reaches it.
    pub secured: Option<Secured>,
    /// Ports of this host, beside the agent's own, that tasks on the host network must not reach:
    /// those through which they would be root.
    pub protected_ports: Vec<u16>,
    /// Leave all of them open.
    pub tasks_may_use_api: bool,
    /// Values of `Host` headers accepted beside loopback names and addresses, without port.
    pub allowed_hosts: Vec<String>,
    /// What to offer instead of what is detected.
    pub resources: Overrides,
    /// Attributes of the node.
    pub attributes: Vec<Attribute>,
    /// Where it fails together with others.
    pub domain: Domain,
    /// Mounts that are called this and a number are MOUNT disks; empty: none is looked for.
    pub mount_disks: String,
    /// Memory that stays with the system; None: the default, of which more may be offered.
    pub system_mem: Option<Bytes>,
    /// Processors that stay with the system.
    pub system_cpus: MilliCpu,
    /// How registries are spoken to.
    pub registries: RegistryConfig,
    /// What tasks may have fetched.
    pub fetch: FetchConfig,
    /// What is kept of the output of tasks.
    pub output: OutputLimits,
    /// How long executors of frameworks' own may take.
    pub executor_times: ExecutorTimes,
    /// How long such an executor tries to come back to an agent that is away, in milliseconds; it is
    /// told, and ends itself.
    pub executor_recovery_ms: u64,
    /// The port at which they reach the agent; 0 takes any free one, and keeps it.
    pub executor_port: u16,
    /// The binary that has the role `keeper`.
    pub keeper_exe: PathBuf,
    /// Arguments that select that role.
    pub keeper_args: Vec<String>,
    /// The level of this process's log; None: it cannot be changed.
    pub verbosity: Option<Verbosity>,
}

/// The listener for the coordinator of another machine: what this node's own listener has, to
/// those who know the cluster's secret.
#[derive(Debug, Clone)]
pub struct Secured {
    /// Where to listen, and where the coordinator reaches it. Port 0 takes any free one.
    pub address: SocketAddr,
    /// How callers are known.
    pub accepting: Accepting,
}

/// A fault domain; empty names: none is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Domain {
    /// Such as a data center.
    pub region: String,
    /// Such as a room of it.
    pub zone: String,
}

impl Config {
    /// An agent on loopback with defaults for everything else.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>, keeper_exe: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            hide: Vec::new(),
            hostname: None,
            http: SocketAddr::from((Ipv4Addr::LOCALHOST, HTTP_PORT)),
            secured: None,
            protected_ports: Vec::new(),
            tasks_may_use_api: false,
            allowed_hosts: Vec::new(),
            resources: Overrides::default(),
            attributes: Vec::new(),
            domain: Domain::default(),
            mount_disks: String::new(),
            system_mem: None,
            system_cpus: MilliCpu(0),
            registries: RegistryConfig::default(),
            fetch: FetchConfig::default(),
            output: OutputLimits::default(),
            executor_times: ExecutorTimes::default(),
            executor_recovery_ms: RECOVERY_MS,
            executor_port: 0,
            keeper_exe: keeper_exe.into(),
            keeper_args: vec!["keeper".to_owned()],
            verbosity: None,
        }
    }
}
