//! All containers of the keeper, by serial number and by name, and what one may take of another.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};

use crate::keeper::container::{Container, Failure, Phase};
use crate::keeper::start::Shared;
use crate::spec::{ContainerId, ContainerSpec, Network, Sharing};

/// All containers, by serial number and by name.
#[derive(Debug, Default)]
pub(super) struct Containers {
    pub(super) by_serial: BTreeMap<u64, Container>,
    pub(super) serials: BTreeMap<ContainerId, u64>,
}

impl Containers {
    pub(super) fn find(&self, id: &ContainerId) -> Option<(u64, &Container)> {
        let serial = *self.serials.get(id)?;
        Some((serial, self.by_serial.get(&serial)?))
    }

    pub(super) fn insert(&mut self, serial: u64, container: Container) {
        self.serials.insert(container.id.clone(), serial);
        self.by_serial.insert(serial, container);
    }

    pub(super) fn remove(&mut self, serial: u64) -> Option<Container> {
        let container = self.by_serial.remove(&serial)?;
        self.serials.remove(&container.id);
        Some(container)
    }

    /// The container `id`, whose `what` is to be shared: it must be running.
    pub(super) fn running(&self, what: &str, id: &ContainerId) -> Result<&Container, Failure> {
        match self.find(id) {
            Some((_, container)) if matches!(container.phase, Phase::Running) => Ok(container),
            _ => Err(Failure {
                step: format!("share the {what} of {id}"),
                error: "no such container runs".to_owned(),
            }),
        }
    }

    /// Finds the running containers whose namespaces `spec` shares.
    pub(super) fn shared(&self, spec: &ContainerSpec) -> Result<Shared<'_>, Failure> {
        let of = |what: &str, id: &ContainerId| -> Result<BorrowedFd<'_>, Failure> {
            Ok(self.running(what, id)?.pidfd.as_fd())
        };
        let namespace = |what: &str, sharing: &Sharing| match sharing {
            Sharing::Of(id) => of(what, id).map(Some),
            Sharing::Own | Sharing::Host => Ok(None),
        };
        Ok(Shared {
            network: match &spec.network {
                Network::Of(id) => Some(of("network", id)?),
                Network::Host | Network::New | Network::Namespace => None,
            },
            pid: namespace("processes", &spec.namespaces.pid)?,
            ipc: namespace("IPC", &spec.namespaces.ipc)?,
        })
    }
}
