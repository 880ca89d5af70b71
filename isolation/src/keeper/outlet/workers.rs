//! The outlet's own process: one thread that listens, and as many that move bytes as it takes for
//! those that can go on to go on.
//!
//! ```text
//! Waiting ──readable──▶ Queued ──worker──▶ Busy ──▶ Waiting …  or, closed or finished, gone
//! ```
//! A worker may block for as long as whoever holds the pipe or the file likes. When all are busy, some
//! stream waits and nobody has got any further for [`STALL`], one more worker is started: a container
//! can hold up two of them, and only its own output. It deliberately keeps nothing that the keeper
//! does not have. Invariants: a stream is with one worker at most; the listening thread touches no
//! pipe and no file, and the lock is held only for moments.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::super::output::{NAMES, Pump, Turn};
use super::super::packet;
use super::{Order, Word};
use crate::child::{FIRST_FREE_FD, REPORT_FD};
use crate::sys;

/// Workers that stay when there is nothing to do.
const WORKERS: usize = 2;
/// Workers at most: two for each of so many containers that hold up theirs.
const MAX_WORKERS: usize = 512;
/// How long nobody gets any further before one more worker is started.
const STALL: Duration = Duration::from_millis(20);
/// How long a worker too many waits for something to do.
const IDLE: Duration = Duration::from_secs(10);
/// More than the deepest of their calls takes.
const STACK_BYTES: usize = 128 << 10;
/// Events taken per turn.
const MAX_EVENTS: usize = 64;
/// What the socket's events are marked with; streams have other numbers.
const SOCKET: u64 = u64::MAX;

const READABLE: EventFlags = EventFlags::IN.union(EventFlags::ONESHOT);

#[derive(Debug)]
enum Place {
    Waiting(Pump),
    Queued(Pump),
    Busy,
}

#[derive(Debug)]
struct Stream {
    place: Place,
    finish: bool,
}

#[derive(Debug, Default)]
struct State {
    streams: BTreeMap<u64, Stream>,
    queue: VecDeque<u64>,
    workers: usize,
    idle: usize,
    /// How often a worker was done with a stream for now.
    turns: u64,
}

impl State {
    /// Puts a stream that waits into the queue.
    fn enqueue(&mut self, number: u64) {
        let Some(stream) = self.streams.get_mut(&number) else {
            return;
        };
        stream.place = match std::mem::replace(&mut stream.place, Place::Busy) {
            Place::Waiting(pump) => {
                self.queue.push_back(number);
                Place::Queued(pump)
            }
            other => other,
        };
    }

    /// The next one to work on, and whether it is its last turn.
    fn next(&mut self) -> Option<(u64, Pump, bool)> {
        let number = self.queue.pop_front()?;
        let stream = self.streams.get_mut(&number)?;
        match std::mem::replace(&mut stream.place, Place::Busy) {
            Place::Queued(pump) => Some((number, pump, stream.finish)),
            // Not in the queue.
            Place::Waiting(_) | Place::Busy => None,
        }
    }

    fn lacks_workers(&self) -> bool {
        self.queue.len() > self.idle && self.workers < MAX_WORKERS
    }
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
    epoll: OwnedFd,
    socket: OwnedFd,
    null: OwnedFd,
}

/// Number of one stream of a container.
fn number(serial: u64, stream: usize) -> u64 {
    serial * NAMES.len() as u64 + stream as u64
}

/// The outlet's process, until the keeper closes its end.
pub(super) fn serve(socket: &OwnedFd) -> ! {
    // stderr may still be the pipe that the starting client reads to its end.
    let ready = sys::dup_to(std::io::stdin().as_fd(), 2, false)
        .and_then(|()| sys::dup_to(socket.as_fd(), REPORT_FD, true))
        .and_then(|()| sys::close_from(FIRST_FREE_FD.unsigned_abs()));
    // Failing to set the name harms nothing.
    let _ = rustix::thread::set_name(c"gantry-outlet");
    let socket = sys::adopt_fd(REPORT_FD);
    // Without a word: the keeper sees the end, and starts another one.
    if ready.is_ok()
        && let Ok(shared) = Shared::new(socket)
    {
        // As long as the process.
        let _ = Box::leak(Box::new(shared)).listen();
    }
    sys::exit_now(0)
}

impl Shared {
    fn new(socket: OwnedFd) -> Result<Self, Errno> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &socket, EventData::new_u64(SOCKET), EventFlags::IN)?;
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        Ok(Self {
            state: Mutex::default(),
            work: Condvar::new(),
            epoll,
            socket,
            null: rustix::fs::open(c"/dev/null", flags, Mode::empty())?,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listen(&'static self) -> Result<(), Errno> {
        let mut events = Vec::with_capacity(MAX_EVENTS);
        let mut stalled = None;
        loop {
            let most = stalled.map(|_| STALL);
            let most = most.and_then(|most| Timespec::try_from(most).ok());
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), most.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
            for event in &events {
                let flags = event.flags;
                match event.data.u64() {
                    SOCKET => match packet::receive::<Order>(self.socket.as_fd()) {
                        Ok(Some((order, fds))) => self.obey(&order, fds),
                        Ok(None) | Err(_) => return Ok(()),
                    },
                    // Nothing in it, and nobody to write to it: no call on it is needed.
                    number if flags == EventFlags::HUP => self.close(number),
                    number => self.enqueue(number),
                }
            }
            stalled = self.employ(stalled);
        }
    }

    fn enqueue(&self, number: u64) {
        self.state().enqueue(number);
        self.work.notify_one();
    }

    /// A stream that waits is over.
    fn close(&self, number: u64) {
        let mut state = self.state();
        let Some(stream) = state.streams.get_mut(&number) else {
            return;
        };
        match std::mem::replace(&mut stream.place, Place::Busy) {
            Place::Waiting(pump) => {
                drop(state);
                let dropped_bytes = pump.dropped_bytes();
                self.put_back(number, pump, Turn::Closed);
                self.tell(number, dropped_bytes, true);
            }
            other => stream.place = other,
        }
    }

    fn tell(&self, number: u64, dropped_bytes: u64, closed: bool) {
        let streams = NAMES.len() as u64;
        let word = Word {
            serial: number / streams,
            stream: usize::from(!number.is_multiple_of(streams)),
            dropped_bytes,
            closed,
        };
        // When the keeper is gone there is nobody to tell, and the listening thread ends us all.
        let _ = packet::send(self.socket.as_fd(), &word, &[]);
    }

    fn obey(&self, order: &Order, fds: Vec<OwnedFd>) {
        match *order {
            Order::Take { serial, rotation } => {
                let mut fds = fds.into_iter();
                let (Some(dir), Some(stdout), Some(stderr)) = (fds.next(), fds.next(), fds.next())
                else {
                    return;
                };
                let dir = Arc::new(dir);
                for (stream, pipe) in [stdout, stderr].into_iter().enumerate() {
                    let pump = Pump::new(pipe, dir.clone(), NAMES[stream], rotation, fds.next());
                    self.add(serial, stream, pump);
                }
            }
            Order::Finish { serial } => {
                for stream in 0..NAMES.len() {
                    let number = number(serial, stream);
                    if let Some(stream) = self.state().streams.get_mut(&number) {
                        stream.finish = true;
                    }
                    self.enqueue(number);
                }
            }
        }
    }

    fn add(&self, serial: u64, stream: usize, pump: Pump) {
        let number = number(serial, stream);
        let mut state = self.state();
        let added = epoll::add(
            &self.epoll,
            pump.pipe(),
            EventData::new_u64(number),
            READABLE,
        );
        let stream = Stream {
            place: Place::Waiting(pump),
            finish: false,
        };
        state.streams.insert(number, stream);
        if added.is_err() {
            // Out of kernel memory: what comes is not seen before the end, but nothing is lost.
            state.enqueue(number);
        }
    }

    /// Starts a worker if one is lacking; since when one is, and how far the others were then.
    fn employ(&'static self, stalled: Option<(Instant, u64)>) -> Option<(Instant, u64)> {
        let mut state = self.state();
        if !state.lacks_workers() {
            return None;
        }
        let since = stalled.filter(|(_, turns)| *turns == state.turns);
        let is_due = since.is_some_and(|(since, _)| since.elapsed() >= STALL);
        if state.workers >= WORKERS && !is_due {
            return since.or_else(|| Some((Instant::now(), state.turns)));
        }
        let spawned = std::thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn(move || self.work());
        if spawned.is_ok() {
            state.workers += 1;
        }
        Some((Instant::now(), state.turns))
    }

    /// A worker's life.
    fn work(&self) {
        while let Some((number, mut pump, last)) = self.next() {
            let before = pump.dropped_bytes();
            let turn = if last {
                pump.finish(self.null.as_fd());
                Turn::Closed
            } else {
                pump.turn(self.null.as_fd())
            };
            let dropped_bytes = pump.dropped_bytes();
            self.put_back(number, pump, turn);
            let closed = turn == Turn::Closed;
            if closed || dropped_bytes != before {
                self.tell(number, dropped_bytes, closed);
            }
        }
    }

    /// Waits for a stream to work on; None when this worker is not needed any more.
    fn next(&self) -> Option<(u64, Pump, bool)> {
        let mut state = self.state();
        loop {
            if let Some(next) = state.next() {
                return Some(next);
            }
            state.idle += 1;
            let (woken, timeout) = self
                .work
                .wait_timeout(state, IDLE)
                .unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.idle -= 1;
            if timeout.timed_out() && state.queue.is_empty() && state.workers > WORKERS {
                state.workers -= 1;
                return None;
            }
        }
    }

    fn put_back(&self, number: u64, pump: Pump, turn: Turn) {
        let mut state = self.state();
        state.turns += 1;
        if turn == Turn::Closed {
            // The keeper has the pipe open, too: closing ours does not take it out.
            let _ = epoll::delete(&self.epoll, pump.pipe());
            state.streams.remove(&number);
            return;
        }
        let Some(stream) = state.streams.get_mut(&number) else {
            return;
        };
        let finish = stream.finish;
        if !finish {
            // It fails only for a pipe that is not in the set.
            let data = EventData::new_u64(number);
            let _ = epoll::modify(&self.epoll, pump.pipe(), data, READABLE);
        }
        stream.place = Place::Waiting(pump);
        if finish {
            state.enqueue(number);
        }
    }
}
