//! Host devices that a container asks for, as they are found at its start.
//!
//! It decides what is a device: a node reached without any symbolic link, so that what the path
//! names is what was meant. Whether the container may open it is the device controller's part.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, major, minor, openat2};
use rustix::io::Errno;

use crate::cgroup::{DeviceKind, DeviceRule};
use crate::spec::{Access, Device};

/// A device, found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// Where it appears inside.
    pub(crate) target: PathBuf,
    /// Block or character device.
    pub(crate) kind: FileType,
    /// Number of the driver.
    pub(crate) major: u32,
    /// Number within the driver.
    pub(crate) minor: u32,
    /// What may be done to it.
    pub(crate) access: Access,
}

impl Node {
    /// What the device controller is told.
    pub(crate) fn rule(&self) -> DeviceRule {
        DeviceRule {
            kind: match self.kind {
                FileType::BlockDevice => DeviceKind::Block,
                _ => DeviceKind::Char,
            },
            major: Some(self.major),
            minor: Some(self.minor),
            access: self.access,
        }
    }
}

/// Why a host device cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeviceError {
    /// The path leads nowhere, or over a symbolic link.
    #[error("open {path:?}")]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: Errno,
    },
    /// Something else is there.
    #[error("{0:?} is neither a character nor a block device")]
    NotADevice(PathBuf),
}

/// Looks at each.
pub(crate) fn find(devices: &[Device]) -> Result<Vec<Node>, DeviceError> {
    devices.iter().map(find_one).collect()
}

fn find_one(device: &Device) -> Result<Node, DeviceError> {
    let path: &Path = &device.source;
    let failed = |source| DeviceError::Open {
        path: path.to_owned(),
        source,
    };
    let name = CString::new(path.as_os_str().as_encoded_bytes())
        .map_err(|_| DeviceError::NotADevice(path.to_owned()))?;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let opened = openat2(CWD, &name, flags, Mode::empty(), resolve).map_err(failed)?;
    let found = rustix::fs::fstat(&opened).map_err(failed)?;
    let kind = FileType::from_raw_mode(found.st_mode);
    if !matches!(kind, FileType::CharacterDevice | FileType::BlockDevice) {
        return Err(DeviceError::NotADevice(path.to_owned()));
    }
    Ok(Node {
        target: device.target.clone(),
        kind,
        major: major(found.st_rdev),
        minor: minor(found.st_rdev),
        access: device.access,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_device_reached_without_links_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        let device = |source: &Path| Device {
            source: source.to_owned(),
            target: "/dev/x".into(),
            access: Access::try_from("rw".to_owned()).unwrap(),
        };
        let found = find(&[device(Path::new("/dev/null"))]).unwrap();
        let numbers = (found[0].kind, found[0].major, found[0].minor);
        assert_eq!(numbers, (FileType::CharacterDevice, 1, 3));
        for (path, words) in [
            (link.as_path(), "open"),
            (dir.path(), "neither"),
            (Path::new("/dev/none"), "open"),
            (Path::new("/proc/self/fd/0"), "open"),
        ] {
            let error = find(&[device(path)]).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
