//! Making a whole group at once, for a runtime that starts one container and is gone. The keeper's
//! child makes its own, since a process between clone and exec allocates nothing and opens by name.
//!
//! It deliberately undoes nothing: whoever asked knows the group and removes it. Groups that are there
//! already are taken as they are, since engines make some of them.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::Group;
use super::change::{ChangeError, make_dir, write_all};

/// Makes the v2 directory and those above it, and opens it to start a process in.
pub(crate) fn establish_unified(group: &Group) -> Result<Option<OwnedFd>, ChangeError> {
    let Some(dir) = &group.unified else {
        return Ok(None);
    };
    make_dir(dir, false).map_err(|error| ChangeError::Make(dir.clone(), error))?;
    open(dir).map(Some)
}

/// Makes the other directories and those above them, hands controllers down and writes the limits.
/// Nobody needs to be in the groups yet, but one may be in that of v2.
pub(crate) fn establish(group: &Group) -> Result<(), ChangeError> {
    for dir in &group.make {
        let cpuset = group.cpuset.as_ref() == Some(dir);
        make_dir(dir, cpuset).map_err(|error| ChangeError::Make(dir.clone(), error))?;
    }
    let enable = group.enable.iter().cloned();
    write_all(enable.collect(), |_, _| ())?;
    let settings = group.settings.iter();
    let settings = settings.map(|(dir, setting)| (dir.join(&*setting.file), setting.value.clone()));
    write_all(settings.collect(), |_, _| ())
}

fn open(dir: &Path) -> Result<OwnedFd, ChangeError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(dir, flags, Mode::empty())
        .map_err(|errno| ChangeError::Join(dir.to_owned(), errno.into()))
}

/// A group that a process moves itself into: its directory, and its open `tasks`.
///
/// "0" written there moves the writer alone, for which the kernel (5.6) skips the lock that
/// `cgroup.procs` waits a grace period for.
pub(crate) type Door = (PathBuf, OwnedFd);

/// Opens the way into the group at `dir`.
pub(crate) fn door(dir: PathBuf) -> Result<Door, ChangeError> {
    match rustix::fs::open(
        dir.join("tasks"),
        OFlags::WRONLY | OFlags::CLOEXEC,
        Mode::empty(),
    ) {
        Ok(file) => Ok((dir, file)),
        Err(errno) => Err(ChangeError::Join(dir, errno.into())),
    }
}
