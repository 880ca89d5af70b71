//! Landlock: which files the command may reach (`landlock(7)`).
//!
//! Rules are made while the root's descriptor is there, and enforced last. Everything that the
//! kernel's version can deny is denied, so that a newer kernel is never laxer.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, OFlags};

use super::{Fault, paths};
use crate::plan::{InRoot, LandlockRule};
use crate::sys::confine;

const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const TRUNCATE: u64 = 1 << 14;
const IOCTL_DEV: u64 = 1 << 15;
/// What concerns a file as such; the rest concerns what is in a directory.
const OF_FILES: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV;
const READ: u64 = EXECUTE | READ_FILE | READ_DIR;

/// Every access to files that version `version` knows.
fn known(version: u32) -> u64 {
    let newest = match version {
        0 | 1 => 12,
        2 => 13,
        3 | 4 => 14,
        _ => 15,
    };
    (1 << (newest + 1)) - 1
}

/// Makes the rules.
pub(super) fn rules(
    root: BorrowedFd<'_>,
    version: u32,
    rules: &[LandlockRule],
) -> Result<OwnedFd, Fault> {
    let all = known(version);
    let set = confine::landlock_ruleset(all)?;
    for LandlockRule { at, write } in rules {
        allow(root, &set, at, if *write { all } else { READ })?;
    }
    Ok(set)
}

fn allow(root: BorrowedFd<'_>, set: &OwnedFd, at: &InRoot, access: u64) -> Result<(), Fault> {
    let path = paths::open(root, &at.path, OFlags::PATH, paths::WITHIN)?;
    let is_dir = FileType::from_raw_mode(rustix::fs::fstat(&path)?.st_mode).is_dir();
    let access = if is_dir { access } else { access & OF_FILES };
    Ok(confine::landlock_allow(set.as_fd(), path.as_fd(), access)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_knows_what_its_header_lists() {
        // LANDLOCK_ACCESS_FS_MAKE_SYM, _REFER, _TRUNCATE and _IOCTL_DEV are the last of theirs.
        assert_eq!(known(1), (1 << 13) - 1);
        assert_eq!(known(2), (1 << 14) - 1);
        assert_eq!(known(3), known(4));
        assert_eq!(known(7), (1 << 16) - 1);
    }
}
