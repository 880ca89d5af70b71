//! From settings to what an agent is started with. Every value is checked here, whether it is
//! needed now or not.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use gantry_agent::images::{Mirror, RegistryConfig};
use gantry_agent::{Config, Coordinators, Domain, OutputLimits, Secured, Target};
use gantry_link::{Accepting, Connecting, End, Secret};
use gantry_wire::mesos::v1::DomainInfo;
use gantry_wire::mesos::{Encoding, attributes, decode, resources_text, value_text};
use gantry_wire::units::{Bytes, MilliCpu};

use crate::failure::{Exit, Failure};
use crate::secret;
use crate::settings::Settings;

/// How an agent of its own process is reached, and reaches its coordinator.
pub(super) struct Role {
    pub(super) data_dir: PathBuf,
    pub(super) end_tasks: bool,
    coordinators: Vec<Target>,
    ip: IpAddr,
    port: u16,
    secret: Option<Secret>,
}

/// Reads and checks everything that an agent can be told.
pub(super) fn role(settings: &Settings) -> Result<Role, Failure> {
    let data_dir = settings.text("data-dir").unwrap_or_default();
    let data_dir = PathBuf::from(data_dir);
    node_config(settings, &data_dir)?;
    let coordinators = settings.one("coordinator", Target::list)?;
    let Some(coordinators) = coordinators else {
        return Err(settings.missing("coordinator"));
    };
    let secret = secret::read(settings)?;
    let outside = coordinators.iter().find_map(|target| match target {
        Target::Tcp(address) => Some(address),
        Target::Unix(_) => None,
    });
    if outside.is_some() && secret.is_none() {
        return Err(settings.missing("cluster-secret-file"));
    }
    let told = settings.one("ip", str::parse::<IpAddr>)?;
    let way = outside.and_then(|address| local_address(address));
    let ip = told.or(way).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    if told.is_some_and(|ip| ip.is_unspecified()) {
        return Err(settings.wrong("ip", "the coordinator needs to know one address"));
    }
    if told.is_some_and(|ip| ip.is_loopback()) && way.is_some_and(|way| !way.is_loopback()) {
        let why = "a coordinator on another machine does not reach that";
        return Err(settings.wrong("ip", why));
    }
    if !ip.is_loopback() && secret.is_none() {
        return Err(settings.wrong("ip", "beyond loopback a cluster-secret-file is needed"));
    }
    Ok(Role {
        data_dir,
        end_tasks: settings.switch("end-tasks")?,
        coordinators,
        ip,
        port: settings.one("port", str::parse::<u16>)?.unwrap_or_default(),
        secret,
    })
}

/// Address of this machine on the way to another: nothing is sent by connecting a datagram socket.
fn local_address(to: &str) -> Option<IpAddr> {
    use std::net::ToSocketAddrs as _;
    let to = to.to_socket_addrs().ok()?.next()?;
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(to).ok()?;
    let own = socket.local_addr().ok()?.ip();
    (!own.is_unspecified()).then_some(own)
}

impl Role {
    /// What stands behind defaults.
    pub(super) fn effective(&self) -> Vec<(&'static str, String)> {
        vec![("ip", self.ip.to_string())]
    }

    /// What the agent is started with.
    pub(super) fn parts(
        self,
        settings: &Settings,
        data: &Path,
    ) -> Result<(Config, Coordinators), Failure> {
        let keys = |error: gantry_link::KeysError| Failure::new(Exit::Failed, error.to_string());
        let mut config = node_config(settings, data)?;
        config.http = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let mut link = None;
        if let Some(secret) = &self.secret {
            link = Some(Connecting::new(secret, End::SessionAgent).map_err(keys)?);
            if !self.ip.is_loopback() {
                let accepting = Accepting::new(secret, End::HttpAgent).map_err(keys)?;
                let address = SocketAddr::from((self.ip, self.port));
                config.secured = Some(Secured { address, accepting });
                config.allowed_hosts.push(self.ip.to_string());
            }
        }
        Ok((config, Coordinators::new(self.coordinators, link)))
    }
}

/// What an agent is, wherever it runs.
pub(crate) fn node_config(settings: &Settings, data_dir: &Path) -> Result<Config, Failure> {
    let exe = std::env::current_exe().map_err(|e| {
        let message = format!("cannot find this program's own file: {e}");
        Failure::new(Exit::Failed, message)
    })?;
    let mut config = Config::new(data_dir, exe);
    config.hostname = settings.text("hostname");
    config.verbosity = crate::logging::verbosity();
    config.tasks_may_use_api = settings.switch("tasks-may-use-api")?;
    config.registries = registries(settings)?;
    config.fetch.hosts = settings.many("fetch-from", text)?;
    config.fetch.local = settings.many("fetch-files", |dir| Path::new(dir).canonicalize())?;
    config.fetch.frameworks_home = settings.path("frameworks-home")?;
    let cache = settings.one("fetch-cache", str::parse::<u64>)?;
    if let Some(mib) = cache {
        config.fetch.cache_bytes = mib.saturating_mul(1 << 20);
    }
    config.output = output_limits(settings)?;
    let role = settings.text("default-role").unwrap_or_default();
    let resources = settings.one("resources", |text| {
        let parsed = resources_text::parse(text, &role).map_err(|e| causes(&e))?;
        gantry_agent::Overrides::of(&parsed).map_err(|e| e.to_string())
    })?;
    config.resources = resources.unwrap_or_default();
    let parsed = settings.one("attributes", |text| {
        attributes::parse(text).map_err(|e| causes(&e))
    })?;
    config.attributes = parsed.unwrap_or_default();
    config.domain = settings.one("domain", domain)?.unwrap_or_default();
    config.mount_disks = settings.text("mount-disks").unwrap_or_default();
    config.system_mem = settings.one("system-reserved-mem", |mib| {
        let mib = mib.parse::<u64>().map_err(|e| e.to_string())?;
        mib.checked_mul(1 << 20)
            .map(Bytes)
            .ok_or_else(|| "too much".to_owned())
    })?;
    config.system_cpus = MilliCpu(
        settings
            .one("system-reserved-cpus", thousandths)?
            .unwrap_or(0),
    );
    Ok(config)
}

/// What is kept of output; whether it makes sense the agent says.
fn output_limits(settings: &Settings) -> Result<OutputLimits, Failure> {
    let mut limits = OutputLimits::default();
    let bytes = |kib: u64| Bytes(kib.saturating_mul(1 << 10));
    if let Some(kib) = settings.one("output-file", str::parse::<u64>)? {
        limits.size = bytes(kib);
    }
    if let Some(files) = settings.one("output-files", str::parse::<u32>)? {
        limits.files = files;
    }
    if let Some(kib) = settings.one("output-file-max", str::parse::<u64>)? {
        limits.size_max = bytes(kib);
    }
    if let Some(files) = settings.one("output-files-max", str::parse::<u32>)? {
        limits.files_max = files;
    }
    Ok(limits)
}

fn thousandths(text: &str) -> Result<u64, String> {
    let cpus = text.parse::<f64>().map_err(|e| e.to_string())?;
    value_text::thousandths(cpus).ok_or_else(|| "it is no amount".to_owned())
}

/// `region/zone`, or Mesos's JSON.
fn domain(text: &str) -> Result<Domain, String> {
    if !text.trim_start().starts_with('{') {
        let parts = text
            .split_once('/')
            .filter(|(r, z)| !r.is_empty() && !z.is_empty());
        let (region, zone) = parts.ok_or("it has no '/' between a region and a zone")?;
        let (region, zone) = (region.to_owned(), zone.to_owned());
        return Ok(Domain { region, zone });
    }
    let parsed = decode::<DomainInfo>(Encoding::Json, text.as_bytes()).map_err(|e| causes(&e))?;
    let domain = parsed.fault_domain.ok_or("it has no fault_domain")?;
    Ok(Domain {
        region: domain.region.name,
        zone: domain.zone.name,
    })
}

fn text(text: &str) -> Result<String, Infallible> {
    Ok(text.to_owned())
}

/// An error with its causes.
fn causes(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        words.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    words
}

fn registries(settings: &Settings) -> Result<RegistryConfig, Failure> {
    Ok(RegistryConfig {
        mirrors: settings.many("registry-mirror", str::parse::<Mirror>)?,
        insecure: settings.many("insecure-registry", text)?,
        ca_dir: settings.path("registry-certs")?,
        credentials_file: settings.path("registry-auth")?,
        credential_programs: settings.path("credential-programs")?,
    })
}
