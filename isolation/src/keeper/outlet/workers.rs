//! The outlet's own process: one thread that listens, and as many that move bytes as it takes for
//! those that can go on to go on.
//!
//! A worker may block for as long as whoever holds the pipe or the file likes. When all are busy, some
//! stream waits and nobody has got any further for [`STALL`], one more worker is started: a container
//! can hold up two of them, and only its own output. A worker with nothing to do waits until the next
//! stream has rested; while none has the time, the listening thread looks every [`STALL`]. The outlet
//! deliberately keeps nothing that the keeper does not have. Invariants: the listening thread touches
//! no pipe and no file, and the lock is held only for moments; while nobody writes, nothing wakes.

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
use super::streams::{Streams, Then};
use super::{Order, Totals, Word};
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
/// How often the keeper hears how much was moved, while anything is.
const REPORT: Duration = Duration::from_secs(1);
/// More than the deepest of their calls takes.
const STACK_BYTES: usize = 128 << 10;
/// Events taken per turn.
const MAX_EVENTS: usize = 64;
/// What the socket's events are marked with; streams have other numbers.
const SOCKET: u64 = u64::MAX;

const READABLE: EventFlags = EventFlags::IN.union(EventFlags::ONESHOT);

#[derive(Debug, Default)]
struct State {
    streams: Streams,
    workers: usize,
    idle: usize,
    /// Until when an idle worker waits for the stream that has rested first.
    watched: Option<Instant>,
}

impl State {
    fn lacks_workers(&self) -> bool {
        self.streams.queued() > self.idle && self.workers < MAX_WORKERS
    }

    /// Whether anything goes on that may need another look.
    fn is_active(&self) -> bool {
        self.workers > self.idle || self.streams.queued() > 0 || self.streams.due().is_some()
    }
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
    epoll: OwnedFd,
    socket: OwnedFd,
    null: OwnedFd,
}

/// What the listening thread remembers.
#[derive(Debug, Default)]
struct Watch {
    /// Since when a worker is lacking, and how far the others were then.
    stalled: Option<(Instant, u64)>,
    /// What the keeper was told last, and when.
    told: Totals,
    told_at: Option<Instant>,
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
        let mut watch = Watch::default();
        loop {
            let most = self.look(&mut watch);
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
        }
    }

    /// Does what no worker has the time for; how long the next look may wait.
    fn look(&'static self, watch: &mut Watch) -> Option<Duration> {
        let now = Instant::now();
        let mut state = self.state();
        state.streams.wake(now);
        for _ in 0..state.streams.queued().min(state.idle) {
            self.work.notify_one();
        }
        watch.stalled = self.employ(&mut state, watch.stalled);
        let active = state.is_active();
        let Watch { told, told_at, .. } = watch;
        let changed = told.held_up > 0 || state.streams.moved() != told.moved();
        let since = told_at.map(|at| now.saturating_duration_since(at));
        let left = since.map_or(Duration::ZERO, |since| REPORT.saturating_sub(since));
        let due = left.is_zero() && (active || changed);
        let totals = due.then(|| state.streams.totals(now));
        drop(state);
        if let Some(totals) = totals {
            if totals != *told {
                self.tell(&Word::Moved(totals));
            }
            (*told, *told_at) = (totals, Some(now));
        }
        let report = (changed && !due).then_some(left);
        report.into_iter().chain(active.then_some(STALL)).min()
    }

    fn enqueue(&self, number: u64) {
        self.state().streams.enqueue(number);
        self.work.notify_one();
    }

    /// A stream that waits is over.
    fn close(&self, number: u64) {
        let closed = self.state().streams.close(number);
        if let Some(pump) = closed {
            let dropped_bytes = pump.dropped_bytes();
            self.ignore(&pump);
            self.tell_of(number, dropped_bytes, true);
        }
    }

    /// The keeper has the pipe open, too: closing ours does not take it out of the set.
    fn ignore(&self, pump: &Pump) {
        let _ = epoll::delete(&self.epoll, pump.pipe());
    }

    fn tell(&self, word: &Word) {
        // When the keeper is gone there is nobody to tell, and the listening thread ends us all.
        let _ = packet::send(self.socket.as_fd(), word, &[]);
    }

    fn tell_of(&self, number: u64, dropped_bytes: u64, closed: bool) {
        let streams = NAMES.len() as u64;
        self.tell(&Word::Stream {
            serial: number / streams,
            stream: usize::from(!number.is_multiple_of(streams)),
            dropped_bytes,
            closed,
        });
    }

    fn obey(&self, order: &Order, fds: Vec<OwnedFd>) {
        match *order {
            Order::Take {
                serial,
                rotations,
                terminal,
            } => {
                let mut fds = fds.into_iter();
                let (Some(dir), Some(stdout), Some(stderr)) = (fds.next(), fds.next(), fds.next())
                else {
                    return;
                };
                let dir = Arc::new(dir);
                for (stream, pipe) in [stdout, stderr].into_iter().enumerate() {
                    let (name, rotation) = (NAMES[stream], rotations[stream]);
                    let pump = Pump::new(pipe, dir.clone(), name, rotation, fds.next());
                    let pump = if terminal && stream == 0 {
                        pump.watch()
                    } else {
                        pump
                    };
                    self.add(number(serial, stream), pump);
                }
            }
            Order::Attach { serial } => {
                if let Some(pipe) = fds.into_iter().next() {
                    self.state().streams.join(number(serial, 0), pipe);
                    self.work.notify_one();
                }
            }
            Order::Finish { serial } => {
                for stream in 0..NAMES.len() {
                    self.state().streams.finish(number(serial, stream));
                    self.work.notify_one();
                }
            }
        }
    }

    fn add(&self, number: u64, pump: Pump) {
        let data = EventData::new_u64(number);
        let mut state = self.state();
        let added = epoll::add(&self.epoll, pump.pipe(), data, READABLE);
        state.streams.add(number, pump);
        if added.is_err() {
            // Out of kernel memory: what comes is not seen before the end, but nothing is lost.
            state.streams.enqueue(number);
        }
    }

    /// Starts a worker if one is lacking; since when one is, and how far the others were then.
    fn employ(
        &'static self,
        state: &mut State,
        stalled: Option<(Instant, u64)>,
    ) -> Option<(Instant, u64)> {
        if !state.lacks_workers() {
            return None;
        }
        let turns = state.streams.turns;
        let since = stalled.filter(|(_, then)| *then == turns);
        let is_due = since.is_some_and(|(since, _)| since.elapsed() >= STALL);
        if state.workers >= WORKERS && !is_due {
            return since.or_else(|| Some((Instant::now(), turns)));
        }
        let spawned = std::thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn(move || self.work());
        if spawned.is_ok() {
            state.workers += 1;
        }
        Some((Instant::now(), turns))
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
                self.tell_of(number, dropped_bytes, closed);
            }
        }
    }

    /// Waits for a stream to work on; None when this worker is not needed any more.
    fn next(&self) -> Option<(u64, Pump, bool)> {
        let mut state = self.state();
        loop {
            let now = Instant::now();
            state.streams.wake(now);
            if let Some(next) = state.streams.next(now) {
                // Another one must go on, or watch those that rest.
                let unwatched = state.watched.is_none() && state.streams.due().is_some();
                if state.idle > 0 && (state.streams.queued() > 0 || unwatched) {
                    self.work.notify_one();
                }
                return Some(next);
            }
            let due = state.streams.due();
            let watches = due.filter(|due| state.watched.is_none_or(|until| *due < until));
            if watches.is_some() {
                state.watched = watches;
            }
            let time = watches.map_or(IDLE, |due| due.saturating_duration_since(now).min(IDLE));
            state.idle += 1;
            let (woken, timeout) = self
                .work
                .wait_timeout(state, time)
                .unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.idle -= 1;
            if watches.is_some() && state.watched == watches {
                state.watched = None;
            }
            let surplus = state.workers > WORKERS && state.streams.queued() == 0;
            if timeout.timed_out() && time == IDLE && surplus {
                state.workers -= 1;
                return None;
            }
        }
    }

    fn put_back(&self, number: u64, pump: Pump, turn: Turn) {
        let mut state = self.state();
        if turn == Turn::Closed {
            self.ignore(&pump);
        }
        let then = state.streams.put_back(number, pump, turn, Instant::now());
        if then == Then::Listen
            && let Some(pump) = state.streams.waiting(number)
        {
            // It fails only for a pipe that is not in the set.
            let data = EventData::new_u64(number);
            let _ = epoll::modify(&self.epoll, pump.pipe(), data, READABLE);
        }
    }
}
