//! One output stream of a container: from its pipe to its file by `splice(2)`, so that no byte is
//! copied through a process, with rotation by size.
//!
//! Any call on the pipe or the file may block for as long as a container likes: whoever writes holds
//! the pipe's and the file's lock meanwhile, also while its memory is fetched from somewhere slow. So
//! all of this runs in [`super::outlet`], never in the keeper.
//!
//! It deliberately knows nothing of lines. The files lie in a directory that the container can
//! write to, so a name there is never trusted: files are made with `O_EXCL | O_NOFOLLOW` and
//! written through the descriptor that was made (Nomad's CVE-2026-6959). Invariant: a full disk
//! costs output, which is counted, and never blocks the container or spins.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, splice};
use serde::{Deserialize, Serialize};

/// Bytes moved per turn of the event loop, so that one loud container cannot starve the others.
const TURN_BYTES: usize = 1 << 20;
/// Bytes still taken after the container ended: the largest pipe it can have made.
const LAST_BYTES: usize = 4 << 20;
/// How often a name that the container put in the way is removed.
const MAX_TRIES: usize = 8;

/// What a turn found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// The pipe may have more, now or later.
    Open,
    /// Every writer is gone.
    Closed,
}

/// When and how often files are rotated.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Rotation {
    /// 0 never rotates.
    pub(super) max_bytes: u64,
    /// Old files kept.
    pub(super) keep: u32,
    /// Whose the files are, where the container's users are none of the host's: a user that it does
    /// not have, so that it cannot open them for writing. Whoever writes to a file holds up whoever
    /// else does.
    pub(super) owner: Option<u32>,
}

impl Rotation {
    fn own(self, file: &OwnedFd) -> Result<(), Errno> {
        let Some(owner) = self.owner else {
            return Ok(());
        };
        let (user, group) = (Uid::from_raw(owner), Gid::from_raw(owner));
        rustix::fs::fchown(file, Some(user), Some(group))
    }
}

/// One stream.
#[derive(Debug)]
pub(super) struct Pump {
    pipe: OwnedFd,
    dir: Arc<OwnedFd>,
    name: &'static str,
    /// None: the next byte makes a new one.
    file: Option<OwnedFd>,
    /// Whether what has the name is still to be opened.
    unopened: bool,
    offset: u64,
    rotation: Rotation,
    dropped_bytes: u64,
}

/// Opens the directory that files of output lie in.
pub(super) fn open_dir(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

/// The files of both streams, as their pumps need them.
pub(super) const NAMES: [&str; 2] = ["stdout", "stderr"];

/// A file to go on with where it ends, and that place. What is there but no regular file that may be
/// written at once is replaced.
pub(super) fn open_file(
    dir: &OwnedFd,
    name: &str,
    rotation: Rotation,
) -> Result<(OwnedFd, u64), Errno> {
    // Non-blocking: somebody may have put a FIFO there, or hold a lease.
    let flags =
        OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o644)) {
        Ok(file) => {
            let stat = rustix::fs::fstat(&file)?;
            if !FileType::from_raw_mode(stat.st_mode).is_file() {
                return Ok((make_file(dir, name, rotation)?, 0));
            }
            rotation.own(&file)?;
            Ok((file, u64::try_from(stat.st_size).unwrap_or(0)))
        }
        Err(Errno::LOOP | Errno::NXIO | Errno::ISDIR | Errno::AGAIN | Errno::TXTBSY) => {
            Ok((make_file(dir, name, rotation)?, 0))
        }
        Err(errno) => Err(errno),
    }
}

/// Makes the file anew; whatever has its name is removed, not followed.
fn make_file(dir: &OwnedFd, name: &str, rotation: Rotation) -> Result<OwnedFd, Errno> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for _ in 0..MAX_TRIES {
        match rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o644)) {
            Ok(file) => {
                rotation.own(&file)?;
                return Ok(file);
            }
            Err(Errno::EXIST) => clear_name(dir, name),
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::EXIST)
}

fn clear_name(dir: &OwnedFd, name: &str) {
    // The next attempt to make the file tells whether either worked.
    if rustix::fs::unlinkat(dir, name, AtFlags::empty()).is_err() {
        let _ = rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR);
    }
}

impl Pump {
    /// A stream that goes on at the end of `file`, which was opened a moment ago; without one, at the
    /// first byte, in the file that has its name, or a new one.
    pub(super) fn new(
        pipe: OwnedFd,
        dir: Arc<OwnedFd>,
        name: &'static str,
        rotation: Rotation,
        file: Option<OwnedFd>,
    ) -> Self {
        let stat = file.as_ref().and_then(|file| rustix::fs::fstat(file).ok());
        let end = stat.and_then(|stat| u64::try_from(stat.st_size).ok());
        Self {
            pipe,
            dir,
            name,
            unopened: end.is_none(),
            file,
            offset: end.unwrap_or(0),
            rotation,
            dropped_bytes: 0,
        }
    }

    /// To wait on.
    pub(super) fn pipe(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    /// Bytes that could not be written.
    pub(super) fn dropped_bytes(&self) -> u64 {
        self.dropped_bytes
    }

    /// Moves what is there, up to a bound.
    pub(super) fn turn(&mut self, null: BorrowedFd<'_>) -> Turn {
        self.take(TURN_BYTES, null)
    }

    /// Moves what an ended container left in the pipe.
    pub(super) fn finish(&mut self, null: BorrowedFd<'_>) {
        self.take(LAST_BYTES, null);
    }

    fn take(&mut self, mut budget: usize, null: BorrowedFd<'_>) -> Turn {
        while budget > 0 {
            match self.take_once(budget) {
                Ok(0) => return Turn::Closed,
                Ok(moved) => budget = budget.saturating_sub(moved),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Turn::Open,
                // Full disk, quota, size limit, I/O error: the container goes on without.
                Err(_) => match self.discard(budget, null) {
                    Ok(0) => return Turn::Closed,
                    Ok(dropped) => budget = budget.saturating_sub(dropped),
                    Err(_) => return Turn::Open,
                },
            }
        }
        Turn::Open
    }

    fn take_once(&mut self, budget: usize) -> Result<usize, Errno> {
        let max = self.rotation.max_bytes;
        if self.unopened {
            let (file, offset) = open_file(&self.dir, self.name, self.rotation)?;
            (self.file, self.offset, self.unopened) = (Some(file), offset, false);
        }
        if self.file.is_none() || (max > 0 && self.offset >= max) {
            self.rotate()?;
        }
        let room = if max > 0 { max - self.offset } else { u64::MAX };
        let length = budget.min(usize::try_from(room).unwrap_or(usize::MAX));
        let file = self.file.as_ref().ok_or(Errno::NOSPC)?;
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        splice(
            &self.pipe,
            None,
            file,
            Some(&mut self.offset),
            length,
            flags,
        )
    }

    fn discard(&mut self, budget: usize, null: BorrowedFd<'_>) -> Result<usize, Errno> {
        let dropped = splice(&self.pipe, None, null, None, budget, SpliceFlags::NONBLOCK)?;
        self.dropped_bytes += dropped as u64;
        Ok(dropped)
    }

    /// `stdout.1` becomes `stdout.2` and so on; the oldest is overwritten.
    fn rotate(&mut self) -> Result<(), Errno> {
        let numbered = |number: u32| format!("{}.{number}", self.name);
        for number in (1..self.rotation.keep).rev() {
            // A gap in the numbers is no failure, and neither is what the container put there.
            let _ = rustix::fs::renameat(
                &*self.dir,
                numbered(number),
                &*self.dir,
                numbered(number + 1),
            );
        }
        if self.rotation.keep > 0 {
            let _ = rustix::fs::renameat(&*self.dir, self.name, &*self.dir, numbered(1));
        }
        self.file = None;
        let made = make_file(&self.dir, self.name, self.rotation)?;
        (self.file, self.offset) = (Some(made), 0);
        Ok(())
    }
}
