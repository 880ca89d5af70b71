//! Random histories: apps, failures, agents that leave, return or lose everything, leaders that
//! change, proposals that are lost. Invariants are checked by the world after every command; here,
//! that everything converges when failures stop, and that the log gives the same state again.

use gantry_wire::ids::{AgentId, AppId, TaskId};
use gantry_wire::task::TaskState;
use serde_json::json;

use super::IdSource;
use super::decide::is_reached;
use super::world::{Ids, World};
use crate::service::request::{self, KillQuery};
use crate::state::State;

struct Dice(Ids);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        (self.0.seed() >> 33) % n
    }
}

fn some_task(world: &World, dice: &mut Dice) -> Option<TaskId> {
    let count = world.state.tasks().live_count() as u64;
    let at = if count == 0 {
        return None;
    } else {
        dice.below(count)
    };
    world
        .state
        .tasks()
        .iter_live()
        .nth(at as usize)
        .map(|task| task.id.clone())
}

fn change_an_app(world: &mut World, dice: &mut Dice) {
    let id = format!("/app{}", dice.below(4));
    let app = AppId::parse(&id).unwrap();
    let force = dice.below(3) == 0;
    match dice.below(8) {
        0 => {
            let kind = request::delete_app(&app, force, &mut world.ids);
            world.apply(kind);
        }
        1 => {
            let kind = request::restart_app(&app, force, &mut world.ids);
            world.apply(kind);
        }
        2 => {
            let found = world
                .state
                .deployments()
                .iter()
                .next()
                .map(|d| d.id.clone());
            if let Some(deployment) = found {
                let kind = request::cancel_deployment(&deployment, force, &mut world.ids);
                world.apply(kind);
            }
        }
        _ => {
            let strategies = [(1.0, 1.0), (0.5, 0.0), (1.0, 0.0), (0.0, 0.0), (0.7, 0.3)];
            let (least, over) = strategies[dice.below(5) as usize];
            let body = json!({
                "id": id,
                "cmd": format!("run {}", dice.below(3)),
                "cpus": 0.5,
                "mem": if dice.below(10) == 0 { 5000 } else { 64 },
                "instances": dice.below(7),
                "portDefinitions": [{"port": 0}],
                "upgradeStrategy": {"minimumHealthCapacity": least, "maximumOverCapacity": over},
            });
            world.put(&body, force);
        }
    }
}

fn disturb_an_agent(world: &mut World, dice: &mut Dice) {
    let at = dice.below(world.agents.len() as u64) as usize;
    let id: AgentId = world.agents.keys().nth(at).unwrap().clone();
    let connected = world.agents[&id].connected;
    match dice.below(6) {
        0 if connected => world.disconnect(&id),
        1 if !connected => {
            // The node was wiped: tasks and updates are gone.
            world.agents.get_mut(&id).unwrap().tasks.clear();
            world.connect(&id);
        }
        2 | 3 if !connected => world.connect(&id),
        4 => world.change_leader(),
        _ => {
            let agent = world.agents.get_mut(&id).unwrap();
            let live = agent.live();
            if !live.is_empty() {
                let task = &live[dice.below(live.len() as u64) as usize];
                let ends = [
                    TaskState::TaskFailed,
                    TaskState::TaskFinished,
                    TaskState::TaskRunning,
                ];
                agent.report(task, ends[dice.below(3) as usize]);
            }
        }
    }
}

fn kill_a_task(world: &mut World, dice: &mut Dice) {
    let Some(task) = some_task(world, dice) else {
        return;
    };
    let query = KillQuery {
        scale: dice.below(2) == 0,
        wipe: false,
        force: dice.below(2) == 0,
    };
    let kind = request::kill_tasks(&[task], query, &mut world.ids).unwrap();
    world.apply(kind);
}

fn history(seed: u64) {
    let mut world = World::new(3);
    let mut dice = Dice(Ids(seed.wrapping_mul(1_000_003)));
    for step in 0..150 {
        world.obedient = dice.below(5) != 0;
        match dice.below(12) {
            0 | 1 => change_an_app(&mut world, &mut dice),
            2 | 3 => disturb_an_agent(&mut world, &mut dice),
            4 => kill_a_task(&mut world, &mut dice),
            5 => world.lose_proposal(),
            6 => world.tick(dice.below(5_000)),
            7 | 8 => {
                world.deliver();
            }
            9 => world.settle(),
            _ => {
                world.commit_one();
            }
        }
        if step % 25 == 0 {
            assert!(State::decode(&world.state.encode()).unwrap() == world.state);
        }
    }
    converges(&mut world);
    let mut again = State::default();
    for (i, command) in world.log.iter().enumerate() {
        crate::apply(&mut again, i as u64 + 1, command);
    }
    assert!(again == world.state, "the log gives another state");
    assert_eq!(again.encode(), world.state.encode());
}

fn converges(world: &mut World) {
    world.obedient = true;
    let agents: Vec<AgentId> = world.agents.keys().cloned().collect();
    for id in &agents {
        if !world.agents[id].connected {
            world.connect(id);
        }
        let agent = world.agents.get_mut(id).unwrap();
        for task in agent.live() {
            agent.report(&task, TaskState::TaskRunning);
        }
    }
    for _ in 0..40 {
        world.settle();
        world.tick(60_000);
    }
    world.settle();
    let queue = world.scheduler.queue(&world.state, world.now);
    for record in world.state.apps().iter() {
        let id = &record.spec.id;
        let waits = queue.iter().find(|entry| entry.app_id == *id);
        match waits {
            None => assert!(is_reached(&world.state, id), "{id} is not reached"),
            Some(entry) => {
                assert_eq!(entry.last_attempt.asked, 3);
                let refused: u64 = entry.last_attempt.refused.values().sum();
                assert_eq!(refused, 3, "{id} waits although an agent has room");
            }
        }
    }
    let waiting = |app: &AppId| queue.iter().any(|entry| entry.app_id == *app);
    for deployment in world.state.deployments().iter() {
        assert!(
            deployment.affected().any(waiting),
            "{} hangs",
            deployment.id
        );
    }
    // What runs on the agents is exactly what the state says.
    let mut real: Vec<String> = world
        .agents
        .values()
        .flat_map(super::world::FakeAgent::live)
        .collect();
    real.sort();
    let known: Vec<String> = world
        .state
        .tasks()
        .iter_live()
        .map(|task| task.id.to_string())
        .collect();
    assert_eq!(real, known);
}

#[test]
fn random_histories_keep_the_invariants_and_converge() {
    for seed in 0..300 {
        let run = std::panic::catch_unwind(|| history(seed));
        assert!(run.is_ok(), "seed {seed}");
    }
}
