//! `/dev` of an OCI container: nodes, links, and the terminal.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, makedev};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::super::{Fault, paths, terminal};
use crate::plan::{InRoot, OciDevice};
use crate::sys;

const LINKS: [(&CStr, &CStr); 5] = [
    (c"/proc/self/fd", c"fd"),
    (c"/proc/self/fd/0", c"stdin"),
    (c"/proc/self/fd/1", c"stdout"),
    (c"/proc/self/fd/2", c"stderr"),
    (c"pts/ptmx", c"ptmx"),
];

/// Opens the directory that `at` is to be made in.
fn parent<'a>(root: BorrowedFd<'_>, at: &'a InRoot) -> Result<(OwnedFd, &'a CStr), Errno> {
    let (last, above) = at.parts.split_last().ok_or(Errno::ISDIR)?;
    let dir = match paths::open(root, &last.parent, paths::DIR, paths::WITHIN) {
        Err(Errno::NOENT) => {
            paths::make_parts(root, at, above.len())?;
            paths::open(root, &last.parent, paths::DIR, paths::WITHIN)?
        }
        done => done?,
    };
    Ok((dir, &last.name))
}

/// Makes a node. One that is there already and is the same device is left as it is.
pub(super) fn node(root: BorrowedFd<'_>, device: &OciDevice) -> Result<(), Fault> {
    if let Some(host) = device.host {
        let target = paths::make_file(root, &device.at)?;
        return Ok(paths::attach(sys::oci::borrow(host), target)?);
    }
    let (dir, name) = parent(root, &device.at)?;
    let kind = match device.kind {
        b'b' => FileType::BlockDevice,
        b'p' => FileType::Fifo,
        _ => FileType::CharacterDevice,
    };
    let number = makedev(device.major, device.minor);
    let mode = Mode::from_raw_mode(device.mode);
    match rustix::fs::mknodat(&dir, name, kind, mode, number) {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            let found = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
            let same = FileType::from_raw_mode(found.st_mode) == kind
                && (kind == FileType::Fifo || found.st_rdev == number);
            return if same {
                Ok(())
            } else {
                Err(Errno::EXIST.into())
            };
        }
        Err(errno) => return Err(errno.into()),
    }
    let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
    if device.uid != 0 || device.gid != 0 {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(&dir, name, Some(uid), Some(gid), flags)?;
    }
    Ok(())
}

/// Makes the links, over what an image's own `/dev` may have.
pub(super) fn links(root: BorrowedFd<'_>) -> Result<(), Fault> {
    let dev = match paths::open(root, c"dev", paths::DIR, paths::WITHIN) {
        Err(Errno::NOENT) => return Ok(()),
        done => done?,
    };
    for (to, name) in LINKS {
        match rustix::fs::symlinkat(to, &dev, name) {
            Ok(()) => {}
            Err(Errno::EXIST) if name != c"ptmx" => {}
            Err(Errno::EXIST) => {
                // A ptmx of the image's would be the host's terminals.
                rustix::fs::unlinkat(&dev, name, AtFlags::empty())?;
                rustix::fs::symlinkat(to, &dev, name)?;
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    // Only where the kernel has one to show.
    match rustix::fs::symlinkat(c"/proc/kcore", &dev, c"core") {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Makes the terminal, and `/dev/console` of it if wanted.
pub(super) fn terminal(
    root: BorrowedFd<'_>,
    socket: i32,
    size: Option<(u16, u16)>,
    console: bool,
) -> Result<(), Fault> {
    let slave = terminal::make(root, sys::oci::borrow(socket), size)?;
    if console {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH;
        let node = open_tree(&slave, c"", flags)?;
        let dev = paths::open(root, c"dev", paths::DIR, paths::WITHIN)?;
        let make = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(
            &dev,
            c"console",
            make | OFlags::EXCL,
            Mode::from_raw_mode(0o600),
        ) {
            Ok(_) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        let target = paths::open(dev.as_fd(), c"console", OFlags::PATH, paths::STRICT)?;
        paths::attach(node, target)?;
    }
    Ok(())
}
