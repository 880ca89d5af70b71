//! Framing on the keeper's socket: one seqpacket packet is a tag byte and JSON, or a tag byte alone
//! with a memfd that holds the JSON.
//!
//! It decides sizes and the place of descriptors; it deliberately knows nothing of what the
//! messages mean, but whom a start is about that cannot be read. Invariants: at most [`MAX_FDS`] descriptors and [`MAX_MESSAGE_BYTES`] of text are
//! ever taken; every received descriptor is owned (closed on every error path) and close-on-exec.

use std::cell::RefCell;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::{Errno, IoSliceMut};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::protocol::{self, MAX_FDS, MAX_INLINE_BYTES, MAX_MESSAGE_BYTES};
use crate::spec::{ContainerId, wipe};

const TAG_INLINE: u8 = b'J';
const TAG_MEMFD: u8 = b'M';
/// Seals that a memfd must carry, so that its sender cannot change it while it is read.
const SEALS: SealFlags = SealFlags::SHRINK
    .union(SealFlags::GROW)
    .union(SealFlags::WRITE);

/// Why a packet could not be sent or taken.
#[derive(Debug, thiserror::Error)]
pub enum PacketError {
    /// The socket failed.
    #[error("{call} on the keeper's socket")]
    Socket {
        /// Which call.
        call: &'static str,
        /// Why.
        #[source]
        source: Errno,
    },
    /// More than the bound.
    #[error("a message of {0} bytes; at most {MAX_MESSAGE_BYTES} are allowed")]
    TooLong(u64),
    /// More descriptors than any request has.
    #[error("{0} descriptors; at most {MAX_FDS} are allowed")]
    TooManyFds(usize),
    /// Not in this framing.
    #[error("a packet that is not of this protocol: {0}")]
    Frame(&'static str),
    /// JSON that is not the message expected.
    #[error("a message that cannot be read")]
    Json(#[from] serde_json::Error),
    /// As [`Self::Json`], of a request to start a container: what it says is newer than this program.
    #[error("what is to be started cannot be read")]
    Start {
        /// Which container.
        id: ContainerId,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl PacketError {
    fn unreadable(text: &[u8], source: serde_json::Error) -> Self {
        match protocol::started_by(text) {
            Some(id) => Self::Start { id, source },
            None => Self::Json(source),
        }
    }
}

fn socket_error(call: &'static str) -> impl FnOnce(Errno) -> PacketError {
    move |source| PacketError::Socket { call, source }
}

/// A connected blocking socket.
pub(super) fn connect(address: &SocketAddrUnix) -> Result<OwnedFd, Errno> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::net::connect(&socket, address)?;
    Ok(socket)
}

/// Whether something can be read within `timeout`.
pub(super) fn wait_readable(
    socket: BorrowedFd<'_>,
    timeout: Duration,
) -> Result<bool, PacketError> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let timeout = Timespec::try_from(timeout).unwrap_or(Timespec {
        tv_sec: i64::MAX,
        tv_nsec: 0,
    });
    let mut fds = [PollFd::new(&socket, PollFlags::IN)];
    match poll(&mut fds, Some(&timeout)) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(errno) => Err(socket_error("poll")(errno)),
    }
}

/// A message made ready to send: the packet's bytes and, for a long one, the memfd.
#[derive(Debug)]
pub(super) struct Encoded {
    bytes: Vec<u8>,
    memfd: Option<OwnedFd>,
}

impl Drop for Encoded {
    /// The text may hold a secret.
    fn drop(&mut self) {
        wipe(&mut self.bytes);
    }
}

/// Encodes once; the result can be sent to several sockets.
pub(super) fn encode(message: &impl Serialize) -> Result<Encoded, PacketError> {
    let mut bytes = vec![TAG_INLINE];
    serde_json::to_writer(&mut bytes, message)?;
    let text_len = bytes.len() - 1;
    if text_len > MAX_MESSAGE_BYTES {
        return Err(PacketError::TooLong(text_len as u64));
    }
    if text_len <= MAX_INLINE_BYTES {
        return Ok(Encoded { bytes, memfd: None });
    }
    let memfd = text_memfd(&bytes[1..]).map_err(socket_error("memfd"));
    wipe(&mut bytes);
    let memfd = memfd?;
    Ok(Encoded {
        bytes: vec![TAG_MEMFD],
        memfd: Some(memfd),
    })
}

fn text_memfd(text: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memfd = rustix::fs::memfd_create(c"gantry-message", flags)?;
    let mut rest = text;
    while !rest.is_empty() {
        let written = rustix::io::write(&memfd, rest)?;
        rest = &rest[written..];
    }
    rustix::fs::fcntl_add_seals(&memfd, SEALS)?;
    Ok(memfd)
}

/// Sends an encoded message. `Ok(false)`: a non-blocking socket has no room.
pub(super) fn send_encoded(
    socket: BorrowedFd<'_>,
    message: &Encoded,
    fds: &[BorrowedFd<'_>],
) -> Result<bool, PacketError> {
    let mut all: Vec<BorrowedFd<'_>> = message.memfd.iter().map(AsFd::as_fd).collect();
    all.extend_from_slice(fds);
    if all.len() > MAX_FDS {
        return Err(PacketError::TooManyFds(all.len()));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !all.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&all)) {
        return Err(PacketError::TooManyFds(all.len()));
    }
    loop {
        let iov = [IoSlice::new(&message.bytes)];
        match rustix::net::sendmsg(socket, &iov, &mut control, SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(false),
            Err(errno) => return Err(socket_error("sendmsg")(errno)),
        }
    }
}

/// Sends on a blocking socket.
pub(super) fn send(
    socket: BorrowedFd<'_>,
    message: &impl Serialize,
    fds: &[BorrowedFd<'_>],
) -> Result<(), PacketError> {
    if send_encoded(socket, &encode(message)?, fds)? {
        Ok(())
    } else {
        Err(PacketError::Socket {
            call: "sendmsg",
            source: Errno::AGAIN,
        })
    }
}

thread_local! {
    /// Where packets arrive. Made once: clearing 64 KiB for each packet costs the keeper as many page
    /// faults as there are pages, since every fork marks them all for copying.
    static ARRIVAL: RefCell<Vec<u8>> = RefCell::new(vec![0; MAX_INLINE_BYTES + 1]);
}

/// Takes one packet; None at the end of the connection. On a non-blocking socket an empty queue is
/// `Err(Socket { source: AGAIN })`.
pub(super) fn receive<M: DeserializeOwned>(
    socket: BorrowedFd<'_>,
) -> Result<Option<(M, Vec<OwnedFd>)>, PacketError> {
    ARRIVAL.with_borrow_mut(|bytes| {
        let done = receive_into(bytes, socket);
        if done.is_err() {
            // What was parsed is wiped already; what was refused may hold secrets, too.
            wipe(bytes);
        }
        done
    })
}

fn receive_into<M: DeserializeOwned>(
    bytes: &mut [u8],
    socket: BorrowedFd<'_>,
) -> Result<Option<(M, Vec<OwnedFd>)>, PacketError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = loop {
        let mut iov = [IoSliceMut::new(bytes)];
        match rustix::net::recvmsg(socket, &mut iov, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(got) => break got,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(socket_error("recvmsg")(errno)),
        }
    };
    let mut fds: Vec<OwnedFd> = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    if got.bytes == 0 && fds.is_empty() {
        return Ok(None);
    }
    if got.flags.contains(ReturnFlags::TRUNC) {
        return Err(PacketError::Frame("the packet is longer than any of ours"));
    }
    if got.flags.contains(ReturnFlags::CTRUNC) {
        return Err(PacketError::TooManyFds(MAX_FDS + 1));
    }
    match bytes[..got.bytes].split_first_mut() {
        Some((&mut TAG_INLINE, text)) => Ok(Some((parse(text)?, fds))),
        Some((&mut TAG_MEMFD, [])) if !fds.is_empty() => {
            let mut text = read_memfd(fds.remove(0).as_fd())?;
            Ok(Some((parse(&mut text)?, fds)))
        }
        _ => Err(PacketError::Frame("unknown tag")),
    }
}

/// Reads a message and wipes its text, which may hold a secret.
fn parse<M: DeserializeOwned>(text: &mut [u8]) -> Result<M, PacketError> {
    let message = serde_json::from_slice(text);
    let message = message.map_err(|source| PacketError::unreadable(text, source));
    wipe(text);
    message
}

/// Reads a sealed memfd by position; anything else (a FIFO, a file that could block or change) is
/// refused, so that a client cannot make the keeper wait.
fn read_memfd(memfd: BorrowedFd<'_>) -> Result<Vec<u8>, PacketError> {
    let seals = rustix::fs::fcntl_get_seals(memfd).map_err(socket_error("fcntl"))?;
    if !seals.contains(SEALS) {
        return Err(PacketError::Frame("the memfd is not sealed"));
    }
    let size = rustix::fs::fstat(memfd)
        .map_err(socket_error("fstat"))?
        .st_size;
    let size = u64::try_from(size).unwrap_or(u64::MAX);
    if size > MAX_MESSAGE_BYTES as u64 {
        return Err(PacketError::TooLong(size));
    }
    let mut text = vec![0; usize::try_from(size).unwrap_or(0)];
    let mut filled = 0;
    while filled < text.len() {
        match rustix::io::pread(memfd, &mut text[filled..], filled as u64) {
            Ok(0) => return Err(PacketError::Frame("the memfd is shorter than it says")),
            Ok(more) => filled += more,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(socket_error("pread")(errno)),
        }
    }
    Ok(text)
}
