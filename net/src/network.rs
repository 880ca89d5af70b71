//! The handle that an agent holds: async calls, answered by one plain thread for each network.
//!
//! Decides only what is refused before any work and how long a call may wait. A call that is given
//! up (timeout or dropped future) leaves nothing: the thread takes back what nobody received.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, oneshot};

use crate::error::NetError;
use crate::names::{self, MAX_INTERFACE_NAME};
use crate::namespace;
use crate::ports::PortMap;
use crate::subnet::Subnet;
use crate::worker::{self, Request};

/// Calls that may wait for the thread; more are refused with [`NetError::Busy`].
const QUEUE: usize = 1024;
/// Namespaces being made at once: the kernel makes them one by one anyway.
const CONCURRENT_NAMESPACES: usize = 4;
/// Longest wait for any call.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest container id.
const MAX_CONTAINER_ID: usize = 512;
const DEFAULT_MTU: u32 = 1500;
/// IPv4's smallest reassembly size and the largest veth.
const MTU_RANGE: std::ops::RangeInclusive<u32> = 576..=65_535;
/// The kernel allows 255; ours are short.
const MAX_TABLE_NAME: usize = 64;

/// What a network is called and which addresses it uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkConfig {
    /// 6 to 32 characters of a-z and 0-9; all names in the kernel derive from it.
    pub tag: String,
    /// The bridge, at most 15 characters.
    pub bridge: String,
    /// The nftables table (family ip).
    pub table: String,
    /// `None`: that of the bridge if it is there, else a free /24 chosen by the tag.
    pub subnet: Option<Subnet>,
    /// Bytes; of the bridge and of every container's interface.
    pub mtu: u32,
}

impl NetworkConfig {
    /// Bridge `gantry-` with the tag's first six characters, table `gantry-` with all, chosen
    /// subnet, MTU 1500.
    #[must_use]
    pub fn for_tag(tag: &str) -> Self {
        Self {
            tag: tag.to_owned(),
            bridge: format!("gantry-{}", names::short(tag)),
            table: format!("gantry-{tag}"),
            subnet: None,
            mtu: DEFAULT_MTU,
        }
    }

    fn check(&self) -> Result<(), NetError> {
        names::check_tag(&self.tag)?;
        let limits = [
            ("bridge", &self.bridge, MAX_INTERFACE_NAME),
            ("table", &self.table, MAX_TABLE_NAME),
        ];
        for (what, name, limit) in limits {
            let usable = name.bytes().all(|byte| names::plain(byte) || byte == b'-');
            if name.is_empty() || name.len() > limit || !usable {
                return Err(NetError::InvalidName {
                    what,
                    name: name.clone(),
                });
            }
        }
        if !MTU_RANGE.contains(&self.mtu) {
            return Err(NetError::InvalidMtu { mtu: self.mtu });
        }
        Ok(())
    }
}

/// A container's place in the network.
#[derive(Debug)]
pub struct Attachment {
    /// The namespace. Hand it to the container and drop it: the namespace must be able to end with
    /// the container.
    pub netns: OwnedFd,
    /// Name of the interface inside.
    pub interface: String,
    /// Name of its other end on the host.
    pub host_interface: String,
    /// The container's address.
    pub ip: IpAddr,
    /// Prefix length of the subnet.
    pub prefix: u8,
    /// The way out, and the host's address on the bridge.
    pub gateway: IpAddr,
    /// Hardware address of the interface inside.
    pub mac: [u8; 6],
}

/// A container that was attached in a former life of the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// As given to [`Network::attach`].
    pub container_id: String,
    /// As it was returned.
    pub ip: IpAddr,
    /// As given to [`Network::attach`].
    pub ports: Vec<PortMap>,
}

/// What [`Network::adopt`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Adoption {
    /// Containers that are attached as before.
    pub adopted: Vec<String>,
    /// Containers whose interface is gone: nothing is kept for them.
    pub missing: Vec<String>,
    /// Interfaces of nobody known, removed.
    pub removed_links: usize,
    /// Published ports of nobody known, removed.
    pub removed_ports: usize,
    /// What is not as it was, in words.
    pub warnings: Vec<String>,
}

/// One node's container network. Clones are handles of the same; dropping the last one ends the
/// thread and removes nothing but what was detached already.
#[derive(Debug, Clone)]
pub struct Network {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    requests: SyncSender<Request>,
    namespaces: Semaphore,
    bridge: String,
    subnet: Subnet,
}

impl Network {
    /// Creates or re-asserts the bridge and the table in the calling thread's network namespace.
    /// Published ports of a former life keep working; call [`Network::adopt`] next.
    ///
    /// # Errors
    /// A bad configuration, a host that lacks something, no free subnet, or the kernel's refusal.
    pub async fn open(config: NetworkConfig) -> Result<Self, NetError> {
        config.check()?;
        let bridge = config.bridge.clone();
        let (requests, queue) = sync_channel(QUEUE);
        let (reply, answer) = oneshot::channel();
        std::thread::Builder::new()
            .name("gantry-net".into())
            .spawn(move || worker::run(&config, reply, &queue))
            .map_err(NetError::Thread)?;
        let subnet = wait("open network", answer).await?;
        let namespaces = Semaphore::new(CONCURRENT_NAMESPACES);
        Ok(Self {
            shared: Arc::new(Shared {
                requests,
                namespaces,
                bridge,
                subnet,
            }),
        })
    }

    /// The containers' subnet.
    #[must_use]
    pub fn subnet(&self) -> Subnet {
        self.shared.subnet
    }

    /// The host's address on the bridge: reachable from the host and from every container.
    #[must_use]
    pub fn gateway(&self) -> IpAddr {
        IpAddr::V4(self.shared.subnet.gateway())
    }

    /// Name of the bridge.
    #[must_use]
    pub fn bridge(&self) -> &str {
        &self.shared.bridge
    }

    /// Takes over what a former life left: keeps the known containers, removes the links and
    /// published ports of all others. To be called right after [`Network::open`].
    ///
    /// # Errors When the kernel cannot be asked or strays cannot be removed. Known containers that
    /// are gone are no error.
    pub async fn adopt(&self, known: &[Known]) -> Result<Adoption, NetError> {
        let known = known.to_vec();
        self.call("adopt", |reply| Request::Adopt { known, reply })
            .await
    }

    /// Makes a namespace with an interface, an address and a default route, and publishes the
    /// ports.
    ///
    /// # Errors [`NetError::PortInUse`], [`NetError::SubnetExhausted`],
    /// [`NetError::AlreadyAttached`], or the kernel's refusal; nothing is left behind then.
    pub async fn attach(
        &self,
        container_id: &str,
        ports: &[PortMap],
    ) -> Result<Attachment, NetError> {
        check_id(container_id)?;
        let permit = self
            .shared
            .namespaces
            .acquire()
            .await
            .map_err(|_closed| NetError::Closed)?;
        let nest = timed("make network namespace", namespace::create()).await?;
        drop(permit);
        let (container_id, ports) = (container_id.to_owned(), ports.to_vec());
        self.call("attach", |reply| Request::Attach {
            container_id,
            ports,
            nest,
            reply,
        })
        .await
    }

    /// Takes a container's ports and interface away. Unknown ids are fine. The interface goes some
    /// 100 ms later, with its namespace if that ends by itself; its address is not given to anybody
    /// before.
    ///
    /// # Errors
    /// Everything that could not be removed; the container is forgotten all the same.
    pub async fn detach(&self, container_id: &str) -> Result<(), NetError> {
        check_id(container_id)?;
        let container_id = container_id.to_owned();
        self.call("detach", |reply| Request::Detach {
            container_id,
            reply,
        })
        .await
    }

    /// Removes the interfaces of all detached containers now.
    ///
    /// # Errors
    /// Every removal that failed since the last call.
    pub async fn settle(&self) -> Result<(), NetError> {
        self.call("settle", |reply| Request::Settle { reply }).await
    }

    /// Removes everything: interfaces, published ports, bridge, table, and what
    /// [`crate::protect`] made for the same tag. The network is closed
    /// after that.
    ///
    /// # Errors
    /// Everything that could not be removed; the rest is.
    pub async fn remove(&self) -> Result<(), NetError> {
        self.call("remove network", |reply| Request::Remove { reply })
            .await
    }

    async fn call<T>(
        &self,
        operation: &'static str,
        request: impl FnOnce(oneshot::Sender<Result<T, NetError>>) -> Request,
    ) -> Result<T, NetError> {
        let (reply, answer) = oneshot::channel();
        self.shared
            .requests
            .try_send(request(reply))
            .map_err(|error| match error {
                TrySendError::Full(_) => NetError::Busy,
                TrySendError::Disconnected(_) => NetError::Closed,
            })?;
        wait(operation, answer).await
    }
}

async fn wait<T>(
    operation: &'static str,
    answer: oneshot::Receiver<Result<T, NetError>>,
) -> Result<T, NetError> {
    timed(operation, async {
        answer.await.unwrap_or(Err(NetError::Closed))
    })
    .await
}

async fn timed<T>(
    operation: &'static str,
    work: impl Future<Output = Result<T, NetError>>,
) -> Result<T, NetError> {
    tokio::time::timeout(CALL_TIMEOUT, work)
        .await
        .unwrap_or(Err(NetError::Timeout {
            operation,
            timeout_ms: CALL_TIMEOUT.as_millis(),
        }))
}

fn check_id(container_id: &str) -> Result<(), NetError> {
    if (1..=MAX_CONTAINER_ID).contains(&container_id.len()) {
        return Ok(());
    }
    let id = container_id.chars().take(64).collect();
    Err(NetError::InvalidContainerId {
        id,
        limit: MAX_CONTAINER_ID,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations() {
        let good = NetworkConfig::for_tag("0a1b2c3d");
        assert_eq!(
            (good.bridge.as_str(), good.table.as_str()),
            ("gantry-0a1b2c", "gantry-0a1b2c3d")
        );
        good.check().unwrap();
        for tag in ["", "0a1b2", "0A1B2C", "0a1b2c/", "0a1b2c\u{e9}"] {
            let config = NetworkConfig::for_tag(tag);
            assert!(
                matches!(config.check(), Err(NetError::InvalidTag { .. })),
                "{tag}"
            );
        }
        let config = NetworkConfig {
            bridge: "a-bridge-too-long".into(),
            ..good.clone()
        };
        assert!(matches!(
            config.check(),
            Err(NetError::InvalidName { what: "bridge", .. })
        ));
        let config = NetworkConfig { mtu: 100, ..good };
        assert!(matches!(
            config.check(),
            Err(NetError::InvalidMtu { mtu: 100 })
        ));
    }
}
