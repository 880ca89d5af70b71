//! The terminal of a process: a pair made in the container's own devpts, its master sent out, its
//! slave stdin, stdout and stderr.
//!
//! Nothing is reached by a name that the container could have changed (CVE-2025-52565), and what is
//! opened must be of a devpts. Whether it becomes the controlling terminal is for the caller.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::Winsize;

use super::{Fault, paths};
use crate::sys;

/// `DEVPTS_SUPER_MAGIC` of `linux/magic.h`.
const DEVPTS_MAGIC: u64 = 0x1cd1;

/// Makes a terminal in the devpts at `/dev/pts` of `root`, sends its master to whoever holds the
/// other end of `socket`, and makes its slave stdin, stdout and stderr. The slave is also returned.
pub(super) fn make(
    root: BorrowedFd<'_>,
    socket: BorrowedFd<'_>,
    size: Option<(u16, u16)>,
) -> Result<OwnedFd, Fault> {
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let master = paths::open(root, c"dev/pts/ptmx", flags, paths::STRICT)?;
    if u64::try_from(rustix::fs::fstatfs(&master)?.f_type).unwrap_or(0) != DEVPTS_MAGIC {
        return Err(Errno::NOTTY.into());
    }
    unlockpt(&master)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = ioctl_tiocgptpeer(&master, flags)?;
    if let Some((rows, columns)) = size {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(&master, size)?;
    }
    send(socket, master.as_fd())?;
    for number in 0..3 {
        sys::dup_to(slave.as_fd(), number, false)?;
    }
    Ok(slave)
}

fn send(socket: BorrowedFd<'_>, master: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [master];
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(Errno::NOBUFS);
    }
    let name = [std::io::IoSlice::new(b"/dev/ptmx")];
    sendmsg(socket, &name, &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}
