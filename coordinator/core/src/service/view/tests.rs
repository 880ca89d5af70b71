//! The JSON of the APIs against the golden files in `testdata/`.

use serde_json::{Value, json};

use super::*;
use crate::mesos_view::{self, MasterInfo};
use crate::outcome::Rejection;
use crate::service::answer;
use crate::service::request::{self, PutMode, RequestError};
use crate::service::scheduler::world::World;

fn golden(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// Compares, and prints what was found whole: the golden file is made from it by hand.
#[track_caller]
fn same(found: &Value, want: &str) {
    let pretty = serde_json::to_string_pretty(found).unwrap();
    assert!(*found == golden(want), "found\n{pretty}");
}

/// One app with a running and a failed task, one that waits for room.
fn world() -> World {
    let mut world = World::new(1);
    world.put(&World::app("/g/a", "one", 1), false);
    world.settle();
    let task = world.tasks("/g/a")[0].clone();
    world.report(&task, TaskState::TaskFailed);
    world.settle();
    world.tick(1_000);
    world.settle();
    let mut big = World::app("/big", "two", 2);
    big["mem"] = 4096.into();
    big["container"] = json!({"docker": {"image": "redis:7"}});
    big["networks"] = json!([{"mode": "container/bridge"}]);
    world.put(&big, false);
    world.settle();
    world
}

#[test]
fn marathons_json() {
    let world = world();
    let (state, now) = (&world.state, world.now.plus_ms(2_000));
    let record = state.app(&AppId::parse("/g/a").unwrap()).unwrap();
    let all = Embed {
        tasks: true,
        last_task_failure: true,
        task_stats: true,
    };
    same(
        &app_info(state, record, all, now),
        include_str!("../../../testdata/app_info.json"),
    );
    let deployments: Vec<Value> = state
        .deployments()
        .iter()
        .map(|d| deployment(state, d))
        .collect();
    same(
        &deployments.into(),
        include_str!("../../../testdata/deployments.json"),
    );
    let entries = world.scheduler.queue(state, now);
    same(
        &queue(state, &entries, now),
        include_str!("../../../testdata/queue.json"),
    );
}

#[test]
fn mesos_json() {
    let world = world();
    let info = MasterInfo {
        ip: "127.0.0.1".to_owned(),
        port: 5050,
        hostname: "localhost".to_owned(),
        version: "1.11.0".to_owned(),
        start_time: Millis(1_500),
        elected_time: Millis(2_500),
    };
    same(
        &mesos_view::state(&world.state, &info),
        include_str!("../../../testdata/mesos_state.json"),
    );
}

#[test]
fn a_created_app_has_no_tasks_and_its_deployment() {
    let mut world = World::new(1);
    let outcome = world.put(&World::app("/a", "one", 1), false);
    let record = world.state.app(&AppId::parse("/a").unwrap()).unwrap();
    let created = app_created(&world.state, record, &outcome);
    assert_eq!(
        (&created["tasks"], &created["tasksStaged"]),
        (&json!([]), &json!(0))
    );
    let answer = deploying(&outcome).unwrap();
    assert_eq!(
        created["deployments"],
        json!([{"id": answer["deploymentId"]}])
    );
    assert_eq!(answer["version"], created["version"]);
    assert_eq!(created["portDefinitions"][0]["port"], 10_000);
    assert_eq!(app(record, record.version).unwrap()["cmd"], "one");
    assert_eq!(app(record, Millis(1)), None);
}

#[test]
fn refusals_have_marathons_status_and_body() {
    let mut world = World::new(1);
    world.obedient = false;
    world.put(&World::app("/a", "one", 1), false);
    let post = |world: &mut World, body: &str| {
        request::post_app(&world.state, body.as_bytes(), false, &mut world.ids).unwrap_err()
    };
    let id = AppId::parse("/a").unwrap();
    let nope = AppId::parse("/nope").unwrap();
    let patch = request::put_app(
        &world.state,
        &nope,
        b"{}",
        PutMode::Patch,
        false,
        &mut world.ids,
    );
    let rollback = br#"{"version": "2020-01-01T00:00:00.000Z"}"#;
    let rollback = request::put_app(
        &world.state,
        &id,
        rollback,
        PutMode::Merge,
        false,
        &mut world.ids,
    );
    let mixed = br#"{"version": "2020-01-01T00:00:00.000Z", "cpus": 1}"#;
    let mixed = request::put_app(
        &world.state,
        &id,
        mixed,
        PutMode::Merge,
        false,
        &mut world.ids,
    );
    let many = br#"[{"id": "/b", "cmd": "x"}, {"id": "/b"}]"#;
    let many = request::put_apps(&world.state, many, PutMode::Merge, false, &mut world.ids);
    let locked = world.put(&World::app("/a", "two", 1), false);
    let Outcome::Rejected(locked) = locked else {
        panic!()
    };
    let answers: Vec<(u16, Value)> = vec![
        answer::request_error(&post(&mut world, "{")),
        answer::request_error(&post(&mut world, r#"{"id": 1}"#)),
        answer::request_error(&post(&mut world, r#"{"id": "/a", "cmd": "x"}"#)),
        answer::request_error(&post(&mut world, r#"{"id": "/b", "cmd": "x", "cpus": -1}"#)),
        answer::request_error(&patch.unwrap_err()),
        answer::request_error(&rollback.unwrap_err()),
        answer::request_error(&mixed.unwrap_err()),
        answer::request_error(&many.unwrap_err()),
        answer::request_error(&RequestError::BadQuery("no")),
        answer::rejection(&locked),
        answer::rejection(&Rejection::TooManyDeployments(100)),
    ];
    same(
        &json!(answers),
        include_str!("../../../testdata/refusals.json"),
    );
}
