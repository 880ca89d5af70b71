//! Members of a cluster as processes of their own, each in a network namespace that stands for a
//! machine. The first namespace is the switch and the coordinator's.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::kernel::run;
use crate::node::{gantry_binary, signal};
use crate::poll::{happens_within, until};

/// Where agents connect.
pub const AGENTS: &str = "10.77.0.1:5052";
/// A secret as an operator makes one.
pub const SECRET: &str = "vGx1l9mD8Jq0c2VnXb7Yw4eTz6UaRkP3oHsNfIuQ";

/// Some machines on one network: 10.77.0.1 and so on.
pub struct Machines {
    dir: tempfile::TempDir,
    names: Vec<String>,
}

impl Machines {
    /// So many of them.
    pub fn new(count: usize) -> Self {
        let dir = tempfile::Builder::new().prefix("gantry-apart-").tempdir();
        let dir = dir.expect("a directory");
        let tag = std::process::id();
        let unique = dir
            .path()
            .to_string_lossy()
            .rsplit('-')
            .next()
            .unwrap_or("x")
            .to_owned();
        let name = |i| format!("gantry-test-{tag}-{unique}-{i}");
        let names: Vec<String> = (0..count).map(name).collect();
        for name in &names {
            run("ip", &["netns", "add", name]);
            run("ip", &["-n", name, "link", "set", "lo", "up"]);
        }
        let machines = Self { dir, names };
        machines.wire();
        let secret = machines.secret();
        std::fs::write(&secret, SECRET).expect("the secret's file");
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&secret, private).expect("its mode");
        machines
    }

    fn wire(&self) {
        let switch = self.names[0].as_str();
        run("ip", &["-n", switch, "link", "add", "sw", "type", "bridge"]);
        run(
            "ip",
            &["-n", switch, "addr", "add", "10.77.0.1/24", "dev", "sw"],
        );
        run("ip", &["-n", switch, "link", "set", "sw", "up"]);
        for (i, name) in self.names.iter().enumerate().skip(1) {
            let (port, address) = (format!("p{i}"), format!("10.77.0.{}/24", i + 1));
            let pair = [
                "-n", switch, "link", "add", &port, "type", "veth", "peer", "name", "up0",
            ];
            run("ip", &[&pair[..], &["netns", name]].concat());
            run(
                "ip",
                &["-n", switch, "link", "set", &port, "master", "sw", "up"],
            );
            run("ip", &["-n", name, "addr", "add", &address, "dev", "up0"]);
            run("ip", &["-n", name, "link", "set", "up0", "up"]);
        }
    }

    /// The cluster's secret, in a file.
    pub fn secret(&self) -> PathBuf {
        self.dir.path().join("secret")
    }

    /// A place of a machine's own.
    pub fn place(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A command on a machine.
    pub fn command(&self, machine: usize, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.names[machine]));
        command.arg("--").arg(program);
        // What the tests were started with is no setting of a member.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy().into_owned();
            if text.starts_with("GANTRY_") || text.starts_with("MESOS_") {
                command.env_remove(name);
            }
        }
        command
    }

    /// Takes a machine off the network, or puts it back.
    pub fn connect(&self, machine: usize, up: bool) {
        let port = format!("p{machine}");
        let state = if up { "up" } else { "down" };
        run("ip", &["-n", &self.names[0], "link", "set", &port, state]);
    }

    /// Starts a member and does not wait.
    pub fn start(&self, machine: usize, name: &str, args: &[&str]) -> Member<'_> {
        let mut member = Member {
            machines: self,
            machine,
            name: name.to_owned(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            child: None,
        };
        member.spawn();
        member
    }

    /// A coordinator on the first machine.
    pub fn coordinator(&self) -> Member<'_> {
        let secret = self.secret().to_string_lossy().into_owned();
        let args = [
            "coordinator",
            "--agent-listen",
            AGENTS,
            "--cluster-secret-file",
            &secret,
        ];
        let member = self.start(0, "coordinator", &args);
        until("the coordinator answers", || {
            self.get("/ping").map(|_| ()).ok_or_else(|| member.log())
        });
        member
    }

    /// An agent on another machine. Its first coordinator is not there.
    pub fn agent(&self, machine: usize, more: &[&str]) -> Member<'_> {
        let secret = self.secret().to_string_lossy().into_owned();
        let coordinators = format!("10.77.0.1:1,{AGENTS}");
        let args = [
            "agent",
            "--coordinator",
            &coordinators,
            "--cluster-secret-file",
            &secret,
        ];
        self.start(
            machine,
            &format!("agent{machine}"),
            &[&args[..], more].concat(),
        )
    }

    /// GET of the API, which is on the loopback of the first machine.
    pub fn get(&self, path: &str) -> Option<Value> {
        self.http(&["-X", "GET"], path)
    }

    /// POST of JSON: the status code and the answer.
    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let body = body.to_string();
        let header = "content-type: application/json";
        let args = ["-w", "\n%{http_code}", "-H", header, "-d", &body];
        let out = self.curl(&args, path);
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let (answer, code) = text.rsplit_once('\n').expect("curl prints the code");
        let answer = serde_json::from_str(answer).unwrap_or(Value::String(answer.to_owned()));
        (code.parse().expect("a status code"), answer)
    }

    fn http(&self, args: &[&str], path: &str) -> Option<Value> {
        let out = self.curl(&[&["-f"], args].concat(), path);
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let answer = || serde_json::from_str(&text).unwrap_or(Value::String(text.clone()));
        out.status.success().then(answer)
    }

    fn curl(&self, args: &[&str], path: &str) -> Output {
        let mut curl = self.command(0, Path::new("curl"));
        curl.args(["-s", "-m", "20"]).args(args);
        curl.arg(format!("http://127.0.0.1:5050{path}"));
        curl.output().expect("curl starts")
    }

    /// Runs the CLI on the first machine; panics unless it exits 0.
    pub fn cli(&self, args: &[&str]) -> String {
        let out = self.command(0, gantry_binary()).args(args).output();
        let out = out.expect("the CLI starts");
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert!(
            out.status.success(),
            "gantry {args:?}: {}\n{stderr}",
            out.status
        );
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    /// The nodes of `/slaves`.
    pub fn nodes(&self) -> Vec<Value> {
        let answer = self.get("/slaves").unwrap_or_default();
        answer["slaves"].as_array().cloned().unwrap_or_default()
    }

    /// Waits until so many nodes are active.
    pub fn wait_active(&self, count: usize, members: &[&Member<'_>]) {
        until(&format!("{count} active nodes"), || {
            let nodes = self.nodes();
            let active = nodes.iter().filter(|node| node["active"] == true).count();
            let logs = || {
                members
                    .iter()
                    .map(|m| m.log())
                    .collect::<Vec<_>>()
                    .join("\n")
            };
            if active == count {
                Ok(())
            } else {
                Err(format!("{nodes:?}\n{}", logs()))
            }
        });
    }

    /// Waits until so many tasks of an app run, and no other is there.
    pub fn wait_running(&self, app: &str, count: usize) -> Vec<Value> {
        until(&format!("{count} running tasks of {app}"), || {
            let answer = self
                .get(&format!("/v2/apps{app}/tasks"))
                .unwrap_or_default();
            let tasks = answer["tasks"].as_array().cloned().unwrap_or_default();
            let running = |task: &&Value| task["state"] == "TASK_RUNNING";
            let done = tasks.len() == count && tasks.iter().filter(running).count() == count;
            let why = || format!("{tasks:?} {:?}", self.get("/v2/queue"));
            if done { Ok(tasks.clone()) } else { Err(why()) }
        })
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for name in &self.names {
            let deleted = Command::new("ip").args(["netns", "delete", name]).status();
            if !deleted.is_ok_and(|status| status.success()) {
                eprintln!("the network namespace {name} stays");
            }
        }
    }
}

/// A process of the cluster. Dropping it ends it and, of an agent, its tasks.
pub struct Member<'a> {
    machines: &'a Machines,
    machine: usize,
    name: String,
    args: Vec<String>,
    child: Option<Child>,
}

impl Member<'_> {
    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.machines.place(&self.name)
    }

    /// What it printed so far.
    pub fn log(&self) -> String {
        let path = self.machines.place(&format!("{}.log", self.name));
        std::fs::read_to_string(path).unwrap_or_default()
    }

    /// Starts it (again), with these arguments after its own.
    pub fn spawn_with(&mut self, more: &[&str]) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let path = self.machines.place(&format!("{}.log", self.name));
        let log = File::options()
            .create(true)
            .append(true)
            .open(path)
            .expect("a log");
        let mut command = self.machines.command(self.machine, gantry_binary());
        let child = command
            .args(&self.args)
            .arg("--data-dir")
            .arg(self.data())
            .args(more)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn();
        self.child = Some(child.expect("gantry starts"));
    }

    /// Starts it (again).
    pub fn spawn(&mut self) {
        self.spawn_with(&[]);
    }

    /// SIGKILL to it alone. `nsenter` has become gantry, so this is its own process.
    pub fn kill_9(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("SIGKILL is delivered");
        child.wait().expect("a killed child is reaped");
    }

    /// SIGTERM; its exit code.
    pub fn stop(&mut self) -> Option<i32> {
        let mut child = self.child.take().expect("it runs");
        signal(child.id(), "TERM");
        until(&format!("{} ends", self.name), || match child.try_wait() {
            Ok(Some(status)) => Ok(status.code()),
            other => Err(format!("{other:?}")),
        })
    }

    /// Waits for it to end by itself; its exit code.
    pub fn wait(&mut self) -> Option<i32> {
        let mut child = self.child.take().expect("it runs");
        until(&format!("{} ends by itself", self.name), || {
            match child.try_wait() {
                Ok(Some(status)) => Ok(status.code()),
                other => Err(format!("{other:?}")),
            }
        })
    }

    fn end(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        signal(child.id(), "TERM");
        let mut ended = || child.try_wait().ok().flatten().is_some();
        if !happens_within(Duration::from_secs(30), &mut ended) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Member<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- {}\n{}----", self.name, self.log());
        }
        self.end();
        // Its keeper and tasks are still there.
        if self.data().join("keeper.sock").exists() {
            self.args.retain(|arg| !arg.starts_with("--end-tasks"));
            self.spawn_with(&["--end-tasks"]);
            let log = self.log().len();
            happens_within(Duration::from_secs(20), || {
                self.log()
                    .get(log..)
                    .is_some_and(|new| new.contains("agent: "))
            });
            self.end();
        }
    }
}
