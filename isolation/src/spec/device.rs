//! Device nodes beside the standard ones: which host node appears where, and what may be done to it.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{SpecError, bound, host_path};

/// Extra device nodes of one container.
pub const MAX_DEVICES: usize = 256;
/// File systems of their own below `/dev`.
const OWN_BELOW_DEV: [&str; 3] = ["/dev/pts", "/dev/shm", "/dev/mqueue"];

/// A device node of the host that appears inside, with the permissions and owner it has there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Absolute host path of a character or block device, without symbolic links on its way.
    pub source: PathBuf,
    /// Absolute path inside, below `/dev`; must be free.
    pub target: PathBuf,
    /// What the device controller allows.
    pub access: Access,
}

/// What may be done to a device node: at least one of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Access {
    /// Opening for reading.
    pub read: bool,
    /// Opening for writing.
    pub write: bool,
    /// Making nodes of the same number.
    pub make: bool,
}

impl TryFrom<String> for Access {
    type Error = SpecError;

    /// From letters of `rwm`, as in the device controller's files.
    fn try_from(text: String) -> Result<Self, SpecError> {
        let known = text.bytes().all(|letter| b"rwm".contains(&letter));
        if text.is_empty() || !known {
            return Err(SpecError::Access(text));
        }
        Ok(Self {
            read: text.contains('r'),
            write: text.contains('w'),
            make: text.contains('m'),
        })
    }
}

impl From<Access> for String {
    fn from(access: Access) -> Self {
        access.to_string()
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters = [(self.read, "r"), (self.write, "w"), (self.make, "m")];
        letters
            .iter()
            .filter(|(given, _)| *given)
            .try_for_each(|(_, letter)| f.write_str(letter))
    }
}

/// Whether every device is well formed.
pub(super) fn check_all(devices: &[Device]) -> Result<(), SpecError> {
    bound("devices", devices.len(), MAX_DEVICES)?;
    devices.iter().try_for_each(|device| {
        host_path("device", &device.source)?;
        host_path("device target", &device.target)?;
        let below = device.target.strip_prefix("/dev");
        let named = below.is_ok_and(|rest| rest != Path::new(""));
        let own = OWN_BELOW_DEV
            .iter()
            .any(|own| device.target.starts_with(own));
        if own || !named {
            return Err(SpecError::DeviceTarget(device.target.clone()));
        }
        if !(device.access.read || device.access.write || device.access.make) {
            return Err(SpecError::Access(String::new()));
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(target: &str) -> Device {
        Device {
            source: "/dev/fuse".into(),
            target: target.into(),
            access: Access::try_from("rw".to_owned()).unwrap(),
        }
    }

    #[test]
    fn access_is_written_as_the_kernel_writes_it() {
        for text in ["r", "w", "m", "rw", "rwm", "wm"] {
            let access = Access::try_from(text.to_owned()).unwrap();
            assert_eq!(access.to_string(), text);
        }
        for text in ["", "x", "rwx", "r w"] {
            assert!(Access::try_from(text.to_owned()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn devices_appear_below_dev_only() {
        for target in ["/dev/fuse", "/dev/dri/card0"] {
            assert_eq!(check_all(&[device(target)]), Ok(()));
        }
        for target in [
            "/dev",
            "/dev/shm/x",
            "/dev/pts/0",
            "/x",
            "dev/x",
            "/dev/../x",
        ] {
            assert!(check_all(&[device(target)]).is_err(), "{target}");
        }
    }
}
