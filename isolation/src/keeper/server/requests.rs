//! What clients ask of the keeper, one function each. A refusal is an event; nothing here ends the
//! keeper but a `Stop`.

use std::fmt::Display;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;

use super::{Keeper, MAX_CONTAINERS, Token};
use crate::cgroup::kill_group;
use crate::keeper::Slot;
use crate::keeper::container::{Container, Failure, Phase};
use crate::keeper::exec::{self, MAX_SESSIONS, Session};
use crate::keeper::protocol::{Event, ExecSpec, Request};
use crate::keeper::start::{self, Context};
use crate::keeper::sweeper::Job;
use crate::keeper::terminal;
use crate::spec::{ContainerId, ContainerSpec, Ids};
use crate::sys;

/// A pidfd, a user namespace, two pipes with their directory (and for a moment their files), the status
/// and the failure pipe; twice its terminal instead of a pipe. The outlet has no more.
const FDS_PER_CONTAINER: u64 = 9;
/// For clients, sessions, requests' own descriptors and the keeper itself.
const RESERVED_FDS: u64 = 1024;
/// `_NSIG` of Linux.
const LAST_SIGNAL: i32 = 64;

pub(super) fn refusal(request: &str, id: &ContainerId, error: impl Display) -> Event {
    Event::Refused {
        request: request.to_owned(),
        id: Some(id.clone()),
        error: error.to_string(),
    }
}

impl Keeper {
    /// Carries out one request.
    pub(super) fn answer(&mut self, client: u64, request: Request, fds: Vec<OwnedFd>) {
        match request {
            Request::Start { mut spec } => self.start(client, &mut spec, fds),
            Request::Signal { id, signo, all } => {
                if all && signo == libc::SIGKILL && self.kill_by_errand(client, &id) {
                    return;
                }
                if let Err(error) = self.signal(&id, signo, all) {
                    self.clients.send(client, &refusal("signal", &id, error));
                }
            }
            Request::Exec { exec } => self.exec(client, &exec, &fds),
            Request::Attach { id } => self.attach(&id, fds),
            Request::SignalExec { session, signo } => {
                if let Err(error) = self.signal_session(&session, signo) {
                    self.clients
                        .send(client, &refusal("signal_exec", &session, error));
                }
            }
            Request::List => {
                let containers: Vec<_> = self
                    .containers
                    .serials
                    .values()
                    .filter_map(|serial| self.containers.by_serial.get(serial)?.listed())
                    .collect();
                self.clients.send(client, &Event::Listing { containers });
            }
            Request::Forget { id } => self.forget(client, &id),
            Request::Update { id, limits } => self.update(client, &id, &limits),
            Request::Freeze { id } => self.freeze(client, &id),
            Request::Thaw { id } => self.thaw(client, &id),
            Request::Stop { kill } => self.stop(client, kill),
        }
    }

    fn start(&mut self, client: u64, spec: &mut ContainerSpec, fds: Vec<OwnedFd>) {
        if let Some((_, container)) = self.containers.find(&spec.id) {
            let known = known_events(container);
            for event in known {
                self.clients.send(client, &event);
            }
            return;
        }
        let result = self
            .admit()
            .and_then(|()| self.take_slot(spec))
            .and_then(|slot| {
                let dir = slot.dir.clone();
                self.start_in(spec, slot, fds)
                    .inspect_err(|_| self.sweep_slot(dir))
            });
        match result {
            Ok(container) => self.watch(container),
            Err(Failure { step, error }) => {
                let id = spec.id.clone();
                self.clients
                    .broadcast(&Event::StartFailed { id, step, error });
            }
        }
    }

    fn start_in(
        &mut self,
        spec: &mut ContainerSpec,
        slot: Slot,
        fds: Vec<OwnedFd>,
    ) -> Result<Container, Failure> {
        let filter = self.filters.of(&self.facts, spec)?;
        let users = match &spec.ids {
            Ids::Host => None,
            Ids::Private => Some(self.users.take()?),
            Ids::Of(id) => self.containers.running("ids", id)?.users.clone(),
        };
        let mine = users.clone();
        let started = self.containers.shared(spec).and_then(|shared| {
            let context = Context {
                facts: &self.facts,
                null: &self.null,
                nofile: self.nofile,
                shared,
            };
            let home = &mut self.pid_namespace;
            start::start(&context, home, spec, slot, (mine, filter), fds)
        });
        if let (Err(_), Some(users)) = (&started, users) {
            // Nothing ran with them.
            self.users.give_back(users, true);
        }
        started
    }

    fn admit(&mut self) -> Result<(), Failure> {
        let refuse = |error: String| {
            Err(Failure {
                step: "admit the container".to_owned(),
                error,
            })
        };
        if self.stopping {
            return refuse("the keeper is stopping".to_owned());
        }
        let max = self.max_containers();
        if self.containers.by_serial.len() >= max {
            return refuse(format!("the keeper already has {max} containers"));
        }
        self.pid_namespace.home()
    }

    /// Below the bound when the keeper may not have as many descriptors: what serves those that are
    /// there must never run out of them.
    fn max_containers(&self) -> usize {
        let files = self
            .nofile
            .maximum
            .unwrap_or(u64::MAX)
            .saturating_sub(RESERVED_FDS);
        let by_files = usize::try_from(files / FDS_PER_CONTAINER).unwrap_or(usize::MAX);
        by_files.min(MAX_CONTAINERS)
    }

    fn take_slot(&mut self, spec: &ContainerSpec) -> Result<Slot, Failure> {
        let failed = |error: String| Failure {
            step: "make a slot".to_owned(),
            error,
        };
        spec.check().map_err(|error| Failure {
            step: "check the spec".to_owned(),
            error: error.to_string(),
        })?;
        let (slot, dead) = self
            .slots
            .take(&spec.dir, spec.root_limit.clone())
            .map_err(|error| failed(error.to_string()))?;
        for set in dead {
            let serial = self.poll.serial();
            self.sweeper.submit(Job {
                serial,
                remove: Some(set),
                ..Job::default()
            });
        }
        Ok(slot)
    }

    /// A slot whose container was not even cloned goes the same way as one that was used.
    fn sweep_slot(&mut self, slot: PathBuf) {
        let serial = self.poll.serial();
        self.sweeper.submit(Job {
            serial,
            slot: Some(slot),
            ..Job::default()
        });
    }

    /// Waits for everything that a new container can bring.
    fn watch(&mut self, mut container: Container) {
        let serial = self.poll.serial();
        let mut watched =
            self.poll
                .add(container.pidfd.as_fd(), Token::Exit(serial), EventFlags::IN);
        if let Phase::Starting(setup) = &container.phase {
            watched = watched.and_then(|()| {
                self.poll
                    .add(setup.pipe(), Token::Report(serial), EventFlags::IN)
            });
        }
        if container.arriving.is_none()
            && let Some(streams) = container.streams.take()
        {
            self.outlet.take(serial, streams);
        }
        if let Err(errno) = watched {
            // Out of kernel memory: it must not run unwatched. Its end, if the first `add` worked,
            // removes it; else the next start of its id finds it failing.
            eprintln!("watch {}: {errno}", container.id);
            // Already dead is what is wanted.
            let _ = sys::pidfd_send_signal(container.pidfd.as_fd(), libc::SIGKILL);
        }
        self.containers.insert(serial, container);
    }

    fn signal(&mut self, id: &ContainerId, signo: i32, all: bool) -> Result<(), String> {
        check_signal(signo)?;
        let (serial, container) = self
            .containers
            .find(id)
            .ok_or("there is no such container")?;
        if !matches!(container.phase, Phase::Starting(_) | Phase::Running) {
            return Err("it has ended".to_owned());
        }
        let sent = match container.group.tracking().filter(|_| all) {
            Some(dir) => kill_group(dir, signo).map_err(|error| error.to_string()),
            None => sys::pidfd_send_signal(container.pidfd.as_fd(), signo).map_err(words),
        };
        if signo == libc::SIGKILL {
            container.group.unthrottle();
            self.release_killed(serial);
        }
        sent
    }

    /// Hands out a container's terminal.
    fn attach(&mut self, id: &ContainerId, fds: Vec<OwnedFd>) {
        let mut fds = fds.into_iter();
        let Some(socket) = fds.next() else { return };
        let found = self.containers.find(id);
        let running = found.filter(|(_, container)| matches!(container.phase, Phase::Running));
        let master = running
            .ok_or("the container does not run")
            .and_then(|(serial, container)| {
                let master = container.terminal.as_ref().ok_or("it has no terminal")?;
                Ok((serial, master))
            });
        if let (Ok((serial, _)), Some(pipe)) = (&master, fds.next()) {
            self.outlet.attach(*serial, pipe.as_fd());
        }
        terminal::answer(&socket, master.map(|(_, master)| master.as_fd()));
    }

    fn exec(&mut self, client: u64, spec: &ExecSpec, fds: &[OwnedFd]) {
        match self.try_exec(client, spec, fds) {
            Ok(session) => {
                let serial = self.poll.serial();
                let exit = Token::SessionExit(serial);
                let mut watched = self.poll.add(session.pidfd.as_fd(), exit, EventFlags::IN);
                if let Some(setup) = &session.setup {
                    let report = Token::SessionReport(serial);
                    watched =
                        watched.and_then(|()| self.poll.add(setup.pipe(), report, EventFlags::IN));
                }
                if let Err(errno) = watched {
                    eprintln!("watch session {}: {errno}", session.name);
                    // Already dead is what is wanted.
                    let _ = sys::pidfd_send_signal(session.pidfd.as_fd(), libc::SIGKILL);
                }
                self.sessions.insert(serial, session);
            }
            Err(Failure { step, error }) => {
                let session = spec.session.clone();
                self.clients.send(
                    client,
                    &Event::ExecFailed {
                        session,
                        step,
                        error,
                    },
                );
            }
        }
    }

    fn try_exec(
        &mut self,
        client: u64,
        spec: &ExecSpec,
        fds: &[OwnedFd],
    ) -> Result<Session, Failure> {
        let refuse = |error: &str| Failure {
            step: "check the request".to_owned(),
            error: error.to_owned(),
        };
        if self.sessions.len() >= MAX_SESSIONS {
            return Err(refuse("too many sessions run"));
        }
        if self
            .sessions
            .values()
            .any(|session| session.name == spec.session)
        {
            return Err(refuse("a session of this name runs"));
        }
        let (_, container) = self
            .containers
            .find(&spec.id)
            .ok_or_else(|| refuse("there is no such container"))?;
        if !matches!(container.phase, Phase::Running) {
            return Err(refuse("the container is not running"));
        }
        if container.frozen {
            return Err(refuse("the container is frozen"));
        }
        let (pid, pidfd, setup) = exec::start(
            &self.facts,
            (self.nofile, self.null.as_fd()),
            &mut self.pid_namespace,
            container,
            spec,
            fds,
        )?;
        let name = spec.session.clone();
        Ok(Session {
            name,
            client,
            group: container.group.tracking().map(ToOwned::to_owned),
            tty: spec.tty,
            pid,
            pidfd,
            setup: Some(setup),
            failure: None,
        })
    }

    fn signal_session(&mut self, name: &ContainerId, signo: i32) -> Result<(), String> {
        check_signal(signo)?;
        let session = self.sessions.values().find(|session| session.name == *name);
        let session = session.ok_or("there is no such session")?;
        if signo == libc::SIGKILL {
            session.kill_all();
            return sys::pidfd_send_signal(session.pidfd.as_fd(), signo).map_err(words);
        }
        // What the command started goes with it: the session leads a process group of its own
        // once it is set up. Its number is not used again before we reap it.
        let group = nix::unistd::Pid::from_raw(session.pid);
        match nix::sys::signal::Signal::try_from(signo).map(|s| nix::sys::signal::killpg(group, s))
        {
            Ok(Ok(())) => Ok(()),
            _ => sys::pidfd_send_signal(session.pidfd.as_fd(), signo).map_err(words),
        }
    }

    fn forget(&mut self, client: u64, id: &ContainerId) {
        match self
            .containers
            .find(id)
            .map(|(serial, container)| (serial, &container.phase))
        {
            None => self
                .clients
                .send(client, &Event::Forgotten { id: id.clone() }),
            Some((serial, Phase::Exited { .. })) => self.remove(serial, None),
            // The event comes when it is gone.
            Some((_, Phase::Removing(_) | Phase::Failing(_))) => {}
            Some((_, Phase::Starting(_) | Phase::Running | Phase::Draining { .. })) => {
                self.clients.send(client, &refusal("forget", id, "it runs"));
            }
        }
    }

    fn stop(&mut self, client: u64, kill: bool) {
        let live =
            |container: &Container| matches!(container.phase, Phase::Starting(_) | Phase::Running);
        if !kill && self.containers.by_serial.values().any(live) {
            let event = Event::Refused {
                request: "stop".to_owned(),
                id: None,
                error: "containers run".to_owned(),
            };
            self.clients.send(client, &event);
            return;
        }
        self.stopping = true;
        let serials: Vec<u64> = self.containers.by_serial.keys().copied().collect();
        for serial in serials {
            let Some(container) = self.containers.by_serial.get(&serial) else {
                continue;
            };
            match container.phase {
                Phase::Exited { .. } => self.remove(serial, None),
                Phase::Starting(_) | Phase::Running => self.kill(serial),
                Phase::Failing(_) | Phase::Draining { .. } | Phase::Removing(_) => {}
            }
        }
    }
}

pub(super) fn words(errno: Errno) -> String {
    crate::child::Fault::words(errno.raw_os_error())
}

fn check_signal(signo: i32) -> Result<(), String> {
    if (1..=LAST_SIGNAL).contains(&signo) {
        Ok(())
    } else {
        Err(format!("{signo} is not a signal: 1 to {LAST_SIGNAL}"))
    }
}

/// What is true of a container whose id was started before.
fn known_events(container: &Container) -> Vec<Event> {
    let id = container.id.clone();
    let started = Event::Started {
        id: id.clone(),
        pid: container.pid,
        layer: container.layer(),
    };
    match &container.phase {
        // These say what became of them when it is known.
        Phase::Starting(_) | Phase::Failing(_) => Vec::new(),
        Phase::Running | Phase::Draining { .. } => vec![started],
        Phase::Exited { status, oom_killed } => {
            vec![
                started,
                Event::Exited {
                    id,
                    status: *status,
                    oom_killed: *oom_killed,
                },
            ]
        }
        Phase::Removing(_) => vec![refusal("start", &id, "it is being removed")],
    }
}
