//! Device nodes as steps: those that every container has, and those of the configuration.

use std::path::Path;

use super::mounts::open_node;
use super::{Kept, Namespaces, inside, oci};
use crate::oci::config::{Config, DeviceNode};
use crate::oci::error::OciError;
use crate::oci::options;
use crate::plan::{OciDevice, OciStep, Step};

/// Name, major and minor of `Documentation/admin-guide/devices.txt`.
const DEFAULT: [(&str, i64, i64); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/tty", 5, 0),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
];

/// The steps; none when `/dev` is the host's.
pub(super) fn steps(
    config: &Config,
    namespaces: &Namespaces,
    kept: &mut Kept,
    steps: &mut Vec<Step>,
) -> Result<(), OciError> {
    let bound = config.mounts.iter().any(|mount| {
        let dev = mount.destination.trim_end_matches('/') == "/dev";
        dev && (mount.kind == "bind" || options::parse(&mount.options).bind)
    });
    if bound {
        return Ok(());
    }
    let defaults = DEFAULT.iter().map(|(path, major, minor)| DeviceNode {
        path: (*path).to_owned(),
        kind: "c".to_owned(),
        major: *major,
        minor: *minor,
        file_mode: Some(0o666),
        uid: None,
        gid: None,
    });
    let named = |path: &str| {
        config
            .linux
            .devices
            .iter()
            .any(|device| device.path == path)
    };
    let defaults: Vec<DeviceNode> = defaults.filter(|device| !named(&device.path)).collect();
    for device in defaults.iter().chain(&config.linux.devices) {
        // The terminal's own is made with it.
        if device.path == "/dev/console" || device.path == "/dev/ptmx" {
            continue;
        }
        steps.push(oci(OciStep::Device(Box::new(node(
            device, namespaces, kept,
        )?))));
    }
    steps.push(oci(OciStep::DeviceLinks));
    Ok(())
}

fn node(
    device: &DeviceNode,
    namespaces: &Namespaces,
    kept: &mut Kept,
) -> Result<OciDevice, OciError> {
    let number = |number: i64| {
        u32::try_from(number)
            .map_err(|_| OciError::Refused(format!("device {}: number {number}", device.path)))
    };
    let kind = match device.kind.as_str() {
        "c" | "u" => b'c',
        "b" => b'b',
        "p" => b'p',
        other => {
            return Err(OciError::Refused(format!(
                "device {}: \"{other}\" is not a device type",
                device.path
            )));
        }
    };
    // Nobody may make nodes in a user namespace.
    let host = if namespaces.users() && kind != b'p' {
        Some(kept.keep(open_node(Path::new(&device.path))?))
    } else {
        None
    };
    Ok(OciDevice {
        at: inside(&device.path)?,
        kind,
        major: number(device.major)?,
        minor: number(device.minor)?,
        mode: device.file_mode.unwrap_or(0o666) & 0o7777,
        uid: device.uid.unwrap_or(0),
        gid: device.gid.unwrap_or(0),
        host,
    })
}
