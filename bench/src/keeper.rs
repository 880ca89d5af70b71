//! A keeper in a temporary directory of its own, driven over its socket as the agent drives one.
//!
//! It decides nothing about what is measured. Nothing of it stays on the machine: dropping it stops
//! the keeper with all its containers.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context, bail};
use gantry_isolation::keeper::{Client, Event, Request};
use gantry_isolation::spec::{ContainerId, ContainerSpec};

/// A keeper and one connection to it.
pub(crate) struct Keeper {
    dir: tempfile::TempDir,
    client: Client,
    next: u64,
}

impl Keeper {
    /// Starts one, of this very program.
    pub(crate) fn start(name: &str) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        std::fs::create_dir(dir.path().join("containers"))?;
        let exe = std::env::current_exe()?;
        let parent = format!("gantry-bench-{name}-{}", std::process::id());
        let leading = [OsString::from("keeper")];
        let client = Client::connect_or_spawn(dir.path(), &exe, &leading, &parent)?;
        Ok(Self {
            dir,
            client,
            next: 0,
        })
    }

    /// Where its containers' directories go.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// An id that was not used before.
    pub(crate) fn new_id(&mut self) -> anyhow::Result<ContainerId> {
        self.next += 1;
        Ok(ContainerId::try_from(format!("bench-{}", self.next))?)
    }

    /// Asks for a container like this one under a new id.
    pub(crate) fn start_one(&mut self, template: &ContainerSpec) -> anyhow::Result<ContainerId> {
        let id = self.new_id()?;
        let mut spec = template.clone();
        spec.dir = self.dir.path().join("containers").join(id.as_str());
        spec.id = id.clone();
        let spec = Box::new(spec);
        self.send(&Request::Start { spec })?;
        Ok(id)
    }

    /// Sends a request.
    pub(crate) fn send(&self, request: &Request) -> anyhow::Result<()> {
        Ok(self.client.request(request, &[])?)
    }

    /// The connection, for requests with descriptors.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// The next event; a start that failed or a refusal is an error.
    pub(crate) fn next(&mut self) -> anyhow::Result<Event> {
        let event = loop {
            match self.client.recv()?.context("the keeper hung up")? {
                // Says nothing of a container.
                Event::Output { .. } => {}
                event => break event,
            }
        };
        match event {
            Event::StartFailed { .. } | Event::ExecFailed { .. } | Event::Refused { .. } => {
                bail!("{event:?}")
            }
            event => Ok(event),
        }
    }

    /// Starts `count` containers, `window` at a time; ids and process ids once all run.
    pub(crate) fn start_many(
        &mut self,
        template: &ContainerSpec,
        count: usize,
        window: usize,
    ) -> anyhow::Result<Vec<(ContainerId, i32)>> {
        let mut running = Vec::with_capacity(count);
        let mut asked = 0;
        while running.len() < count {
            if asked < count && asked - running.len() < window {
                self.start_one(template)?;
                asked += 1;
                continue;
            }
            match self.next()? {
                Event::Started { id, pid, .. } => running.push((id, pid)),
                other => bail!("{other:?}"),
            }
        }
        Ok(running)
    }

    /// Kills these containers and returns when nothing of them is left.
    pub(crate) fn kill_all<'a>(
        &mut self,
        ids: impl IntoIterator<Item = &'a ContainerId>,
    ) -> anyhow::Result<()> {
        let mut left = 0;
        for id in ids {
            let (id, signo, all) = (id.clone(), nix::libc::SIGKILL, false);
            self.send(&Request::Signal { id, signo, all })?;
            left += 1;
        }
        while left > 0 {
            match self.next()? {
                Event::Exited { id, .. } => self.send(&Request::Forget { id })?,
                Event::Forgotten { .. } => left -= 1,
                other => bail!("{other:?}"),
            }
        }
        Ok(())
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // A keeper that is gone already left nothing.
        if self.send(&Request::Stop { kill: true }).is_ok() {
            while let Ok(Some(_)) = self.client.recv() {}
        }
    }
}
