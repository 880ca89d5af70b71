//! A keeper of a test's own, and short ways to run something under it.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use gantry_isolation::keeper::{Client, Event, Listed, Received, Request};
use gantry_isolation::spec::{ContainerId, ContainerSpec, ExitStatus, Output, Root};

/// How long anything may take on a machine that is busy with other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// One keeper in a directory of its own.
pub(crate) struct Node {
    pub(crate) dir: tempfile::TempDir,
    layers: tempfile::TempDir,
    pub(crate) parent: String,
    pub(crate) client: Client,
    /// Events that came while another was waited for.
    early: VecDeque<Event>,
}

/// How a container ended, with its output.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) oom_killed: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

pub(crate) fn id(text: &str) -> ContainerId {
    ContainerId::try_from(text).unwrap()
}

pub(crate) fn keeper_exe() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_isolation-keeper"))
}

/// Polls until `check` gives something.
pub(crate) fn until<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

impl Node {
    pub(crate) fn new() -> Self {
        Self::with_keeper(connect)
    }

    /// With a keeper that `start` makes.
    pub(crate) fn with_keeper(start: impl FnOnce(&Path, &str) -> Client) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        assert!(nix::unistd::geteuid().is_root(), "these tests need root");
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let parent = format!("gantry-test-{}-{number}", std::process::id());
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        // A file system other than the host's root: overlayfs refuses a layer within a layer.
        let layers = tempfile::tempdir_in("/dev/shm").unwrap();
        std::fs::create_dir(dir.path().join("containers")).unwrap();
        let client = start(dir.path(), &parent);
        Self {
            dir,
            layers,
            parent,
            client,
            early: VecDeque::new(),
        }
    }

    /// A second, independent connection in place of the first, as after a crash of the agent.
    pub(crate) fn reconnect(&mut self) {
        self.client = connect(self.dir.path(), &self.parent);
        self.early.clear();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A directory for an image's layer.
    pub(crate) fn layer(&self, name: &str) -> PathBuf {
        let path = self.layers.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// A native command with its sandbox and output in `<dir>/sandbox-<id>`.
    pub(crate) fn native(&self, name: &str, argv: &[&str]) -> ContainerSpec {
        self.spec(
            name,
            Root::Host {
                hide: vec![self.path("containers")],
            },
            argv,
        )
    }

    pub(crate) fn spec(&self, name: &str, root: Root, argv: &[&str]) -> ContainerSpec {
        let sandbox = self.path(&format!("sandbox-{name}"));
        std::fs::create_dir_all(&sandbox).unwrap();
        let argv = argv.iter().map(ToString::to_string).collect();
        let dir = self.path("containers").join(name);
        let mut spec = ContainerSpec::new(id(name), root, dir, argv);
        spec.output = Output::files(sandbox.clone(), 0, 0);
        spec.sandbox = Some(sandbox);
        spec
    }

    pub(crate) fn shell(&self, name: &str, script: &str) -> ContainerSpec {
        self.native(name, &["sh", "-c", script])
    }

    pub(crate) fn send(&self, request: &Request) {
        self.client.request(request, &[]).unwrap();
    }

    pub(crate) fn start(&self, spec: &ContainerSpec) {
        self.start_with(spec, &[]);
    }

    pub(crate) fn start_with(&self, spec: &ContainerSpec, fds: &[BorrowedFd<'_>]) {
        self.client
            .request(
                &Request::Start {
                    spec: Box::new(spec.clone()),
                },
                fds,
            )
            .unwrap();
    }

    /// Waits for the first event that `pick` takes; others stay for later.
    pub(crate) fn wait<T>(&mut self, what: &str, pick: impl Fn(&Event) -> Option<T>) -> T {
        if let Some(at) = self.early.iter().position(|event| pick(event).is_some()) {
            return self.early.remove(at).as_ref().and_then(&pick).unwrap();
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.client.recv_timeout(left).unwrap() {
                Received::Event(event) => match pick(&event) {
                    Some(picked) => return picked,
                    None => self.early.push_back(event),
                },
                Received::Timeout => assert!(
                    Instant::now() < deadline,
                    "{what}: not within {PATIENCE:?}; got {:?}",
                    self.early
                ),
                Received::Closed => panic!("{what}: the keeper closed the connection"),
            }
        }
    }

    pub(crate) fn started(&mut self, name: &str) -> i32 {
        let wanted = id(name);
        let outcome = self.wait(&format!("start of {name}"), |event| match event {
            Event::Started { id, pid, .. } if *id == wanted => Some(Ok(*pid)),
            Event::StartFailed { id, step, error } if *id == wanted => {
                Some(Err(format!("{step}: {error}")))
            }
            _ => None,
        });
        outcome.unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub(crate) fn start_failure(&mut self, name: &str) -> String {
        let wanted = id(name);
        self.wait(&format!("failure of {name}"), |event| match event {
            Event::StartFailed { id, step, error } if *id == wanted => {
                Some(format!("{step}: {error}"))
            }
            Event::Started { id, .. } if *id == wanted => Some("it started".to_owned()),
            _ => None,
        })
    }

    pub(crate) fn exited(&mut self, name: &str) -> (ExitStatus, bool) {
        let wanted = id(name);
        let outcome = self.wait(&format!("exit of {name}"), |event| match event {
            Event::Exited {
                id,
                status,
                oom_killed,
            } if *id == wanted => Some(Ok((*status, *oom_killed))),
            Event::StartFailed { id, step, error } if *id == wanted => {
                Some(Err(format!("{step}: {error}")))
            }
            _ => None,
        });
        outcome.unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub(crate) fn forget(&mut self, name: &str) {
        let wanted = id(name);
        self.send(&Request::Forget { id: wanted.clone() });
        self.wait(&format!("forgetting {name}"), |event| match event {
            Event::Forgotten { id } if *id == wanted => Some(()),
            _ => None,
        });
    }

    pub(crate) fn list(&mut self) -> Vec<Listed> {
        self.send(&Request::List);
        self.wait("listing", |event| match event {
            Event::Listing { containers } => Some(containers.clone()),
            _ => None,
        })
    }

    pub(crate) fn output(&self, name: &str, file: &str) -> String {
        let path = self.path(&format!("sandbox-{name}")).join(file);
        String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
    }

    /// Runs to the end.
    pub(crate) fn run(&mut self, spec: &ContainerSpec) -> Ended {
        self.start(spec);
        let name = spec.id.to_string();
        let (status, oom_killed) = self.exited(&name);
        let (stdout, stderr) = (self.output(&name, "stdout"), self.output(&name, "stderr"));
        self.forget(&name);
        Ended {
            status,
            oom_killed,
            stdout,
            stderr,
        }
    }

    /// Runs a script as a native task and gives its stdout; it must succeed.
    pub(crate) fn sh(&mut self, name: &str, script: &str) -> String {
        let spec = self.shell(name, script);
        let ended = self.run(&spec);
        assert!(ended.status.success(), "{script}: {ended:?}");
        ended.stdout
    }

    /// Every cgroup directory of this node.
    pub(crate) fn groups(&self) -> Vec<PathBuf> {
        let trees = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
        let own = |tree: std::fs::DirEntry| {
            // Those with devices of their own lie beside the others.
            let filtered = format!("{}-devices", self.parent);
            [&self.parent, &filtered].map(|parent| tree.path().join(parent))
        };
        trees
            .flat_map(own)
            .filter_map(|parent| std::fs::read_dir(parent).ok())
            .flat_map(Iterator::flatten)
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .collect()
    }
}

pub(crate) fn connect(dir: &Path, parent: &str) -> Client {
    let leading: [OsString; 0] = [];
    Client::connect_or_spawn(dir, keeper_exe(), &leading, parent).unwrap()
}

impl Drop for Node {
    fn drop(&mut self) {
        // After a failed test, too: nothing may stay on the machine.
        let _ = self.client.request(&Request::Stop { kill: true }, &[]);
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match self.client.recv_timeout(Duration::from_secs(1)) {
                Ok(Received::Closed) | Err(_) => break,
                Ok(_) => {}
            }
        }
    }
}
