//! Owner, mode, times and extended attributes of what a layer has; which of them a new file has by
//! itself.
//!
//! It decides which extended attributes are kept. It finds no file: every call here is on a
//! descriptor that [`super::tree`] opened.

use std::os::fd::OwnedFd;

use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags, fchmod, fchown,
    fsetxattr, fstat, openat, unlinkat,
};
use rustix::io::Errno;

use super::{UnpackError, failed};
use gantry_intake::Entry;

/// Owner and mode of a file that was just created, as far as they are certain: where they are what
/// the entry wants, two system calls a file are saved.
pub(super) struct Fresh {
    uid: u32,
    gid: u32,
    /// Mode bits that do not survive creation (the umask, or a default ACL's); all, if not known.
    lost: u32,
    /// A directory hands its group to what is created in it.
    inherits_group: bool,
}

impl Fresh {
    pub(super) fn of(root: &OwnedFd) -> Self {
        const NAME: &str = ".wh..wh..fresh";
        const ALL: u32 = 0o777;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let made = openat(root, NAME, flags, Mode::from_raw_mode(ALL));
        let stat = made.and_then(|file| {
            let stat = fstat(&file);
            unlinkat(root, NAME, AtFlags::empty())?;
            stat
        });
        match stat {
            Ok(stat) => Self {
                uid: stat.st_uid,
                gid: stat.st_gid,
                lost: ALL & !stat.st_mode,
                inherits_group: false,
            },
            Err(_) => Self {
                uid: 0,
                gid: 0,
                lost: ALL,
                inherits_group: true,
            },
        }
    }

    pub(super) fn directory(&mut self, entry: &Entry) {
        self.inherits_group |= entry.mode & 0o2000 != 0;
    }

    pub(super) fn has_owner(&self, entry: &Entry) -> bool {
        !self.inherits_group && (entry.uid, entry.gid) == (self.uid, self.gid)
    }

    pub(super) fn has_mode(&self, entry: &Entry) -> bool {
        entry.mode & (0o7000 | self.lost) == 0
    }
}

/// Owner, then mode (chown clears the set-id bits), then attributes (it clears those too).
pub(super) fn attributes(file: &OwnedFd, entry: &Entry) -> Result<(), UnpackError> {
    let fail = |operation| move |error| failed(operation, &entry.path, error);
    let (uid, gid) = owner(entry);
    fchown(file, uid, gid).map_err(fail("chown"))?;
    fchmod(file, Mode::from_raw_mode(entry.mode)).map_err(fail("chmod"))?;
    xattrs(file, entry)
}

pub(super) fn xattrs(file: &OwnedFd, entry: &Entry) -> Result<(), UnpackError> {
    for (name, value) in &entry.xattrs {
        let is_user = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
        if !is_user && name != b"security.capability" {
            continue;
        }
        match fsetxattr(file, name.as_slice(), value, XattrFlags::empty()) {
            Ok(()) => {}
            // The store's filesystem may not have user attributes; nothing depends on them.
            Err(Errno::OPNOTSUPP | Errno::NOSPC | Errno::TOOBIG) if is_user => {}
            Err(error) => {
                return Err(failed("set an extended attribute", &entry.path, error));
            }
        }
    }
    Ok(())
}

pub(super) fn owner(entry: &Entry) -> (Option<Uid>, Option<Gid>) {
    (
        Some(Uid::from_raw(entry.uid)),
        Some(Gid::from_raw(entry.gid)),
    )
}

pub(super) fn time(entry: &Entry) -> Timespec {
    Timespec {
        tv_sec: entry.mtime_s,
        tv_nsec: entry.mtime_ns.into(),
    }
}

pub(super) fn both(time: Timespec) -> Timestamps {
    let omit = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_OMIT,
    };
    Timestamps {
        last_access: omit,
        last_modification: time,
    }
}
