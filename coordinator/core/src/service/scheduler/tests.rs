//! The scheduler by example, in a small world; `histories` has the random ones.

use gantry_wire::ids::{AgentId, AppId};
use gantry_wire::task::TaskState;
use gantry_wire::time::Millis;
use serde_json::json;

use super::world::World;
use crate::alloc::Refusal;
use crate::command::Kind;
use crate::outcome::{Outcome, Rejection};
use crate::service::request::{self, KillQuery};

fn id(text: &str) -> AppId {
    AppId::parse(text).unwrap()
}

#[test]
fn an_app_is_launched_and_its_deployment_ends() {
    let mut world = World::new(2);
    let outcome = world.put(&World::app("/a", "one", 3), false);
    assert!(matches!(outcome, Outcome::Deploying { .. }));
    assert_eq!(world.state.deployments().len(), 1);
    assert_eq!(world.proposals.len(), 1, "all launches are one command");
    world.settle();
    assert_eq!(world.running("/a", "one"), (3, 3));
    assert!(world.state.deployments().is_empty());
    let hosts: Vec<usize> = world
        .agents
        .values()
        .map(|agent| agent.tasks.len())
        .collect();
    assert_eq!(hosts, [2, 1]);
    // The same again changes nothing and locks nothing.
    let version = world.state.app(&id("/a")).unwrap().version;
    world.put(&World::app("/a", "one", 3), false);
    assert!(world.state.deployments().is_empty());
    assert_eq!(world.state.app(&id("/a")).unwrap().version, version);
}

#[test]
fn scaling_restarts_nothing_and_kills_the_youngest() {
    let mut world = World::new(2);
    world.put(&World::app("/a", "one", 2), false);
    world.settle();
    let first = world.tasks("/a");
    world.now = world.now.plus_ms(1_000);
    world.put(&World::app("/a", "one", 4), false);
    world.settle();
    assert!(
        first
            .iter()
            .all(|task| world.state.tasks().live(task).is_some())
    );
    assert_eq!(world.running("/a", "one"), (4, 4));
    world.put(&World::app("/a", "one", 2), false);
    world.settle();
    assert_eq!(world.tasks("/a"), first);
    world.put(&World::app("/a", "one", 0), false);
    world.settle();
    assert_eq!(world.running("/a", "one"), (0, 0));
    assert!(world.state.deployments().is_empty());
}

#[test]
fn a_new_command_replaces_instances_within_the_strategy() {
    for (least, over, most) in [(1.0, 1.0, 8), (0.5, 0.0, 4), (1.0, 0.0, 5), (0.0, 0.0, 4)] {
        let mut world = World::new(3);
        let mut app = World::app("/a", "one", 4);
        app["upgradeStrategy"] =
            json!({"minimumHealthCapacity": least, "maximumOverCapacity": over});
        world.put(&app, false);
        world.settle();
        app["cmd"] = "two".into();
        world.put(&app, false);
        let mut seen = 0;
        while world.commit_one() || world.deliver() {
            let (all, _) = world.running("/a", "two");
            seen = seen.max(all);
        }
        assert_eq!(world.running("/a", "two"), (4, 4));
        assert!(world.state.deployments().is_empty());
        assert_eq!(seen, most, "capacity {least}/{over}");
    }
}

#[test]
fn running_deployments_lock_their_apps_unless_forced() {
    let mut world = World::new(1);
    world.obedient = false;
    world.put(&World::app("/a", "one", 1), false);
    let running: Vec<_> = world
        .state
        .deployments()
        .iter()
        .map(|d| d.id.clone())
        .collect();
    let outcome = world.put(&World::app("/a", "two", 1), false);
    assert_eq!(
        outcome,
        Outcome::Rejected(Rejection::AppLocked(running.clone()))
    );
    assert!(matches!(
        world.put(&World::app("/a", "two", 1), true),
        Outcome::Deploying { .. }
    ));
    assert!(world.state.deployment(&running[0]).is_none());
    assert_eq!(world.state.deployments().len(), 1);
    world.obedient = true;
    world.settle();
    assert_eq!(world.running("/a", "two"), (1, 1));
}

#[test]
fn a_crashing_app_waits_longer_each_time() {
    let mut world = World::new(1);
    world.put(&World::app("/a", "crash", 1), false);
    let mut delays = Vec::new();
    for _ in 0..5 {
        world.settle();
        let task = world.tasks("/a")[0].clone();
        world.report(&task, TaskState::TaskFailed);
        world.settle();
        assert_eq!(world.running("/a", "crash"), (0, 0));
        let entry = world.scheduler.queue(&world.state, world.now).remove(0);
        assert_eq!(entry.count, 1);
        delays.push(entry.delay_left_ms);
        let wake = world.wake_at.unwrap();
        assert_eq!(wake, world.now.plus_ms(entry.delay_left_ms));
        world.tick(entry.delay_left_ms - 1);
        assert!(world.proposals.is_empty());
        world.tick(1);
        assert_eq!(world.proposals.len(), 1);
    }
    assert_eq!(delays, [1000, 1150, 1323, 1521, 1749]);
    let failure = world.state.tasks().last_failure(&id("/a")).unwrap();
    assert_eq!(failure.state, TaskState::TaskFailed);
    // A reset makes it start at once.
    world.settle();
    let task = world.tasks("/a")[0].clone();
    world.report(&task, TaskState::TaskFinished);
    world.settle();
    assert_eq!(world.apply(request::reset_delay(&id("/a"))), Outcome::Done);
    world.settle();
    assert_eq!(world.running("/a", "crash"), (1, 1));
    let unknown = world.apply(request::reset_delay(&id("/a")));
    assert_eq!(unknown, Outcome::Rejected(Rejection::NotQueued(id("/a"))));
}

#[test]
fn a_killed_instance_is_replaced_without_delay_or_scaled_away() {
    let mut world = World::new(1);
    world.put(&World::app("/a", "one", 2), false);
    world.settle();
    let before = world.tasks("/a");
    let query = KillQuery::default();
    let kind = request::kill_tasks(&before[..1], query, &mut world.ids).unwrap();
    assert_eq!(world.apply(kind), Outcome::Killing(vec![before[0].clone()]));
    world.settle();
    assert_eq!(world.running("/a", "one"), (2, 2));
    assert!(world.state.tasks().live(&before[0]).is_none());
    let query = KillQuery {
        scale: true,
        ..query
    };
    let kind = request::kill_tasks(&before[1..], query, &mut world.ids).unwrap();
    assert!(matches!(world.apply(kind), Outcome::Deploying { .. }));
    world.settle();
    assert_eq!(world.running("/a", "one"), (1, 1));
    assert!(world.state.tasks().live(&before[1]).is_none());
    assert_eq!(world.state.app(&id("/a")).unwrap().spec.instances, 1);
}

#[test]
fn what_does_not_fit_says_why_and_starts_when_there_is_room() {
    let mut world = World::new(2);
    let mut app = World::app("/a", "one", 1);
    app["mem"] = 2000.into();
    world.put(&app, false);
    world.settle();
    let entry = world.scheduler.queue(&world.state, world.now).remove(0);
    assert_eq!(
        (entry.count, entry.delay_left_ms, entry.last_attempt.asked),
        (1, 0, 2)
    );
    assert_eq!(entry.last_attempt.refused[&Refusal::InsufficientMemory], 2);
    assert_eq!(world.state.deployments().len(), 1);
    world.join("big", 4_000, 4 << 30);
    world.settle();
    assert_eq!(world.running("/a", "one"), (1, 1));
    assert!(world.scheduler.queue(&world.state, world.now).is_empty());
    // Ten more fill the small ones; the eleventh waits until something ends.
    world.put(&World::app("/b", "fill", 24), false);
    world.settle();
    let left = world
        .scheduler
        .queue(&world.state, world.now)
        .remove(0)
        .count;
    assert!(left > 0);
    let kind = request::delete_app(&id("/a"), true, &mut world.ids);
    world.apply(kind);
    world.settle();
    assert!(
        world
            .scheduler
            .queue(&world.state, world.now)
            .first()
            .is_none_or(|e| e.count < left)
    );
}

#[test]
fn an_app_that_wants_gpus_waits_where_no_agent_has_any() {
    let mut world = World::new(2);
    let mut app = World::app("/a", "one", 1);
    app["gpus"] = 1.into();
    world.put(&app, false);
    world.settle();
    let entry = world.scheduler.queue(&world.state, world.now).remove(0);
    assert_eq!(entry.count, 1);
    assert_eq!(entry.last_attempt.refused[&Refusal::InsufficientGpus], 2);
}

#[test]
fn deleting_stops_everything_and_rollback_restores_it() {
    let mut world = World::new(1);
    world.put(&World::app("/a", "one", 2), false);
    world.settle();
    let before = world.tasks("/a");
    world.put(&World::app("/a", "broken", 2), false);
    world.obedient = false;
    world.settle();
    assert_eq!(
        world.running("/a", "one").1,
        2,
        "the old ones stay until new ones run"
    );
    let deployment = world.state.deployments().iter().next().unwrap().id.clone();
    let kind = request::cancel_deployment(&deployment, false, &mut world.ids);
    assert!(matches!(world.apply(kind), Outcome::Deploying { .. }));
    world.settle();
    assert_eq!(world.tasks("/a"), before, "they are up to date again");
    assert!(world.state.deployments().is_empty());
    let kind = request::delete_app(&id("/a"), false, &mut world.ids);
    assert!(matches!(world.apply(kind), Outcome::Deploying { .. }));
    assert!(world.state.app(&id("/a")).is_none());
    world.settle();
    assert_eq!(world.tasks("/a"), []);
    assert!(world.state.deployments().is_empty());
    let again = request::delete_app(&id("/a"), false, &mut world.ids);
    let unknown = Outcome::Rejected(Rejection::AppUnknown(id("/a")));
    assert_eq!(world.apply(again), unknown);
}

#[test]
fn an_agent_that_comes_back_is_reconciled() {
    let mut world = World::new(1);
    world.put(&World::app("/a", "one", 2), false);
    world.settle();
    let tasks = world.tasks("/a");
    let agent = AgentId::parse("agent-0").unwrap();
    world.disconnect(&agent);
    world.settle();
    assert_eq!(world.tasks("/a"), tasks, "nothing is known about them");
    // One is lost on the node, and one that nobody knows runs there.
    let fake = world.agents.get_mut(&agent).unwrap();
    fake.tasks.remove(tasks[0].as_str());
    fake.tasks
        .insert("stray".to_owned(), TaskState::TaskRunning);
    world.connect(&agent);
    world.settle();
    assert_eq!(
        world.state.task(&tasks[0]).unwrap().state,
        TaskState::TaskGone
    );
    assert_eq!(world.agents[&agent].tasks["stray"], TaskState::TaskKilled);
    let wait = world.wake_at.unwrap().since_ms(world.now);
    world.tick(wait);
    world.settle();
    assert_eq!(world.running("/a", "one"), (2, 2));
}

#[test]
fn kills_are_repeated_until_the_task_has_ended() {
    let mut world = World::new(1);
    world.put(&World::app("/a", "one", 1), false);
    world.settle();
    let agent = AgentId::parse("agent-0").unwrap();
    let task = world.tasks("/a")[0].clone();
    let kind = request::delete_app(&id("/a"), false, &mut world.ids);
    // The message is lost on its way.
    world.agents.get_mut(&agent).unwrap().connected = false;
    world.apply(kind);
    world.settle();
    world.agents.get_mut(&agent).unwrap().connected = true;
    world.settle();
    assert!(world.state.tasks().live(&task).is_some());
    world.tick(10_000);
    world.settle();
    assert_eq!(
        world.state.task(&task).unwrap().state,
        TaskState::TaskKilled
    );
}

#[test]
fn versions_never_repeat_even_when_the_clock_stands_or_runs_back() {
    let mut world = World::new(1);
    let mut versions = Vec::new();
    for instances in 0..30 {
        world.now = Millis(1_000_000 - instances);
        world.put(
            &World::app("/a", "one", u32::try_from(instances % 3).unwrap()),
            true,
        );
        versions.push(world.state.app(&id("/a")).unwrap().version);
    }
    assert!(versions.is_sorted_by(|a, b| a < b));
    let record = world.state.app(&id("/a")).unwrap();
    assert_eq!(record.versions.len(), crate::state::apps::VERSIONS_MAX);
    assert_eq!(record.config_version, versions[0]);
}

#[test]
fn launches_are_checked_again_when_they_are_applied() {
    let mut world = World::new(1);
    world.put(&World::app("/a", "one", 1), false);
    let stale = world.proposals.pop_front().unwrap();
    world.put(&World::app("/a", "two", 1), true);
    let Some(kind) = stale.kind.clone() else {
        panic!()
    };
    let Outcome::Launched(results) = world.apply(kind.clone()) else {
        panic!()
    };
    assert!(results[0].is_err() && world.tasks("/a").is_empty());
    world.settle();
    assert_eq!(world.running("/a", "two"), (1, 1));
    let Kind::Launch(mut launch) = kind else {
        panic!()
    };
    launch.tasks[0].app_version_ms = world.state.app(&id("/a")).unwrap().version.0;
    let Outcome::Launched(results) = world.apply(Kind::Launch(launch)) else {
        panic!()
    };
    assert!(results[0].is_err(), "one instance is enough");
}
