//! One output stream of a container: from its pipe to its file by `splice(2)`, so that no byte is
//! copied through a process, with rotation by size.
//!
//! Any call on the pipe or the file may block for as long as a container likes: whoever writes holds
//! the pipe's and the file's lock meanwhile, also while its memory is fetched from somewhere slow. So
//! all of this runs in [`super::outlet`], never in the keeper.
//!
//! What comes out of a terminal is read and written instead, since others may watch it.
//!
//! It deliberately knows nothing of lines. The files lie in a directory that the container can
//! write to, so a name there is never trusted: files are made with `O_EXCL | O_NOFOLLOW` and
//! written through the descriptor that was made (Nomad's CVE-2026-6959). A file that was rotated
//! carries where in the whole stream it begins and where it ends, as extended attributes that no
//! container can set: whoever follows the stream keeps its place by them, and is woken by the latter
//! once another file goes on. Invariants: a full disk costs output, which is counted and, as
//! soon as there is room again, said in the file, and never blocks the container or spins; a turn
//! takes what was there when it began, however fast the container writes on.

mod screen;

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, splice};
use serde::{Deserialize, Serialize};

use screen::Screen;

use crate::spec::Kept;

/// Bytes moved per turn of the event loop, so that one loud container cannot starve the others.
const TURN_BYTES: usize = 256 << 10;
/// Bytes still taken after the container ended: the largest pipe it can have made.
const LAST_BYTES: usize = 4 << 20;
/// What the pipe of a loud container is made to hold, so that it needs fewer turns.
const LOUD_PIPE_BYTES: usize = 256 << 10;
/// What a pipe holds that nobody changed: 16 pages, pipe(7).
const PIPE_BYTES: usize = 64 << 10;
/// Bytes read of a terminal at once; it holds that many itself.
const TERMINAL_BYTES: usize = 4096;
/// How often a name that the container put in the way is removed.
const MAX_TRIES: usize = 8;

/// The extended attribute with the place in the stream where a file begins, in decimal. The first
/// one begins at 0 and has none.
pub const START_ATTRIBUTE: &str = "trusted.gantry.start";
/// The one with the place where it ends; another file goes on from there.
pub const END_ATTRIBUTE: &str = "trusted.gantry.end";

/// What a turn found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// This much was in the pipe, which may have more, now or later.
    Open(usize),
    /// Every writer is gone.
    Closed,
}

/// How much is kept, and whose it is.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Rotation {
    /// How much.
    pub(super) kept: Kept,
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

/// What came of turns so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Moved {
    /// Bytes that are in files.
    pub(super) bytes: u64,
    /// Files that were rotated.
    pub(super) rotations: u64,
}

/// One stream.
#[derive(Debug)]
pub(super) struct Pump {
    pipe: OwnedFd,
    /// What it holds, as far as known.
    room: usize,
    dir: Arc<OwnedFd>,
    name: &'static str,
    /// None: the next byte makes a new one.
    file: Option<OwnedFd>,
    /// Its predecessor, until those who follow are told of this one.
    full: Option<OwnedFd>,
    /// Whether what has the name is still to be opened.
    unopened: bool,
    /// Where the file begins in the stream.
    start: u64,
    offset: u64,
    rotation: Rotation,
    moved: Moved,
    dropped_bytes: u64,
    /// What was dropped since the file last said so, and why.
    unsaid: Option<(u64, Errno)>,
    /// What is special where the pipe is the master of a terminal.
    screen: Option<Screen>,
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

/// Makes the file anew as [`make_file`] does; it has its name only once it says where it begins.
fn make_next(dir: &OwnedFd, name: &str, rotation: Rotation, start: u64) -> Result<OwnedFd, Errno> {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::openat(dir, ".", flags, Mode::from_raw_mode(0o644)) else {
        // Some file systems know no files without name.
        let file = make_file(dir, name, rotation)?;
        set_place(&file, START_ATTRIBUTE, start);
        return Ok(file);
    };
    rotation.own(&file)?;
    set_place(&file, START_ATTRIBUTE, start);
    let itself = format!("/proc/self/fd/{}", file.as_raw_fd());
    for _ in 0..MAX_TRIES {
        match rustix::fs::linkat(CWD, &itself, dir, name, AtFlags::SYMLINK_FOLLOW) {
            Ok(()) => return Ok(file),
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

/// A place in the stream that a file carries; None when it carries none.
fn place(file: &OwnedFd, attribute: &str) -> Option<u64> {
    // As many digits as the largest number has.
    let mut text = [0; 20];
    let length = rustix::fs::fgetxattr(file, attribute, &mut text).ok()?;
    std::str::from_utf8(text.get(..length)?).ok()?.parse().ok()
}

/// A file system that keeps no attributes only costs those who follow their place.
fn set_place(file: &OwnedFd, attribute: &str, place: u64) {
    let text = place.to_string();
    let _ = rustix::fs::fsetxattr(file, attribute, text.as_bytes(), XattrFlags::empty());
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
            room: PIPE_BYTES,
            dir,
            name,
            unopened: end.is_none(),
            file,
            full: None,
            start: 0,
            offset: end.unwrap_or(0),
            rotation,
            moved: Moved::default(),
            dropped_bytes: 0,
            unsaid: None,
            screen: None,
        }
    }

    /// The pipe is the master of a terminal, which does not block.
    pub(super) fn watch(mut self) -> Self {
        self.screen = Some(Screen::new(&self.pipe));
        self
    }

    /// Shows what comes from now on to one more.
    pub(super) fn join(&mut self, watcher: OwnedFd) {
        if let Some(screen) = &mut self.screen {
            screen.join(watcher);
        }
    }

    /// To wait on.
    pub(super) fn pipe(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    /// What its pipe holds.
    pub(super) fn room(&self) -> usize {
        self.room
    }

    /// Bytes that could not be written.
    pub(super) fn dropped_bytes(&self) -> u64 {
        self.dropped_bytes
    }

    /// What came of its turns since this was last asked.
    pub(super) fn take_moved(&mut self) -> Moved {
        std::mem::take(&mut self.moved)
    }

    /// Moves what is there, up to a bound.
    pub(super) fn turn(&mut self, null: BorrowedFd<'_>) -> Turn {
        if self.screen.is_some() {
            return match self.take_from_terminal(TURN_BYTES) {
                (found, true) => Turn::Open(found),
                (_, false) => Turn::Closed,
            };
        }
        let found = rustix::io::ioctl_fionread(&self.pipe).unwrap_or(0);
        let found = usize::try_from(found).unwrap_or(usize::MAX);
        // One byte more tells an empty pipe from one that everyone has closed.
        let open = self.take(found.clamp(1, TURN_BYTES), null);
        self.widen(found);
        if open {
            Turn::Open(found)
        } else {
            Turn::Closed
        }
    }

    /// Gives a pipe that runs full more room, once.
    fn widen(&mut self, found: usize) {
        if self.room >= LOUD_PIPE_BYTES || found < self.room / 8 * 7 {
            return;
        }
        // Refused to a user with too many pages in pipes; then it stays as it is.
        let _ = rustix::pipe::fcntl_setpipe_size(&self.pipe, LOUD_PIPE_BYTES);
        self.room = LOUD_PIPE_BYTES;
    }

    /// Moves what an ended container left in the pipe.
    pub(super) fn finish(&mut self, null: BorrowedFd<'_>) {
        if let Some(screen) = &mut self.screen {
            screen.finish();
            self.take_from_terminal(LAST_BYTES);
            return;
        }
        self.take(LAST_BYTES, null);
    }

    /// Whether somebody can still write to the pipe, as far as seen.
    fn take(&mut self, mut budget: usize, null: BorrowedFd<'_>) -> bool {
        while budget > 0 {
            match self.take_once(budget) {
                Ok(0) => return false,
                Ok(moved) => {
                    self.moved.bytes += moved as u64;
                    budget = budget.saturating_sub(moved);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return true,
                // Full disk, quota, size limit, I/O error: the container goes on without.
                Err(why) => match self.discard(budget, why, null) {
                    Ok(0) => return false,
                    Ok(dropped) => budget = budget.saturating_sub(dropped),
                    Err(_) => return true,
                },
            }
        }
        true
    }

    /// How much was there, up to a bound, and whether somebody still has the other side open.
    fn take_from_terminal(&mut self, most: usize) -> (usize, bool) {
        let (mut found, mut bytes) = (0, [0; TERMINAL_BYTES]);
        while found < most {
            let got = match rustix::io::read(&self.pipe, &mut bytes) {
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return (found, true),
                // EIO: nobody has.
                Ok(0) | Err(_) => return (found, false),
                Ok(got) => got,
            };
            found += got;
            if let Some(screen) = &mut self.screen {
                screen.show(&bytes[..got]);
            }
            self.write(&bytes[..got]);
        }
        (found, true)
    }

    /// Writes what fits, and counts the rest as lost.
    fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.write_once(bytes) {
                Ok(written) => {
                    self.moved.bytes += written as u64;
                    bytes = &bytes[written..];
                }
                Err(Errno::INTR) => {}
                Err(why) => {
                    self.lose(bytes.len(), why);
                    return;
                }
            }
        }
    }

    fn write_once(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        let length = self.prepare(bytes.len())?;
        let file = self.file.as_ref().ok_or(Errno::NOSPC)?;
        match rustix::io::pwrite(file, &bytes[..length], self.offset)? {
            0 => Err(Errno::NOSPC),
            written => {
                self.offset += written as u64;
                Ok(written)
            }
        }
    }

    fn take_once(&mut self, budget: usize) -> Result<usize, Errno> {
        let length = self.prepare(budget)?;
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

    /// Makes sure that there is a file with room; for how many bytes of so many.
    fn prepare(&mut self, wanted: usize) -> Result<usize, Errno> {
        if self.unopened {
            let (file, offset) = open_file(&self.dir, self.name, self.rotation)?;
            self.start = place(&file, START_ATTRIBUTE).unwrap_or(0);
            // An outlet that is gone was about to go on in another one.
            let _ = rustix::fs::fremovexattr(&file, END_ATTRIBUTE);
            (self.file, self.offset, self.unopened) = (Some(file), offset, false);
        }
        if self.file.is_none() || self.left() == 0 {
            self.rotate()?;
        }
        if self.unsaid.is_some() {
            self.say_loss()?;
        }
        let left = usize::try_from(self.left()).unwrap_or(usize::MAX);
        // What was said may have filled it: one byte too many harms nothing.
        Ok(wanted.min(left.max(1)))
    }

    /// What the file may still take.
    fn left(&self) -> u64 {
        match self.rotation.kept.max_bytes {
            0 => u64::MAX,
            max => max.saturating_sub(self.offset),
        }
    }

    fn discard(&mut self, budget: usize, why: Errno, null: BorrowedFd<'_>) -> Result<usize, Errno> {
        let dropped = splice(&self.pipe, None, null, None, budget, SpliceFlags::NONBLOCK)?;
        self.lose(dropped, why);
        Ok(dropped)
    }

    fn lose(&mut self, bytes: usize, why: Errno) {
        if bytes > 0 {
            let before = self.unsaid.map_or(0, |(bytes, _)| bytes);
            self.unsaid = Some((before + bytes as u64, why));
        }
        self.dropped_bytes += bytes as u64;
    }

    /// Writes into the file what it lacks.
    fn say_loss(&mut self) -> Result<(), Errno> {
        let (Some(file), Some((bytes, why))) = (&self.file, self.unsaid) else {
            return Ok(());
        };
        let why = std::io::Error::from(why);
        let words = format!("\n[gantry: {bytes} bytes of output were lost here: {why}]\n");
        let said = rustix::io::pwrite(file, words.as_bytes(), self.offset)?;
        self.offset += said as u64;
        self.unsaid = None;
        Ok(())
    }

    /// Goes on in a new file.
    fn rotate(&mut self) -> Result<(), Errno> {
        // When the new file cannot be made, the old ones are renamed only once.
        if let Some(full) = self.file.take() {
            self.start = self.start.saturating_add(self.offset);
            // Before it can be taken for a file that the container put there.
            set_place(&full, END_ATTRIBUTE, self.start);
            self.rename();
            self.offset = 0;
            self.full = Some(full);
            self.moved.rotations += 1;
        }
        let made = make_next(&self.dir, self.name, self.rotation, self.start)?;
        self.file = Some(made);
        if let Some(full) = self.full.take() {
            // Once more: whoever follows the stream is woken by it.
            set_place(&full, END_ATTRIBUTE, self.start);
        }
        Ok(())
    }

    /// `stdout.1` becomes `stdout.2` and so on; the oldest is overwritten.
    fn rename(&self) {
        let keep = self.rotation.kept.files;
        let numbered = |number: u32| format!("{}.{number}", self.name);
        for number in (1..keep).rev() {
            // A gap in the numbers is no failure, and neither is what the container put there.
            let (from, to) = (numbered(number), numbered(number + 1));
            let _ = rustix::fs::renameat(&*self.dir, from, &*self.dir, to);
        }
        if keep > 0 {
            let _ = rustix::fs::renameat(&*self.dir, self.name, &*self.dir, numbered(1));
        }
    }
}
