//! Executors of frameworks' own: real programs that speak the v1 executor API, with their tasks.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use gantry_wire::agent::{ExecutorMessage, LaunchCustom, ShutdownExecutor, StatusUpdate, to_agent};
use gantry_wire::mesos::v1::executor::{call, event};
use gantry_wire::mesos::v1::{
    CommandInfo, ContainerInfo, ExecutorInfo, FrameworkInfo, NetworkInfo, TaskInfo,
    TaskState as V1State, executor_info,
};
use gantry_wire::mesos::{Encoding, amounts, v1};
use gantry_wire::task::{Reason, TaskState};
use rustix::process::Signal;

use crate::agent::{Node, processes, run};
use crate::coordinator::{PATIENCE, state};
use crate::executor::{Agent, Name, Reply, status};

fn framework(checkpoint: bool) -> FrameworkInfo {
    FrameworkInfo {
        user: "root".into(),
        name: "tests".into(),
        id: Some(v1::FrameworkId { value: "fw".into() }),
        checkpoint: Some(checkpoint),
        ..FrameworkInfo::default()
    }
}

/// An executor that runs a command.
fn executor_of(id: &str, command: &str) -> ExecutorInfo {
    ExecutorInfo {
        r#type: Some(executor_info::Type::Custom as i32),
        executor_id: v1::ExecutorId { value: id.into() },
        command: Some(
            CommandInfo {
                value: Some(command.into()),
                ..CommandInfo::default()
            }
            .into(),
        ),
        resources: resources(0.1, 128.0),
        data: Some(b"its own".to_vec()),
        ..ExecutorInfo::default()
    }
}

/// The program of these tests.
/// A copy of this program where tasks see it, until the tests are over: a native task has a `/tmp` of
/// its own, and this program may lie in the host's.
pub(crate) static COPY: Mutex<Option<tempfile::TempDir>> = Mutex::new(None);

fn own_copy() -> PathBuf {
    let mut copy = COPY.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = copy.get_or_insert_with(|| {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(dir.path(), open).unwrap();
        std::fs::copy(std::env::current_exe().unwrap(), dir.path().join("node")).unwrap();
        dir
    });
    dir.path().join("node")
}

pub(crate) fn executor(id: &str, args: &str) -> ExecutorInfo {
    let exe = own_copy();
    let exe = exe.display();
    executor_of(id, &format!("env -0 > env && exec {exe} executor {args}"))
}

fn resources(cpus: f64, mem: f64) -> Vec<v1::Resource> {
    [("cpus", cpus), ("mem", mem)]
        .map(|(name, value)| amounts::scalar_resource(name, value))
        .to_vec()
}

pub(crate) fn task(id: &str, words: &str) -> TaskInfo {
    TaskInfo {
        name: id.into(),
        task_id: v1::TaskId { value: id.into() },
        agent_id: v1::AgentId { value: "S0".into() },
        resources: resources(0.1, 32.0),
        data: Some(words.as_bytes().to_vec()),
        ..TaskInfo::default()
    }
}

pub(crate) fn launch(executor: &ExecutorInfo, tasks: &[TaskInfo]) -> LaunchCustom {
    LaunchCustom {
        framework: Some(framework(true).into()),
        executor: Some(executor.clone().into()),
        tasks: tasks.to_vec(),
        group: false,
    }
}

impl Node {
    pub(crate) fn launch_custom(&self, launch: LaunchCustom) {
        self.coordinator.say(to_agent::Kind::LaunchCustom(launch));
    }

    fn shutdown(&self, executor: &str, grace_ms: Option<u64>) {
        let shutdown = ShutdownExecutor {
            framework_id: "fw".into(),
            executor_id: executor.into(),
            grace_ms,
        };
        self.coordinator
            .say(to_agent::Kind::ShutdownExecutor(shutdown));
    }

    /// The raw wait status with which an executor is said to have ended.
    async fn executor_ended(&self, executor: &str) -> i32 {
        self.coordinator
            .until(&format!("the end of {executor}"), |heard| {
                let ended = heard.ended.iter().find(|it| it.executor_id == executor);
                ended.map(|ended| ended.status)
            })
            .await
    }

    /// Waits until nothing of executors is left on disk, but their sandboxes.
    async fn no_customs(&self) {
        for dir in ["customs", "doors"] {
            let dir = self.data().join(dir);
            self.coordinator
                .until("all executors to go", |_| {
                    std::fs::read_dir(&dir)
                        .unwrap()
                        .next()
                        .is_none()
                        .then_some(())
                })
                .await;
        }
    }

    /// The socket of an executor, seen from the host.
    pub(crate) fn door(&self, update: &StatusUpdate) -> String {
        let dir = self.data().join("doors").join(&update.container_id);
        dir.join("executor.sock").to_string_lossy().into_owned()
    }

    /// Waits until the executor has written a line.
    async fn line(&self, sandbox: &str, line: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = self.read(&format!("{sandbox}/stdout")).await;
            if text.lines().any(|it| it == line) {
                return;
            }
            assert!(Instant::now() < deadline, "no line {line:?} in {text}");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
}

fn words(update: &StatusUpdate) -> (TaskState, Option<&'static str>) {
    let reason = update.reason.and_then(|it| Reason::try_from(it).ok());
    (state(update), reason.map(Reason::name))
}

/// Two executors in the two encodings, over the socket and over TCP, on the host's network and on
/// the bridge: several tasks, a group, kills, messages, the environment.
pub(crate) fn tasks_below_an_executor_in_both_encodings() {
    run(async {
        let mut node = Node::start().await;
        for (id, args, bridged) in [
            ("json", "json", false),
            ("json-tcp", "json tcp", false),
            ("protobuf", "protobuf", true),
            ("protobuf-tcp", "protobuf tcp-without-token", true),
        ] {
            let mut info = executor(id, args);
            if bridged {
                let network = ContainerInfo {
                    r#type: v1::container_info::Type::Mesos as i32,
                    network_infos: vec![NetworkInfo::default()],
                    ..ContainerInfo::default()
                };
                info.container = Some(network.into());
            }
            whole_life(&node, &info, bridged).await;
        }
        node.no_customs().await;
        assert!(node.end(Signal::TERM));
        assert_eq!(node.cgroups(), Vec::<std::path::PathBuf>::new());
        assert_eq!(node.mounts(), [""; 0]);
    });
}

async fn whole_life(node: &Node, info: &ExecutorInfo, bridged: bool) {
    let id = info.executor_id.value.as_str();
    let named = |name: &str| format!("{id}-{name}");
    let (a, b, c) = (named("a"), named("b"), named("c"));
    node.launch_custom(launch(info, &[task(&a, "run say=hello")]));
    let running = node.coordinator.update(&a, TaskState::TaskRunning).await;
    let said = running.status.as_ref().unwrap();
    assert_eq!(said.message.as_deref(), Some("it runs"));
    assert_eq!(said.uuid, Some(running.uuid.clone()));
    assert_eq!(said.agent_id.as_ref().unwrap().value, "S0");
    let container = said.container_status.as_ref().unwrap();
    assert_eq!(
        container.container_id.as_ref().unwrap().value,
        running.container_id
    );
    assert_eq!(bridged, !running.ip_address.is_empty());
    assert_eq!(bridged, !container.network_infos.is_empty());
    assert_eq!(container.executor_pid, Some(running.pid));
    node.line(&running.sandbox, "data its own").await;
    environment_is_as_said(&running, id);

    // A second launch in the same words goes to the same executor.
    let group = LaunchCustom {
        group: true,
        ..launch(info, &[task(&b, "run"), task(&c, "run finish")])
    };
    node.launch_custom(group.clone());
    node.launch_custom(group);
    let second = node.coordinator.update(&b, TaskState::TaskRunning).await;
    assert_eq!(second.container_id, running.container_id);
    let finished = node.coordinator.terminal(&c).await;
    assert_eq!(words(&finished), (TaskState::TaskFinished, None));
    node.line(&running.sandbox, "event LAUNCH_GROUP").await;

    node.coordinator.kill(&b, 1_000);
    let killed = node.coordinator.terminal(&b).await;
    assert_eq!(words(&killed), (TaskState::TaskKilled, None));
    let told = ExecutorMessage {
        framework_id: "fw".into(),
        executor_id: id.into(),
        data: b"abc".to_vec(),
    };
    node.coordinator.say(to_agent::Kind::ExecutorMessage(told));
    for want in [b"hello", b"cba".as_slice()] {
        node.coordinator
            .until("a message", |heard| {
                let mine = |it: &&ExecutorMessage| it.executor_id == id && it.data == want;
                heard.messages.iter().find(mine).map(drop)
            })
            .await;
    }
    assert_eq!(
        node.coordinator.states(&a),
        [TaskState::TaskRunning],
        "and nothing twice"
    );
    node.shutdown(id, None);
    let ended = node.coordinator.terminal(&a).await;
    assert_eq!(words(&ended), (TaskState::TaskKilled, None));
    assert_eq!(node.executor_ended(id).await, 0);
}

/// As the executor found it.
pub(crate) fn environment(update: &StatusUpdate) -> BTreeMap<String, String> {
    let env = std::fs::read_to_string(Path::new(&update.sandbox).join("env")).unwrap();
    let pairs = env.split('\0').filter_map(|it| it.split_once('='));
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn environment_is_as_said(running: &StatusUpdate, id: &str) {
    let env = environment(running);
    let endpoint = env["MESOS_AGENT_ENDPOINT"].as_str();
    let pid = format!("slave(1)@{endpoint}");
    for (name, value) in [
        ("MESOS_FRAMEWORK_ID", "fw"),
        ("MESOS_EXECUTOR_ID", id),
        ("MESOS_DIRECTORY", running.sandbox.as_str()),
        ("MESOS_SANDBOX", "/mnt/mesos/sandbox"),
        ("MESOS_SLAVE_ID", "S0"),
        ("MESOS_SLAVE_PID", pid.as_str()),
        ("MESOS_CHECKPOINT", "1"),
        ("MESOS_HTTP_COMMAND_EXECUTOR", "0"),
        ("MESOS_DOMAIN_SOCKET", "/mnt/mesos/agent/executor.sock"),
        ("MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD", "5secs"),
        ("MESOS_RECOVERY_TIMEOUT", "15mins"),
        ("MESOS_SUBSCRIPTION_BACKOFF_MAX", "15secs"),
        ("LIBPROCESS_PORT", "0"),
    ] {
        assert_eq!(env.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(!env.contains_key("MESOS_TASK_ID"));
    assert_eq!(
        env["MESOS_EXECUTOR_AUTHENTICATION_TOKEN"]
            .split('.')
            .count(),
        3
    );
    let path = format!(
        "slaves/S0/frameworks/fw/executors/{id}/runs/{}",
        running.container_id
    );
    assert!(running.sandbox.ends_with(&path), "{}", running.sandbox);
}

/// What is said of tasks when their executor ends, or never comes.
pub(crate) fn ends_of_an_executor() {
    run(async {
        let mut node = Node::start().await;
        // By itself, with a task that runs, one that was given and one that ended before.
        node.launch_custom(launch(
            &executor("quits", "protobuf"),
            &[
                task("q1", "run"),
                task("q2", "finish"),
                task("q3", "exit=7"),
            ],
        ));
        assert_eq!(node.executor_ended("quits").await, 7 << 8);
        for (id, want) in [
            ("q1", TaskState::TaskFailed),
            ("q2", TaskState::TaskFinished),
        ] {
            assert_eq!(state(&node.coordinator.terminal(id).await), want);
        }
        let lost = node.coordinator.terminal("q3").await;
        let terminated = (TaskState::TaskFailed, Some("REASON_EXECUTOR_TERMINATED"));
        assert_eq!(words(&lost), terminated);
        assert!(
            lost.message.contains("exited with status 7"),
            "{}",
            lost.message
        );

        // Its program is not there.
        node.launch_custom(launch(&executor_of("none", "exit 3"), &[task("n1", "run")]));
        assert_eq!(words(&node.coordinator.terminal("n1").await), terminated);

        stubborn(&node).await;
        // A task that is killed before its executor has heard of it, which then has none.
        node.launch_custom(launch(&executor("late", "json mute"), &[task("l1", "run")]));
        node.coordinator.kill("l1", 1_000);
        let killed = (
            TaskState::TaskKilled,
            Some("REASON_TASK_KILLED_DURING_LAUNCH"),
        );
        assert_eq!(words(&node.coordinator.terminal("l1").await), killed);
        node.executor_ended("late").await;

        // What cannot be.
        let mut other = executor("bad", "json");
        other.r#type = Some(executor_info::Type::Default as i32);
        node.launch_custom(launch(&other, &[task("b1", "run")]));
        let refused = (TaskState::TaskError, Some("REASON_TASK_INVALID"));
        assert_eq!(words(&node.coordinator.terminal("b1").await), refused);
        node.no_customs().await;
        assert!(node.end(Signal::INT));

        never_comes(&mut node).await;
    });
}

async fn stubborn(node: &Node) {
    // It does not heed SHUTDOWN.
    let stubborn = format!("STUBBORN=1 exec {} executor json", own_copy().display());
    let info = executor_of("stubborn", &stubborn);
    node.launch_custom(launch(&info, &[task("stubborn-1", "run")]));
    let running = node
        .coordinator
        .update("stubborn-1", TaskState::TaskRunning);
    let running = running.await;
    node.shutdown("stubborn", Some(200));
    node.line(&running.sandbox, "event SHUTDOWN").await;
    let terminated = (TaskState::TaskFailed, Some("REASON_EXECUTOR_TERMINATED"));
    assert_eq!(
        words(&node.coordinator.terminal("stubborn-1").await),
        terminated
    );
    assert_eq!(node.executor_ended("stubborn").await, 15, "SIGTERM");
}

async fn never_comes(node: &mut Node) {
    node.executor_times.register_ms = 300;
    node.start_agent().await;
    node.launch_custom(launch(&executor("mute", "json mute"), &[task("m1", "run")]));
    let never = node.coordinator.terminal("m1").await;
    let timeout = (
        TaskState::TaskFailed,
        Some("REASON_EXECUTOR_REGISTRATION_TIMEOUT"),
    );
    assert_eq!(words(&never), timeout);
    node.no_customs().await;
}

/// kill -9 of the agent: executors come back by themselves, with what was not acknowledged; one that
/// does not is ended, as is one whose framework is not checkpointed.
pub(crate) fn an_executor_outlives_the_agent() {
    run(async {
        let mut node = Node::start().await;
        let info = executor("stays", "protobuf");
        node.launch_custom(launch(&info, &[task("s1", "run")]));
        let tcp = executor("stays-tcp", "json tcp");
        node.launch_custom(launch(&tcp, &[task("s2", "run")]));
        let frail = LaunchCustom {
            framework: Some(framework(false).into()),
            ..launch(&executor("frail", "json"), &[task("f1", "run")])
        };
        node.launch_custom(frail);
        let mut running = Vec::new();
        for id in ["s1", "s2", "f1"] {
            running.push(node.coordinator.update(id, TaskState::TaskRunning).await);
        }
        node.kill_9();
        for update in &running {
            node_less_line(update, "disconnected").await;
        }
        node.start_agent().await;
        let listed = {
            let heard = node.coordinator.heard.lock().unwrap();
            heard.registers.last().unwrap().tasks.clone()
        };
        let known: Vec<&str> = listed.iter().map(|task| task.task_id.as_str()).collect();
        assert_eq!(
            known,
            ["f1", "s1", "s2"],
            "registered without waiting for executors"
        );
        // It ended itself, as it was told to, or the agent was faster.
        let gone = [
            (TaskState::TaskFailed, Some("REASON_EXECUTOR_TERMINATED")),
            (TaskState::TaskLost, Some("REASON_AGENT_RESTARTED")),
        ];
        let ended = node.coordinator.terminal("f1").await;
        assert!(gone.contains(&words(&ended)), "{ended:?}");

        // The old executor takes new tasks, and its old ones are its own.
        node.launch_custom(launch(&info, &[task("s3", "run")]));
        let third = node.coordinator.update("s3", TaskState::TaskRunning).await;
        assert_eq!(third.container_id, running[0].container_id);
        for id in ["s1", "s2"] {
            node.coordinator.kill(id, 1_000);
            let killed = node.coordinator.terminal(id).await;
            assert_eq!(words(&killed), (TaskState::TaskKilled, None), "{id}");
        }
        node.executor_times.reregister_ms = 300;
        rustix::process::kill_process(program(&third), Signal::STOP).unwrap();
        node.kill_9();
        node.start_agent().await;
        let lost = node.coordinator.terminal("s3").await;
        let timeout = (
            TaskState::TaskLost,
            Some("REASON_EXECUTOR_REREGISTRATION_TIMEOUT"),
        );
        assert_eq!(words(&lost), timeout);
    });
}

/// The process of an executor on the node.
fn program(update: &StatusUpdate) -> rustix::process::Pid {
    let mine = format!("MESOS_DIRECTORY={}", update.sandbox);
    let has = |pid: &u32| {
        let env = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        env.split(|&byte| byte == 0).any(|it| it == mine.as_bytes())
    };
    let pid = processes().into_iter().find(has).unwrap();
    rustix::process::Pid::from_raw(pid.cast_signed()).unwrap()
}

/// As [`Node::line`], while no agent lives.
async fn node_less_line(update: &StatusUpdate, line: &str) {
    let path = Path::new(&update.sandbox).join("stdout");
    let deadline = Instant::now() + PATIENCE;
    while !std::fs::read_to_string(&path)
        .unwrap()
        .lines()
        .any(|it| it == line)
    {
        assert!(Instant::now() < deadline, "no line {line:?}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

pub(crate) fn me(executor: &str) -> Name {
    Name {
        framework: "fw".into(),
        executor: executor.into(),
    }
}

/// An executor that does nothing, whose place the test takes at its door.
pub(crate) async fn puppet(node: &Node, id: &str, tasks: &[TaskInfo]) -> String {
    node.launch_custom(launch(&executor(id, "json mute"), tasks));
    let dir = node.data().join("doors");
    let door = move |_: &_| {
        let mut doors = std::fs::read_dir(&dir).ok()?;
        // The latest one is wanted, and tests make one at a time.
        let mut found: Vec<_> = doors.by_ref().flatten().collect();
        found.sort_by_key(|it| it.metadata().and_then(|it| it.created()).ok());
        let socket = found.last()?.path().join("executor.sock");
        socket
            .exists()
            .then(|| socket.to_string_lossy().into_owned())
    };
    node.coordinator.until("the executor's socket", door).await
}

pub(crate) fn subscribed(agent: &Agent, name: &Name, tasks: &[&str]) -> Reply {
    let subscribe = call::Subscribe {
        unacknowledged_tasks: tasks.iter().map(|id| task(id, "")).collect(),
        ..call::Subscribe::default()
    };
    let call = name.subscribe(subscribe);
    // Not before its process runs.
    let deadline = Instant::now() + PATIENCE;
    let mut reply = loop {
        let reply = agent.call(&call).unwrap();
        if reply.status == 200 || Instant::now() > deadline {
            break reply;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    assert_eq!(reply.status, 200);
    assert_eq!(reply.headers["transfer-encoding"], "chunked");
    let first = reply.next().unwrap();
    assert_eq!(first.r#type(), event::Type::Subscribed);
    reply
}

pub(crate) fn kinds(reply: &mut Reply, count: usize) -> Vec<&'static str> {
    (0..count)
        .map(|_| reply.next().unwrap().r#type().name())
        .collect()
}

/// What an executor does not list when it comes back it has not heard of; what it repeats is not
/// passed on twice; what was asked of it while it was away it hears.
pub(crate) fn what_was_not_heard_is_dropped() {
    run(async {
        let mut node = Node::start().await;
        let tasks = [task("d1", ""), task("d2", ""), task("d3", "")];
        let door = puppet(&node, "puppet", &tasks).await;
        let (agent, name) = (Agent::at(&door, Encoding::Json), me("puppet"));
        let mut first = subscribed(&agent, &name, &[]);
        assert_eq!(kinds(&mut first, 3), ["LAUNCH"; 3]);
        let running = status("d3", V1State::TaskRunning, 3);
        assert_eq!(
            agent.call(&name.update(running.clone())).unwrap().status,
            202
        );
        assert_eq!(kinds(&mut first, 1), ["ACKNOWLEDGED"]);
        node.coordinator.update("d3", TaskState::TaskRunning).await;

        // A second one takes the place of the first, which ends.
        let again = call::Subscribe {
            unacknowledged_tasks: vec![task("d1", "")],
            unacknowledged_updates: [running, status("d1", V1State::TaskStarting, 1)]
                .map(|status| call::Update { status })
                .to_vec(),
        };
        let mut second = agent.call(&name.subscribe(again)).unwrap();
        assert!(first.next().is_none(), "the first stream ends");
        let heard = kinds(&mut second, 3);
        assert_eq!(heard, ["SUBSCRIBED", "ACKNOWLEDGED", "ACKNOWLEDGED"]);
        let dropped = node.coordinator.terminal("d2").await;
        let lost = (TaskState::TaskLost, Some("REASON_AGENT_RESTARTED"));
        assert_eq!(words(&dropped), lost);
        node.coordinator.update("d1", TaskState::TaskStarting).await;
        assert_eq!(node.coordinator.states("d3"), [TaskState::TaskRunning]);

        // While it is away a task is killed.
        drop(second);
        node.coordinator.kill("d1", 1_500);
        let mut third = subscribed(&agent, &name, &["d1"]);
        let kill = third.next().unwrap();
        let policy = kill.kill.unwrap().kill_policy.unwrap();
        assert_eq!(policy.grace_period.unwrap().nanoseconds, 1_500_000_000);

        // The agent dies after it took an update, and before anyone heard of that.
        node.coordinator.heard.lock().unwrap().deaf = true;
        let killed = status("d1", V1State::TaskKilled, 11);
        assert_eq!(
            agent.call(&name.update(killed.clone())).unwrap().status,
            202
        );
        assert_eq!(kinds(&mut third, 1), ["ACKNOWLEDGED"]);
        node.kill_9();
        node.coordinator.heard.lock().unwrap().deaf = false;
        node.start_agent().await;
        let mut fourth = subscribed(&agent, &name, &[]);
        assert_eq!(agent.call(&name.update(killed)).unwrap().status, 202);
        assert_eq!(kinds(&mut fourth, 1), ["ACKNOWLEDGED"]);
        let end = node.coordinator.terminal("d1").await;
        assert_eq!(words(&end), (TaskState::TaskKilled, None));
        assert_eq!(end.uuid, 11_u128.to_be_bytes());
        let states = node.coordinator.states("d1");
        assert_eq!(states, [TaskState::TaskStarting, TaskState::TaskKilled]);
        assert_eq!(node.coordinator.states("d3"), [TaskState::TaskRunning]);
    });
}
