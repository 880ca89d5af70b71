//! Which files the command may reach, as Landlock enforces it (`landlock(7)`).

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{SpecError, bound, host_path};

/// Paths of one container's rules.
pub const MAX_RULES: usize = 256;

/// Files outside of these directories and files cannot be opened, executed or changed. A path that
/// the container does not have fails the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Landlock {
    /// Absolute paths inside that may be read and executed, with all below.
    pub read_only: Vec<PathBuf>,
    /// Absolute paths inside that may be read, executed and changed, with all below.
    pub read_write: Vec<PathBuf>,
}

/// Whether the paths are well formed.
pub(super) fn check(rules: &Landlock) -> Result<(), SpecError> {
    bound(
        "Landlock paths",
        rules.read_only.len().saturating_add(rules.read_write.len()),
        MAX_RULES,
    )?;
    let paths = rules.read_only.iter().chain(&rules.read_write);
    paths
        .into_iter()
        .try_for_each(|path| host_path("Landlock path", path))
}
