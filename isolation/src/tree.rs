//! Removing whole directories that a workload has filled, however deep it made them.
//!
//! A tree is flattened: a directory that is not empty is emptied of its files, and the directories
//! in it are moved up to the top, where their turn comes. So depth costs neither stack nor
//! descriptors, which is what a recursive removal pays with. Nothing is followed and no mount is
//! entered. It deliberately does not stop at a failure: it removes what it can and tells the first.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;

/// How deep the removal goes itself when nothing can be moved.
const MAX_DEPTH: usize = 64;

const DIR: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Removes a directory and all that is in it. Blocks as long as the disk does.
///
/// # Errors
/// The first thing that could not be removed; `NotFound` if there is no such directory.
pub fn remove(dir: &Path) -> io::Result<()> {
    let top = rustix::fs::openat(CWD, dir, DIR, Mode::empty())?;
    empty(top.as_fd())?;
    Ok(rustix::fs::unlinkat(CWD, dir, AtFlags::REMOVEDIR)?)
}

/// Removes all that is in a directory.
///
/// # Errors
/// The first thing that could not be removed.
pub fn empty(top: BorrowedFd<'_>) -> io::Result<()> {
    let mut moved = 0;
    loop {
        let mut progress = false;
        let mut failure = None;
        each(top, |name| {
            let gone = match drop_entry(top, name) {
                Err(Errno::NOTEMPTY | Errno::EXIST) => flatten(
                    top,
                    name,
                    &mut Lift {
                        top,
                        moved: &mut moved,
                    },
                    0,
                ),
                done => done,
            };
            match gone {
                Ok(()) => progress = true,
                Err(errno) => failure = failure.or(Some(errno)),
            }
        })?;
        match failure {
            // What could not go now may go once something else has gone.
            _ if progress => {}
            Some(errno) => return Err(errno.into()),
            None => return Ok(()),
        }
    }
}

/// Calls `act` with the name of every entry that is there now.
fn each(dir: BorrowedFd<'_>, mut act: impl FnMut(&CStr)) -> Result<(), Errno> {
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        if ![c".", c".."].contains(&entry.file_name()) {
            act(entry.file_name());
        }
    }
    Ok(())
}

/// Removes a file, or a directory that is empty.
fn drop_entry(dir: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR),
        done => done,
    }
}

/// Takes everything out of the directory `name` of `parent`, and removes it.
fn flatten(
    parent: BorrowedFd<'_>,
    name: &CStr,
    lift: &mut Lift<'_>,
    depth: usize,
) -> Result<(), Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    let dir: OwnedFd = rustix::fs::openat2(parent, name, DIR, Mode::empty(), resolve)?;
    let mut failure = None;
    each(dir.as_fd(), |inner| {
        let gone = match drop_entry(dir.as_fd(), inner) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => match lift.up(dir.as_fd(), inner) {
                // A full disk has no room for the new name, but gains some by what goes first.
                Err(Errno::NOSPC | Errno::DQUOT) if depth < MAX_DEPTH => {
                    flatten(dir.as_fd(), inner, lift, depth + 1)
                }
                done => done,
            },
            done => done,
        };
        failure = failure.or(gone.err());
    })?;
    match failure {
        Some(errno) => Err(errno),
        // Entries that readdir(3) passed over because others went meanwhile: the next round's.
        None => match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
            done => done,
        },
    }
}

/// Where directories are moved to.
struct Lift<'a> {
    top: BorrowedFd<'a>,
    /// How many were.
    moved: &'a mut u64,
}

impl Lift<'_> {
    /// Moves a directory up to the top under a name that nothing has.
    fn up(&mut self, from: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
        loop {
            *self.moved += 1;
            let free = format!(".removed-{}", self.moved);
            let flags = RenameFlags::NOREPLACE;
            match rustix::fs::renameat_with(from, name, self.top, &free, flags) {
                Err(Errno::EXIST) => {}
                done => return done,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_of_any_depth_and_width_goes() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let outside = dir.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("kept"), "").unwrap();
        let top = dir.path().join("top");
        std::fs::create_dir(&top).unwrap();
        let mut at = rustix::fs::openat(CWD, &top, DIR, Mode::empty()).unwrap();
        // Deeper than any path or stack goes, and a name that the removal would choose itself.
        for _ in 0..8_000 {
            rustix::fs::mkdirat(&at, c"d", Mode::RWXU).unwrap();
            at = rustix::fs::openat(&at, c"d", DIR, Mode::empty()).unwrap();
        }
        for name in [".removed-1", ".removed-2/x/y", "wide"] {
            std::fs::create_dir_all(top.join(name)).unwrap();
        }
        for number in 0..3_000 {
            std::fs::create_dir_all(top.join(format!("wide/{number}/in"))).unwrap();
            std::fs::write(top.join(format!("wide/{number}/file")), "").unwrap();
        }
        std::os::unix::fs::symlink(&outside, top.join("wide/link")).unwrap();
        remove(&top).unwrap();
        assert!(!top.exists() && outside.join("kept").exists());
        assert_eq!(remove(&top).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
