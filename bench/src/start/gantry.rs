//! Our own keeper as a subject: requests and events over its socket, as the agent sends them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use gantry_isolation::keeper::{Client, Event, Request};
use gantry_isolation::spec::{ContainerId, ContainerSpec, Limits, Network, Root};

use super::bundle::{Bundle, CPU_QUOTA_US, CPU_SHARES, MEMORY_BYTES, PIDS_MAX};
use super::{Pace, Subject, Turn};

/// The keeper, in a temporary directory of its own.
pub(super) struct Gantry {
    dir: tempfile::TempDir,
    client: Client,
    template: ContainerSpec,
    next: u64,
}

impl Gantry {
    pub(super) fn new(bundle: &Bundle) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        std::fs::create_dir(dir.path().join("containers"))?;
        let exe = std::env::current_exe()?;
        let parent = format!("gantry-bench-{}", std::process::id());
        let leading = [OsString::from("keeper")];
        let client = Client::connect_or_spawn(dir.path(), &exe, &leading, &parent)?;
        let id = ContainerId::try_from("template")?;
        let root = Root::Layers(vec![bundle.rootfs()]);
        let mut template =
            ContainerSpec::new(id, root, dir.path().to_owned(), vec!["/true".to_owned()]);
        template.env = vec![("PATH".to_owned(), "/bin".to_owned())];
        template.hostname = Some("bench".to_owned());
        template.network = Network::New;
        template.init = false;
        template.limits = Limits {
            cpu_shares: Some(CPU_SHARES),
            cpu_quota_us: Some(CPU_QUOTA_US),
            cpu_period_us: None,
            memory_bytes: Some(MEMORY_BYTES),
            pids_max: Some(PIDS_MAX),
            ..Limits::default()
        };
        Ok(Self {
            dir,
            client,
            template,
            next: 0,
        })
    }

    fn start(&mut self) -> anyhow::Result<ContainerId> {
        self.next += 1;
        let id = ContainerId::try_from(format!("bench-{}", self.next))?;
        let mut spec = self.template.clone();
        spec.dir = self.dir.path().join("containers").join(id.as_str());
        spec.id = id.clone();
        self.client.request(
            &Request::Start {
                spec: Box::new(spec),
            },
            &[],
        )?;
        Ok(id)
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
        super::ours()
    }

    fn turn(&mut self, pace: Pace, count: usize) -> anyhow::Result<Turn> {
        let window = match pace {
            Pace::Serial => 1,
            Pace::InFlight(window) => window,
        };
        let mut progress = Progress {
            to_start: count,
            running: BTreeMap::new(),
            to_forget: count,
            latencies: Vec::with_capacity(count),
        };
        let begin = Instant::now();
        while progress.to_forget > 0 {
            let gone = count - progress.to_start == count - progress.to_forget;
            let may_start = match pace {
                Pace::Serial => gone,
                Pace::InFlight(_) => progress.running.len() < window,
            };
            if progress.to_start > 0 && may_start {
                let now = Instant::now();
                let id = self.start()?;
                progress.running.insert(id, now);
                progress.to_start -= 1;
                continue;
            }
            let event = self
                .client
                .recv()?
                .context("the keeper closed the connection")?;
            match event {
                Event::Started { .. } => {}
                Event::Exited { id, status, .. } => {
                    let started = progress.running.remove(&id).context("an unknown exit")?;
                    progress.latencies.push(started.elapsed());
                    if !status.success() {
                        bail!("{id} {status}");
                    }
                    self.client.request(&Request::Forget { id }, &[])?;
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
}

impl Drop for Gantry {
    fn drop(&mut self) {
        // Nothing may stay on the machine; a keeper that is gone already left nothing.
        if self
            .client
            .request(&Request::Stop { kill: true }, &[])
            .is_ok()
        {
            while let Ok(Some(_)) = self.client.recv() {}
        }
    }
}
