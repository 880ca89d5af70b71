//! The terminal of a process, seen from the runtime: where its master goes, and passing bytes
//! between it and our own terminal while we stay in the foreground.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, recvmsg, sendmsg,
    socketpair,
};
use rustix::termios::{
    OptionalActions, OutputModes, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};

use super::config::Process;
use super::error::{OciError, call};

/// Bytes passed on at once.
pub(super) const PIECE_BYTES: usize = 16 << 10;

/// Where the child sends its master.
#[derive(Debug)]
pub(super) struct Console {
    /// The child's end.
    socket: OwnedFd,
    /// Ours, in the foreground.
    ours: Option<OwnedFd>,
}

impl Console {
    /// None when the process has no terminal.
    pub(super) fn open(
        process: &Process,
        socket: Option<&Path>,
        detach: bool,
    ) -> Result<Option<Self>, OciError> {
        if detach && process.terminal && socket.is_none() {
            return Err(OciError::Refused(
                "cannot allocate tty if runc will detach without setting console socket".to_owned(),
            ));
        }
        if (!detach || !process.terminal) && socket.is_some() {
            return Err(OciError::Refused(
                "cannot use console socket if runc will not detach or allocate tty".to_owned(),
            ));
        }
        if !process.terminal {
            return Ok(None);
        }
        let words = "make the socket of the terminal";
        let kind = SocketType::STREAM;
        let Some(path) = socket else {
            let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
                .map_err(call(words))?;
            return Ok(Some(Self {
                socket: theirs,
                ours: Some(ours),
            }));
        };
        let socket = connect(path, "console socket")?;
        Ok(Some(Self { socket, ours: None }))
    }

    /// The child's end, for a plan.
    pub(super) fn number(&self) -> i32 {
        super::launch::number(&self.socket)
    }

    /// Takes the master that the child sent, in the foreground.
    pub(super) fn master(self) -> Result<Option<OwnedFd>, OciError> {
        drop(self.socket);
        let Some(socket) = self.ours else {
            return Ok(None);
        };
        let master = receive(&socket).map_err(call("receive the terminal"))?;
        // As runc: what the program writes comes out as it was written; our own terminal does the
        // rest.
        if let Ok(mut modes) = tcgetattr(&master) {
            modes.output_modes.remove(OutputModes::ONLCR);
            tcsetattr(&master, OptionalActions::Now, &modes)
                .map_err(call("set up the terminal"))?;
        }
        Ok(Some(master))
    }
}

/// Sends the pidfd of a process to whoever listens at a Unix socket, as `--pidfd-socket` asks.
pub(super) fn send_pidfd(path: &Path, pidfd: &OwnedFd) -> Result<(), OciError> {
    let socket = connect(path, "pidfd socket")?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [pidfd.as_fd()];
    let fits = control.push(SendAncillaryMessage::ScmRights(&fds));
    assert!(fits, "the space is that of one descriptor");
    let name = [IoSlice::new(b"pidfd")];
    sendmsg(&socket, &name, &mut control, SendFlags::NOSIGNAL)
        .map(drop)
        .map_err(call(format!("send the pidfd to {}", path.display())))
}

fn connect(path: &Path, what: &str) -> Result<OwnedFd, OciError> {
    let words = || format!("connect to the {what} {}", path.display());
    let kind = SocketType::STREAM;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
        .map_err(call(words()))?;
    let address = SocketAddrUnix::new(path).map_err(call(words()))?;
    rustix::net::connect(&socket, &address).map_err(call(words()))?;
    Ok(socket)
}

fn receive(socket: &OwnedFd) -> Result<OwnedFd, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0; 64];
    let mut pieces = [IoSliceMut::new(&mut bytes)];
    recvmsg(socket, &mut pieces, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    control
        .drain()
        .find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        })
        .ok_or(Errno::BADF)
}

/// Our own terminal in raw mode; dropped, it is as it was.
pub(super) struct Raw {
    before: Option<Termios>,
}

impl Raw {
    /// Nothing when stdin is no terminal.
    pub(super) fn enter() -> Self {
        let stdin = std::io::stdin();
        let before = tcgetattr(&stdin).ok();
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.make_raw();
            // A new line is still one here: the container's terminal does not say it.
            raw.output_modes.insert(OutputModes::OPOST);
            // Without it the bytes pass twice through a line discipline, which only looks odd.
            let _ = tcsetattr(&stdin, OptionalActions::Now, &raw);
        }
        Self { before }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Gives the container's terminal the size of ours.
pub(super) fn resize(master: &OwnedFd) {
    if let Ok(size) = tcgetwinsize(std::io::stdin()) {
        // A terminal of another size is still one.
        let _ = tcsetwinsize(master, size);
    }
}

/// Passes what is there from one to the other; false at the end.
pub(super) fn pass(from: BorrowedFd<'_>, to: impl AsFd) -> bool {
    let mut bytes = [0; PIECE_BYTES];
    let got = match rustix::io::read(from, &mut bytes) {
        Ok(0) | Err(Errno::IO) => return false,
        Ok(got) => got,
        Err(Errno::INTR | Errno::AGAIN) => return true,
        Err(_) => return false,
    };
    let mut rest = &bytes[..got];
    while !rest.is_empty() {
        match rustix::io::write(to.as_fd(), rest) {
            Ok(written) => rest = &rest[written..],
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
    true
}
