//! A whole coordinator in a temporary directory with agents that speak the real protocol over
//! the real socket and run nothing.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use gantry_coordinator_core::service::request;
use gantry_coordinator_core::{Outcome, State};
use gantry_wire::agent::{
    FromAgent, KnownTask, Launch, Register, ResourcesMessage, StatusUpdate, ToAgent, from_agent,
    to_agent,
};
use gantry_wire::ids::{AgentId, TaskId};
use gantry_wire::task::TaskState;
use prost::Message;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::*;

const SOON: Duration = Duration::from_secs(20);

fn config(home: &Path) -> Config {
    Config {
        data_dir: home.join("coordinator"),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        agent_socket: home.join("coordinator/agent.sock"),
        agents: None,
        cluster_name: "test".to_owned(),
        hostname: "127.0.0.1".to_owned(),
    }
}

async fn begin() -> (TempDir, Running) {
    let home = tempfile::tempdir().unwrap();
    let running = start(config(home.path())).await.unwrap();
    (home, running)
}

/// Waits until the state satisfies the condition.
async fn until(handle: &Handle, what: &str, condition: impl Fn(&State) -> bool) {
    let mut changes = handle.changes();
    let met = changes.wait_for(|latest| condition(&latest.state));
    if timeout(SOON, met).await.is_err() {
        panic!(
            "waited too long for {what}; the state is {:#?}",
            handle.state()
        );
    }
}

/// An agent that runs nothing.
struct FakeAgent {
    stream: UnixStream,
    id: String,
}

impl FakeAgent {
    async fn connect(home: &Path, id: &str, tasks: Vec<KnownTask>) -> Self {
        let stream = UnixStream::connect(home.join("coordinator/agent.sock"))
            .await
            .unwrap();
        let mut agent = Self {
            stream,
            id: String::new(),
        };
        let resources = ResourcesMessage {
            cpus_milli: 4_000,
            mem_bytes: 4 << 30,
            disk_bytes: 4 << 30,
            gpus: 0,
            ports: vec![31_000, 32_000],
        };
        let register = Register {
            agent_id: id.to_owned(),
            hostname: "127.0.0.1".to_owned(),
            http_address: "127.0.0.1:1".to_owned(),
            resources: Some(resources),
            tasks,
            ..Register::default()
        };
        agent.say(from_agent::Kind::Register(register)).await;
        match agent.hear().await {
            Some(to_agent::Kind::Registered(registered)) => agent.id = registered.agent_id,
            other => panic!("{other:?}"),
        }
        agent
    }

    async fn say(&mut self, kind: from_agent::Kind) {
        let bytes = FromAgent { kind: Some(kind) }.encode_to_vec();
        self.stream
            .write_u32(u32::try_from(bytes.len()).unwrap())
            .await
            .unwrap();
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// The next message that is no heartbeat; `None` at the end of the connection.
    async fn hear(&mut self) -> Option<to_agent::Kind> {
        timeout(SOON, async {
            loop {
                let length = self.stream.read_u32().await.ok()?;
                let mut bytes = vec![0; length as usize];
                self.stream.read_exact(&mut bytes).await.ok()?;
                let message = ToAgent::decode(&bytes[..]).unwrap();
                if message.kind.is_some() {
                    return message.kind;
                }
            }
        })
        .await
        .expect("a message or the end")
    }

    async fn launch(&mut self) -> Launch {
        match self.hear().await {
            Some(to_agent::Kind::Launch(launch)) => launch,
            other => panic!("{other:?}"),
        }
    }

    /// Reports a state and waits for the acknowledgement of exactly that report.
    async fn report(&mut self, task_id: &str, state: TaskState) {
        let uuid = mint::uuid().into_bytes()[..16].to_vec();
        let update = StatusUpdate {
            task_id: task_id.to_owned(),
            uuid: uuid.clone(),
            state: state as i32,
            timestamp_ms: mint::now().0,
            ..StatusUpdate::default()
        };
        self.say(from_agent::Kind::Status(update)).await;
        match self.hear().await {
            Some(to_agent::Kind::Acknowledge(ack)) => {
                assert_eq!((ack.task_id.as_str(), ack.uuid), (task_id, uuid));
            }
            other => panic!("{other:?}"),
        }
    }
}

async fn post(handle: &Handle, body: &str) {
    let kind = request::post_app(&handle.state(), body.as_bytes(), false, &mut handle.ids());
    let proposed = handle.propose(kind.unwrap()).await.unwrap();
    assert!(
        matches!(proposed.outcome, Outcome::Deploying { .. }),
        "{:?}",
        proposed.outcome
    );
}

fn state_of(state: &State, task: &str) -> Option<TaskState> {
    state
        .task(&TaskId::parse(task).unwrap())
        .map(|task| task.state)
}

const HELLO: &str = r#"{"id":"/hello","cmd":"sleep 1000","cpus":0.1,"mem":32,"instances":1}"#;

#[tokio::test]
async fn an_app_is_launched_runs_and_every_report_is_acknowledged_after_it_is_durable() {
    let (home, running) = begin().await;
    let handle = running.handle();
    let mut agent = FakeAgent::connect(home.path(), "", Vec::new()).await;
    let agent_id = AgentId::parse(agent.id.clone()).unwrap();
    assert_eq!(
        handle.agent_address(&agent_id).as_deref(),
        Some("127.0.0.1:1")
    );
    post(handle, HELLO).await;
    let launch = agent.launch().await;
    assert_eq!(launch.shell, "sleep 1000");
    assert_eq!(
        state_of(&handle.state(), &launch.task_id),
        Some(TaskState::TaskStaging)
    );
    agent.report(&launch.task_id, TaskState::TaskStarting).await;
    assert_eq!(
        state_of(&handle.state(), &launch.task_id),
        Some(TaskState::TaskStarting)
    );
    agent.report(&launch.task_id, TaskState::TaskRunning).await;
    assert_eq!(
        state_of(&handle.state(), &launch.task_id),
        Some(TaskState::TaskRunning)
    );
    until(handle, "the end of the deployment", |s| {
        s.deployments().iter().count() == 0
    })
    .await;
    assert!(handle.queue().await.unwrap().is_empty());

    // The agent restarts the connection: nothing is launched again.
    let known = vec![KnownTask {
        task_id: launch.task_id.clone(),
        state: 1,
    }];
    let id = agent.id.clone();
    let mut again = FakeAgent::connect(home.path(), &id, known).await;
    assert_eq!(again.id, id);
    assert_eq!(agent.hear().await, None, "the older connection is cut");
    again.report(&launch.task_id, TaskState::TaskFailed).await;
    assert_eq!(
        state_of(&handle.state(), &launch.task_id),
        Some(TaskState::TaskFailed)
    );

    // It goes away: it counts as disconnected.
    drop(again);
    until(handle, "the disconnection", |s| {
        !s.agent(&agent_id).unwrap().active
    })
    .await;
    assert!(!handle.agent_connected(&agent_id));
    running.shutdown().await;
}

#[tokio::test]
async fn a_launch_that_got_lost_is_sent_again_when_the_agent_is_back() {
    let (home, running) = begin().await;
    let mut agent = FakeAgent::connect(home.path(), "", Vec::new()).await;
    post(running.handle(), HELLO).await;
    let launch = agent.launch().await;
    let id = agent.id.clone();
    drop(agent);
    let mut agent = FakeAgent::connect(home.path(), &id, Vec::new()).await;
    assert_eq!(agent.launch().await, launch);
    agent.report(&launch.task_id, TaskState::TaskRunning).await;

    let handle = running.handle();
    until(handle, "the end of the deployment", |s| {
        s.deployments().iter().count() == 0
    })
    .await;

    // Also when the coordinator was away in between, without a clean stop of anything.
    let second = tempfile::tempdir().unwrap();
    copy(
        &home.path().join("coordinator"),
        &second.path().join("coordinator"),
    );
    let restarted = start(config(second.path())).await.unwrap();
    let state = restarted.handle().state();
    assert_eq!(
        state_of(&state, &launch.task_id),
        Some(TaskState::TaskRunning)
    );
    assert_eq!(*state, *running.handle().state());
    let mut agent = FakeAgent::connect(second.path(), &id, Vec::new()).await;
    // It ran when last seen and the agent does not know it: gone, and replaced.
    let next = agent.launch().await;
    assert_ne!(next.task_id, launch.task_id);
    assert_eq!(
        state_of(&restarted.handle().state(), &launch.task_id),
        Some(TaskState::TaskGone)
    );
    restarted.shutdown().await;
    running.shutdown().await;
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn an_agent_with_an_impossible_id_is_refused_with_the_reason() {
    let (home, running) = begin().await;
    let stream = UnixStream::connect(home.path().join("coordinator/agent.sock"))
        .await
        .unwrap();
    let mut agent = FakeAgent {
        stream,
        id: String::new(),
    };
    let register = Register {
        agent_id: "../etc".to_owned(),
        ..Register::default()
    };
    agent.say(from_agent::Kind::Register(register)).await;
    match agent.hear().await {
        Some(to_agent::Kind::Refused(why)) => assert!(why.contains("../etc"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(agent.hear().await, None);
    running.shutdown().await;
}

#[tokio::test]
async fn an_agent_of_another_cluster_is_refused_and_its_tasks_are_not_compared() {
    let (home, running) = begin().await;
    let ours = running.handle().state().cluster().unwrap().id.clone();
    for (cluster_id, welcome) in [("another", false), (ours.as_str(), true), ("", true)] {
        let stream = UnixStream::connect(home.path().join("coordinator/agent.sock"))
            .await
            .unwrap();
        let mut agent = FakeAgent {
            stream,
            id: String::new(),
        };
        let known = KnownTask {
            task_id: "theirs".to_owned(),
            state: 1,
        };
        let register = Register {
            agent_id: "old-S0".to_owned(),
            cluster_id: cluster_id.to_owned(),
            tasks: vec![known],
            ..Register::default()
        };
        agent.say(from_agent::Kind::Register(register)).await;
        match agent.hear().await {
            Some(to_agent::Kind::Refused(why)) if !welcome => {
                assert!(why.contains("another") && why.contains(&ours), "{why}");
                assert_eq!(agent.hear().await, None);
            }
            Some(to_agent::Kind::Registered(registered)) if welcome => {
                assert_eq!(registered.cluster_id, ours);
            }
            other => panic!("{cluster_id}: {other:?}"),
        }
    }
    running.shutdown().await;
}

#[tokio::test]
async fn a_log_that_is_gone_is_not_a_new_cluster() {
    let (home, running) = begin().await;
    let id = running.handle().state().cluster().unwrap().id.clone();
    running.shutdown().await;
    let coordinator = home.path().join("coordinator");
    let marker = coordinator.join("cluster.id");
    assert_eq!(std::fs::read_to_string(&marker).unwrap(), format!("{id}\n"));
    let kept = home.path().join("kept");
    std::fs::rename(coordinator.join("log"), &kept).unwrap();

    let refused = || async {
        let error = start(config(home.path())).await.err().unwrap();
        error.to_string()
    };
    for snapshots in [true, false] {
        if !snapshots {
            std::fs::remove_dir_all(coordinator.join("snapshot")).unwrap();
        }
        let error = refused().await;
        assert!(
            error.contains("cluster.id") && error.contains(&id),
            "{error}"
        );
        assert!(error.contains("Restore"), "{error}");
    }
    // Emptied instead of deleted.
    std::fs::remove_dir(coordinator.join("log")).unwrap();
    copy(&kept, &coordinator.join("log"));
    for file in std::fs::read_dir(coordinator.join("log"))
        .unwrap()
        .flatten()
    {
        std::fs::write(file.path(), "").unwrap();
    }
    let error = start(config(home.path())).await.err().unwrap();
    assert!(matches!(error, StartError::Consensus(_)), "{error}");
    // Restored: all is as before. A log of another cluster is not taken.
    std::fs::remove_dir_all(coordinator.join("log")).unwrap();
    copy(&kept, &coordinator.join("log"));
    let running = start(config(home.path())).await.unwrap();
    assert_eq!(running.handle().state().cluster().unwrap().id, id);
    running.shutdown().await;
    std::fs::write(&marker, "other\n").unwrap();
    let error = refused().await;
    assert!(error.contains("cluster other, but"), "{error}");
    // Without a marker, as before there were any, it is written.
    std::fs::remove_file(&marker).unwrap();
    start(config(home.path())).await.unwrap().shutdown().await;
    assert_eq!(std::fs::read_to_string(&marker).unwrap(), format!("{id}\n"));
}

#[tokio::test]
async fn only_loopback_is_served_and_a_directory_only_once() {
    let home = tempfile::tempdir().unwrap();
    let listen = SocketAddr::from(([0, 0, 0, 0], 0));
    let error = start(Config {
        listen,
        ..config(home.path())
    })
    .await
    .err()
    .unwrap();
    assert!(error.to_string().contains("no authentication"), "{error}");
    let running = start(config(home.path())).await.unwrap();
    let error = start(config(home.path())).await.err().unwrap();
    assert!(
        error
            .to_string()
            .contains(&format!("process {}", std::process::id())),
        "{error}"
    );
    running.shutdown().await;
    // What was stopped can be started again.
    start(config(home.path())).await.unwrap().shutdown().await;
}

#[tokio::test]
async fn the_agents_socket_is_private_and_goes_with_the_coordinator() {
    use std::os::unix::fs::PermissionsExt;
    let (home, running) = begin().await;
    let socket = home.path().join("coordinator/agent.sock");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode(&home.path().join("coordinator")), mode(&socket)),
        (0o700, 0o600)
    );
    running.shutdown().await;
    assert!(!socket.exists());
}

#[tokio::test]
async fn a_command_without_effect_is_answered_by_its_rejection() {
    let (_home, running) = begin().await;
    let kind = request::reset_delay(&gantry_wire::ids::AppId::parse("/none").unwrap());
    let before = running.handle().changes().borrow().index;
    let proposed = running.handle().propose(kind).await.unwrap();
    assert!(
        matches!(proposed.outcome, Outcome::Rejected(_)),
        "{:?}",
        proposed.outcome
    );
    assert!(proposed.index > before && running.handle().changes().borrow().index >= proposed.index);
    assert!(running.handle().is_leader());
    running.shutdown().await;
}
