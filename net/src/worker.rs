//! The thread that owns one network: its sockets, what is attached, and the order of all changes.
//!
//! Decides what to do for each request and what to undo when a step fails. One thread, because the
//! kernel has one lock for all of it anyway (rtnl). Invariants: an address, a host port and an
//! interface name belong to at most one container; whatever a failed or unreceived request made is
//! gone or on its way out when the request ends.

mod adopt;
mod open;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use tokio::sync::oneshot;

use crate::addresses::AddressPool;
use crate::error::NetError;
use crate::host_port::{self, HeldPort};
use crate::links::{self, Link, Links, Port};
use crate::names::{self, CONTAINER_INTERFACE};
use crate::namespace::Nest;
use crate::network::{Adoption, Attachment, Known, NetworkConfig};
use crate::nftables::{Element, Nftables};
use crate::ports::{HostPort, PortMap, PortTable, Protocol};
use crate::reaper::{Leaving, Reaper};
use crate::subnet::Subnet;
use crate::sysctl;

/// Longest sleep when nothing is due.
const IDLE: Duration = Duration::from_secs(3600);
/// Failures kept for `settle`.
const MAX_FAILURES: usize = 64;

type Reply<T> = oneshot::Sender<Result<T, NetError>>;

/// What the thread is asked.
#[derive(Debug)]
pub(crate) enum Request {
    Adopt {
        known: Vec<Known>,
        reply: Reply<Adoption>,
    },
    Attach {
        container_id: String,
        ports: Vec<PortMap>,
        nest: Nest,
        reply: Reply<Attachment>,
    },
    Detach {
        container_id: String,
        reply: Reply<()>,
    },
    Settle {
        reply: Reply<()>,
    },
    Remove {
        reply: Reply<()>,
    },
}

/// One attached container.
#[derive(Debug)]
struct Attached {
    ip: Ipv4Addr,
    ports: Vec<PortMap>,
    host_interface: String,
    /// Given back when this is dropped.
    _held: Vec<HeldPort>,
}

struct Worker {
    tag: String,
    bridge: String,
    table: String,
    mtu: u32,
    subnet: Subnet,
    bridge_index: u32,
    links: Links,
    nftables: Nftables,
    addresses: AddressPool,
    ports: PortTable,
    attached: BTreeMap<String, Attached>,
    /// Published ports of a former life that nobody has claimed yet.
    unclaimed: BTreeMap<HostPort, Element>,
    reaper: Reaper,
    /// What could not be removed, for `settle`.
    failures: Vec<NetError>,
}

/// Opens the network, tells its subnet, and serves it until all handles are gone or it is removed.
pub(crate) fn run(config: &NetworkConfig, opened: Reply<Subnet>, queue: &Receiver<Request>) {
    let mut worker = match Worker::open(config) {
        Ok(worker) => worker,
        Err(error) => {
            // The caller may have given up waiting: then nobody wants to know.
            let _gone = opened.send(Err(error));
            return;
        }
    };
    if opened.send(Ok(worker.subnet)).is_err() {
        return;
    }
    loop {
        let now = Instant::now();
        let wait = worker
            .reaper
            .next()
            .map_or(IDLE, |due| due.saturating_duration_since(now));
        match queue.recv_timeout(wait) {
            Ok(Request::Remove { reply }) => {
                let _gone = reply.send(worker.remove());
                return;
            }
            Ok(request) => worker.serve(request),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                let leaving = worker.reaper.all();
                worker.reap(leaving);
                return;
            }
        }
        let due = worker.reaper.due(Instant::now());
        worker.reap(due);
    }
}

impl Worker {
    fn serve(&mut self, request: Request) {
        match request {
            Request::Attach {
                container_id,
                ports,
                nest,
                reply,
            } => {
                let answer = self.attach(&container_id, &ports, nest);
                if let Err(Ok(_unreceived)) = reply.send(answer)
                    && let Err(error) = self.detach(&container_id)
                {
                    tracing::warn!(container_id, %error, "an attachment nobody waited for");
                }
            }
            Request::Adopt { known, reply } => {
                let _gone = reply.send(self.adopt(&known));
            }
            Request::Detach {
                container_id,
                reply,
            } => {
                let _gone = reply.send(self.detach(&container_id));
            }
            Request::Settle { reply } => {
                let leaving = self.reaper.all();
                self.reap(leaving);
                let failures = std::mem::take(&mut self.failures);
                let _gone = reply.send(NetError::collect(failures));
            }
            Request::Remove { reply } => {
                let _gone = reply.send(self.remove());
            }
        }
    }

    fn attach(
        &mut self,
        container_id: &str,
        ports: &[PortMap],
        mut nest: Nest,
    ) -> Result<Attachment, NetError> {
        if self.attached.contains_key(container_id) {
            return Err(NetError::AlreadyAttached {
                id: container_id.to_owned(),
            });
        }
        let name = names::host_interface(&self.tag, container_id);
        if let Some((other, _)) = self
            .attached
            .iter()
            .find(|(_, at)| at.host_interface == name)
        {
            let (id, other) = (container_id.to_owned(), other.clone());
            return Err(NetError::NameCollision { id, other, name });
        }
        self.ports.check(ports)?;
        let held = ports
            .iter()
            .map(|map| host_port::hold(HostPort::from(*map)))
            .collect::<Result<Vec<HeldPort>, NetError>>()?;
        let ip = self.take_address(container_id)?;
        if let Err(error) = self.connect(&name, ip, ports, &mut nest) {
            // The namespace ends here and takes the link with it; the address waits for that.
            self.reaper
                .add(Leaving { name, address: ip }, Instant::now());
            return Err(error);
        }
        self.ports.hold(container_id, ports);
        for map in ports {
            self.unclaimed.remove(&HostPort::from(*map));
        }
        let host_interface = name.clone();
        let attached = Attached {
            ip,
            ports: ports.to_vec(),
            host_interface,
            _held: held,
        };
        self.attached.insert(container_id.to_owned(), attached);
        Ok(Attachment {
            netns: nest.netns,
            interface: CONTAINER_INTERFACE.to_owned(),
            host_interface: name,
            ip: IpAddr::V4(ip),
            prefix: self.subnet.prefix(),
            gateway: IpAddr::V4(self.subnet.gateway()),
            mac: names::container_mac(ip),
        })
    }

    /// The lowest free address; when there is none, those that are on their way back are fetched
    /// first.
    fn take_address(&mut self, container_id: &str) -> Result<Ipv4Addr, NetError> {
        match self.addresses.take(container_id) {
            Err(NetError::SubnetExhausted { .. }) => {
                let leaving = self.reaper.all();
                self.reap(leaving);
                self.addresses.take(container_id)
            }
            other => other,
        }
    }

    /// Link, address, route, published ports; in this order, so that a published port always leads
    /// somewhere.
    fn connect(
        &mut self,
        name: &str,
        ip: Ipv4Addr,
        ports: &[PortMap],
        nest: &mut Nest,
    ) -> Result<(), NetError> {
        let port = Port {
            name,
            bridge: self.bridge_index,
            mtu: self.mtu,
            ip,
        };
        match self.links.make_pair(port, nest.netns.as_fd()) {
            // One of a former life, whose namespace is gone or going: this container is not
            // attached.
            Err(NetError::Link { source, .. }) if source.is(Errno::EXIST) => {
                self.remove_stale(name)?;
                self.links.make_pair(port, nest.netns.as_fd())?;
            }
            other => other?,
        }
        sysctl::switch_off_ipv6(name)?;
        links::furnish(nest, ip, self.subnet)?;
        if ports.is_empty() {
            return Ok(());
        }
        let mut replaced = Vec::new();
        let mut added = Vec::new();
        for map in ports {
            let element = Element::new(*map, ip);
            added.push(element);
            replaced.extend(self.unclaimed.get(&element.host));
        }
        self.nftables.change(&self.table, &added, &replaced)
    }

    fn remove_stale(&mut self, name: &str) -> Result<(), NetError> {
        let leaving = self.reaper.take(name);
        if leaving.is_empty() {
            let links: Vec<Link> = self.links.by_name(name)?.into_iter().collect();
            let group = names::doomed_group(&self.tag);
            return NetError::collect(self.links.delete_together(&links, group));
        }
        self.reap(leaving);
        Ok(())
    }

    /// Idempotent; goes on after failures.
    fn detach(&mut self, container_id: &str) -> Result<(), NetError> {
        let Some(attached) = self.attached.remove(container_id) else {
            return Ok(());
        };
        let elements: Vec<Element> = attached
            .ports
            .iter()
            .map(|map| Element::new(*map, attached.ip))
            .collect();
        let failures = self.nftables.remove_leniently(&self.table, &elements);
        if attached
            .ports
            .iter()
            .any(|map| map.protocol == Protocol::Udp)
            && let Err(error) = self.nftables.forget_flows(attached.ip)
        {
            tracing::debug!(%error, ip = %attached.ip, "flows not forgotten");
        }
        self.ports.release(&attached.ports);
        let leaving = Leaving {
            name: attached.host_interface,
            address: attached.ip,
        };
        self.reaper.add(leaving, Instant::now());
        NetError::collect(failures)
    }

    /// Deletes what is still there of these links and frees the addresses of those that are gone.
    fn reap(&mut self, leaving: Vec<Leaving>) {
        if leaving.is_empty() {
            return;
        }
        let failures = match self.delete_named(&leaving) {
            Ok(failures) => failures,
            Err(error) => vec![error],
        };
        if failures.is_empty() {
            for Leaving { address, .. } in leaving {
                self.addresses.free(address);
            }
            return;
        }
        for leaving in leaving {
            self.reaper.retry(leaving, Instant::now());
        }
        for error in failures {
            tracing::warn!(%error, "a detached interface could not be removed");
            if self.failures.len() < MAX_FAILURES {
                self.failures.push(error);
            }
        }
    }

    fn delete_named(&mut self, leaving: &[Leaving]) -> Result<Vec<NetError>, NetError> {
        let names: BTreeSet<&str> = leaving.iter().map(|link| link.name.as_str()).collect();
        let prefix = names::host_interface_prefix(&self.tag);
        let mut links = self.links.with_prefix(&prefix)?;
        links.retain(|link| names.contains(link.name.as_str()));
        Ok(self
            .links
            .delete_together(&links, names::doomed_group(&self.tag)))
    }

    fn remove(&mut self) -> Result<(), NetError> {
        let mut failures = Vec::new();
        let tables = [&self.table, &names::protection_table(&self.tag)];
        failures.extend(
            tables
                .map(|table| self.nftables.delete(table).err())
                .into_iter()
                .flatten(),
        );
        self.attached.clear();
        let prefix = names::host_interface_prefix(&self.tag);
        match self.links.with_prefix(&prefix) {
            Ok(mut links) => {
                links.retain(Link::is_veth);
                match self.links.by_name(&self.bridge) {
                    Ok(bridge) => links.extend(bridge),
                    Err(error) => failures.push(error),
                }
                let group = names::doomed_group(&self.tag);
                failures.extend(self.links.delete_together(&links, group));
            }
            Err(error) => failures.push(error),
        }
        NetError::collect(failures)
    }
}
