//! Which stream is where, and whose turn is next. It decides the order, by [`Pace`] and arrival; it
//! deliberately touches no pipe, waits for nothing and asks no clock.
//!
//! ```text
//! Waiting ──readable──▶ Queued ──worker──▶ Busy ──▶ Waiting …  or, closed or finished, gone
//!                         ▲                 ├──▶ Queued …
//!                         └──due── Resting ◀┘
//! ```
//! Invariants: a stream is with one worker at most; turns come round, so that whoever writes much
//! has one between two of anyone else's.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::super::output::{Moved, Pump, Turn};
use super::Totals;
use super::pace::{Next, Pace};

/// A turn that takes so long is one that something holds up.
const HELD_UP: Duration = Duration::from_secs(1);

/// Who may wait to watch one stream.
const MAX_JOINING: usize = 16;

#[derive(Debug)]
enum Place {
    Waiting(Pump),
    Resting(Pump, Instant),
    Queued(Pump),
    /// Since when it is, unless for a moment only.
    Busy(Option<Instant>),
}

#[derive(Debug)]
struct Stream {
    place: Place,
    pace: Pace,
    finish: bool,
    /// Who is to watch it from the next turn on.
    joining: Vec<OwnedFd>,
}

/// What is to be done with a stream that was put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// Its pipe says when there is more.
    Listen,
    /// It is resting or queued.
    Wait,
    /// It is gone.
    Over,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Streams {
    streams: BTreeMap<u64, Stream>,
    queue: VecDeque<u64>,
    resting: BTreeSet<(Instant, u64)>,
    moved: Moved,
    /// How often a worker was done with a stream for now.
    pub(super) turns: u64,
}

impl Streams {
    pub(super) fn add(&mut self, number: u64, pump: Pump) {
        let stream = Stream {
            place: Place::Waiting(pump),
            pace: Pace::default(),
            finish: false,
            joining: Vec::new(),
        };
        self.streams.insert(number, stream);
    }

    /// To look at the pipe of one that waits.
    pub(super) fn waiting(&self, number: u64) -> Option<&Pump> {
        match &self.streams.get(&number)?.place {
            Place::Waiting(pump) => Some(pump),
            _ => None,
        }
    }

    /// Puts a stream that waits or rests into the queue.
    pub(super) fn enqueue(&mut self, number: u64) {
        let Some(stream) = self.streams.get_mut(&number) else {
            return;
        };
        stream.place = match std::mem::replace(&mut stream.place, Place::Busy(None)) {
            Place::Waiting(pump) => {
                self.queue.push_back(number);
                Place::Queued(pump)
            }
            Place::Resting(pump, due) => {
                self.resting.remove(&(due, number));
                self.queue.push_back(number);
                Place::Queued(pump)
            }
            other => other,
        };
    }

    /// Shows a stream to one more from its next turn on, which comes before anything more does.
    pub(super) fn join(&mut self, number: u64, watcher: OwnedFd) {
        if let Some(stream) = self.streams.get_mut(&number)
            && stream.joining.len() < MAX_JOINING
        {
            stream.joining.push(watcher);
        }
        self.enqueue(number);
    }

    /// The container ended: the next turn is the last.
    pub(super) fn finish(&mut self, number: u64) {
        if let Some(stream) = self.streams.get_mut(&number) {
            stream.finish = true;
        }
        self.enqueue(number);
    }

    /// Queues those that have rested.
    pub(super) fn wake(&mut self, now: Instant) {
        while let Some((due, number)) = self.resting.first().copied()
            && due <= now
        {
            self.enqueue(number);
        }
    }

    /// When the next one has rested.
    pub(super) fn due(&self) -> Option<Instant> {
        self.resting.first().map(|(due, _)| *due)
    }

    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// The next one to work on, and whether it is its last turn.
    pub(super) fn next(&mut self, now: Instant) -> Option<(u64, Pump, bool)> {
        while let Some(number) = self.queue.pop_front() {
            let Some(stream) = self.streams.get_mut(&number) else {
                continue;
            };
            match std::mem::replace(&mut stream.place, Place::Busy(Some(now))) {
                Place::Queued(mut pump) => {
                    for watcher in stream.joining.drain(..) {
                        pump.join(watcher);
                    }
                    return Some((number, pump, stream.finish));
                }
                // Not in the queue.
                other => stream.place = other,
            }
        }
        None
    }

    /// Takes one that waits out, if it does.
    pub(super) fn close(&mut self, number: u64) -> Option<Pump> {
        self.waiting(number)?;
        match self.streams.remove(&number)?.place {
            Place::Waiting(pump) => Some(pump),
            _ => None,
        }
    }

    /// Takes one back from a worker; a pipe that is to be listened to waits already.
    pub(super) fn put_back(
        &mut self,
        number: u64,
        mut pump: Pump,
        turn: Turn,
        now: Instant,
    ) -> Then {
        self.turns += 1;
        let moved = pump.take_moved();
        self.moved.bytes += moved.bytes;
        self.moved.rotations += moved.rotations;
        let Turn::Open(found) = turn else {
            self.streams.remove(&number);
            return Then::Over;
        };
        let Some(stream) = self.streams.get_mut(&number) else {
            return Then::Over;
        };
        let next = stream.pace.next(found, pump.room(), now);
        match next {
            Next::Rest(time) if !stream.finish => {
                let due = now + time;
                stream.place = Place::Resting(pump, due);
                self.resting.insert((due, number));
                Then::Wait
            }
            Next::Listen if !stream.finish => {
                stream.place = Place::Waiting(pump);
                Then::Listen
            }
            _ => {
                stream.place = Place::Queued(pump);
                self.queue.push_back(number);
                Then::Wait
            }
        }
    }

    /// What was moved.
    pub(super) fn moved(&self) -> Moved {
        self.moved
    }

    /// What was moved, and how many are held up; it looks at each of them.
    pub(super) fn totals(&self, now: Instant) -> Totals {
        let held_up = |stream: &&Stream| match stream.place {
            Place::Busy(Some(since)) => now.saturating_duration_since(since) >= HELD_UP,
            _ => false,
        };
        Totals {
            bytes: self.moved.bytes,
            rotations: self.moved.rotations,
            held_up: self.streams.values().filter(held_up).count() as u64,
        }
    }
}
