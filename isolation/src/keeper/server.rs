//! The keeper's event loop: one `epoll(7)`, one thread.
//!
//! It decides what each event means for which container; it deliberately never waits for anything
//! else. Invariants: serial numbers are never used twice, so an event for something that is gone
//! finds nothing; the number of containers and sessions is bounded.

mod changes;
mod containers;
mod poll;
mod requests;

pub(super) use poll::{Poll, Token};

use std::collections::BTreeMap;

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Rlimit;

use containers::Containers;

use super::clients::Clients;
use super::container::{Failure, Phase, Verdict, reap};
use super::errand::Errand;
use super::exec::{PidNamespace, Session, Sessions};
use super::filters::Filters;
use super::ids::UserPool;
use super::outlet::{Heard, Outlet};
use super::protocol::Event;
use super::slots::Slots;
use super::sweeper::{Job, Sweeper, Swept};
use crate::cgroup;
use crate::plan::HostFacts;

/// Containers at once, ended ones that nobody has forgotten included.
const MAX_CONTAINERS: usize = 8192;
/// How long until a sweeper or outlet that could not be started is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The keeper.
#[derive(Debug)]
pub(super) struct Keeper {
    facts: HostFacts,
    poll: Poll,
    listener: OwnedFd,
    null: OwnedFd,
    nofile: Rlimit,
    pid_namespace: PidNamespace,
    clients: Clients,
    containers: Containers,
    sessions: Sessions,
    errands: BTreeMap<u64, Errand>,
    slots: Slots,
    users: UserPool,
    filters: Filters,
    sweeper: Sweeper,
    outlet: Outlet,
    stopping: bool,
}

impl Keeper {
    /// A keeper without containers.
    pub(super) fn new(
        facts: HostFacts,
        listener: OwnedFd,
        (sweeper, outlet): (Sweeper, Outlet),
        nofile: Rlimit,
        users: UserPool,
    ) -> Result<Self, Errno> {
        let poll = Poll::new()?;
        poll.add(listener.as_fd(), Token::Listener, EventFlags::IN)?;
        watch_sweeper(&poll, &sweeper)?;
        watch_outlet(&poll, &outlet)?;
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        Ok(Self {
            facts,
            poll,
            listener,
            null: rustix::fs::open(c"/dev/null", flags, Mode::empty())?,
            nofile,
            pid_namespace: PidNamespace::new()?,
            clients: Clients::default(),
            containers: Containers::default(),
            sessions: Sessions::new(),
            errands: BTreeMap::new(),
            slots: Slots::default(),
            users,
            filters: Filters::new(),
            sweeper,
            outlet,
            stopping: false,
        })
    }

    /// Serves until told to stop.
    pub(super) fn serve(&mut self) -> Result<(), Errno> {
        loop {
            let lost = self.outlet.is_gone() || self.sweeper.is_gone();
            let most = self.outlet.wait(Instant::now());
            let most = if lost {
                Some(most.map_or(RETRY, |most| most.min(RETRY)))
            } else {
                most
            };
            for token in self.poll.wait(most)? {
                self.handle(token);
            }
            for serial in self.outlet.overdue(Instant::now()) {
                eprintln!("the last output of container {serial} is not waited for any longer");
                self.drained(serial);
            }
            if self.outlet.is_gone() {
                self.start_outlet();
            }
            if self.sweeper.is_gone() {
                self.start_sweeper();
            }
            self.outlet.flush(&self.poll);
            self.clients.settle(&self.poll);
            if self.stopping && self.finished() {
                return Ok(());
            }
        }
    }

    /// When no container is left, the slots go, then the parents of the groups.
    fn finished(&mut self) -> bool {
        if !self.containers.by_serial.is_empty() {
            return false;
        }
        // One that is still out could make a group again that was just removed.
        if !self.errands.is_empty() {
            for errand in self.errands.values() {
                errand.process.cancel();
            }
            return false;
        }
        for set in self.slots.close() {
            let serial = self.poll.serial();
            self.sweeper.submit(Job {
                serial,
                remove: Some(set),
                ..Job::default()
            });
        }
        if !self.sweeper.idle() {
            return false;
        }
        for failure in cgroup::remove_parent(&self.facts.cgroup_parent) {
            eprintln!("{failure}");
        }
        true
    }

    /// Tells every client that this is the end.
    pub(super) fn say_goodbye(&mut self) {
        self.clients.broadcast(&Event::Stopping);
    }

    fn handle(&mut self, token: Token) {
        match token {
            Token::Listener => self.greet(),
            Token::Client(client) => {
                if let Some((request, fds)) = self.clients.receive(client) {
                    self.answer(client, request, fds);
                }
            }
            Token::Report(serial) => self.reported(serial),
            Token::Exit(serial) => self.exited(serial),
            Token::SessionReport(serial) => self.session_reported(serial),
            Token::SessionExit(serial) => self.session_exited(serial),
            Token::Errand(serial) => self.errand_ended(serial),
            Token::Sweeper => self.swept(),
            Token::SweeperExit => self.sweeper_died(),
            Token::Outlet => self.output(),
            Token::OutletExit => self.outlet_died(),
        }
    }

    /// A new client first hears of every exit that is not yet forgotten.
    fn greet(&mut self) {
        let Some(client) = self.clients.accept(&self.listener, &mut self.poll) else {
            return;
        };
        for container in self.containers.by_serial.values() {
            if let Phase::Exited { status, oom_killed } = container.phase {
                let id = container.id.clone();
                self.clients.send(
                    client,
                    &Event::Exited {
                        id,
                        status,
                        oom_killed,
                    },
                );
            }
        }
    }

    fn reported(&mut self, serial: u64) {
        let Some(container) = self.containers.by_serial.get_mut(&serial) else {
            return;
        };
        let Phase::Starting(setup) = &container.phase else {
            return;
        };
        match setup.verdict() {
            Verdict::Pending => {}
            Verdict::Running => {
                container.phase = Phase::Running;
                if let Some(streams) = container.take_terminal() {
                    self.outlet.take(serial, streams);
                }
                let started = Event::Started {
                    id: container.id.clone(),
                    pid: container.pid,
                    layer: container.layer(),
                };
                self.clients.broadcast(&started);
            }
            Verdict::Failed(failure) => container.phase = Phase::Failing(failure),
        }
    }

    fn exited(&mut self, serial: u64) {
        // If the failure pipe closed in the same turn, "started" is still said first.
        self.reported(serial);
        let Some(container) = self.containers.by_serial.get_mut(&serial) else {
            return;
        };
        let over = matches!(
            container.phase,
            Phase::Draining { .. } | Phase::Exited { .. } | Phase::Removing(_)
        );
        if over {
            return;
        }
        let Some(own) = reap(container.pidfd.as_fd()) else {
            return;
        };
        self.poll.remove(container.pidfd.as_fd());
        container.kill_rest();
        container.ended(own);
        if let Phase::Failing(failure) = &container.phase {
            let failure = failure.clone();
            // Nobody waits for it.
            self.outlet.finish(serial, Instant::now());
            self.remove(serial, Some(failure));
        } else if !self.outlet.finish(serial, Instant::now()) {
            self.drained(serial);
        }
    }

    /// All that an ended container wrote is in its files: its exit can be told.
    fn drained(&mut self, serial: u64) {
        let Some(container) = self.containers.by_serial.get_mut(&serial) else {
            return;
        };
        let Phase::Draining { status, oom_killed } = container.phase else {
            return;
        };
        container.phase = Phase::Exited { status, oom_killed };
        let id = container.id.clone();
        self.clients.broadcast(&Event::Exited {
            id,
            status,
            oom_killed,
        });
        if self.stopping {
            self.remove(serial, None);
        }
    }

    /// Hands what is left of a container to the sweeper.
    fn remove(&mut self, serial: u64, failure: Option<Failure>) {
        let Some(container) = self.containers.by_serial.get_mut(&serial) else {
            return;
        };
        container.phase = Phase::Removing(failure);
        let (groups, slot) = (container.group.dirs(), Some(container.slot.clone()));
        self.sweeper.submit(Job {
            serial,
            groups,
            slot,
            remove: None,
        });
    }

    fn swept(&mut self) {
        match self.sweeper.answer() {
            Ok(Some(swept)) => self.removed(swept),
            // Its pidfd says the rest.
            Ok(None) => self.poll.remove(self.sweeper.socket()),
            Err(_) => {}
        }
    }

    fn removed(&mut self, swept: Swept) {
        for failure in &swept.failures {
            eprintln!("{failure}");
        }
        if let Some(slot) = swept.slot {
            self.slots.give_back(slot);
        }
        let Some(container) = self.containers.remove(swept.serial) else {
            return;
        };
        if let Some(users) = container.users {
            self.users.give_back(users, container.inherited.clean());
        }
        let id = container.id;
        let event = match container.phase {
            Phase::Removing(Some(Failure { step, error })) => {
                Event::StartFailed { id, step, error }
            }
            _ => Event::Forgotten { id },
        };
        self.clients.broadcast(&event);
    }

    fn sweeper_died(&mut self) {
        if reap(self.sweeper.pidfd()).is_none() {
            return;
        }
        self.poll.remove(self.sweeper.pidfd());
        eprintln!("the sweeper ended; another is started");
        if let Some(job) = self.sweeper.lose() {
            let given_up = Swept::given_up(&job);
            self.removed(given_up);
        }
        self.start_sweeper();
    }

    fn start_sweeper(&mut self) {
        let restarted = self
            .sweeper
            .restart()
            .and_then(|()| watch_sweeper(&self.poll, &self.sweeper));
        if let Err(errno) = restarted {
            eprintln!("start the sweeper: {errno}");
        }
    }

    fn output(&mut self) {
        // When the outlet is gone, its pidfd says so, too.
        match self.outlet.hear(&self.poll) {
            None => {}
            Some(Heard::Moved(totals)) => self.clients.broadcast(&Event::Output {
                moved_bytes: totals.bytes,
                rotations: totals.rotations,
                held_up: totals.held_up,
            }),
            Some(Heard::Streams {
                serial,
                dropped_bytes,
                drained,
            }) => {
                if let Some(container) = self.containers.by_serial.get_mut(&serial) {
                    container.dropped_bytes = dropped_bytes;
                }
                if drained {
                    self.drained(serial);
                }
            }
        }
    }

    fn outlet_died(&mut self) {
        if reap(self.outlet.pidfd()).is_none() {
            return;
        }
        eprintln!("the outlet ended; another is started");
        self.poll.remove(self.outlet.pidfd());
        self.outlet.lose();
        self.start_outlet();
    }

    fn start_outlet(&mut self) {
        let restarted = self
            .outlet
            .restart()
            .and_then(|()| watch_outlet(&self.poll, &self.outlet));
        if let Err(errno) = restarted {
            eprintln!("start the outlet: {errno}");
        }
    }

    fn session_reported(&mut self, serial: u64) {
        let Some(session) = self.sessions.get_mut(&serial) else {
            return;
        };
        let Some(setup) = &session.setup else { return };
        match setup.verdict() {
            Verdict::Pending => {}
            Verdict::Running => {
                session.setup = None;
                let event = Event::ExecStarted {
                    session: session.name.clone(),
                    pid: session.pid,
                };
                self.clients.send(session.client, &event);
            }
            Verdict::Failed(failure) => {
                session.setup = None;
                session.failure = Some(failure);
            }
        }
    }

    fn session_exited(&mut self, serial: u64) {
        self.session_reported(serial);
        let Some(session) = self.sessions.get(&serial) else {
            return;
        };
        session.end_rest();
        let Some(status) = reap(session.pidfd.as_fd()) else {
            return;
        };
        let Some(Session {
            name: session,
            client,
            failure,
            ..
        }) = self.sessions.remove(&serial)
        else {
            return;
        };
        let event = match failure {
            Some(Failure { step, error }) => Event::ExecFailed {
                session,
                step,
                error,
            },
            None => Event::ExecExited { session, status },
        };
        self.clients.send(client, &event);
    }
}

fn watch_sweeper(poll: &Poll, sweeper: &Sweeper) -> Result<(), Errno> {
    poll.add(sweeper.socket(), Token::Sweeper, EventFlags::IN)?;
    poll.add(sweeper.pidfd(), Token::SweeperExit, EventFlags::IN)
}

fn watch_outlet(poll: &Poll, outlet: &Outlet) -> Result<(), Errno> {
    poll.add(outlet.socket(), Token::Outlet, EventFlags::IN)?;
    poll.add(outlet.pidfd(), Token::OutletExit, EventFlags::IN)
}
