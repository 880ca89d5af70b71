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
