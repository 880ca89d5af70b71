//! A fresh network namespace, as a file descriptor.
//!
//! Made on a thread that ends right after: a thread that has left its namespace must never serve
//! anybody else again. Decides nothing about what is inside. The namespace lives as long as
//! something holds it: this descriptor, the netlink socket in it, or later a process.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use nix::sched::{CloneFlags, unshare};
use tokio::sync::oneshot;

use crate::error::NetError;
use crate::netlink::Netlink;

/// `NETLINK_ROUTE`
pub(crate) const ROUTE: isize = 0;

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
    let netns = File::open("/proc/thread-self/ns/net")
        .map_err(failed("open it"))?
        .into();
    let route = Netlink::open(ROUTE).map_err(failed("open a netlink socket in it"))?;
    Ok(Nest { netns, route })
}
