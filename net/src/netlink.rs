//! One blocking netlink socket: requests with acknowledgement, and dumps.
//!
//! Blocking on purpose. The kernel does the work inside `send`, where it waits for its own locks
//! (rtnl, nfnl), so a socket in a tokio reactor would block a worker just as long. Deliberately
//! knows no message type beyond the serialisation traits. Invariants: every wait has a time limit;
//! an answer counts only if its sequence number is ours.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable, NlasIterator,
};
use netlink_sys::{Socket, SocketAddr};
use rustix::net::sockopt::{self, Timeout};

use crate::error::KernelError;

/// Longest wait for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of answers that may queue up.
const RECEIVE_BUFFER_BYTES: usize = 1 << 20;
/// One datagram of a dump; the kernel fills at most 32 KiB unless given more.
const DATAGRAM_BYTES: usize = 64 << 10;
/// Most messages that one dump may bring.
const MAX_DUMP: usize = 1 << 20;
/// `NLMSGERR_ATTR_MSG` of linux/netlink.h.
const EXT_ACK_MESSAGE: u16 = 1;
/// Length of `struct nlmsghdr`.
const HEADER_BYTES: usize = 16;

/// A message with its netlink flags; request and acknowledge are added.
pub(crate) type Flagged<T> = (T, u16);

/// A netlink socket of one protocol.
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace, where it stays.
    pub(crate) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        // Needs CAP_NET_ADMIN to go over rmem_max; less is enough for all but huge dumps.
        let borrowed = socket.as_fd();
        if sockopt::set_socket_recv_buffer_size_force(borrowed, RECEIVE_BUFFER_BYTES).is_err() {
            sockopt::set_socket_recv_buffer_size(borrowed, RECEIVE_BUFFER_BYTES)?;
        }
        sockopt::set_socket_timeout(borrowed, Timeout::Recv, Some(ANSWER_TIMEOUT))?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Sends the messages in one datagram and waits until each is acknowledged. Gives the first
    /// refusal; whether the others took effect is up to the protocol (nftables batches: none;
    /// rtnetlink: all of them).
    pub(crate) fn request<T>(&mut self, messages: Vec<Flagged<T>>) -> Result<(), KernelError>
    where
        T: NetlinkSerializable + NetlinkDeserializable + std::fmt::Debug,
    {
        if messages.is_empty() {
            return Ok(());
        }
        let framed: Vec<(T, u16, bool)> = messages
            .into_iter()
            .map(|(message, flags)| (message, flags, true))
            .collect();
        self.transact(framed)
    }

    /// As `request`, but messages marked `false` are not acknowledged (nftables' batch marks).
    pub(crate) fn transact<T>(&mut self, messages: Vec<(T, u16, bool)>) -> Result<(), KernelError>
    where
        T: NetlinkSerializable + NetlinkDeserializable + std::fmt::Debug,
    {
        let mut buffer = Vec::new();
        let first = self.sequence.wrapping_add(1);
        let mut awaited = None;
        for (message, flags, acknowledged) in messages {
            let acknowledge = if acknowledged { NLM_F_ACK } else { 0 };
            self.append(&mut buffer, message, flags | acknowledge);
            if acknowledged {
                awaited = Some(self.sequence);
            }
        }
        let last = self.sequence;
        self.send(&buffer)?;
        let Some(awaited) = awaited else {
            return Ok(());
        };
        let mut refusal = None;
        let mut acknowledged = false;
        while !acknowledged && refusal.is_none() {
            self.receive::<T>(|header, payload| {
                if !(first..=last).contains(&header.sequence_number) {
                    return Ok(());
                }
                if let NetlinkPayload::Error(answer) = payload {
                    match answer.code {
                        Some(code) if refusal.is_none() => {
                            refusal = Some(refused(code.get(), &answer.header));
                        }
                        Some(_) => {}
                        None => acknowledged |= header.sequence_number == awaited,
                    }
                }
                Ok(())
            })?;
        }
        refusal.map_or(Ok(()), Err)
    }

    /// Sends one request with the given dump flags and gathers the answers up to the end mark.
    pub(crate) fn dump<T>(&mut self, message: T, flags: u16) -> Result<Vec<T>, KernelError>
    where
        T: NetlinkSerializable + NetlinkDeserializable + std::fmt::Debug,
    {
        let mut buffer = Vec::new();
        self.append(&mut buffer, message, flags | NLM_F_ACK);
        self.send(&buffer)?;
        let wanted = self.sequence;
        let mut found = Vec::new();
        let mut refusal = None;
        let mut done = false;
        while !done {
            self.receive(|header, payload| {
                if header.sequence_number != wanted {
                    return Ok(());
                }
                match payload {
                    NetlinkPayload::InnerMessage(inner) if found.len() < MAX_DUMP => {
                        found.push(inner);
                    }
                    NetlinkPayload::Error(answer) => {
                        done = true;
                        if let Some(code) = answer.code {
                            refusal = Some(refused(code.get(), &answer.header));
                        }
                    }
                    NetlinkPayload::Done(_) => done = true,
                    _ => {}
                }
                Ok(())
            })?;
        }
        refusal.map_or(Ok(found), Err)
    }

    fn append<T>(&mut self, buffer: &mut Vec<u8>, message: T, flags: u16)
    where
        T: NetlinkSerializable,
    {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags | NLM_F_REQUEST;
        header.sequence_number = self.sequence;
        let mut framed = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        framed.finalize();
        let start = buffer.len();
        buffer.resize(start + framed.buffer_len().next_multiple_of(4), 0);
        framed.serialize(&mut buffer[start..]);
    }

    fn send(&self, buffer: &[u8]) -> Result<(), KernelError> {
        loop {
            match self.socket.send(buffer, 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(KernelError::Socket(error)),
            }
        }
    }

    /// Receives one datagram and shows each message in it.
    fn receive<T>(
        &self,
        mut each: impl FnMut(&NetlinkHeader, NetlinkPayload<T>) -> Result<(), KernelError>,
    ) -> Result<(), KernelError>
    where
        T: NetlinkDeserializable + std::fmt::Debug,
    {
        let mut datagram: Vec<u8> = Vec::with_capacity(DATAGRAM_BYTES);
        let begun = Instant::now();
        loop {
            match self.socket.recv(&mut datagram, 0) {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(KernelError::Silent {
                        timeout_ms: begun.elapsed().as_millis(),
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(KernelError::Socket(error)),
            }
        }
        let mut rest = datagram.as_slice();
        while let Some(length) = first_length(rest) {
            if let Ok(message) = NetlinkMessage::<T>::deserialize(&rest[..length]) {
                let (header, payload) = message.into_parts();
                each(&header, payload)?;
            } else {
                // A link or chain of somebody else may hold attributes that the decoder does not
                // know: not ours.
                tracing::debug!(bytes = length, "unreadable netlink message skipped");
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(())
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl std::fmt::Debug for Netlink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Netlink")
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

/// Length of the message that the buffer begins with, if it is whole.
fn first_length(buffer: &[u8]) -> Option<usize> {
    let bytes = buffer.first_chunk::<4>()?;
    let length = usize::try_from(u32::from_ne_bytes(*bytes)).ok()?;
    (length >= HEADER_BYTES && length <= buffer.len()).then_some(length)
}

fn refused(code: i32, answer: &[u8]) -> KernelError {
    let source = io::Error::from_raw_os_error(code.saturating_abs());
    let attributes = answer.get(HEADER_BYTES..).unwrap_or_default();
    let hint = NlasIterator::new(attributes)
        .flatten()
        .find(|attribute| attribute.kind() == EXT_ACK_MESSAGE)
        .map(|attribute| {
            let text = String::from_utf8_lossy(attribute.value());
            text.trim_end_matches('\0').to_owned()
        })
        .unwrap_or_default();
    KernelError::Refused { source, hint }
}
