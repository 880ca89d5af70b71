//! The agent as a process: its `main`, and the handle by which tests start, kill and stop it.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use gantry_agent::{Config, ExecutorTimes, Verbosity};
use gantry_wire::task::TaskState;
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::coordinator::{Coordinator, PATIENCE, shell};

/// `agent DATA_DIR SOCKET TIMES…`: until SIGTERM (stop all tasks) or SIGINT (leave them).
pub(crate) fn main(args: &[String]) -> ExitCode {
    let (filter, handle) = reload::Layer::new(LevelFilter::INFO);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false);
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .init();
    let verbosity = Verbosity::new(0, move |level| {
        let filter = match level {
            0 => LevelFilter::INFO,
            _ => LevelFilter::DEBUG,
        };
        handle.reload(filter).unwrap();
    });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (dir, socket) = (PathBuf::from(&args[0]), PathBuf::from(&args[1]));
    runtime.block_on(async {
        let mut config = Config::new(dir, std::env::current_exe().unwrap());
        config.http.set_port(0);
        config.verbosity = Some(verbosity);
        config.fetch.hosts = vec!["127.0.0.1".to_owned()];
        config.executor_times = times(&args[2..]);
        let connect = move || UnixStream::connect(socket.clone());
        let running = match gantry_agent::start(config, connect).await {
            Ok(running) => running,
            Err(error) => {
                eprintln!("start: {error}");
                return ExitCode::FAILURE;
            }
        };
        let mut terminate = signal(SignalKind::terminate()).unwrap();
        let mut interrupt = signal(SignalKind::interrupt()).unwrap();
        tokio::select! {
            _ = terminate.recv() => {
                let failures = running.stop_tasks().await;
                eprintln!("stopped: {failures:?}");
                if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
            }
            _ = interrupt.recv() => {
                running.keep_tasks().await;
                ExitCode::SUCCESS
            }
        }
    })
}

/// Those of executors: `register_ms reregister_ms shutdown_ms`.
fn times(args: &[String]) -> ExecutorTimes {
    let times: Vec<u64> = args.iter().map(|arg| arg.parse().unwrap()).collect();
    ExecutorTimes {
        register_ms: times[0],
        reregister_ms: times[1],
        shutdown_ms: times[2],
    }
}

/// A node: a data directory, a coordinator beside it, and perhaps a running agent.
pub(crate) struct Node {
    dir: tempfile::TempDir,
    data: PathBuf,
    pub(crate) coordinator: Coordinator,
    agent: Option<Child>,
    registers: usize,
    /// The program that is the agent from its next start on.
    pub(crate) exe: PathBuf,
    /// Long ones, where nobody waits for them to pass.
    pub(crate) executor_times: ExecutorTimes,
}

impl Node {
    /// A fresh one with its agent registered.
    pub(crate) async fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("ga-").tempdir().unwrap();
        let data = dir.path().join("agent");
        Self::start_in(dir, data).await
    }

    /// A fresh one whose data directory is elsewhere.
    pub(crate) async fn start_on(data: PathBuf) -> Self {
        let dir = tempfile::Builder::new().prefix("ga-").tempdir().unwrap();
        Self::start_in(dir, data).await
    }

    async fn start_in(dir: tempfile::TempDir, data: PathBuf) -> Self {
        let coordinator = Coordinator::listen(dir.path());
        let mut node = Self {
            dir,
            data,
            coordinator,
            agent: None,
            registers: 0,
            exe: std::env::current_exe().unwrap(),
            executor_times: ExecutorTimes {
                register_ms: 60_000,
                reregister_ms: 15_000,
                shutdown_ms: 5_000,
            },
        };
        node.start_agent().await;
        node
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.data.clone()
    }

    /// A directory of the host's beside the agent's.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// What makes this program the node's agent.
    fn words(&self) -> Vec<OsString> {
        let times = &self.executor_times;
        let times = [times.register_ms, times.reregister_ms, times.shutdown_ms];
        let words = [
            "agent".into(),
            self.data().into(),
            self.coordinator.socket.clone().into(),
        ];
        words
            .into_iter()
            .chain(times.map(|ms| ms.to_string().into()))
            .collect()
    }

    pub(crate) fn spawn(&mut self) {
        let log = std::fs::File::options();
        let log = { log }.create(true).append(true).open(self.log()).unwrap();
        let child = Command::new(&self.exe)
            .args(self.words())
            .env("RUST_LOG", "debug")
            .stdin(Stdio::null())
            .stderr(log)
            .spawn();
        self.agent = Some(child.unwrap());
    }

    /// Starts the agent with a tracer that follows it from its first step (see `tracer`).
    pub(crate) fn spawn_traced(&mut self, plan: [&str; 3], report: &Path) -> Child {
        let log = std::fs::File::options();
        let log = { log }.create(true).append(true).open(self.log()).unwrap();
        let exe = std::env::current_exe().unwrap();
        let mut agent = Command::new("sh")
            .args(["-c", "read go; exec \"$0\" \"$@\" </dev/null"])
            .arg(&exe)
            .args(self.words())
            .env("RUST_LOG", "debug")
            .stdin(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut tracer = Command::new(exe)
            .arg("trace")
            .arg(agent.id().to_string())
            .args(plan)
            .arg(report)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        tracer
            .stdout
            .take()
            .unwrap()
            .read_exact(&mut ready)
            .unwrap();
        agent.stdin.take().unwrap().write_all(b"go\n").unwrap();
        self.agent = Some(agent);
        tracer
    }

    /// How the agent ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.agent.as_mut()?.try_wait().unwrap();
        if status.is_some() {
            self.agent = None;
        }
        status
    }

    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(agent) = &self.agent {
            // It may have ended just now.
            let _ = kill_process(Pid::from_child(agent), signal);
        }
    }

    pub(crate) fn has_agent(&self) -> bool {
        self.agent.is_some()
    }

    pub(crate) fn tag(&self) -> String {
        tag(&self.data())
    }

    pub(crate) async fn start_agent(&mut self) {
        // Whoever registered before is not the one that is waited for.
        self.registers = self.coordinator.heard.lock().unwrap().registers.len();
        self.spawn();
        self.registered().await;
    }

    /// Waits for one more registration than before.
    pub(crate) async fn registered(&mut self) {
        let before = self.registers;
        self.registers = self
            .coordinator
            .until("a registration", |heard| {
                Some(heard.registers.len()).filter(|&count| count > before)
            })
            .await;
    }

    pub(crate) fn pid(&self) -> u32 {
        self.agent.as_ref().unwrap().id()
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.dir.path().join("agent.log")
    }

    pub(crate) fn kill_9(&mut self) {
        let mut agent = self.agent.take().unwrap();
        agent.kill().unwrap();
        agent.wait().unwrap();
        // A registration that was still on its way counts as old.
        self.registers = self.coordinator.heard.lock().unwrap().registers.len();
    }

    /// Ends the agent by a signal; whether it said that all was well.
    pub(crate) fn end(&mut self, signal: Signal) -> bool {
        let mut agent = self.agent.take().unwrap();
        kill_process(Pid::from_child(&agent), signal).unwrap();
        let deadline = Instant::now() + 2 * PATIENCE;
        loop {
            if let Some(status) = agent.try_wait().unwrap() {
                return status.success();
            }
            assert!(Instant::now() < deadline, "the agent does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn wait_exit(&mut self) -> bool {
        self.agent.take().unwrap().wait().unwrap().success()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        let heard = self.coordinator.heard.lock().unwrap();
        format!(
            "http://{}{path}",
            heard.registers.last().unwrap().http_address
        )
    }

    /// Text of a file of a sandbox.
    pub(crate) async fn read(&self, path: &str) -> String {
        let url = self.url(&format!("/files/read?path={path}&offset=0"));
        let answer = reqwest::get(url).await.unwrap();
        let text = answer.text().await.unwrap();
        let piece: serde_json::Value =
            serde_json::from_str(&text).unwrap_or_else(|_| panic!("{path}: {text}"));
        piece["data"].as_str().unwrap().to_owned()
    }

    /// Waits until a file of a sandbox holds something.
    pub(crate) async fn written(&self, path: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.read(path).await.is_empty() {
            assert!(Instant::now() < deadline, "nothing came into {path}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until a file of a sandbox holds just this.
    pub(crate) async fn holds(&self, path: &str, want: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = self.read(path).await;
            if text == want {
                return;
            }
            assert!(Instant::now() < deadline, "{path}: {text:?}, not {want:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Kills the first process of a container, as the kernel would.
    pub(crate) fn kill_container(&self, container: &str) {
        let find = |dir: &PathBuf| {
            let procs = dir.join(container).join("cgroup.procs");
            std::fs::read_to_string(procs)
                .ok()?
                .lines()
                .next()?
                .parse()
                .ok()
        };
        let pid = self.cgroups().iter().find_map(find).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    }

    /// Launches a command that writes when it is ready for signals, and waits until it has.
    /// That it runs says only that the shell was executed, not that it came to its traps.
    pub(crate) async fn armed(&self, task: &str, command: &str) {
        self.coordinator.launch(shell(task, command));
        let running = self.coordinator.update(task, TaskState::TaskRunning).await;
        self.written(&format!("{}/stdout", running.sandbox)).await;
    }

    /// The keeper of this node.
    pub(crate) fn keeper(&self) -> Option<Pid> {
        let data = self.data();
        let is_keeper = |pid: &u32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let parts: Vec<&[u8]> = line.split(|&b| b == 0).collect();
            parts.contains(&b"keeper".as_slice())
                && parts.contains(&data.as_os_str().as_encoded_bytes())
        };
        let pid = processes().into_iter().find(is_keeper)?;
        Pid::from_raw(pid.cast_signed())
    }

    /// Cgroups that carry this node's tag, in whatever hierarchy.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        let tag = tag(&self.data());
        let mut found = Vec::new();
        for level in [Path::new("/sys/fs/cgroup").to_owned()] {
            for hierarchy in std::fs::read_dir(level).into_iter().flatten().flatten() {
                found.push(hierarchy.path().join(format!("gantry-{tag}")));
            }
        }
        found.push(PathBuf::from(format!("/sys/fs/cgroup/gantry-{tag}")));
        found.retain(|path| path.exists());
        found
    }

    /// Network links that carry this node's tag.
    pub(crate) fn links(&self) -> Vec<String> {
        let tag = tag(&self.data());
        let links = std::fs::read_dir("/sys/class/net").unwrap().flatten();
        let names = links.map(|link| link.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.contains(&tag[..6])).collect()
    }

    pub(crate) fn mounts(&self) -> Vec<String> {
        let dir = self.dir.path().to_string_lossy().into_owned();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        mounts
            .lines()
            .filter(|line| line.contains(&dir))
            .map(str::to_owned)
            .collect()
    }
}

impl Node {
    /// Kills the keeper and everything below it, and removes what the kernel has of this node, as a
    /// reboot does. The agent must be dead.
    pub(crate) fn wipe(&self) {
        if let Some(keeper) = self.keeper() {
            kill_process(keeper, Signal::KILL).unwrap();
        }
        let data = self.data();
        let parent = format!("gantry-{}", self.tag());
        gantry_isolation::reap::everything(&data, &data.join("containers"), &parent);
        for link in self.links() {
            // A pair goes with either end.
            let _ = Command::new("ip").args(["link", "del", &link]).output();
        }
        for table in [parent.clone(), format!("{parent}-api")] {
            let _ = Command::new("nft")
                .args(["delete", "table", "ip", &table])
                .output();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.log()).unwrap_or_default();
            eprintln!("--- the agent's log\n{log}---");
        }
        // Leave nothing, whatever the test did.
        if self.agent.is_some() {
            self.end(Signal::TERM);
        } else if let Some(keeper) = self.keeper() {
            kill_process(keeper, Signal::KILL).unwrap();
        }
        let parent = format!("gantry-{}", tag(&self.data()));
        gantry_isolation::reap::leftovers(&self.data().join("containers"), &parent, &[]);
    }
}

pub(crate) fn processes() -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// As `agent/src/layout.rs`: FNV-1a of the data directory's path.
fn tag(data: &Path) -> String {
    let data = data.canonicalize().unwrap();
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = data
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, fold);
    format!("{hash:016x}")[..8].to_owned()
}

/// Runs an async test.
pub(crate) fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Runtime::new().unwrap().block_on(test);
}
