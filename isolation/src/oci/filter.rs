//! The system call filter of a configuration as a step.

use std::sync::Arc;

use super::error::OciError;
use crate::caps::CapSet;
use crate::plan::Step;
use crate::seccomp::{Host, Profile, Program, SeccompError};

/// The step that loads the filter. `bounding` is what the process may have at most: rules may depend
/// on it.
pub(super) fn step(profile: &serde_json::Value, bounding: u64) -> Result<Step, OciError> {
    let compile = || -> Result<Program, SeccompError> {
        let profile = Profile::parse(&profile.to_string())?;
        Program::compile(&profile, CapSet::from_bits(bounding), Host::running()?)
    };
    let program = compile()
        .map_err(|error| OciError::Refused(format!("linux.seccomp in config.json: {error}")))?;
    Ok(Step::Filter(Arc::new(program)))
}
