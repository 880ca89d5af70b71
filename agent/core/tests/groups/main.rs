//! Arbitrary histories of task groups: crashes of the agent between any two actions, deaths of the
//! keeper and of executors, lost connections, late and repeated messages, failures of every step.
//! A failure is shrunk to the shortest history that has it.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod world;

use gantry_wire::task::TaskState;
use proptest::prelude::*;
use world::{Step, World};

fn step() -> impl Strategy<Value = Step> {
    let n = any::<prop::sample::Index>;
    prop_oneof![
        4 => (0..3_u8, 1..4_usize, any::<u8>(), any::<bool>())
            .prop_map(|(executor, tasks, images, bridge)| Step::Launch {
                executor,
                tasks,
                images,
                bridge,
            }),
        1 => n().prop_map(Step::LaunchAgain),
        2 => (n(), 0..9_000_u64).prop_map(|(task, grace_ms)| Step::Kill(task, grace_ms)),
        1 => (0..3_u8).prop_map(Step::Shutdown),
        4 => (n(), any::<bool>()).prop_map(|(container, well)| Step::Exit(container, well)),
        1 => n().prop_map(Step::OverDisk),
        1 => Just(Step::RootDies),
        1 => Just(Step::KeeperDies),
        1 => (0..12_usize).prop_map(Step::CrashAfter),
        1 => Just(Step::List),
        1 => Just(Step::Disconnect),
        2 => Just(Step::Connect),
        1 => (0..5_u8).prop_map(Step::FailNext),
        3 => (1..70_000_u64).prop_map(Step::Pass),
        10 => (1..8_usize).prop_map(Step::Deliver),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_000,
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn groups_hold_together(steps in prop::collection::vec(step(), 1..80)) {
        let mut world = World::new();
        for step in steps {
            world.take(&step);
        }
        world.calm_down();
        world.check_rest();
        world.end_all();
        world.check_nothing_left();
    }
}

/// A group of two below one executor, running.
fn two() -> World {
    let mut world = World::new();
    world.take(&Step::Connect);
    world.take(&Step::Launch {
        executor: 0,
        tasks: 2,
        images: 0b01,
        bridge: true,
    });
    world.deliver_all();
    assert_eq!(world.states(0), [TaskState::TaskRunning; 2]);
    world
}

#[test]
fn a_finished_member_ends_nobody_and_a_failed_one_its_group() {
    let mut world = two();
    world.exit(0, 0, 0);
    world.deliver_all();
    let states = world.states(0);
    assert_eq!(states, [TaskState::TaskFinished, TaskState::TaskRunning]);
    // Another group below the same executor is not concerned by what follows.
    world.take(&Step::Launch {
        executor: 0,
        tasks: 1,
        images: 0,
        bridge: true,
    });
    world.take(&Step::Launch {
        executor: 0,
        tasks: 2,
        images: 0,
        bridge: true,
    });
    world.deliver_all();
    world.exit(1, 0, 3);
    world.exit(2, 1, 3);
    world.deliver_all();
    assert_eq!(world.states(0), states);
    assert_eq!(world.states(1), [TaskState::TaskFailed]);
    assert_eq!(
        world.states(2),
        [TaskState::TaskKilled, TaskState::TaskFailed]
    );
    let message = world.message(2, 0);
    assert!(
        message.starts_with("Ended with its group, after g2-1."),
        "{message}"
    );
    assert!(world.root_runs(0));
    world.exit(0, 1, 0);
    world.deliver_all();
    assert!(!world.root_runs(0));
    world.check_nothing_left();
}

#[test]
fn what_cannot_be_made_ready_fails_all_for_one_reason() {
    for what in 0..4 {
        let mut world = World::new();
        world.take(&Step::Connect);
        world.take(&Step::FailNext(what));
        world.take(&Step::Launch {
            executor: 1,
            tasks: 3,
            images: 0b010,
            bridge: true,
        });
        world.deliver_all();
        // A start that fails is one of a group that has begun: the others are killed.
        let last = if what == 3 {
            TaskState::TaskKilled
        } else {
            TaskState::TaskFailed
        };
        let states = world.states(0);
        assert_eq!(states, [TaskState::TaskFailed, last, last], "{what}");
        if what != 3 {
            let first = world.message(0, 0);
            assert!((1..3).all(|n| world.message(0, n) == first), "{first}");
        }
        world.check_nothing_left();
    }
}

#[test]
fn an_executor_waits_a_minute_for_acknowledgements() {
    let mut world = two();
    world.take(&Step::Disconnect);
    world.exit(0, 0, 0);
    world.exit(0, 1, 0);
    world.deliver_all();
    world.take(&Step::Pass(59_000));
    world.deliver_all();
    assert!(world.root_runs(0));
    world.take(&Step::Pass(2_000));
    world.deliver_all();
    assert!(!world.root_runs(0));
    world.take(&Step::Connect);
    world.deliver_all();
    assert_eq!(world.states(0), [TaskState::TaskFinished; 2]);
    world.check_nothing_left();
}

#[test]
fn an_executor_that_dies_takes_its_tasks_with_it() {
    let mut world = two();
    world.take(&Step::RootDies);
    world.deliver_all();
    assert_eq!(world.states(0), [TaskState::TaskFailed; 2]);
    for n in 0..2 {
        let message = world.message(0, n);
        assert!(
            message.starts_with("The executor that it ran below ended."),
            "{message}"
        );
    }
    world.check_nothing_left();
}

#[test]
fn a_crash_while_a_group_is_launched_harms_nobody() {
    for actions in 0..30 {
        let mut world = World::new();
        world.take(&Step::Connect);
        world.take(&Step::CrashAfter(actions));
        world.take(&Step::Launch {
            executor: 0,
            tasks: 2,
            images: 0b01,
            bridge: true,
        });
        world.deliver_all();
        world.take(&Step::Connect);
        // As a coordinator does that was never told of it.
        world.launch_again(0);
        world.deliver_all();
        assert_eq!(world.states(0), [TaskState::TaskRunning; 2], "{actions}");
    }
}
