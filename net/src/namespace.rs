//! A fresh network namespace, as a file descriptor.
//!
//! Made on a thread that ends right after: a thread that has left its namespace must never serve
//! anybody else again. Decides the kernel's settings inside: ICMP echo for everybody, so that `ping`
//! needs no CAP_NET_RAW (without which a container can send no ARP or other frame of its own making,
//! and so cannot pose as its neighbours on the bridge); no IPv6 but on loopback, so that nobody on
//! the bridge gives it addresses or routes. Nothing else of what is inside is decided here. The
//! namespace lives as long as something holds it: this descriptor, the netlink socket in it, or later
//! a process.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use nix::sched::{CloneFlags, unshare};
use tokio::sync::oneshot;

use crate::error::NetError;
use crate::netlink::Netlink;
use crate::sysctl;

/// `NETLINK_ROUTE`
pub(crate) const ROUTE: isize = 0;

/// Every group that may be.
const ALL_GROUPS: &str = "0\t2147483647";

/// A namespace and a route socket inside it.
#[derive(Debug)]
pub(crate) struct Nest {
    pub(crate) netns: OwnedFd,
    pub(crate) route: Netlink,
}

/// Makes one, without blocking the caller's worker.
pub(crate) async fn create() -> Result<Nest, NetError> {
    let (reply, answer) = oneshot::channel();
    std::thread::Builder::new()
        .name("gantry-netns".into())
        .stack_size(128 << 10)
        .spawn(move || {
            // The caller may have given up; then the namespace ends with its descriptors.
            let _gone = reply.send(enter());
        })
        .map_err(NetError::Thread)?;
    answer.await.map_err(|_ended| NetError::Closed)?
}

/// Moves the calling thread into a new namespace. The thread must end soon.
pub(crate) fn enter() -> Result<Nest, NetError> {
    let failed = |step| move |source| NetError::Namespace { step, source };
    unshare(CloneFlags::CLONE_NEWNET)
        .map_err(io::Error::from)
        .map_err(failed("unshare"))?;
    // Loopback exists already and keeps ::1.
    sysctl::switch_off_ipv6("default")?;
    sysctl::ensure("net/ipv4/ping_group_range", ALL_GROUPS)?;
    // As Docker has it: root of a user namespace has no capability over this namespace.
    sysctl::ensure("net/ipv4/ip_unprivileged_port_start", "0")?;
    let netns = File::open("/proc/thread-self/ns/net")
        .map_err(failed("open it"))?
        .into();
    let route = Netlink::open(ROUTE).map_err(failed("open a netlink socket in it"))?;
    Ok(Nest { netns, route })
}
