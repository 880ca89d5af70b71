//! Kernel settings by file. They are those of the calling thread's network namespace:
//! `/proc/sys/net` looks at who reads.
//!
//! Decides nothing. Writes only what differs, so that a read-only `/proc/sys` with the right values
//! is fine.

use std::fs;
use std::path::PathBuf;

use crate::error::NetError;

fn path(key: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(key)
}

/// The value without its newline; `None` if there is no such setting.
pub(crate) fn read(key: &str) -> Option<String> {
    fs::read_to_string(path(key))
        .ok()
        .map(|text| text.trim().to_owned())
}

/// Makes the setting hold the value.
pub(crate) fn ensure(key: &str, value: &'static str) -> Result<(), NetError> {
    if read(key).as_deref() == Some(value) {
        return Ok(());
    }
    fs::write(path(key), value).map_err(|source| NetError::Sysctl {
        key: key.to_owned(),
        value,
        source,
    })
}

/// As `ensure`, where the kernel has the setting at all.
pub(crate) fn ensure_if_there(key: &str, value: &'static str) -> Result<(), NetError> {
    if path(key).exists() {
        ensure(key, value)
    } else {
        Ok(())
    }
}

/// Makes the host deaf and mute to IPv6 on an interface (or, for `default`, on those to come): no
/// addresses, and no routes by what others on it advertise. A kernel without IPv6 is fine.
pub(crate) fn switch_off_ipv6(interface: &str) -> Result<(), NetError> {
    for (setting, value) in [("accept_ra", "0"), ("disable_ipv6", "1")] {
        ensure_if_there(&format!("net/ipv6/conf/{interface}/{setting}"), value)?;
    }
    Ok(())
}
