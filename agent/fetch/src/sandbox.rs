//! The directory that files are placed in. Whoever runs in it may change it meanwhile.
//!
//! Invariants: every path is resolved by openat2 with RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS |
//! RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV, or is one component below a descriptor that was; the
//! last component is created anew (O_EXCL or its like) and never followed; owner and mode are set
//! through descriptors of what was created, never by name.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use gantry_intake::ArchivePath;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT, Uid,
    chownat, copy_file_range, fchmod, fchown, fstat, fstatvfs, futimens, linkat, mkdirat, openat,
    openat2, symlinkat, unlinkat,
};
use rustix::io::Errno;

use crate::error::Cause;
use crate::meter::stopped;

/// Bits of a mode that are kept, and those that a directory always has.
const MODE_BITS: u32 = 0o777;
const DIRECTORY_BITS: u32 = 0o700;
/// Mode of a directory that is needed and not listed.
const IMPLIED_MODE: u32 = 0o755;
/// Bytes written at a time.
const BUFFER_BYTES: usize = 128 * 1024;
/// Bytes that the kernel copies at a time: a cancellation waits for them.
const COPY_BYTES: usize = 32 << 20;
/// Space that is left free on the disk, and how often that is looked at, in bytes.
const RESERVE_BYTES: u64 = 256 << 20;
const SPACE_CHECK_BYTES: u64 = 64 << 20;
/// What an entry without content is counted as.
const ENTRY_BYTES: u64 = 512;

/// Whose the files are, in the numbers of the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

pub(crate) struct Sandbox<'a> {
    root: BorrowedFd<'a>,
    owner: Owner,
    /// What the task may write in all, and what of that is left.
    limit_bytes: Option<u64>,
    left: u64,
    unchecked_bytes: u64,
    cancel: &'a AtomicBool,
    /// The last parent that was resolved: entries come directory by directory.
    cached: Option<(Vec<u8>, OwnedFd)>,
    buffer: Vec<u8>,
}

fn resolve() -> ResolveFlags {
    ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV
}

fn directory_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

impl<'a> Sandbox<'a> {
    pub(crate) fn new(
        root: BorrowedFd<'a>,
        owner: Owner,
        limit_bytes: Option<u64>,
        cancel: &'a AtomicBool,
    ) -> Self {
        Self {
            root,
            owner,
            limit_bytes,
            left: limit_bytes.unwrap_or(u64::MAX),
            unchecked_bytes: SPACE_CHECK_BYTES,
            cancel,
            cached: None,
            buffer: vec![0; BUFFER_BYTES],
        }
    }

    /// A new, empty file that belongs to the owner; what has its name and is no directory goes.
    pub(crate) fn file(&mut self, path: &ArchivePath, mode: u32) -> Result<OwnedFd, Cause> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = self.make(path, |parent, name| {
            openat(parent, name, flags, Mode::from_raw_mode(0o600))
        })?;
        self.give(&file, path, mode)?;
        Ok(file)
    }

    /// Writes all that `input` has. A read error is `broken`'s to word.
    pub(crate) fn fill(
        &mut self,
        file: &OwnedFd,
        path: &ArchivePath,
        input: &mut impl Read,
        broken: impl Fn(io::Error) -> Cause,
    ) -> Result<(), Cause> {
        loop {
            let length = match input.read(&mut self.buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(stopped(&error).unwrap_or_else(|| broken(error))),
            };
            self.write(file, path, length)?;
        }
    }

    fn write(&mut self, file: &OwnedFd, path: &ArchivePath, length: usize) -> Result<(), Cause> {
        self.charge(length as u64)?;
        let mut rest = &self.buffer[..length];
        while !rest.is_empty() {
            match rustix::io::write(file, rest) {
                Ok(written) => rest = &rest[written..],
                Err(Errno::INTR) => {}
                Err(error) => return Err(Cause::io("write", path.bytes(), error.into())),
            }
        }
        Ok(())
    }

    /// Copies `from` as it is, by the file system's own means where it has some.
    pub(crate) fn copy(
        &mut self,
        file: &OwnedFd,
        path: &ArchivePath,
        from: &std::fs::File,
    ) -> Result<(), Cause> {
        let mut at = 0;
        loop {
            match copy_file_range(from, Some(&mut at), file, None, COPY_BYTES) {
                Ok(copied) if copied > 0 => self.charge(copied as u64)?,
                Err(Errno::INTR) => {}
                Ok(_) | Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => break,
                Err(error) => return Err(Cause::io("copy", path.bytes(), error.into())),
            }
        }
        // What is left of it, if that way ends.
        let mut rest = from;
        io::Seek::seek(&mut rest, io::SeekFrom::Start(at))
            .map_err(|error| Cause::io("seek", path.bytes(), error))?;
        self.fill(file, path, &mut rest, |error| {
            Cause::io("read", path.bytes(), error)
        })
    }

    /// Gives a written file the time of its entry.
    pub(crate) fn set_time(
        &self,
        file: &OwnedFd,
        path: &ArchivePath,
        (tv_sec, nanoseconds): (i64, u32),
    ) -> Result<(), Cause> {
        let omit = Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        };
        let times = Timestamps {
            last_access: omit,
            last_modification: Timespec {
                tv_sec,
                tv_nsec: nanoseconds.into(),
            },
        };
        futimens(file, &times).map_err(|error| Cause::io("set times", path.bytes(), error.into()))
    }

    /// A directory; one that is there stays as it is.
    pub(crate) fn directory(&mut self, path: &ArchivePath, mode: u32) -> Result<(), Cause> {
        self.charge(ENTRY_BYTES)?;
        let Some(name) = path.name() else {
            return Ok(());
        };
        let parent = self.parent(path.parent())?;
        match self.make_directory(parent.as_fd(), name, path.bytes(), mode) {
            Err(Errno::EXIST) => {
                // Not a link to one, nor anything else.
                openat(&parent, name, directory_flags(), Mode::empty())
                    .map_err(|_| Cause::entry(path.bytes(), "is a directory where a file is"))?;
            }
            Err(error) => return Err(Cause::io("mkdir", path.bytes(), error.into())),
            Ok(()) => {}
        }
        self.keep(path.parent(), parent);
        Ok(())
    }

    /// A symbolic link as it is: only who follows it gives it a meaning, and here nobody does.
    pub(crate) fn symlink(&mut self, path: &ArchivePath, target: &[u8]) -> Result<(), Cause> {
        self.charge(ENTRY_BYTES)?;
        if target.is_empty() || target.contains(&0) {
            return Err(Cause::entry(path.bytes(), "is a symbolic link to nothing"));
        }
        let owner = self.owner;
        self.make(path, |parent, name| {
            symlinkat(target, parent, name)?;
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let link = openat(parent, name, flags, Mode::empty())?;
            if FileType::from_raw_mode(fstat(&link)?.st_mode) != FileType::Symlink {
                return Err(Errno::BUSY);
            }
            let (uid, gid) = ids(owner);
            chownat(&link, "", uid, gid, AtFlags::EMPTY_PATH)
        })
    }

    /// A further name of a file that is below the sandbox and belongs to the owner.
    pub(crate) fn hard_link(
        &mut self,
        path: &ArchivePath,
        target: &ArchivePath,
    ) -> Result<(), Cause> {
        const WRONG: &str = "is a hard link to something that is not a file of the archive";
        self.charge(ENTRY_BYTES)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat2(self.root, target.bytes(), flags, Mode::empty(), resolve());
        let file = file.map_err(|_| Cause::entry(path.bytes(), WRONG))?;
        let stat = fstat(&file).map_err(|error| Cause::io("stat", path.bytes(), error.into()))?;
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if !is_file || (stat.st_uid, stat.st_gid) != (self.owner.uid, self.owner.gid) {
            return Err(Cause::entry(path.bytes(), WRONG));
        }
        if path == target {
            return Ok(());
        }
        self.make(path, |parent, name| {
            linkat(&file, "", parent, name, AtFlags::EMPTY_PATH)
        })
    }

    /// Counts what is about to be written, or was.
    fn charge(&mut self, bytes: u64) -> Result<(), Cause> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(Cause::Cancelled);
        }
        let limit = self.limit_bytes.unwrap_or(u64::MAX);
        let left = self.left.checked_sub(bytes);
        self.left = left.ok_or(Cause::OverLimit(limit))?;
        self.unchecked_bytes += bytes;
        if self.unchecked_bytes >= SPACE_CHECK_BYTES {
            self.unchecked_bytes = 0;
            check_space(self.root)?;
        }
        Ok(())
    }

    fn give(&self, file: &OwnedFd, path: &ArchivePath, mode: u32) -> Result<(), Cause> {
        let fail = |operation| {
            move |error: Errno| Cause::io(operation, path.bytes(), io::Error::from(error))
        };
        let (uid, gid) = ids(self.owner);
        fchown(file, uid, gid).map_err(fail("chown"))?;
        fchmod(file, Mode::from_raw_mode(mode & MODE_BITS)).map_err(fail("chmod"))
    }

    /// Runs `create`, which must fail with EEXIST if the name is taken; what has it then goes,
    /// unless it is a directory.
    fn make<T>(
        &mut self,
        path: &ArchivePath,
        mut create: impl FnMut(BorrowedFd<'_>, &[u8]) -> Result<T, Errno>,
    ) -> Result<T, Cause> {
        let whole = "would replace the sandbox itself";
        let name = path
            .name()
            .ok_or_else(|| Cause::entry(path.bytes(), whole))?;
        let parent = self.parent(path.parent())?;
        let fail = |operation| {
            move |error: Errno| Cause::io(operation, path.bytes(), io::Error::from(error))
        };
        let made = match create(parent.as_fd(), name) {
            Err(Errno::EXIST) => {
                match unlinkat(&parent, name, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(Errno::ISDIR) => {
                        return Err(Cause::entry(path.bytes(), "is a file where a directory is"));
                    }
                    Err(error) => return Err(fail("unlink")(error)),
                }
                create(parent.as_fd(), name)
            }
            made => made,
        };
        self.keep(path.parent(), parent);
        made.map_err(fail("create"))
    }

    fn keep(&mut self, path: &[u8], directory: OwnedFd) {
        self.cached = Some((path.to_vec(), directory));
    }

    /// The directory at `path`, with those on the way made if they are missing.
    fn parent(&mut self, path: &[u8]) -> Result<OwnedFd, Cause> {
        if let Some((_, directory)) = self.cached.take_if(|(cached, _)| cached == path) {
            return Ok(directory);
        }
        let root = self.root;
        let open = |path: &[u8]| {
            let path = if path.is_empty() { b"." } else { path };
            // Without NOFOLLOW: a link on the way is to be told from a file.
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            openat2(root, path, flags, Mode::empty(), resolve())
        };
        match open(path) {
            Ok(directory) => return Ok(directory),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(on_the_way(path, error)),
        }
        let mut directory = open(b"").map_err(|error| on_the_way(path, error))?;
        let mut end = 0;
        for name in path.split(|byte| *byte == b'/') {
            end += name.len();
            let prefix = &path[..end];
            end += 1;
            match self.make_directory(directory.as_fd(), name, prefix, IMPLIED_MODE) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(Cause::io("mkdir", prefix, error.into())),
            }
            directory = open(prefix).map_err(|error| on_the_way(prefix, error))?;
            self.charge(ENTRY_BYTES)?;
        }
        Ok(directory)
    }

    fn make_directory(
        &self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        mode: u32,
    ) -> Result<(), Errno> {
        mkdirat(parent, name, Mode::RWXU)?;
        let directory = openat(parent, name, directory_flags(), Mode::empty())?;
        // Somebody may have put one of theirs in its place: only a fresh one is given away.
        if fstat(&directory)?.st_uid != rustix::process::geteuid().as_raw() {
            tracing::warn!(
                path = crate::error::printable(path),
                "a directory was replaced"
            );
            return Err(Errno::BUSY);
        }
        let (uid, gid) = ids(self.owner);
        fchown(&directory, uid, gid)?;
        fchmod(
            &directory,
            Mode::from_raw_mode(mode & MODE_BITS | DIRECTORY_BITS),
        )
    }
}

fn ids(owner: Owner) -> (Option<Uid>, Option<Gid>) {
    (
        Some(Uid::from_raw(owner.uid)),
        Some(Gid::from_raw(owner.gid)),
    )
}

fn on_the_way(path: &[u8], error: Errno) -> Cause {
    match error {
        Errno::LOOP => Cause::entry(path, "is reached through a symbolic link"),
        Errno::NOTDIR => Cause::entry(path, "is below something that is not a directory"),
        Errno::XDEV => Cause::entry(path, "is on another file system"),
        error => Cause::io("open", path, error.into()),
    }
}

/// A task may fail for want of space, the node must not.
pub(crate) fn check_space(directory: impl AsFd) -> Result<(), Cause> {
    match fstatvfs(directory) {
        Ok(stat) if stat.f_bavail.saturating_mul(stat.f_frsize) < RESERVE_BYTES => {
            Err(Cause::NoSpace)
        }
        _ => Ok(()),
    }
}
