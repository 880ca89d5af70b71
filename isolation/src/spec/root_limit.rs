//! What bounds the writable layer of a root. It decides the wish only; [`crate::disk`] knows what a
//! file system can keep.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{SpecError, host_path};

/// A bound on what is written to the root: past it writing fails with `EDQUOT`. The start is refused
/// where the file system of the container's `dir` keeps no quotas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RootLimit {
    /// Bytes on disk, for the root alone.
    Bytes(u64),
    /// It counts as if it were in this directory, which [`crate::disk::Backend::make`] made with a
    /// limit on the same file system, such as the sandbox: one limit for both.
    With(PathBuf),
}

pub(super) fn check(limit: &RootLimit) -> Result<(), SpecError> {
    match limit {
        RootLimit::Bytes(_) => Ok(()),
        RootLimit::With(dir) => host_path("directory whose limit the root shares", dir),
    }
}
