//! Volumes: what appears where in a container, and which wishes are well formed.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::secret::Secret;
use super::{
    MAX_HIDDEN, MAX_LAYER_PATH_BYTES, MAX_LAYERS, MAX_MOUNTS, SpecError, bound, host_path,
};

/// The content of all secrets of one container, in bytes.
pub const MAX_SECRET_BYTES: usize = 1024 * 1024;
/// Permissions of a tmpfs: those of the file mode and the sticky bit.
const MAX_MODE: u32 = 0o1777;

/// Something that appears inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path inside, not below `/proc`, `/sys` or `/dev`; made when missing.
    pub target: PathBuf,
    /// Whether writing fails with `EROFS`; a secret and an image always are.
    pub read_only: bool,
    /// What appears there.
    pub kind: MountKind,
}

/// What a [`Mount`] shows. None of them has usable devices or set-user-id programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountKind {
    /// A host directory or file.
    Bind {
        /// Absolute host path without symbolic links on its way; must exist.
        source: PathBuf,
        /// Host directories below `source`, without symbolic links on the way, that an empty
        /// read-only tmpfs covers inside, such as Gantry's own data; the start fails when one is
        /// not there.
        #[serde(default)]
        cover: Vec<PathBuf>,
        /// Whether what is mounted below `source` on the host comes along.
        recursive: bool,
    },
    /// Memory, empty at first, owned by root; its pages count against the container's memory limit.
    Tmpfs {
        /// The most it may hold.
        bytes: u64,
        /// Permissions of its root, such as `0o1777`.
        mode: u32,
    },
    /// A file that only the container's user may read, in memory that is never swapped out where
    /// the kernel can keep it (Linux 6.4).
    Secret {
        /// What is in the file.
        content: Secret,
    },
    /// The files of an image, read-only.
    Image {
        /// Its unpacked layers, topmost first.
        layers: Vec<PathBuf>,
    },
}

impl Mount {
    /// A host directory or file with everything mounted below it.
    #[must_use]
    pub fn bind(source: impl Into<PathBuf>, target: impl Into<PathBuf>, read_only: bool) -> Self {
        Self {
            target: target.into(),
            read_only,
            kind: MountKind::Bind {
                source: source.into(),
                cover: Vec::new(),
                recursive: true,
            },
        }
    }
}

/// Whether every volume is well formed.
pub(super) fn check_all(mounts: &[Mount]) -> Result<(), SpecError> {
    bound("mounts", mounts.len(), MAX_MOUNTS)?;
    let mut secret_bytes = 0_usize;
    for mount in mounts {
        host_path("mount target", &mount.target)?;
        let own = ["/proc", "/sys", "/dev"]
            .iter()
            .any(|own| mount.target.starts_with(own));
        if own || mount.target.components().count() < 2 {
            return Err(SpecError::Target(mount.target.clone()));
        }
        match &mount.kind {
            MountKind::Bind { source, cover, .. } => {
                host_path("mount source", source)?;
                check_cover(source, cover)?;
            }
            MountKind::Tmpfs { bytes, mode } => {
                if *bytes == 0 {
                    // To the kernel it would mean no limit.
                    return Err(SpecError::Empty("the size of a tmpfs"));
                }
                if *mode > MAX_MODE {
                    return Err(SpecError::Mode(*mode));
                }
            }
            MountKind::Secret { content } => {
                secret_bytes = secret_bytes.saturating_add(content.bytes().len());
                bound("bytes of secrets", secret_bytes, MAX_SECRET_BYTES)?;
            }
            MountKind::Image { layers } => check_layers(layers)?,
        }
    }
    Ok(())
}

fn check_cover(source: &Path, cover: &[PathBuf]) -> Result<(), SpecError> {
    bound("covered paths", cover.len(), MAX_HIDDEN)?;
    cover.iter().try_for_each(|path| {
        host_path("covered path", path)?;
        let below = path.strip_prefix(source);
        match below.map(|rest| rest.components().next()) {
            Ok(Some(_)) => Ok(()),
            _ => Err(SpecError::Cover {
                path: path.clone(),
                volume: source.to_owned(),
            }),
        }
    })
}

/// Whether these can be the layers of an image.
pub(super) fn check_layers(layers: &[PathBuf]) -> Result<(), SpecError> {
    if layers.is_empty() {
        return Err(SpecError::Empty("the list of layers"));
    }
    bound("layers", layers.len(), MAX_LAYERS)?;
    layers.iter().try_for_each(|path| {
        host_path("layer", path)?;
        bound(
            "bytes of a layer's path",
            path.as_os_str().len(),
            MAX_LAYER_PATH_BYTES,
        )
    })
}
