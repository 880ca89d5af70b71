//! How the master of a terminal comes to whoever asked for it, and what is done with one.
//!
//! The asker makes a pair of sockets and sends one along with its request. On the other arrives the
//! master, from the process that made the terminal or from the keeper, or words of refusal.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use crate::spec::WindowSize;

/// Longest words of a refusal.
const MAX_WORDS_BYTES: usize = 512;
/// What comes with a master, as runc has it.
const NAME: &[u8] = b"/dev/ptmx";

/// Why there is no master.
#[derive(Debug, thiserror::Error)]
pub enum TerminalError {
    /// In the keeper's words.
    #[error("{0}")]
    Refused(String),
    /// The other end was closed.
    #[error("no terminal came")]
    Gone,
    /// The socket failed, or nothing is there yet (`EAGAIN`).
    #[error("receiving the terminal")]
    Socket(#[source] Errno),
}

/// Our end, which does not block, and the one to send along.
///
/// # Errors
/// No descriptors are left.
pub fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((ours, theirs))
}

/// Takes the master, which does not block. It is the caller's from then on; when the last copy of it
/// is closed the processes at the terminal get SIGHUP.
///
/// # Errors
/// There is none (yet).
pub fn receive(ours: BorrowedFd<'_>) -> Result<OwnedFd, TerminalError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0; MAX_WORDS_BYTES];
    let got = loop {
        let mut pieces = [IoSliceMut::new(&mut bytes)];
        match recvmsg(ours, &mut pieces, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            done => break done.map_err(TerminalError::Socket)?,
        }
    };
    let master = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    match (master, got.bytes) {
        (Some(master), _) => {
            rustix::io::ioctl_fionbio(&master, true).map_err(TerminalError::Socket)?;
            Ok(master)
        }
        (None, 0) => Err(TerminalError::Gone),
        (None, length) => {
            let words = String::from_utf8_lossy(&bytes[..length]);
            Err(TerminalError::Refused(words.into_owned()))
        }
    }
}

/// Gives a terminal another size; its foreground processes get SIGWINCH.
///
/// # Errors
/// It is no terminal.
pub fn resize(master: BorrowedFd<'_>, size: WindowSize) -> Result<(), Errno> {
    rustix::termios::tcsetwinsize(master, size.kernel())
}

/// Answers on a socket that came along. Whoever does not listen is not waited for.
pub(super) fn answer(socket: &OwnedFd, master: Result<BorrowedFd<'_>, &str>) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let fds = [*master.as_ref().unwrap_or(&socket.as_fd())];
    let text = match master {
        Ok(_) if control.push(SendAncillaryMessage::ScmRights(&fds)) => NAME,
        Ok(_) => b"no room for a descriptor",
        Err(words) => words.as_bytes(),
    };
    let _ = sendmsg(socket, &[IoSlice::new(text)], &mut control, flags);
}
