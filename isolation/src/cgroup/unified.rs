//! The group in the v2 tree, made with all that it must have before a process is born in it:
//! controllers, handed down from above, and the device filter. Limits are the child's to write.
//!
//! `clone3(2)` starts the process right in it, which no library that moves processes can do: moving
//! one waits for a grace period, 20 ms at worst.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::{DeviceFilter, Group, GroupFilter, Program};

/// What could not be done, and the kernel's word.
#[derive(Debug, thiserror::Error)]
#[error("{step}")]
pub(crate) struct UnifiedError {
    /// What was being done.
    pub(crate) step: String,
    /// Why it failed.
    #[source]
    pub(crate) errno: Errno,
}

fn failed(step: String) -> impl FnOnce(Errno) -> UnifiedError {
    move |errno| UnifiedError { step, errno }
}

/// Makes the group, if there is a v2 tree; `usual` is the filter that most share. Nothing is left
/// of it after a failure.
pub(crate) fn make_unified(
    group: &Group,
    usual: Option<&Program>,
) -> Result<Option<OwnedFd>, UnifiedError> {
    let Some(dir) = &group.unified else {
        return Ok(None);
    };
    for (file, line) in &group.enable {
        let step = || format!("write {line} to {}", file.display());
        std::fs::write(file, line).map_err(|error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            failed(step())(errno)
        })?;
    }
    let step = || format!("make cgroup {}", dir.display());
    rustix::fs::mkdir(dir, Mode::from_raw_mode(0o755)).map_err(failed(step()))?;
    let filtered = match &group.filter {
        None => Ok(()),
        Some(GroupFilter::Own(filter)) => filter_devices(dir, filter),
        // It was there when this keeper began.
        Some(GroupFilter::Usual) => usual
            .ok_or(Errno::NOSYS)
            .and_then(|usual| usual.attach(dir)),
    };
    let filtered = filtered.map_err(failed(format!("filter the devices of {}", dir.display())));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let made = filtered.and_then(|()| {
        let opened = rustix::fs::open(dir, flags, Mode::empty());
        opened.map(Some).map_err(failed(step()))
    });
    if made.is_err() {
        // Nobody was in it yet.
        let _ = rustix::fs::rmdir(dir);
    }
    made
}

/// Makes a filter hold for the v2 group at `dir` and those below, beside those that are there: a
/// device is allowed when all of them allow it. It stays as long as the group.
///
/// # Errors
/// The kernel has no such programs (Linux 4.15, `CONFIG_CGROUP_BPF`), or this process no right.
pub fn filter_devices(dir: &Path, filter: &DeviceFilter) -> Result<(), Errno> {
    Program::load(filter)?.attach(dir)
}
