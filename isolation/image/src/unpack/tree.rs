//! The directory being filled: every change is made relative to a directory descriptor.
//!
//! Parents are resolved by openat2 with RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV,
//! so a symlink in the layer, absolute or with `..`, stays inside; the last component is always
//! created with O_EXCL or its like and never followed. Invariant: no call here takes a path that is
//! not either a single component or resolved by that openat2.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Uid, XattrFlags, chmodat,
    chownat, fchmod, fchown, fsetxattr, futimens, linkat, makedev, mkdirat, mknodat, openat,
    openat2, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::attributes::{Fresh, attributes, both, owner, time, xattrs};
use super::{UnpackError, failed, refused};
use gantry_intake::{ArchivePath, Entry};

/// Most bytes of names that are kept to set the times of directories at the end.
const MAX_TIMES_BYTES: usize = 128 << 20;
/// Mode of a directory that the layer uses but does not list.
const IMPLIED_MODE: Mode = Mode::from_raw_mode(0o755);

pub(super) struct Tree {
    root: OwnedFd,
    /// The last parent that was resolved: entries come directory by directory.
    cached: Option<(Vec<u8>, OwnedFd)>,
    /// Times of directories; they are set last, as creating files changes them.
    times: Vec<(Vec<u8>, Timespec)>,
    times_bytes: usize,
    /// Directories that were needed and not listed (so far).
    implied: BTreeSet<Vec<u8>>,
    implied_bytes: usize,
    replaced: bool,
    /// What a new file has by itself.
    fresh: Fresh,
}

fn resolve() -> ResolveFlags {
    ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV
}

fn path_flags() -> OFlags {
    OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC
}

fn readable_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

impl Tree {
    pub(super) fn new(root: OwnedFd) -> Self {
        Self {
            fresh: Fresh::of(&root),
            root,
            cached: None,
            times: Vec::new(),
            times_bytes: 0,
            implied: BTreeSet::new(),
            implied_bytes: 0,
            replaced: false,
        }
    }

    /// Whether an entry took the place of an earlier one.
    pub(super) fn has_replaced(&self) -> bool {
        self.replaced
    }

    pub(super) fn root_attributes(&mut self, entry: &Entry) -> Result<(), UnpackError> {
        self.fresh.directory(entry);
        attributes(&self.root, entry)?;
        self.remember(b".", entry)
    }

    pub(super) fn directory(
        &mut self,
        path: &ArchivePath,
        entry: &Entry,
    ) -> Result<(), UnpackError> {
        let fail = |operation| move |error| failed(operation, path.bytes(), error);
        let was_hidden = self.make(path, |parent, name| mkdirat(parent, name, Mode::RWXU), true)?;
        let directory = self.at(path, |parent, name| {
            openat(parent, name, readable_flags(), Mode::empty()).map_err(fail("open"))
        })?;
        if was_hidden {
            set_opaque(&directory, path)?;
        }
        self.fresh.directory(entry);
        attributes(&directory, entry)?;
        self.implied.remove(path.bytes());
        self.remember(path.bytes(), entry)
    }

    /// Refuses to go on when the filesystem has no more than `reserve_bytes` left: a layer may fail,
    /// the node must not.
    pub(super) fn check_space(&self, reserve_bytes: u64) -> Result<(), UnpackError> {
        match rustix::fs::fstatvfs(&self.root) {
            Ok(stat) if stat.f_bavail.saturating_mul(stat.f_frsize) < reserve_bytes => {
                Err(UnpackError::NoSpace)
            }
            _ => Ok(()),
        }
    }

    /// A new, empty file. What is missing of its attributes [`Tree::complete`] sets.
    pub(super) fn create(
        &mut self,
        path: &ArchivePath,
        entry: &Entry,
    ) -> Result<OwnedFd, UnpackError> {
        // Set-id bits come last, when the owner is right.
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut made = None;
        self.make(
            path,
            |parent, name| {
                made = Some(openat(parent, name, flags, mode)?);
                Ok(())
            },
            false,
        )?;
        made.ok_or_else(|| failed("create", path.bytes(), Errno::IO))
    }

    /// Gives a file that [`Tree::create`] made, and that is written, everything else of its entry.
    pub(super) fn complete(&self, file: &OwnedFd, entry: &Entry) -> Result<(), UnpackError> {
        let fail = |operation| move |error| failed(operation, &entry.path, error);
        if !self.fresh.has_owner(entry) {
            let (uid, gid) = owner(entry);
            fchown(file, uid, gid).map_err(fail("chown"))?;
        }
        if !self.fresh.has_mode(entry) {
            fchmod(file, Mode::from_raw_mode(entry.mode)).map_err(fail("chmod"))?;
        }
        xattrs(file, entry)?;
        futimens(file, &both(time(entry))).map_err(fail("set times"))
    }

    pub(super) fn symlink(&mut self, path: &ArchivePath, entry: &Entry) -> Result<(), UnpackError> {
        if entry.link.is_empty() || entry.link.contains(&0) {
            return Err(refused(path.bytes(), "is a symlink to nothing"));
        }
        self.make(
            path,
            |parent, name| symlinkat(entry.link.as_slice(), parent, name),
            false,
        )?;
        self.named_attributes(path, entry)
    }

    pub(super) fn fifo(&mut self, path: &ArchivePath, entry: &Entry) -> Result<(), UnpackError> {
        let mode = Mode::from_raw_mode(entry.mode);
        self.make(
            path,
            |parent, name| mknodat(parent, name, FileType::Fifo, mode, 0),
            false,
        )?;
        self.named_attributes(path, entry)?;
        // Not a symlink: it was just created, and nobody else can reach this directory.
        self.at(path, |parent, name| {
            chmodat(parent, name, mode, AtFlags::empty())
                .map_err(|error| failed("chmod", path.bytes(), error))
        })
    }

    pub(super) fn hard_link(
        &mut self,
        path: &ArchivePath,
        target: &ArchivePath,
    ) -> Result<(), UnpackError> {
        const MISSING: &str = "is a hard link to a file that is not in this layer";
        let name = target
            .name()
            .ok_or_else(|| refused(path.bytes(), "is a hard link to the root"))?;
        let from = match target.parent() {
            b"" => self.root.try_clone().map_err(|error| UnpackError::Io {
                operation: "dup",
                path: String::new(),
                source: error,
            })?,
            parent => openat2(&self.root, parent, path_flags(), Mode::empty(), resolve())
                .map_err(|_| refused(path.bytes(), MISSING))?,
        };
        let stat = statat(&from, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|_| refused(path.bytes(), MISSING))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile | FileType::Symlink | FileType::Fifo => {}
            _ => {
                return Err(refused(
                    path.bytes(),
                    "is a hard link to something that is not a file",
                ));
            }
        }
        if path == target {
            return Ok(());
        }
        let link =
            |parent: BorrowedFd<'_>, new: &[u8]| linkat(&from, name, parent, new, AtFlags::empty());
        self.make(path, link, false).map(|_| ())
    }

    /// Hides `path` of the layers below.
    pub(super) fn whiteout(&mut self, path: &ArchivePath) -> Result<(), UnpackError> {
        let exists = self.at(path, |parent, name| {
            match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
                Err(Errno::NOENT) => Ok(None),
                Err(error) => Err(failed("stat", path.bytes(), error)),
            }
        })?;
        match exists {
            // A directory of this layer hides the one below if it is opaque; a file hides anyway.
            Some(FileType::Directory) => self.at(path, |parent, name| {
                let directory = openat(parent, name, readable_flags(), Mode::empty());
                set_opaque(
                    &directory.map_err(|error| failed("open", path.bytes(), error))?,
                    path,
                )
            }),
            Some(_) => Ok(()),
            None => self.at(path, |parent, name| {
                mknodat(
                    parent,
                    name,
                    FileType::CharacterDevice,
                    Mode::empty(),
                    makedev(0, 0),
                )
                .map_err(|error| failed("mknod of a whiteout", path.bytes(), error))
            }),
        }
    }

    /// Hides everything below the directory that `path` (a marker file) is in.
    pub(super) fn opaque(&mut self, path: &ArchivePath) -> Result<(), UnpackError> {
        let fail = |error| failed("open", path.bytes(), error);
        let directory = self.at(path, |parent, _| {
            openat(parent, ".", readable_flags(), Mode::empty()).map_err(fail)
        })?;
        set_opaque(&directory, path)
    }

    /// Sets the times of directories; returns those that the layer uses and does not list.
    pub(super) fn finish(self) -> Result<Vec<Vec<u8>>, UnpackError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        for (path, time) in &self.times {
            let open = openat2(&self.root, path.as_slice(), flags, Mode::empty(), resolve());
            match open {
                Ok(directory) => futimens(&directory, &both(*time))
                    .map_err(|error| failed("set times", path, error))?,
                // A later entry of the layer put something else there.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(error) => return Err(failed("open", path, error)),
            }
        }
        Ok(self.implied.into_iter().collect())
    }

    fn remember(&mut self, path: &[u8], entry: &Entry) -> Result<(), UnpackError> {
        self.times_bytes += path.len() + size_of::<(Vec<u8>, Timespec)>();
        if self.times_bytes > MAX_TIMES_BYTES {
            return Err(UnpackError::Bomb("a million directories".into()));
        }
        self.times.push((path.to_vec(), time(entry)));
        Ok(())
    }

    /// Owner and times of something that cannot be opened without side effects.
    fn named_attributes(&mut self, path: &ArchivePath, entry: &Entry) -> Result<(), UnpackError> {
        let (uid, gid) = owner(entry);
        self.at(path, |parent, name| {
            chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| failed("chown", path.bytes(), error))?;
            utimensat(parent, name, &both(time(entry)), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| failed("set times", path.bytes(), error))
        })
    }

    /// Creates the last component with `create`, which must fail with EEXIST if it is there; what is
    /// there gives way unless it is a directory and `keep_directory`. Says whether it was a whiteout.
    fn make(
        &mut self,
        path: &ArchivePath,
        mut create: impl FnMut(BorrowedFd<'_>, &[u8]) -> Result<(), Errno>,
        keep_directory: bool,
    ) -> Result<bool, UnpackError> {
        let fail = |operation| move |error| failed(operation, path.bytes(), error);
        let mut replaced = false;
        let was_hidden = self.at(path, |parent, name| {
            match create(parent, name) {
                Ok(()) => return Ok(false),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(failed("create", path.bytes(), error)),
            }
            let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(fail("stat"))?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                if keep_directory {
                    return Ok(false);
                }
                unlinkat(parent, name, AtFlags::REMOVEDIR).map_err(|error| match error {
                    Errno::NOTEMPTY => refused(
                        path.bytes(),
                        "replaces a directory that the same layer fills",
                    ),
                    error => failed("rmdir", path.bytes(), error),
                })?;
            } else {
                unlinkat(parent, name, AtFlags::empty()).map_err(fail("unlink"))?;
            }
            replaced = true;
            create(parent, name).map_err(fail("create"))?;
            Ok(is_whiteout(&stat))
        })?;
        if replaced {
            // What was resolved before may have led through what is gone now.
            self.cached = None;
            self.replaced = true;
        }
        Ok(was_hidden)
    }

    /// Runs `act` on the parent directory and the last component of `path`.
    fn at<T>(
        &mut self,
        path: &ArchivePath,
        act: impl FnOnce(BorrowedFd<'_>, &[u8]) -> Result<T, UnpackError>,
    ) -> Result<T, UnpackError> {
        let name = path
            .name()
            .ok_or_else(|| refused(b"/", "is the root directory"))?;
        let parent = path.parent();
        if parent.is_empty() {
            return act(self.root.as_fd(), name);
        }
        if let Some((cached, directory)) = &self.cached
            && cached == parent
        {
            return act(directory.as_fd(), name);
        }
        let directory = self.parent(parent)?;
        let result = act(directory.as_fd(), name);
        self.cached = Some((parent.to_vec(), directory));
        result
    }

    fn parent(&mut self, path: &[u8]) -> Result<OwnedFd, UnpackError> {
        match openat2(&self.root, path, path_flags(), Mode::empty(), resolve()) {
            Ok(directory) => Ok(directory),
            Err(Errno::NOENT | Errno::NOTDIR) => self.make_parents(path),
            Err(error) => Err(failed("open", path, error)),
        }
    }

    /// Creates the directories of `path` that are missing, one component at a time.
    fn make_parents(&mut self, path: &[u8]) -> Result<OwnedFd, UnpackError> {
        let mut ends = path
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'/')
            .map(|(at, _)| at);
        let mut start = 0;
        let mut directory: Option<OwnedFd> = None;
        loop {
            let end = ends.next().unwrap_or(path.len());
            let (prefix, name) = (&path[..end], &path[start..end]);
            let open = || openat2(&self.root, prefix, path_flags(), Mode::empty(), resolve());
            let next = match open() {
                Ok(next) => next,
                Err(Errno::NOENT | Errno::NOTDIR) => {
                    let parent = directory.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
                    imply(parent, name, prefix)?;
                    let made = open().map_err(|error| failed("open", prefix, error))?;
                    self.implied_bytes += prefix.len() + 1;
                    if self.implied_bytes > super::MAX_IMPLIED_BYTES {
                        return Err(UnpackError::Bomb("a million unlisted directories".into()));
                    }
                    self.implied.insert(prefix.to_vec());
                    made
                }
                Err(error) => return Err(failed("open", prefix, error)),
            };
            if end == path.len() {
                return Ok(next);
            }
            directory = Some(next);
            start = end + 1;
        }
    }
}

/// Makes a directory that the layer does not list. A whiteout there becomes an opaque directory.
fn imply(parent: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<(), UnpackError> {
    const BLOCKED: &str = "is below something that is not a directory";
    let fail = |operation| move |error| failed(operation, path, error);
    let stat = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if is_whiteout(&stat) => {
            unlinkat(parent, name, AtFlags::empty()).map_err(fail("unlink"))?;
            Some(stat)
        }
        Ok(_) => return Err(refused(path, BLOCKED)),
        Err(Errno::NOENT) => None,
        Err(error) => return Err(failed("stat", path, error)),
    };
    mkdirat(parent, name, IMPLIED_MODE).map_err(fail("mkdir"))?;
    let directory = openat(parent, name, readable_flags(), Mode::empty()).map_err(fail("open"))?;
    // The umask and a set-group-id parent must not decide.
    fchown(&directory, Some(Uid::ROOT), Some(Gid::ROOT)).map_err(fail("chown"))?;
    fchmod(&directory, IMPLIED_MODE).map_err(fail("chmod"))?;
    if stat.is_some() {
        let xattr = fsetxattr(&directory, OPAQUE_XATTR, b"y", XattrFlags::empty());
        xattr.map_err(fail("set the opaque attribute"))?;
    }
    Ok(())
}

const OPAQUE_XATTR: &str = "trusted.overlay.opaque";

fn set_opaque(directory: &OwnedFd, path: &ArchivePath) -> Result<(), UnpackError> {
    fsetxattr(directory, OPAQUE_XATTR, b"y", XattrFlags::empty())
        .map_err(|error| failed("set the opaque attribute", path.bytes(), error))
}

fn is_whiteout(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}
