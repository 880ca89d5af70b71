//! crun and runc as subjects: one process per start, as their users run them.
//!
//! crun refuses hosts with a hybrid cgroup layout, so it runs in a private mount namespace where a
//! cgroup2 tree stands in for `/sys/fs/cgroup`, with its cgroup work switched off, which can only
//! make it faster. runc keeps the limits in the host's own trees.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use super::bundle::Bundle;
use super::{Pace, Subject, Turn};

const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// Which peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Crun,
    Runc,
}

impl Kind {
    pub(super) fn program(self) -> &'static str {
        match self {
            Self::Crun => "crun",
            Self::Runc => "runc",
        }
    }
}

/// A peer that is installed.
pub(super) struct Peer {
    kind: Kind,
    version: String,
    bundle: PathBuf,
    /// Where it keeps its state: a tmpfs, as `/run` is where it is meant to run.
    state: tempfile::TempDir,
    next: AtomicUsize,
}

impl Peer {
    /// The peer, or why it is left out.
    pub(super) fn find(kind: Kind, bundle: &Bundle) -> anyhow::Result<Self> {
        let program = kind.program();
        let output = Command::new(program)
            .arg("--version")
            .output()
            .context("not installed")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = text
            .split_whitespace()
            .nth(2)
            .unwrap_or("unknown")
            .to_owned();
        Ok(Self {
            kind,
            version,
            bundle: bundle.for_peer(program, kind == Kind::Runc)?,
            state: tempfile::tempdir_in("/dev/shm")?,
            next: AtomicUsize::new(0),
        })
    }

    fn run_one(&self) -> anyhow::Result<Duration> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let id = format!("bench-{}-{number}", std::process::id());
        let mut command = Command::new(self.kind.program());
        if self.kind == Kind::Crun {
            command.args(["--cgroup-manager", "disabled"]);
        }
        command
            .arg("--root")
            .arg(self.state.path())
            .arg("run")
            .arg("--bundle")
            .arg(&self.bundle);
        command.arg(&id).stdin(Stdio::null()).stdout(Stdio::null());
        let begin = Instant::now();
        let mut child = command.stderr(Stdio::piped()).spawn()?;
        let status = child.wait()?;
        let took = begin.elapsed();
        if !status.success() {
            let mut words = String::new();
            if let Some(mut stderr) = child.stderr.take() {
                std::io::Read::read_to_string(&mut stderr, &mut words)?;
            }
            bail!("{} run: {status}: {}", self.kind.program(), words.trim());
        }
        Ok(took)
    }

    /// Many from as many threads as may be in flight.
    fn run_many(&self, pace: Pace, count: usize) -> anyhow::Result<Turn> {
        if self.kind == Kind::Crun {
            private_cgroup_view().context("make a private cgroup2 view")?;
        }
        let threads = match pace {
            Pace::Serial => 1,
            Pace::InFlight(threads) => threads,
        };
        let left = AtomicUsize::new(count);
        let results = Mutex::new(Vec::with_capacity(count));
        let begin = Instant::now();
        std::thread::scope(|scope| {
            // They inherit this thread's mount namespace.
            for _ in 0..threads {
                scope.spawn(|| {
                    let take = |left: usize| left.checked_sub(1);
                    while left
                        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
                        .is_ok()
                    {
                        let result = self.run_one();
                        if let Ok(mut results) = results.lock() {
                            results.push(result);
                        }
                    }
                });
            }
        });
        let wall = begin.elapsed();
        let results = results
            .into_inner()
            .map_err(|_| anyhow!("a thread panicked"))?;
        let latencies = results.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Turn { latencies, wall })
    }
}

/// For this thread and those it makes.
fn private_cgroup_view() -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("unshare")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).context("make private")?;
    umount2(CGROUP_ROOT, MntFlags::MNT_DETACH).context("unmount the cgroup trees")?;
    mount(
        Some("cgroup2"),
        CGROUP_ROOT,
        Some("cgroup2"),
        MsFlags::empty(),
        None::<&str>,
    )
    .context("mount cgroup2")
}

impl Subject for Peer {
    fn name(&self) -> String {
        format!("{} {}", self.kind.program(), self.version)
    }

    fn turn(&mut self, pace: Pace, count: usize) -> anyhow::Result<Turn> {
        // A thread of its own, which takes its mount namespace along when it ends.
        let this = &*self;
        std::thread::scope(|scope| scope.spawn(|| this.run_many(pace, count)).join())
            .map_err(|_| anyhow!("the thread panicked"))?
    }
}
