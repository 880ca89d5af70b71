//! What can go wrong in this crate, one variant for each failed operation.
//!
//! Decides nothing. Invariant: a message names the operation and its operands and never repeats its
//! source.

use std::io;
use std::net::Ipv4Addr;

use crate::ports::{PortMap, Protocol};
use crate::subnet::Subnet;

/// Who already has a host port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortHolder {
    /// A container of this network.
    Container(String),
    /// A process of the host (or another node on the same machine) has a socket bound to it.
    HostSocket,
}

impl std::fmt::Display for PortHolder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Container(id) => write!(f, "container {id}"),
            Self::HostSocket => f.write_str("a socket of the host"),
        }
    }
}

/// The kernel's answer to a netlink request, or the lack of one.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The socket itself failed.
    #[error("netlink socket")]
    Socket(#[source] io::Error),
    /// The kernel refused; `hint` is its extended acknowledgement or empty.
    #[error("the kernel refused{}{hint}", if hint.is_empty() { "" } else { ": " })]
    Refused {
        /// The errno.
        #[source]
        source: io::Error,
        /// The kernel's own words, if any.
        hint: String,
    },
    /// No answer in time.
    #[error("the kernel did not answer within {timeout_ms} ms")]
    Silent {
        /// How long we waited.
        timeout_ms: u128,
    },
    /// An answer that we cannot read.
    #[error("unreadable answer: {what}")]
    Malformed {
        /// What the decoder said.
        what: String,
    },
}

impl KernelError {
    pub(crate) fn is(&self, errno: rustix::io::Errno) -> bool {
        matches!(self, Self::Refused { source, .. }
            if source.raw_os_error() == Some(errno.raw_os_error()))
    }
}

/// Any failure of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// A tag that names cannot be made of.
    #[error("tag {tag:?}: 6 to 32 characters of a-z and 0-9 are wanted")]
    InvalidTag {
        /// The tag.
        tag: String,
    },
    /// A name that the kernel would not take.
    #[error("{what} name {name:?} is not usable")]
    InvalidName {
        /// bridge or table
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A subnet that containers cannot live in.
    #[error("{address}/{prefix} is not a subnet with prefix length 16 to 30")]
    InvalidSubnet {
        /// First address.
        address: Ipv4Addr,
        /// Prefix length.
        prefix: u8,
    },
    /// An MTU below IPv4's or above Ethernet's largest.
    #[error("MTU {mtu} is not between 576 and 65535")]
    InvalidMtu {
        /// Bytes.
        mtu: u32,
    },
    /// An empty or overlong container id.
    #[error("container id {id:?} is empty or longer than {limit} bytes")]
    InvalidContainerId {
        /// The id, cut to the limit.
        id: String,
        /// Most bytes.
        limit: usize,
    },
    /// Neither tcp nor udp.
    #[error("unknown protocol {protocol:?}; tcp and udp are known")]
    UnknownProtocol {
        /// What was given.
        protocol: String,
    },
    /// Port 0 on either side.
    #[error("port mapping {} -> {}/{}: port 0 cannot be mapped", map.host_port,
        map.container_port, map.protocol)]
    InvalidPort {
        /// The mapping.
        map: PortMap,
    },
    /// The same host port twice in one request.
    #[error("host port {port}/{protocol} is mapped twice")]
    RepeatedPort {
        /// The host port.
        port: u16,
        /// Its protocol.
        protocol: Protocol,
    },
    /// More mappings than allowed.
    #[error("{count} port mappings; {limit} are allowed")]
    TooManyPorts {
        /// How many were asked for.
        count: usize,
        /// How many one container may have.
        limit: usize,
    },
    /// More protected ports than allowed.
    #[error("{count} ports to protect; {limit} are allowed")]
    TooManyProtected {
        /// How many were asked for.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// The host port is taken.
    #[error("host port {port}/{protocol} is in use by {by}")]
    PortInUse {
        /// The host port.
        port: u16,
        /// Its protocol.
        protocol: Protocol,
        /// Who has it.
        by: PortHolder,
    },
    /// The host port cannot be reserved for another reason than being taken.
    #[error("reserve host port {port}/{protocol}")]
    HoldPort {
        /// The host port.
        port: u16,
        /// Its protocol.
        protocol: Protocol,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// All addresses are in use.
    #[error("no free address in {subnet}")]
    SubnetExhausted {
        /// The node's subnet.
        subnet: Subnet,
    },
    /// Every candidate subnet overlaps a route of the host.
    #[error("no private /24 is free: all overlap routes of this host")]
    NoFreeSubnet,
    /// The subnet that was asked for overlaps a route of the host.
    #[error("subnet {subnet} overlaps {by}, which this host already routes")]
    SubnetTaken {
        /// The subnet asked for.
        subnet: Subnet,
        /// The prefix that it overlaps.
        by: String,
    },
    /// The bridge of a former life has another subnet than the one asked for.
    #[error("subnet {subnet} was asked for, but the bridge has {existing}")]
    SubnetDiffers {
        /// The subnet asked for.
        subnet: Subnet,
        /// The one that is there.
        existing: Subnet,
    },
    /// The id is attached already.
    #[error("container {id} is already attached")]
    AlreadyAttached {
        /// The container.
        id: String,
    },
    /// Two container ids hash to the same interface name.
    #[error("containers {id} and {other} would share the interface name {name}")]
    NameCollision {
        /// The new one.
        id: String,
        /// The one that has the name.
        other: String,
        /// The name.
        name: String,
    },
    /// The host cannot do it.
    #[error("this host cannot do {what}")]
    Unsupported {
        /// What is lacking.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: KernelError,
    },
    /// A network namespace could not be made.
    #[error("make a network namespace: {step}")]
    Namespace {
        /// The step that failed.
        step: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A link operation failed.
    #[error("{operation} {link}")]
    Link {
        /// What was tried.
        operation: &'static str,
        /// On which interface.
        link: String,
        /// Why.
        #[source]
        source: KernelError,
    },
    /// A dump of routes, links or addresses failed.
    #[error("list {what}")]
    List {
        /// Of what.
        what: &'static str,
        /// Why.
        #[source]
        source: KernelError,
    },
    /// An nftables operation failed.
    #[error("{operation} in nftables table {table}")]
    Nftables {
        /// What was tried.
        operation: &'static str,
        /// In which table.
        table: String,
        /// Why.
        #[source]
        source: KernelError,
    },
    /// A kernel setting could not be changed.
    #[error("set {key} to {value}")]
    Sysctl {
        /// Its name, with slashes.
        key: String,
        /// The value wanted.
        value: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something of ours has another kind than it should.
    #[error("interface {link} exists but is no {kind}")]
    WrongKind {
        /// The interface.
        link: String,
        /// The kind wanted.
        kind: &'static str,
    },
    /// The answer did not come in time; what was begun is undone when it ends.
    #[error("{operation} took longer than {timeout_ms} ms")]
    Timeout {
        /// Which call.
        operation: &'static str,
        /// How long we waited.
        timeout_ms: u128,
    },
    /// Too many calls are waiting.
    #[error("too many network operations are waiting")]
    Busy,
    /// The network was removed, or its thread is gone.
    #[error("the network is closed")]
    Closed,
    /// The thread that serves a network could not be started.
    #[error("start a thread")]
    Thread(#[source] io::Error),
    /// Several things could not be removed; the rest was.
    #[error("{} removals failed: {}", failures.len(), list(failures))]
    Teardown {
        /// Every failure.
        failures: Vec<NetError>,
    },
}

impl NetError {
    /// Whether the same call may succeed later without anything being changed by a person.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Timeout { .. } | Self::Busy | Self::SubnetExhausted { .. }
        )
    }

    /// One failure as it is, several as [`NetError::Teardown`].
    pub(crate) fn collect(mut failures: Vec<NetError>) -> Result<(), NetError> {
        match failures.len() {
            0 => Ok(()),
            1 => Err(failures.remove(0)),
            _ => Err(Self::Teardown { failures }),
        }
    }
}

/// A list has no single source, so its members print theirs here.
fn list(failures: &[NetError]) -> String {
    let mut text = String::new();
    for failure in failures {
        if !text.is_empty() {
            text.push_str("; ");
        }
        text.push_str(&failure.to_string());
        let mut source = std::error::Error::source(failure);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
    }
    text
}
