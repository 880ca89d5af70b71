//! Volumes: what appears where in a container, and which wishes are well formed.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{MAX_HIDDEN, MAX_MOUNTS, SpecError, bound, host_path};

/// A host directory or file that appears inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute host path without symbolic links on its way; must exist.
    pub source: PathBuf,
    /// Absolute path inside, not below `/proc`, `/sys` or `/dev`; made when missing.
    pub target: PathBuf,
    /// Whether writing fails with `EROFS`.
    pub read_only: bool,
    /// Host directories below `source`, without symbolic links on the way, that an empty read-only
    /// tmpfs covers inside, such as Gantry's own data; the start fails when one is not there.
    #[serde(default)]
    pub cover: Vec<PathBuf>,
}

/// Whether every volume is well formed.
pub(super) fn check_all(mounts: &[Mount]) -> Result<(), SpecError> {
    bound("mounts", mounts.len(), MAX_MOUNTS)?;
    for mount in mounts {
        host_path("mount source", &mount.source)?;
        host_path("mount target", &mount.target)?;
        check_cover(mount)?;
        let own = ["/proc", "/sys", "/dev"]
            .iter()
            .any(|own| mount.target.starts_with(own));
        if own || mount.target.components().count() < 2 {
            return Err(SpecError::Target(mount.target.clone()));
        }
    }
    Ok(())
}

fn check_cover(mount: &Mount) -> Result<(), SpecError> {
    bound("covered paths", mount.cover.len(), MAX_HIDDEN)?;
    mount.cover.iter().try_for_each(|path| {
        host_path("covered path", path)?;
        let below = path.strip_prefix(&mount.source);
        match below.map(|rest| rest.components().next()) {
            Ok(Some(_)) => Ok(()),
            _ => Err(SpecError::Cover {
                path: path.clone(),
                volume: mount.source.clone(),
            }),
        }
    })
}
