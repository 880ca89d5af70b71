//! Our own keeper as a subject: requests and events over its socket, as the agent sends them.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use gantry_isolation::keeper::{Event, ExecSpec, Request};
use gantry_isolation::seccomp::Seccomp;
use gantry_isolation::spec::{
    ContainerId, ContainerSpec, ExitStatus, Ids, Limits, Network, Root, User,
};

use super::bundle::{Bundle, CPU_QUOTA_US, CPU_SHARES, MEMORY_BYTES, PIDS_MAX};
use super::{Case, Dress, Pace, Subject, Turn};
use crate::keeper::Keeper;
use crate::report::OURS;
use crate::root::{TRUE, WAIT};

/// Our keeper.
pub(super) struct Gantry {
    keeper: Keeper,
    template: ContainerSpec,
    /// A container that waits, for execs.
    waiting: Option<ContainerId>,
}

/// The container that every case starts.
pub(super) fn template(dir: &std::path::Path, bundle: &Bundle) -> anyhow::Result<ContainerSpec> {
    let id = ContainerId::try_from("template")?;
    let root = Root::Layers(vec![bundle.rootfs()]);
    let mut spec = ContainerSpec::new(id, root, dir.to_owned(), vec![TRUE.to_owned()]);
    spec.env = vec![("PATH".to_owned(), "/bin".to_owned())];
    spec.hostname = Some("bench".to_owned());
    spec.network = Network::New;
    spec.init = false;
    spec.limits = Limits {
        cpu_shares: Some(CPU_SHARES),
        cpu_quota_us: Some(CPU_QUOTA_US),
        memory_bytes: Some(MEMORY_BYTES),
        pids_max: Some(PIDS_MAX),
        ..Limits::default()
    };
    Ok(spec)
}

impl Gantry {
    pub(super) fn new(bundle: &Bundle) -> anyhow::Result<Self> {
        let keeper = Keeper::start("start")?;
        let template = template(keeper.dir(), bundle)?;
        Ok(Self {
            keeper,
            template,
            waiting: None,
        })
    }

    fn dressed(&self, dress: Dress) -> ContainerSpec {
        let mut spec = self.template.clone();
        match dress {
            Dress::Usual => {}
            Dress::NoSeccomp => spec.seccomp = Seccomp::Unconfined,
            Dress::OwnIds => spec.ids = Ids::Private,
        }
        spec
    }

    /// What waits, as tasks do: below our PID 1.
    fn waiting(&self) -> ContainerSpec {
        let mut spec = self.template.clone();
        spec.argv = vec![WAIT.to_owned()];
        spec.init = true;
        spec
    }

    fn exec_one(&mut self, id: &ContainerId, null: &File) -> anyhow::Result<Duration> {
        let exec = Box::new(ExecSpec {
            session: self.keeper.new_id()?,
            id: id.clone(),
            argv: vec![TRUE.to_owned()],
            env: self.template.env.clone(),
            cwd: None,
            user: User::Root,
            tty: false,
            window: None,
            capabilities: self.template.capabilities,
        });
        let begin = Instant::now();
        let fds = [null.as_fd(); 3];
        self.keeper
            .client()
            .request(&Request::Exec { exec }, &fds)?;
        loop {
            match self.keeper.next()? {
                Event::ExecStarted { .. } => {}
                Event::ExecExited {
                    status: ExitStatus::Code(0),
                    ..
                } => return Ok(begin.elapsed()),
                other => bail!("{other:?}"),
            }
        }
    }
}

/// What is still to come in a turn.
struct Progress {
    to_start: usize,
    running: BTreeMap<ContainerId, Instant>,
    to_forget: usize,
    latencies: Vec<Duration>,
}

impl Subject for Gantry {
    fn name(&self) -> String {
        OURS.to_owned()
    }

    fn offers(&self, _dress: Dress) -> bool {
        true
    }

    fn turn(&mut self, case: Case, count: usize) -> anyhow::Result<Turn> {
        let spec = self.dressed(case.dress);
        let mut progress = Progress {
            to_start: count,
            running: BTreeMap::new(),
            to_forget: count,
            latencies: Vec::with_capacity(count),
        };
        let begin = Instant::now();
        while progress.to_forget > 0 {
            let gone = count - progress.to_start == count - progress.to_forget;
            let may_start = match case.pace {
                Pace::Serial => gone,
                Pace::InFlight(window) => progress.running.len() < window,
            };
            if progress.to_start > 0 && may_start {
                let now = Instant::now();
                let id = self.keeper.start_one(&spec)?;
                progress.running.insert(id, now);
                progress.to_start -= 1;
                continue;
            }
            match self.keeper.next()? {
                Event::Started { .. } => {}
                Event::Exited { id, status, .. } => {
                    let started = progress.running.remove(&id).context("an unknown exit")?;
                    progress.latencies.push(started.elapsed());
                    if !status.success() {
                        bail!("{id} {status}");
                    }
                    self.keeper.send(&Request::Forget { id })?;
                }
                Event::Forgotten { .. } => progress.to_forget -= 1,
                other => bail!("{other:?}"),
            }
        }
        Ok(Turn {
            latencies: progress.latencies,
            wall: begin.elapsed(),
        })
    }

    fn execs(&mut self, count: usize) -> anyhow::Result<Vec<Duration>> {
        let null = File::options().read(true).write(true).open("/dev/null")?;
        let id = match &self.waiting {
            Some(id) => id.clone(),
            None => {
                let started = self.keeper.start_many(&self.waiting(), 1, 1)?;
                let (id, _) = started.into_iter().next().context("nothing started")?;
                self.waiting.insert(id).clone()
            }
        };
        (0..count).map(|_| self.exec_one(&id, &null)).collect()
    }

    fn stop_many(&mut self, count: usize) -> anyhow::Result<Duration> {
        let running = self.keeper.start_many(&self.waiting(), count, 16)?;
        let begin = Instant::now();
        self.keeper.kill_all(running.iter().map(|(id, _)| id))?;
        Ok(begin.elapsed())
    }
}
