//! crun and runc as subjects: one process per start, as their users run them.
//!
//! crun refuses hosts with a hybrid cgroup layout, so it runs in a private mount namespace where a
//! cgroup2 tree stands in for `/sys/fs/cgroup`, with its cgroup work switched off, which can only
//! make it faster. runc keeps the limits in the host's own trees.
//!
//! Each container's root is an overlay of its own, as for ours. The peers leave that to their caller,
//! so it is mounted and unmounted here, by one system call each and over directories that are made
//! once, which is less than a caller would have to do.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use super::bundle::{Bundle, PeerBundle, Wants};
use super::{Case, Dress, Pace, Subject, Turn};
use crate::report::OURS;
use crate::root::{TRUE, WAIT};

const CGROUP_ROOT: &str = "/sys/fs/cgroup";
/// Processes of a peer that stop containers at once.
const STOPPERS: usize = 4;

/// Which peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Crun,
    Runc,
    /// Our own `gantry oci`, from the program beside this one; with limits, as runc.
    Gantry,
}

impl Kind {
    pub(super) fn program(self) -> &'static str {
        match self {
            Self::Crun => "crun",
            Self::Runc => "runc",
            Self::Gantry => OURS,
        }
    }

    fn command(self) -> anyhow::Result<Command> {
        match self {
            Self::Crun | Self::Runc => Ok(Command::new(self.program())),
            Self::Gantry => {
                let path = std::env::current_exe()?.with_file_name(OURS);
                ensure!(path.exists(), "{} is not built", path.display());
                Ok(Command::new(path))
            }
        }
    }
}

/// A peer that is installed.
pub(super) struct Peer<'a> {
    kind: Kind,
    version: String,
    bundle: &'a Bundle,
    /// Where it keeps its state: a tmpfs, as `/run` is where it is meant to run.
    state: tempfile::TempDir,
    next: AtomicUsize,
    /// A container that waits, for execs.
    waiting: Option<String>,
}

impl<'a> Peer<'a> {
    /// The peer, or why it is left out.
    pub(super) fn find(kind: Kind, bundle: &'a Bundle) -> anyhow::Result<Self> {
        let output = kind
            .command()?
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
            bundle,
            state: tempfile::tempdir_in("/dev/shm")?,
            next: AtomicUsize::new(0),
            waiting: None,
        })
    }

    fn new_id(&self) -> String {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        format!("bench-{}-{number}", std::process::id())
    }

    fn bundle(&self, program: &str, dress: Dress, number: usize) -> anyhow::Result<PeerBundle> {
        let kind = self.kind.program();
        let name = format!("{kind}-{}-{dress:?}-{number}", &program[1..]);
        let wants = Wants {
            limits: self.kind != Kind::Crun,
            seccomp: dress != Dress::NoSeccomp,
        };
        self.bundle.for_peer(&name, program, wants)
    }

    /// Runs the peer's program and waits for it.
    fn call<'b>(&self, args: impl IntoIterator<Item = &'b str>) -> anyhow::Result<()> {
        let mut command = self.kind.command()?;
        match self.kind {
            Kind::Crun => drop(command.args(["--cgroup-manager", "disabled"])),
            Kind::Gantry => drop(command.arg("oci")),
            Kind::Runc => {}
        }
        command.arg("--root").arg(self.state.path()).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        // A file, not a pipe: a container that stays would keep a pipe open.
        let words = tempfile::tempfile()?;
        command.stderr(words.try_clone()?);
        let status = command.status()?;
        if !status.success() {
            use std::os::unix::fs::FileExt;
            let mut bytes = vec![0; 4096];
            let length = words.read_at(&mut bytes, 0)?;
            let words = String::from_utf8_lossy(&bytes[..length]);
            bail!("{}: {status}: {}", self.kind.program(), words.trim());
        }
        Ok(())
    }

    /// Start to exit; then the root is unmounted.
    fn run_one(&self, bundle: &PeerBundle) -> anyhow::Result<Duration> {
        let id = self.new_id();
        let begin = Instant::now();
        mount_root(bundle)?;
        self.call(["run", "--bundle", text(&bundle.dir)?, &id])?;
        let took = begin.elapsed();
        umount2(&bundle.rootfs, MntFlags::empty()).context("unmount the root")?;
        Ok(took)
    }

    /// Starts one that waits for ever.
    fn detach_one(&self, number: usize) -> anyhow::Result<String> {
        let id = self.new_id();
        let bundle = self.bundle(WAIT, Dress::Usual, number)?;
        mount_root(&bundle)?;
        self.call(["run", "--detach", "--bundle", text(&bundle.dir)?, &id])?;
        Ok(id)
    }

    /// Many from as many threads as may be in flight.
    fn run_many(&self, case: Case, count: usize) -> anyhow::Result<Turn> {
        self.private_view()?;
        let threads = match case.pace {
            Pace::Serial => 1,
            Pace::InFlight(threads) => threads,
        };
        let bundles = (0..threads)
            .map(|number| self.bundle(TRUE, case.dress, number))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let begin = Instant::now();
        let latencies = in_parallel(threads, count, |thread, _| self.run_one(&bundles[thread]))?;
        Ok(Turn {
            latencies,
            wall: begin.elapsed(),
        })
    }

    fn stop_in_view(&self, count: usize) -> anyhow::Result<Duration> {
        self.private_view()?;
        let ids = (0..count)
            .map(|number| self.detach_one(number))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let begin = Instant::now();
        in_parallel(STOPPERS, count, |_, number| {
            self.call(["delete", "--force", &ids[number]])
        })?;
        Ok(begin.elapsed())
    }

    fn execs_in_view(&self, id: &str, count: usize) -> anyhow::Result<Vec<Duration>> {
        self.private_view()?;
        let exec = |_| {
            let begin = Instant::now();
            self.call(["exec", id, TRUE])?;
            Ok(begin.elapsed())
        };
        (0..count).map(exec).collect()
    }

    /// A mount namespace for this thread and those it makes.
    fn private_view(&self) -> anyhow::Result<()> {
        unshare(CloneFlags::CLONE_NEWNS).context("unshare")?;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).context("make private")?;
        if self.kind == Kind::Crun {
            umount2(CGROUP_ROOT, MntFlags::MNT_DETACH).context("unmount the cgroup trees")?;
            let (kind, flags) = (Some("cgroup2"), MsFlags::empty());
            mount(kind, CGROUP_ROOT, kind, flags, None::<&str>).context("mount cgroup2")?;
        }
        Ok(())
    }
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path that is not UTF-8")
}

fn mount_root(bundle: &PeerBundle) -> anyhow::Result<()> {
    let kind = Some("overlay");
    let options = Some(bundle.overlay.as_str());
    mount(kind, &bundle.rootfs, kind, MsFlags::empty(), options).context("mount the root")
}

/// Does it `count` times from `threads` threads, which inherit this thread's mount namespace; `work`
/// is told which thread and which time.
fn in_parallel<T: Send>(
    threads: usize,
    count: usize,
    work: impl Fn(usize, usize) -> anyhow::Result<T> + Sync,
) -> anyhow::Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::with_capacity(count));
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (next, results, work) = (&next, &results, &work);
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    let result = work(thread, number);
                    if let Ok(mut results) = results.lock() {
                        results.push(result);
                    }
                }
            });
        }
    });
    let results = results
        .into_inner()
        .map_err(|_| anyhow!("a thread panicked"))?;
    results.into_iter().collect()
}

/// On a thread of its own, which takes its mount namespace along when it ends.
fn apart<T: Send>(work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    std::thread::scope(|scope| scope.spawn(work).join())
        .map_err(|_| anyhow!("the thread panicked"))?
}

impl Subject for Peer<'_> {
    fn name(&self) -> String {
        match self.kind {
            Kind::Crun | Kind::Runc => format!("{} {}", self.kind.program(), self.version),
            Kind::Gantry => OURS.to_owned(),
        }
    }

    fn offers(&self, dress: Dress) -> bool {
        dress != Dress::OwnIds
    }

    fn turn(&mut self, case: Case, count: usize) -> anyhow::Result<Turn> {
        apart(|| self.run_many(case, count))
    }

    fn execs(&mut self, count: usize) -> anyhow::Result<Vec<Duration>> {
        let id = match &self.waiting {
            Some(id) => id.clone(),
            None => {
                let start = || {
                    self.private_view()?;
                    self.detach_one(usize::MAX)
                };
                let id = apart(start)?;
                self.waiting.insert(id).clone()
            }
        };
        apart(|| self.execs_in_view(&id, count))
    }

    fn stop_many(&mut self, count: usize) -> anyhow::Result<Duration> {
        apart(|| self.stop_in_view(count))
    }
}

impl Drop for Peer<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.waiting.take() {
            // Nothing may stay; what cannot be removed was gone.
            let _ = apart(|| {
                self.private_view()?;
                self.call(["delete", "--force", &id])
            });
        }
    }
}
