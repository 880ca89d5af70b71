//! Copying a directory into a fresh file system (`tmpcopyup`), within fixed depth and without
//! following any symbolic link.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RawDir, Uid, chmodat, chownat, makedev, mkdirat, mknodat,
    openat, readlinkat_raw, statat, symlinkat,
};
use rustix::io::Errno;

use super::super::Fault;

/// How deep directories are copied.
const MAX_DEPTH: usize = 64;
const READ: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK);

/// Copies what is in `from` into `to`.
pub(super) fn tree(from: impl AsFd, to: impl AsFd) -> Result<(), Fault> {
    let from = openat(from, c".", READ | OFlags::DIRECTORY, Mode::empty())?;
    let to = openat(to, c".", READ | OFlags::DIRECTORY, Mode::empty())?;
    directory(&from, &to, MAX_DEPTH)
}

fn directory(from: &OwnedFd, to: &OwnedFd, depth: usize) -> Result<(), Fault> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(from, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            one(from, to, name, depth)?;
        }
    }
    Ok(())
}

fn one(from: &OwnedFd, to: &OwnedFd, name: &CStr, depth: usize) -> Result<(), Fault> {
    let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            if depth == 0 {
                return Err(Errno::LOOP.into());
            }
            mkdirat(to, name, mode)?;
            let below = openat(from, name, READ | OFlags::DIRECTORY, Mode::empty())?;
            let made = openat(to, name, READ | OFlags::DIRECTORY, Mode::empty())?;
            directory(&below, &made, depth - 1)?;
        }
        FileType::RegularFile => {
            let source = openat(from, name, READ, Mode::empty())?;
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            let made = openat(to, name, flags, mode)?;
            while rustix::fs::sendfile(&made, &source, None, 1 << 20)? > 0 {}
        }
        FileType::Symlink => {
            let mut target = [0_u8; libc::PATH_MAX as usize];
            let length = readlinkat_raw(from, name, &mut target[..])?;
            *target.get_mut(length).ok_or(Errno::NAMETOOLONG)? = 0;
            let target = CStr::from_bytes_until_nul(&target).map_err(|_| Errno::INVAL)?;
            symlinkat(target, to, name)?;
        }
        FileType::Fifo => mknodat(to, name, FileType::Fifo, mode, makedev(0, 0))?,
        // Devices and sockets are not content.
        _ => return Ok(()),
    }
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    match chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW) {
        // An id that a user namespace does not map.
        Ok(()) | Err(Errno::INVAL | Errno::PERM) => {}
        Err(errno) => return Err(errno.into()),
    }
    if !FileType::from_raw_mode(stat.st_mode).is_symlink() {
        chmodat(to, name, mode, AtFlags::empty())?;
    }
    Ok(())
}
