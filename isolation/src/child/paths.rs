//! Opening and making paths inside a container's root.
//!
//! Every resolution is one `openat2(2)` from the root's descriptor with `RESOLVE_IN_ROOT |
//! RESOLVE_NO_MAGICLINKS`: a symbolic link of the image, however made or swapped, ends inside the
//! root (runc's CVE-2021-30465, 2023-27561, 2024-45310 and their kin). What is made is made by name
//! in an open directory, never by path.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, move_mount};

use crate::plan::InRoot;

/// Within the root; the image's symbolic links are followed there.
pub(super) const WITHIN: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);
/// Within the root and without any symbolic link: for what our own mounts cover.
pub(super) const STRICT: ResolveFlags = WITHIN.union(ResolveFlags::NO_SYMLINKS);
/// How often a resolution is tried when a rename elsewhere disturbed it (`EAGAIN`).
const MAX_TRIES: usize = 128;

pub(super) const DIR: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Opens `path` below `root`.
pub(super) fn open(
    root: BorrowedFd<'_>,
    path: &CStr,
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    for _ in 0..MAX_TRIES {
        match openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => {}
            done => return done,
        }
    }
    Err(Errno::AGAIN)
}

/// Opens a directory that one of our own mounts covers, making it when missing.
pub(super) fn own_dir(root: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    match open(root, name, DIR, STRICT) {
        Err(Errno::NOENT) => {
            rustix::fs::mkdirat(root, name, Mode::from_raw_mode(0o755))?;
            open(root, name, DIR, STRICT)
        }
        done => done,
    }
}

/// Opens a directory, making it and those above it when missing.
pub(super) fn make_dirs(root: BorrowedFd<'_>, path: &InRoot) -> Result<OwnedFd, Errno> {
    match open(root, &path.path, DIR, WITHIN) {
        Err(Errno::NOENT) => {}
        done => return done,
    }
    make_parts(root, path, path.parts.len())?;
    open(root, &path.path, DIR, WITHIN)
}

/// Opens a file to mount something on, making it and the directories above it when missing.
pub(super) fn make_file(root: BorrowedFd<'_>, path: &InRoot) -> Result<OwnedFd, Errno> {
    match open(root, &path.path, OFlags::PATH, WITHIN) {
        Err(Errno::NOENT) => {}
        done => return done,
    }
    let (name, parent) = make_parent(root, path)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o644))?;
    open(root, &path.path, OFlags::PATH, WITHIN)
}

/// Opens the directory that `path` is in, making it and those above when missing; with the name of
/// `path` in it.
pub(super) fn make_parent<'a>(
    root: BorrowedFd<'_>,
    path: &'a InRoot,
) -> Result<(&'a CStr, OwnedFd), Errno> {
    let Some((last, above)) = path.parts.split_last() else {
        return Err(Errno::ISDIR);
    };
    make_parts(root, path, above.len())?;
    Ok((&last.name, open(root, &last.parent, DIR, WITHIN)?))
}

pub(super) fn make_parts(root: BorrowedFd<'_>, path: &InRoot, count: usize) -> Result<(), Errno> {
    for part in &path.parts[..count] {
        let parent = open(root, &part.parent, DIR, WITHIN)?;
        match rustix::fs::mkdirat(&parent, &part.name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Opens the place for a mount, making it when missing: a directory or a file. With `links` the
/// root's symbolic links are followed, within the root; without, there may be none on the way.
pub(super) fn mount_point(
    root: BorrowedFd<'_>,
    path: &InRoot,
    dir: bool,
    links: bool,
) -> Result<OwnedFd, Errno> {
    if !links {
        // A link on the way is refused before anything is made behind it.
        match open(root, &path.path, OFlags::PATH, STRICT) {
            Ok(_) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    let made = if dir {
        make_dirs(root, path)
    } else {
        make_file(root, path)
    };
    let made = if links {
        made?
    } else {
        made.and_then(|_| open(root, &path.path, OFlags::PATH, STRICT))?
    };
    if !dir && FileType::from_raw_mode(rustix::fs::fstat(&made)?.st_mode).is_dir() {
        // The kernel's own word, EINVAL, would not say what is wrong.
        return Err(Errno::ISDIR);
    }
    Ok(made)
}

/// Writes all of it.
pub(super) fn write_all(file: &OwnedFd, bytes: &[u8]) -> Result<(), Errno> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let written = rustix::io::write(file, rest)?;
        rest = &rest[written..];
    }
    Ok(())
}

/// Puts a detached mount on an open directory or file.
pub(super) fn attach(mount: impl AsFd, on: impl AsFd) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, c"", on, c"", flags)
}
