//! Graphics processors of a node: which there are, and what a container needs to use some of them.
//!
//! It decides from what lies in a directory tree alone, `/` or a copy of one, and runs no program
//! and loads no library of a vendor. A node without any offers none. Invariants: a device is only
//! given with the processor that it belongs to or that all of its vendor's share; nothing that
//! configures the node for everybody is given at all.

mod dri;
mod libraries;
mod nvidia;

use std::collections::BTreeSet;
use std::fmt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use crate::spec::{Access, Device, Mount};

/// Processors of one node that are looked at; more than any machine has.
const MAX_GPUS: usize = 256;
/// Opening for reading and writing, which is how every driver's library opens its device.
const USE: Access = Access {
    read: true,
    write: true,
    make: false,
};

/// Names a processor on its node: the name of its device, such as `nvidia0` or `renderD128`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GpuId(String);

impl GpuId {
    /// Takes a name as [`detect`] gave it.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whose driver it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Vendor {
    /// NVIDIA's own driver.
    Nvidia,
    /// `amdgpu`.
    Amd,
    /// Any other with a render node.
    Other,
}

/// One processor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// Its name on this node.
    pub id: GpuId,
    /// Whose driver it is.
    pub vendor: Vendor,
    /// What its driver calls it, where it says so.
    pub model: Option<String>,
    /// Names it everywhere and for ever, where its driver says so.
    pub uuid: Option<String>,
    /// Its own device.
    pub node: PathBuf,
}

/// No such processor.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("this node has no GPU {0}")]
pub struct NoGpu(pub GpuId);

/// The processors below `root`, in order of name.
#[must_use]
pub fn detect(root: &Path) -> Vec<Gpu> {
    let mut found = nvidia::detect(root);
    found.extend(dri::detect(root));
    found.truncate(MAX_GPUS);
    found
}

/// The devices and the drivers' files, read-only and at the same paths, that a container needs to
/// use these processors of the node whose files are below `root`.
///
/// # Errors
/// There is no such processor.
pub fn mounts_and_devices(
    root: &Path,
    wanted: &[GpuId],
) -> Result<(Vec<Device>, Vec<Mount>), NoGpu> {
    let there = detect(root);
    let wanted: BTreeSet<&GpuId> = wanted.iter().collect();
    let mut nodes = BTreeSet::new();
    let mut mounts = Vec::new();
    for id in &wanted {
        let gpu = there.iter().find(|gpu| gpu.id == **id);
        let gpu = gpu.ok_or_else(|| NoGpu((*id).clone()))?;
        nodes.insert(gpu.node.clone());
        match gpu.vendor {
            Vendor::Nvidia => {
                nodes.extend(nvidia::shared(root));
                if mounts.is_empty() {
                    mounts = libraries::mounts(root);
                }
            }
            Vendor::Amd => nodes.extend(dri::shared_by_amd(root)),
            Vendor::Other => {}
        }
    }
    let device = |node: PathBuf| Device {
        source: node.clone(),
        target: node,
        access: USE,
    };
    Ok((nodes.into_iter().map(device).collect(), mounts))
}

/// Where `path`, which is absolute, is below `root`.
fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Whether it is a character device itself, not a link to one.
fn is_device(root: &Path, path: &Path) -> bool {
    std::fs::symlink_metadata(below(root, path))
        .is_ok_and(|found| found.file_type().is_char_device())
}

/// The number after `prefix`, if that and digits are the whole name.
fn numbered(name: &str, prefix: &str) -> Option<u32> {
    let digits = name.strip_prefix(prefix)?;
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| plain)
}

/// Names in a directory that are text, in order; none when it is not there.
fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests;
