//! The keeper's end of the outlet: the process that moves what containers write into their files, so
//! that neither a slow disk nor a container that holds a lock ever makes the keeper wait.
//!
//! The keeper makes pipes and files and hands them over; it keeps the pipes, so that nothing is lost
//! but a few moments when the outlet dies: the next one gets every pipe again. It decides how long the
//! exit of a container waits for its last output. Invariant: the keeper touches no pipe that a
//! container can write to, but to hand it over and to close it.

mod pace;
mod streams;
mod workers;

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};

use super::output::{Moved, Rotation};
use super::packet;
use super::server::{Poll, Token};
use crate::sys::{self, Cloned, clone_flags};

/// How long an exit is held back until the last output is in its file.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// What the outlet is told. Streams come in pairs, stdout and stderr.
#[derive(Debug, Serialize, Deserialize)]
enum Order {
    /// Move these from now on; with the directory, both pipes and, the first time, both files.
    Take {
        serial: u64,
        rotations: [Rotation; 2],
        /// Whether the pipe of stdout is the master of a terminal.
        terminal: bool,
    },
    /// The container ended: move what is left.
    Finish { serial: u64 },
    /// Write what comes of stdout into this pipe, too.
    Attach { serial: u64 },
}

/// What the outlet says.
#[derive(Debug, Serialize, Deserialize)]
enum Word {
    /// Of one stream.
    Stream {
        serial: u64,
        /// Index into [`super::output::NAMES`].
        stream: usize,
        /// All bytes of it that this outlet could not write.
        dropped_bytes: u64,
        /// Nothing more comes.
        closed: bool,
    },
    /// Of all of them, since it started.
    Moved(Totals),
}

/// What an outlet has done, and what it cannot do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Totals {
    /// Bytes that it wrote into files.
    pub(super) bytes: u64,
    /// Files that it rotated.
    pub(super) rotations: u64,
    /// Streams that something holds up now: a slow disk, or whoever holds the pipe or the file.
    pub(super) held_up: u64,
}

impl Totals {
    fn moved(self) -> Moved {
        Moved {
            bytes: self.bytes,
            rotations: self.rotations,
        }
    }
}

/// Both output streams of a container, ready to be handed over.
#[derive(Debug)]
pub(super) struct Streams {
    dir: OwnedFd,
    pipes: [OwnedFd; 2],
    files: Option<[OwnedFd; 2]>,
    rotations: [Rotation; 2],
    terminal: bool,
}

impl Streams {
    pub(super) fn new(
        dir: OwnedFd,
        pipes: [OwnedFd; 2],
        files: [OwnedFd; 2],
        rotations: [Rotation; 2],
    ) -> Self {
        let files = Some(files);
        Self {
            dir,
            pipes,
            files,
            rotations,
            terminal: false,
        }
    }

    /// From now on stdout is what comes out of a terminal.
    pub(super) fn come_from(&mut self, master: OwnedFd) {
        self.pipes[0] = master;
        self.terminal = true;
    }
}

/// Streams that the outlet has.
#[derive(Debug)]
struct Held {
    streams: Streams,
    taken: bool,
    /// Whether the container ended, and whether the outlet knows.
    finish: bool,
    finishing: bool,
    open: [bool; 2],
    dropped: [u64; 2],
    /// Of these, what an outlet that is gone had dropped.
    before: [u64; 2],
}

/// What was heard.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Of a container's streams.
    Streams {
        serial: u64,
        /// Bytes of both that could not be written.
        dropped_bytes: u64,
        /// Everything that an ended container wrote was moved.
        drained: bool,
    },
    /// Of all streams, since the keeper started.
    Moved(Totals),
}

/// The keeper's end.
#[derive(Debug)]
pub(super) struct Outlet {
    socket: OwnedFd,
    pidfd: OwnedFd,
    held: BTreeMap<u64, Held>,
    /// Those of which the outlet is still to be told something.
    unsaid: VecDeque<u64>,
    /// Whether room for it is waited for.
    waits: bool,
    /// When exits are no longer held back, in order.
    deadlines: VecDeque<(Instant, u64)>,
    /// What it has done, and what those before it had.
    totals: Totals,
    before: Totals,
    gone: bool,
}

impl Outlet {
    /// Forks the outlet.
    pub(super) fn start() -> Result<Self, Errno> {
        let (socket, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        rustix::io::ioctl_fionbio(&socket, true)?;
        match sys::clone3(clone_flags::PIDFD, None)? {
            Cloned::Child => workers::serve(&theirs),
            Cloned::Parent(_, pidfd) => Ok(Self {
                socket,
                pidfd: pidfd.ok_or(Errno::BADF)?,
                held: BTreeMap::new(),
                unsaid: VecDeque::new(),
                waits: false,
                deadlines: VecDeque::new(),
                totals: Totals::default(),
                before: Totals::default(),
                gone: false,
            }),
        }
    }

    /// Readable when a word is there.
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Readable when the outlet ended.
    pub(super) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Hands over the streams of the container `serial`.
    pub(super) fn take(&mut self, serial: u64, streams: Streams) {
        let held = Held {
            streams,
            taken: false,
            finish: false,
            finishing: false,
            open: [true; 2],
            dropped: [0; 2],
            before: [0; 2],
        };
        self.held.insert(serial, held);
        self.say(serial);
    }

    /// The container ended; false if there is nothing to wait for.
    pub(super) fn finish(&mut self, serial: u64, now: Instant) -> bool {
        let Some(held) = self.held.get_mut(&serial) else {
            return false;
        };
        held.finish = true;
        self.deadlines.push_back((now + DRAIN_MAX, serial));
        self.say(serial);
        true
    }

    /// How long to wait for events at most.
    pub(super) fn wait(&mut self, now: Instant) -> Option<Duration> {
        while let Some((_, serial)) = self.deadlines.front()
            && !self.held.contains_key(serial)
        {
            self.deadlines.pop_front();
        }
        self.deadlines.front().map(|(at, _)| *at - now)
    }

    /// Ended containers whose last output is not waited for any longer; it is given up.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<u64> {
        let mut overdue = Vec::new();
        while let Some((at, serial)) = self.deadlines.front().copied()
            && at <= now
        {
            self.deadlines.pop_front();
            if self.held.remove(&serial).is_some() {
                overdue.push(serial);
            }
        }
        overdue
    }

    fn say(&mut self, serial: u64) {
        if !self.unsaid.is_empty() || !self.tell(serial) {
            self.unsaid.push_back(serial);
        }
    }

    /// Has what comes of a container's stdout written into `pipe`, too. It is not kept: where there is
    /// no room to say so, or the outlet dies, whoever reads it finds its end.
    pub(super) fn attach(&self, serial: u64, pipe: BorrowedFd<'_>) {
        if self.held.get(&serial).is_some_and(|held| held.taken) {
            let _ = packet::send(self.socket.as_fd(), &Order::Attach { serial }, &[pipe]);
        }
    }

    /// Tells the outlet what it does not know of these streams; false when it has no room.
    fn tell(&mut self, serial: u64) -> bool {
        let Some(held) = self.held.get_mut(&serial) else {
            return true;
        };
        if !held.taken {
            let Streams {
                dir,
                pipes,
                files,
                rotations,
                terminal,
            } = &held.streams;
            let mut fds = vec![dir.as_fd()];
            fds.extend(pipes.iter().chain(files.iter().flatten()).map(AsFd::as_fd));
            let order = Order::Take {
                serial,
                rotations: *rotations,
                terminal: *terminal,
            };
            if packet::send(self.socket.as_fd(), &order, &fds).is_err() {
                return false;
            }
            held.taken = true;
            held.streams.files = None;
        }
        if held.finish && !held.finishing {
            let order = Order::Finish { serial };
            if packet::send(self.socket.as_fd(), &order, &[]).is_err() {
                return false;
            }
            held.finishing = true;
        }
        true
    }

    /// Tells what there was no room for, and has `poll` wait for room if there still is none.
    pub(super) fn flush(&mut self, poll: &Poll) {
        if self.gone {
            return;
        }
        while let Some(serial) = self.unsaid.front().copied() {
            if !self.tell(serial) {
                break;
            }
            self.unsaid.pop_front();
        }
        if self.waits == self.unsaid.is_empty() {
            self.waits = !self.waits;
            let room = if self.waits {
                EventFlags::OUT
            } else {
                EventFlags::empty()
            };
            poll.modify(self.socket.as_fd(), Token::Outlet, EventFlags::IN | room);
        }
    }

    /// Takes one word, if there is one.
    pub(super) fn hear(&mut self, poll: &Poll) -> Option<Heard> {
        let word = match packet::receive::<Word>(self.socket.as_fd()) {
            Ok(Some((word, _))) => word,
            Ok(None) => {
                // Its pidfd says the rest.
                poll.remove(self.socket.as_fd());
                return None;
            }
            Err(_) => return None,
        };
        match word {
            Word::Stream {
                serial,
                stream,
                dropped_bytes,
                closed,
            } => self.heard(serial, stream, dropped_bytes, closed),
            Word::Moved(totals) => {
                self.totals = totals;
                Some(Heard::Moved(self.totals()))
            }
        }
    }

    fn heard(
        &mut self,
        serial: u64,
        stream: usize,
        dropped_bytes: u64,
        closed: bool,
    ) -> Option<Heard> {
        let held = self.held.get_mut(&serial)?;
        let dropped = held.dropped.get_mut(stream)?;
        *dropped = held.before.get(stream)? + dropped_bytes;
        *held.open.get_mut(stream)? &= !closed;
        let dropped_bytes = held.dropped.iter().sum();
        let drained = held.open == [false; 2];
        if drained {
            self.held.remove(&serial);
        }
        Some(Heard::Streams {
            serial,
            dropped_bytes,
            drained,
        })
    }

    fn totals(&self) -> Totals {
        Totals {
            bytes: self.before.bytes + self.totals.bytes,
            rotations: self.before.rotations + self.totals.rotations,
            held_up: self.totals.held_up,
        }
    }

    /// It ended.
    pub(super) fn lose(&mut self) {
        self.gone = true;
    }

    /// Whether it ended and no other one could be started.
    pub(super) fn is_gone(&self) -> bool {
        self.gone
    }

    /// Starts another one, which gets every stream again.
    pub(super) fn restart(&mut self) -> Result<(), Errno> {
        let mut successor = Self::start()?;
        successor.held = std::mem::take(&mut self.held);
        successor.deadlines = std::mem::take(&mut self.deadlines);
        successor.before = self.totals();
        for held in successor.held.values_mut() {
            (held.taken, held.finishing) = (false, false);
            held.before = held.dropped;
        }
        successor.unsaid = successor.held.keys().copied().collect();
        *self = successor;
        Ok(())
    }
}
