//! The filters of system calls of this keeper's containers, each compiled once.

use std::sync::Arc;

use super::container::Failure;
use crate::plan::{HostFacts, capabilities};
use crate::seccomp::{Cache, Host, Program, Seccomp, SeccompError};
use crate::spec::ContainerSpec;

/// All filters, or why this machine has none.
#[derive(Debug)]
pub(super) struct Filters(Result<Cache, SeccompError>);

impl Filters {
    /// None yet.
    pub(super) fn new() -> Self {
        Self(Host::running().map(Cache::new))
    }

    /// The filter that `spec` asks for, if it asks for one.
    pub(super) fn of(
        &mut self,
        facts: &HostFacts,
        spec: &ContainerSpec,
    ) -> Result<Option<Arc<Program>>, Failure> {
        let failed = |error: &SeccompError| Failure {
            step: "make the system call filter".to_owned(),
            error: error.to_string(),
        };
        match (&mut self.0, &spec.seccomp) {
            (_, Seccomp::Unconfined) => Ok(None),
            (Ok(cache), wish) => cache
                .program(wish, capabilities(facts, spec.capabilities))
                .map_err(|error| failed(&error)),
            (Err(error), _) => Err(failed(error)),
        }
    }
}
