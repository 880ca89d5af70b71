//! A `gantry dev` node in a temporary directory, driven as a user would: HTTP and CLI.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;

use crate::poll::{self, until};

/// The binary under test, built once per test run with the profile of the tests.
pub fn gantry_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let own = std::env::current_exe().expect("a test knows its own path");
        let folder = own
            .ancestors()
            .nth(2)
            .expect("target/<profile>/deps/<test>")
            .to_owned();
        let release = folder.ends_with("release");
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
        let mut build = Command::new(env!("CARGO"));
        build.args([
            "build",
            "-q",
            "-p",
            "gantry",
            "--bin",
            "gantry",
            "--manifest-path",
            manifest,
        ]);
        if release {
            build.arg("--release");
        }
        let status = build.status().expect("cargo starts");
        assert!(status.success(), "building gantry failed");
        folder.join("gantry")
    })
}

/// A port of loopback that nobody has at the moment.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener
        .local_addr()
        .expect("a bound socket has an address")
        .port()
}

/// An answer of the API.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status code.
    pub status: u16,
    /// The body, or its text as a JSON string when it is not JSON.
    pub body: Value,
}

/// A running node. Dropping it stops it and its tasks.
pub struct Node {
    /// The coordinator's port on loopback.
    pub port: u16,
    /// The agent's port on loopback.
    pub agent_port: u16,
    dir: tempfile::TempDir,
    extra: Vec<String>,
    child: Option<Child>,
    http: reqwest::blocking::Client,
}

impl Node {
    /// Starts a node and waits until it has an active agent.
    pub fn start(extra: &[&str]) -> Self {
        Self::start_in(&std::env::temp_dir(), extra)
    }

    /// As [`Self::start`], with the node's directory below `parent`: a native task has a `/tmp` of
    /// its own, which covers what lies in the host's.
    pub fn start_in(parent: &Path, extra: &[&str]) -> Self {
        let mut node = Self {
            port: free_port(),
            agent_port: free_port(),
            dir: tempfile::Builder::new()
                .prefix("gantry-node-")
                .tempdir_in(parent)
                .expect("a directory"),
            extra: extra.iter().map(|s| (*s).to_owned()).collect(),
            child: None,
            http: reqwest::blocking::Client::builder()
                .timeout(Duration::from_secs(30))
                .build()
                .expect("a client without settings"),
        };
        node.boot();
        node
    }

    /// The data directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("gantry.log")
    }

    /// What the node printed so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Starts the process without waiting for anything.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "the node already runs");
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.log_path())
            .expect("the log opens");
        let child = Command::new(gantry_binary())
            .arg("dev")
            .args([
                "--data-dir",
                &self.dir.path().join("data").to_string_lossy(),
            ])
            .args(["--port", &self.port.to_string()])
            .args(["--agent-port", &self.agent_port.to_string()])
            .args(&self.extra)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("gantry starts");
        self.child = Some(child);
    }

    /// Starts the process (again) and waits for an active agent.
    pub fn boot(&mut self) {
        self.spawn();
        self.wait_ready();
    }

    /// Waits until the API answers and the agent is active.
    pub fn wait_ready(&mut self) {
        until("an active agent", || {
            if let Some(status) = self
                .child
                .as_mut()
                .and_then(|c| c.try_wait().ok().flatten())
            {
                panic!("gantry ended with {status}:\n{}", self.log());
            }
            let state = self.try_get("/state").map(|a| a.body);
            match state.map(|s| s["slaves"][0]["active"] == Value::Bool(true)) {
                Some(true) => Ok(()),
                _ => Err(self.log()),
            }
        });
    }

    /// Process id of gantry itself.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the node runs").id()
    }

    /// SIGKILL to gantry, not to its keeper or tasks.
    pub fn kill_9(&mut self) {
        let mut child = self.child.take().expect("the node runs");
        child.kill().expect("SIGKILL is delivered");
        child.wait().expect("a killed child is reaped");
    }

    /// SIGTERM; waits for the end and returns the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        let mut child = self.child.take()?;
        signal(child.id(), "TERM");
        until("gantry ends after SIGTERM", || {
            child
                .try_wait()
                .map_err(|e| e.to_string())?
                .ok_or_else(|| "still there".to_owned())
        })
        .code()
    }

    /// Runs the CLI against this node.
    pub fn cli(&self, args: &[&str]) -> Output {
        Command::new(gantry_binary())
            .args(args)
            .env("GANTRY_URL", self.url(""))
            .stdin(Stdio::null())
            .output()
            .expect("the CLI starts")
    }

    /// Runs the CLI; panics unless it exits 0; returns stdout.
    pub fn cli_ok(&self, args: &[&str]) -> String {
        let out = self.cli(args);
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert!(
            out.status.success(),
            "gantry {args:?}: {}\n{stderr}",
            out.status
        );
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn send(&self, request: reqwest::blocking::RequestBuilder) -> Result<Answer, reqwest::Error> {
        let response = request.send()?;
        let status = response.status().as_u16();
        let text = response.text()?;
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Ok(Answer { status, body })
    }

    /// GET, or nothing when the node does not answer.
    pub fn try_get(&self, path: &str) -> Option<Answer> {
        self.send(self.http.get(self.url(path))).ok()
    }

    /// GET.
    pub fn get(&self, path: &str) -> Answer {
        self.send(self.http.get(self.url(path)))
            .unwrap_or_else(|e| panic!("GET {path}: {e}"))
    }

    /// A request with a raw body.
    pub fn raw(&self, method: &str, path: &str, body: &str) -> Answer {
        let method = method.parse().expect("a method");
        let request = self
            .http
            .request(method, self.url(path))
            .header("content-type", "application/json")
            .body(body.to_owned());
        self.send(request).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    /// POST of JSON.
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.raw("POST", path, &body.to_string())
    }

    /// PUT of JSON.
    pub fn put(&self, path: &str, body: &Value) -> Answer {
        self.raw("PUT", path, &body.to_string())
    }

    /// DELETE.
    pub fn delete(&self, path: &str) -> Answer {
        self.raw("DELETE", path, "")
    }

    /// Creates an app; panics unless it is accepted.
    pub fn add_app(&self, app: &Value) {
        let answer = self.post("/v2/apps", app);
        assert_eq!(answer.status, 201, "{}", answer.body);
    }

    /// The tasks of an app as `/v2/apps/{id}/tasks` shows them.
    pub fn tasks(&self, app: &str) -> Vec<Value> {
        let answer = self.get(&format!("/v2/apps{app}/tasks"));
        answer.body["tasks"].as_array().cloned().unwrap_or_default()
    }

    /// Waits until exactly `count` tasks of the app run, and no other is there.
    pub fn wait_running(&self, app: &str, count: usize) -> Vec<Value> {
        until(&format!("{count} running tasks of {app}"), || {
            let tasks = self.tasks(app);
            let running = tasks
                .iter()
                .filter(|t| t["state"] == "TASK_RUNNING")
                .count();
            if running == count && tasks.len() == count {
                return Ok(tasks);
            }
            let queue = self.get("/v2/queue").body;
            let failure = &self.get(&format!("/v2/apps{app}")).body["app"]["lastTaskFailure"];
            Err(format!(
                "{tasks:?}\nqueue {queue}\nlast failure {failure}\n{}",
                self.log()
            ))
        })
    }

    /// Waits until no deployment runs.
    pub fn wait_deployed(&self) {
        until("no deployment is running", || {
            let answer = self.get("/v2/deployments");
            match answer.body.as_array() {
                Some(list) if list.is_empty() => Ok(()),
                _ => Err(answer.body.to_string()),
            }
        });
    }

    /// Waits for the last failure of an app and returns its message.
    pub fn wait_failure(&self, app: &str) -> String {
        until(&format!("a failure of {app}"), || {
            let info = self.get(&format!("/v2/apps{app}")).body;
            let message = &info["app"]["lastTaskFailure"]["message"];
            message
                .as_str()
                .map(str::to_owned)
                .ok_or_else(|| format!("{info}\n{}\n{}", self.get("/v2/queue").body, self.log()))
        })
    }

    /// A task (running or ended) as `/state` shows it.
    pub fn state_task(&self, id: &str) -> Option<Value> {
        let state = self.get("/state").body;
        let frameworks = state["frameworks"].as_array()?;
        frameworks
            .iter()
            .flat_map(|f| ["tasks", "completed_tasks", "unreachable_tasks"].map(|k| &f[k]))
            .filter_map(Value::as_array)
            .flatten()
            .find(|t| t["id"] == id)
            .cloned()
    }

    /// Process id of a running task's first process on this machine.
    pub fn task_pid(&self, id: &str) -> u32 {
        until(&format!("a pid of {id}"), || {
            let task = self.state_task(id).ok_or("not in /state")?;
            let statuses = task["statuses"].as_array().cloned().unwrap_or_default();
            statuses
                .iter()
                .rev()
                .find_map(|s| s["container_status"]["executor_pid"].as_u64())
                .and_then(|pid| u32::try_from(pid).ok())
                .ok_or_else(|| task.to_string())
        })
    }

    /// What a task wrote to `stdout` (or `stderr`), through the CLI.
    pub fn output(&self, task: &str) -> String {
        self.cli_ok(&["task", "log", task])
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- log of the node\n{}----", self.log());
        }
        self.end();
        // A killed node, or one that keeps its tasks, left a keeper: start once more to end that.
        if self.dir.path().join("data/agent/keeper.sock").exists() {
            self.extra.retain(|a| a != "--keep-tasks");
            self.spawn();
            poll::happens_within(Duration::from_secs(20), || self.try_get("/ping").is_some());
            self.end();
        }
    }
}

impl Node {
    /// SIGTERM and, failing that, SIGKILL. That a stop is clean is asserted by tests of their own.
    fn end(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        signal(child.id(), "TERM");
        let mut ended = || child.try_wait().ok().flatten().is_some();
        if !poll::happens_within(Duration::from_secs(30), &mut ended) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Sends a signal by name.
pub fn signal(pid: u32, name: &str) {
    let status = Command::new("kill")
        .args(["-s", name, &pid.to_string()])
        .stderr(Stdio::null())
        .status()
        .expect("kill starts");
    let _ = status;
}
