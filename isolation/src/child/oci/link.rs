//! The child's end of the talk with the runtime.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, SocketFlags,
    recvmsg,
};

use crate::sys;

/// The child asks for the ways into the container's groups.
pub(crate) const GROUPS: u8 = b'c';
/// The child asks for the runtime's hooks.
pub(crate) const HOOKS: u8 = b'h';
/// The child is ready to be started.
pub(crate) const READY: u8 = b'r';
/// The parent answers that the child may go on.
pub(crate) const GO: u8 = b'g';

/// The child tells words, after this byte, that belong to the report that follows.
pub(crate) const WORDS: u8 = b'w';
/// How many.
pub(crate) const MAX_WORDS_BYTES: usize = 2048;
/// Most ways into groups: more than there are trees of cgroup v1.
pub(crate) const MAX_DOORS: usize = 32;

/// The child's end.
#[derive(Debug)]
pub(in crate::child) struct Link {
    sync: i32,
    start: Option<i32>,
    /// Where a process that is not the last one tells the number of its sibling.
    number: Option<i32>,
    /// Who started it, once it was; hears of a failure.
    starter: Option<OwnedFd>,
}

impl Link {
    pub(super) fn new(
        sync: BorrowedFd<'_>,
        start: Option<BorrowedFd<'_>>,
        number: Option<BorrowedFd<'_>>,
    ) -> Self {
        Self {
            sync: sync.as_raw_fd(),
            start: start.map(|fd| fd.as_raw_fd()),
            number: number.map(|fd| fd.as_raw_fd()),
            starter: None,
        }
    }

    /// The descriptors that a sibling needs, and the one that only this process does.
    pub(super) fn numbers(&self) -> ([Option<i32>; 2], Option<i32>) {
        ([Some(self.sync), self.start], self.number)
    }

    /// Sends a few bytes; without a listener there is nobody to tell.
    pub(super) fn say(&self, bytes: &[u8]) {
        let _ = match &self.starter {
            Some(starter) => rustix::net::send(starter, bytes, SendFlags::NOSIGNAL),
            None => rustix::net::send(sys::oci::borrow(self.sync), bytes, SendFlags::NOSIGNAL),
        };
    }

    /// Tells words for the report that follows.
    pub(super) fn tell(&self, words: &[u8]) {
        let mut message = [WORDS; MAX_WORDS_BYTES + 1];
        let length = words.len().min(MAX_WORDS_BYTES);
        message[1..=length].copy_from_slice(&words[..length]);
        self.say(&message[..=length]);
    }

    /// Asks and waits for the answer.
    pub(super) fn ask(&self, what: u8) -> Result<(), Errno> {
        self.say(&[what]);
        self.await_go()
    }

    /// Asks for the ways into the container's groups and takes each: "0" stands for the writer.
    pub(super) fn join_groups(&self) -> Result<(), Errno> {
        self.say(&[GROUPS]);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DOORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let got = loop {
            let mut bytes = [IoSliceMut::new(&mut byte)];
            let socket = sys::oci::borrow(self.sync);
            match recvmsg(socket, &mut bytes, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => {}
                done => break done?,
            }
        };
        if got.bytes != 1 || byte[0] != GO {
            return Err(Errno::CANCELED);
        }
        if got.flags.contains(ReturnFlags::CTRUNC) {
            return Err(Errno::MFILE);
        }
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(doors) = message {
                for door in doors {
                    rustix::io::write(&door, b"0")?;
                }
            }
        }
        Ok(())
    }

    /// Waits for [`GO`]; a parent that is gone means that the container is not wanted any more.
    pub(super) fn await_go(&self) -> Result<(), Errno> {
        if hear(sys::oci::borrow(self.sync))? {
            Ok(())
        } else {
            Err(Errno::CANCELED)
        }
    }

    /// Says that all is well, then waits for the start.
    pub(super) fn await_start(&mut self) -> Result<(), Errno> {
        let Some(listener) = self.start else {
            return self.ask(READY);
        };
        self.say(&[READY]);
        let listener = sys::oci::borrow(listener);
        loop {
            let starter = match rustix::net::accept_with(listener, SocketFlags::CLOEXEC) {
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                done => done?,
            };
            // One that goes away without the byte has thought better of it.
            if hear(&starter)? {
                self.starter = Some(starter);
                return Ok(());
            }
        }
    }
}

fn hear(socket: impl std::os::fd::AsFd) -> Result<bool, Errno> {
    let mut byte = [0];
    loop {
        match rustix::net::recv(socket.as_fd(), &mut byte, RecvFlags::empty()) {
            Ok((1, _)) => return Ok(byte[0] == GO),
            Ok(_) | Err(Errno::CONNRESET) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}
