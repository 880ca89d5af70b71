//! Changing containers that run: limits, freezing, thawing. What the kernel may take its time for is
//! done by an errand ([`crate::keeper::errand`]); here it is decided, and its outcome told.

use rustix::event::epoll::EventFlags;

use super::requests::{refusal, words};
use super::{Keeper, Token};
use crate::cgroup::{Change, Freezer, Group, Update};
use crate::keeper::container::{Container, Phase, reap};
use crate::keeper::errand::{Errand, MAX_ERRANDS, Process};
use crate::keeper::protocol::Event;
use crate::keeper::sweeper::Job;
use crate::spec::{ContainerId, ExitStatus, Limits};
use crate::sys;

impl Keeper {
    pub(super) fn update(&mut self, client: u64, id: &ContainerId, limits: &Limits) {
        let outcome = self.changeable(id).and_then(|(serial, container)| {
            let group = container.group.changed(&self.facts.hierarchies, limits);
            let group = group.map_err(|error| error.to_string())?;
            Ok((serial, Update::between(&container.group, &group), group))
        });
        match outcome {
            Ok((serial, Some(update), group)) => {
                let change = Change::Update(update);
                self.send_out(client, serial, id, change, Some(Box::new(group)));
            }
            Ok((_, None, _)) => self.clients.broadcast(&Event::Updated { id: id.clone() }),
            Err(error) => self.clients.send(client, &refusal("update", id, error)),
        }
    }

    pub(super) fn freeze(&mut self, client: u64, id: &ContainerId) {
        match self.freezer(id) {
            Ok((serial, freezer)) => {
                self.send_out(client, serial, id, Change::Freeze(freezer), None);
            }
            Err(error) => self.clients.send(client, &refusal("freeze", id, error)),
        }
    }

    pub(super) fn thaw(&mut self, client: u64, id: &ContainerId) {
        match self.freezer(id) {
            Ok((serial, freezer)) => self.send_out(client, serial, id, Change::Thaw(freezer), None),
            Err(error) => self.clients.send(client, &refusal("thaw", id, error)),
        }
    }

    fn freezer(&self, id: &ContainerId) -> Result<(u64, Freezer), String> {
        let (serial, container) = self.changeable(id)?;
        let freezer = container.group.freezer.clone();
        let freezer = freezer.ok_or("this host has no cgroup controller freezer")?;
        Ok((serial, freezer))
    }

    fn changeable(&self, id: &ContainerId) -> Result<(u64, &Container), String> {
        let (serial, container) = self
            .containers
            .find(id)
            .ok_or("there is no such container")?;
        if !matches!(container.phase, Phase::Running) {
            return Err("the container is not running".to_owned());
        }
        if self
            .errands
            .values()
            .any(|errand| errand.container == serial)
        {
            return Err("it is being changed already".to_owned());
        }
        if self.errands.len() >= MAX_ERRANDS {
            return Err("too many containers are being changed".to_owned());
        }
        Ok((serial, container))
    }

    fn send_out(
        &mut self,
        client: u64,
        container: u64,
        id: &ContainerId,
        change: Change,
        group: Option<Box<Group>>,
    ) {
        let request = name(&change);
        let started = self.pid_namespace.home().map_err(|failure| failure.error);
        let started = started.and_then(|()| Process::start(&change).map_err(words));
        let process = match started {
            Ok(process) => process,
            Err(error) => {
                self.clients.send(client, &refusal(request, id, error));
                return;
            }
        };
        let serial = self.poll.serial();
        let token = Token::Errand(serial);
        if let Err(errno) = self.poll.add(process.pidfd(), token, EventFlags::IN) {
            // Out of kernel memory: its end would never be seen.
            process.cancel();
            let error = words(errno);
            self.clients.send(client, &refusal(request, id, error));
            return;
        }
        let errand = Errand {
            container,
            id: id.clone(),
            client,
            change,
            group,
            process,
        };
        self.errands.insert(serial, errand);
    }

    pub(super) fn errand_ended(&mut self, serial: u64) {
        let Some(errand) = self.errands.get(&serial) else {
            return;
        };
        let Some(status) = reap(errand.process.pidfd()) else {
            return;
        };
        let Some(errand) = self.errands.remove(&serial) else {
            return;
        };
        let words = match status {
            ExitStatus::Code(0) => errand.process.words(),
            ended => format!("its process ended: {ended}"),
        };
        let id = errand.id.clone();
        let container = self.containers.by_serial.get_mut(&errand.container);
        let Some(container) = container.filter(|c| !matches!(c.phase, Phase::Removing(_))) else {
            // What it may have made after the container's own were removed.
            let serial = self.poll.serial();
            self.sweeper.submit(Job {
                serial,
                groups: errand.change.dirs(),
                ..Job::default()
            });
            let gone = refusal(name(&errand.change), &id, "it has ended");
            self.clients.send(errand.client, &gone);
            return;
        };
        if !words.is_empty() {
            let refused = refusal(name(&errand.change), &id, words);
            self.clients.send(errand.client, &refused);
            return;
        }
        if let Some(group) = errand.group {
            container.group = *group;
        }
        let event = match errand.change {
            // Its exit is the news.
            Change::Kill { .. } => return,
            Change::Update(_) => Event::Updated { id },
            Change::Freeze(_) => {
                container.frozen = true;
                Event::Frozen { id }
            }
            Change::Thaw(_) => {
                container.frozen = false;
                Event::Thawed { id }
            }
        };
        self.clients.broadcast(&event);
    }

    /// Has an errand end every process of a container, where the kernel cannot at one stroke; false
    /// when it can, or another errand is out.
    pub(super) fn kill_by_errand(&mut self, client: u64, id: &ContainerId) -> bool {
        let Ok((serial, container)) = self.changeable(id) else {
            return false;
        };
        let tracking = container.group.tracking().map(ToOwned::to_owned);
        let (Some(freezer @ Freezer::V1 { .. }), Some(tracking)) =
            (container.group.freezer.clone(), tracking)
        else {
            return false;
        };
        self.send_out(client, serial, id, Change::Kill { freezer, tracking }, None);
        true
    }

    /// Lets what was just killed go on to its end: a v1 freezer holds even the killed. What an
    /// errand is about to freeze must not be.
    pub(super) fn release_killed(&mut self, serial: u64) {
        let own = |errand: &&Errand| errand.container == serial;
        let errands = self.errands.values().filter(own);
        let mut freezing = false;
        for errand in errands.filter(|errand| matches!(errand.change, Change::Freeze(_))) {
            errand.process.cancel();
            freezing = true;
        }
        let Some(container) = self.containers.by_serial.get_mut(&serial) else {
            return;
        };
        if (container.frozen || freezing)
            && let Some(freezer @ Freezer::V1 { .. }) = &container.group.freezer
            && let Err(error) = freezer.thaw()
        {
            eprintln!("thaw {}: {error}", container.id);
        }
    }

    /// SIGKILL to PID 1, whose end is everyone's, also when all stand still.
    pub(super) fn kill(&mut self, serial: u64) {
        if let Some(container) = self.containers.by_serial.get(&serial) {
            // Already dead is what is wanted.
            let _ =
                sys::pidfd_send_signal(std::os::fd::AsFd::as_fd(&container.pidfd), libc::SIGKILL);
        }
        self.release_killed(serial);
    }
}

fn name(change: &Change) -> &'static str {
    match change {
        Change::Freeze(_) => "freeze",
        Change::Kill { .. } => "signal",
        Change::Thaw(_) => "thaw",
        Change::Update(_) => "update",
    }
}
