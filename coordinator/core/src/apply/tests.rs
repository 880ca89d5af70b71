//! Commands that make no sense, and what each kind leaves behind.

use gantry_wire::agent::{ResourcesMessage, StatusUpdate};
use gantry_wire::task::TaskState;

use super::*;
use crate::command::{
    AgentStatus, AppUpsert, CancelDeployment, ChangeApp, DisconnectAgent, Expect, FinishDeployment,
    InitCluster, Kill, KillTasks, Launch, LaunchTask, PutApps, RegisterAgent, ResetDelay,
    TaskStatuses,
};
use crate::service::scheduler::world::World;

fn upsert(definition: &str, expect: Expect) -> Kind {
    let app = AppUpsert {
        definition: definition.as_bytes().to_vec(),
        expect: expect as i32,
        expected_version_ms: 5,
    };
    Kind::PutApps(PutApps {
        apps: vec![app],
        force: false,
        deployment_id: "d".to_owned(),
    })
}

const MINIMAL: &str = include_str!("../../testdata/minimal_definition.json");

#[test]
fn malformed_commands_are_rejected_and_change_nothing() {
    let bad = || "a/b\0".to_owned();
    let change = || ChangeApp {
        app_id: bad(),
        force: true,
        deployment_id: bad(),
    };
    let kinds = [
        Kind::InitCluster(InitCluster {
            cluster_id: "x/y".to_owned(),
        }),
        Kind::RegisterAgent(RegisterAgent {
            agent_id: bad(),
            ..RegisterAgent::default()
        }),
        Kind::DisconnectAgent(DisconnectAgent { agent_id: bad() }),
        Kind::RemoveAgent(DisconnectAgent {
            agent_id: "nobody".to_owned(),
        }),
        upsert("{}", Expect::Any),
        upsert("not json", Expect::Any),
        upsert(MINIMAL, Expect::Version),
        Kind::PutApps(PutApps {
            deployment_id: bad(),
            ..PutApps::default()
        }),
        Kind::DeleteApp(change()),
        Kind::RestartApp(change()),
        Kind::FinishDeployment(FinishDeployment {
            deployment_id: "none".to_owned(),
        }),
        Kind::CancelDeployment(CancelDeployment::default()),
        Kind::ResetDelay(ResetDelay { app_id: bad() }),
    ];
    for kind in kinds {
        let mut state = State::default();
        let applied = apply(&mut state, 9, &Command::new(Millis(3), kind.clone()));
        assert!(matches!(applied.outcome, Outcome::Rejected(_)), "{kind:?}");
        let untouched = State {
            applied_index: 9,
            now: Millis(3),
            ..State::default()
        };
        assert!(state == untouched, "{kind:?}");
    }
}

#[test]
fn batches_leave_out_what_makes_no_sense() {
    let mut world = World::new(1);
    let before = world.state.clone();
    let status = |id: &str, state: i32| AgentStatus {
        agent_id: "agent-0".to_owned(),
        status: Some(StatusUpdate {
            task_id: id.to_owned(),
            state,
            ..StatusUpdate::default()
        }),
    };
    let updates = vec![
        status("", 1),
        status("x", 99),
        status("x", 1),
        AgentStatus::default(),
    ];
    let kinds = [
        Kind::TaskStatuses(TaskStatuses { updates }),
        Kind::Launch(Launch {
            tasks: vec![LaunchTask::default()],
        }),
        Kind::Kill(Kill {
            task_ids: vec!["x".to_owned(), String::new()],
            reason: 77,
        }),
        Kind::KillTasks(KillTasks {
            scale: true,
            ..KillTasks::default()
        }),
    ];
    for kind in kinds {
        let outcome = world.apply(kind);
        assert!(!matches!(outcome, Outcome::Rejected(_)));
    }
    let mut now = world.state.clone();
    now.applied_index = before.applied_index;
    assert!(now == before);
}

#[test]
fn states_of_a_task_never_go_back_and_only_its_agent_may_speak() {
    let mut world = World::new(2);
    world.put(&World::app("/a", "one", 1), false);
    world.settle();
    let id = world.tasks("/a")[0].clone();
    let agent = world.state.task(&id).unwrap().agent_id.to_string();
    let other = if agent == "agent-0" {
        "agent-1"
    } else {
        "agent-0"
    };
    let mut say = |agent: &str, state: TaskState, message: &str| {
        let status = StatusUpdate {
            task_id: id.to_string(),
            state: state as i32,
            message: message.to_owned(),
            ..StatusUpdate::default()
        };
        let agent_id = agent.to_owned();
        let updates = vec![AgentStatus {
            agent_id,
            status: Some(status),
        }];
        world.apply(Kind::TaskStatuses(TaskStatuses { updates }));
        let task = world.state.task(&id).unwrap();
        (task.state, task.message.len())
    };
    let running = TaskState::TaskRunning;
    assert_eq!(say(&agent, TaskState::TaskStarting, "late").0, running);
    assert_eq!(say(other, TaskState::TaskFailed, "not mine").0, running);
    assert_eq!(
        say(&agent, TaskState::TaskUnreachable, "cannot be").0,
        running
    );
    assert_eq!(say(&agent, running, &"é".repeat(4000)), (running, 4096));
    assert_eq!(
        say(&agent, TaskState::TaskFailed, "end").0,
        TaskState::TaskFailed
    );
    assert_eq!(
        say(&agent, running, "after the end").0,
        TaskState::TaskFailed
    );
}

#[test]
fn service_ports_are_unique_and_stay() {
    let mut world = World::new(1);
    let port = |world: &World, id: &str| {
        let id = AppId::parse(id).unwrap();
        world.state.app(&id).unwrap().spec.service_ports()
    };
    world.put(&World::app("/a", "one", 0), true);
    world.put(&World::app("/b", "one", 0), true);
    assert_eq!(
        (port(&world, "/a"), port(&world, "/b")),
        (vec![10_000], vec![10_001])
    );
    let mut two = World::app("/a", "one", 0);
    two["portDefinitions"] = serde_json::json!([{"port": 0}, {"port": 10_002}, {"port": 0}]);
    world.put(&two, true);
    assert_eq!(port(&world, "/a"), [10_000, 10_002, 10_003]);
    let delete = ChangeApp {
        app_id: "/b".to_owned(),
        force: true,
        deployment_id: "d".to_owned(),
    };
    world.apply(Kind::DeleteApp(delete));
    world.put(&World::app("/c", "one", 0), true);
    assert_eq!(port(&world, "/c"), [10_001]);
}

#[test]
fn a_removed_agent_takes_its_tasks_with_it() {
    let mut world = World::new(2);
    world.put(&World::app("/a", "one", 2), false);
    world.settle();
    world
        .agents
        .get_mut(&AgentId::parse("agent-0").unwrap())
        .unwrap()
        .connected = false;
    let agent_id = "agent-0".to_owned();
    assert_eq!(
        world.apply(Kind::RemoveAgent(DisconnectAgent { agent_id })),
        Outcome::Done
    );
    assert_eq!(world.state.agents().len(), 1);
    world.tick(10_000);
    world.settle();
    let hosts: Vec<&str> = world
        .state
        .tasks()
        .iter_live()
        .map(|task| task.agent_id.as_str())
        .collect();
    assert_eq!(hosts, ["agent-1", "agent-1"]);
}

#[test]
fn completed_tasks_are_bounded() {
    let mut world = World::new(1);
    let mut app = World::app("/a", "one", 1);
    app["backoffSeconds"] = 0.into();
    world.put(&app, false);
    for _ in 0..30 {
        world.settle();
        let task = world.tasks("/a")[0].clone();
        world.report(&task, TaskState::TaskFailed);
        world.settle();
    }
    let app = AppId::parse("/a").unwrap();
    let kept = world.state.tasks().completed_of_app(&app).count();
    assert_eq!(kept, crate::state::tasks::COMPLETED_PER_APP_MAX);
    assert_eq!(world.state.tasks().iter_completed().count(), kept);
}

#[test]
fn no_bytes_make_a_snapshot_panic() {
    let mut world = World::new(2);
    world.put(&World::app("/a", "one", 3), false);
    world.settle();
    let bytes = world.state.encode();
    assert!(State::decode(&bytes).unwrap() == world.state);
    for at in 0..bytes.len() {
        let mut broken = bytes.clone();
        broken[at] ^= 0x55;
        let _ = State::decode(&broken);
        let _ = State::decode(&bytes[..at]);
    }
    let resources = ResourcesMessage {
        ports: vec![5, 1, 70_000, 80_000, 9],
        ..Default::default()
    };
    let agent_id = "odd".to_owned();
    let register = RegisterAgent {
        agent_id,
        resources: Some(resources),
        ..RegisterAgent::default()
    };
    assert_eq!(world.apply(Kind::RegisterAgent(register)), Outcome::Done);
}
