//! What the keeper waits for, and how an event finds its way back: 64 bits of kind and number.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;

/// Events taken per turn.
const MAX_EVENTS: usize = 64;
const SERIAL_BITS: u32 = 48;
const SERIAL_MASK: u64 = (1 << SERIAL_BITS) - 1;

/// What an event is about. Numbers are serial, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::keeper) enum Token {
    Listener,
    Sweeper,
    SweeperExit,
    Outlet,
    OutletExit,
    Client(u64),
    Report(u64),
    Exit(u64),
    SessionReport(u64),
    SessionExit(u64),
    Errand(u64),
}

impl Token {
    fn encode(self) -> u64 {
        let (kind, serial) = match self {
            Self::Listener => (0, 0),
            Self::Sweeper => (1, 0),
            Self::SweeperExit => (2, 0),
            Self::Client(serial) => (3, serial),
            Self::Report(serial) => (4, serial),
            Self::Exit(serial) => (5, serial),
            Self::Outlet => (6, 0),
            Self::OutletExit => (7, 0),
            Self::SessionReport(serial) => (8, serial),
            Self::SessionExit(serial) => (9, serial),
            Self::Errand(serial) => (10, serial),
        };
        kind << SERIAL_BITS | serial
    }

    fn decode(bits: u64) -> Option<Self> {
        let serial = bits & SERIAL_MASK;
        Some(match bits >> SERIAL_BITS {
            0 => Self::Listener,
            1 => Self::Sweeper,
            2 => Self::SweeperExit,
            3 => Self::Client(serial),
            4 => Self::Report(serial),
            5 => Self::Exit(serial),
            6 => Self::Outlet,
            7 => Self::OutletExit,
            8 => Self::SessionReport(serial),
            9 => Self::SessionExit(serial),
            10 => Self::Errand(serial),
            _ => return None,
        })
    }
}

/// The epoll instance and the source of serial numbers.
#[derive(Debug)]
pub(in crate::keeper) struct Poll {
    epoll: OwnedFd,
    last_serial: u64,
}

impl Poll {
    pub(super) fn new() -> Result<Self, Errno> {
        Ok(Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            last_serial: 0,
        })
    }

    /// A number that was never given before; 48 bits outlast any machine.
    pub(in crate::keeper) fn serial(&mut self) -> u64 {
        self.last_serial += 1;
        self.last_serial & SERIAL_MASK
    }

    pub(in crate::keeper) fn add(
        &self,
        fd: BorrowedFd<'_>,
        token: Token,
        flags: EventFlags,
    ) -> Result<(), Errno> {
        epoll::add(&self.epoll, fd, EventData::new_u64(token.encode()), flags)
    }

    /// Changes what to wait for on a descriptor that was added.
    pub(in crate::keeper) fn modify(&self, fd: BorrowedFd<'_>, token: Token, flags: EventFlags) {
        // It fails only for a descriptor that is not in the set; ours is until it is closed.
        let _ = epoll::modify(&self.epoll, fd, EventData::new_u64(token.encode()), flags);
    }

    /// Stops waiting on a descriptor that stays open.
    pub(in crate::keeper) fn remove(&self, fd: BorrowedFd<'_>) {
        // As for `modify`.
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Waits for at least one event, or no longer than `most`.
    pub(super) fn wait(
        &mut self,
        most: Option<Duration>,
    ) -> Result<impl Iterator<Item = Token> + use<>, Errno> {
        // Too long for the kernel is as good as for ever.
        let most = most.and_then(|most| Timespec::try_from(most).ok());
        let mut events = Vec::with_capacity(MAX_EVENTS);
        loop {
            match epoll::wait(&self.epoll, spare_capacity(&mut events), most.as_ref()) {
                Ok(_) => break,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(events
            .into_iter()
            .filter_map(|event| Token::decode(event.data.u64())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_kernel() {
        let serial = SERIAL_MASK - 1;
        for token in [
            Token::Listener,
            Token::Sweeper,
            Token::SweeperExit,
            Token::Client(serial),
            Token::Report(serial),
            Token::Exit(serial),
            Token::Outlet,
            Token::OutletExit,
            Token::SessionReport(serial),
            Token::SessionExit(serial),
            Token::Errand(serial),
        ] {
            assert_eq!(Token::decode(token.encode()), Some(token));
        }
        assert_eq!(Token::decode(u64::MAX), None);
    }
}
