//! Deaths: of the agent, of the keeper, of files.

use gantry_wire::agent::{Launch, LaunchGroup, NetworkMode, to_agent};
use gantry_wire::task::{Reason, TaskState};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::agent::{Node, run};
use crate::coordinator::{shell, state};
use crate::group::group;

/// Rounds of `kill_9_at_random_moments`; each kills the agent once.
const ROUNDS: u32 = 50;

pub(crate) fn lives(pid: u32) -> bool {
    test_kill_process(Pid::from_raw(pid.cast_signed()).unwrap()).is_ok()
}

pub(crate) fn tasks_outlive_the_agent() {
    run(async {
        let mut node = Node::start().await;
        let counting = "n=0; while :; do echo $n; n=$((n+1)); sleep 0.05; done";
        node.coordinator.launch(shell("stays", counting));
        node.coordinator.launch(shell("ends", "sleep 0.5; exit 7"));
        let running = node
            .coordinator
            .update("stays", TaskState::TaskRunning)
            .await;
        node.coordinator
            .update("ends", TaskState::TaskRunning)
            .await;
        let keeper = node.keeper();
        node.kill_9();

        // Output flows and an exit happens while nobody is there.
        let stdout = std::path::Path::new(&running.sandbox).join("stdout");
        let size = || std::fs::metadata(&stdout).unwrap().len();
        let before = size();
        node.coordinator
            .until("output", |_| (size() > before + 40).then_some(()))
            .await;
        assert!(lives(running.pid));

        node.start_agent().await;
        let ended = node.coordinator.terminal("ends").await;
        assert_eq!(
            (state(&ended), ended.exit_code),
            (TaskState::TaskFailed, Some(7)),
            "{ended:?}"
        );
        {
            let heard = node.coordinator.heard.lock().unwrap();
            let known = &heard.registers.last().unwrap().tasks;
            let stays = known.iter().find(|task| task.task_id == "stays").unwrap();
            assert_eq!(stays.state, TaskState::TaskRunning as i32);
        }
        assert_eq!(node.keeper(), keeper, "the same keeper");
        assert!(lives(running.pid), "the same process");

        // A planned stop that leaves tasks, and a kill asked for before it.
        assert!(node.end(Signal::INT));
        assert!(lives(running.pid));
        node.start_agent().await;
        node.coordinator.kill("stays", 2_000);
        let end = node.coordinator.terminal("stays").await;
        assert_eq!(state(&end), TaskState::TaskKilled);
        assert_eq!(
            node.coordinator.states("stays"),
            [
                TaskState::TaskStarting,
                TaskState::TaskRunning,
                TaskState::TaskKilled
            ]
        );
        // One run of one process: the numbers have no gap and no repeat.
        let text = std::fs::read_to_string(&stdout).unwrap();
        let numbers: Vec<usize> = text.lines().map(|line| line.parse().unwrap()).collect();
        assert_eq!(numbers, (0..numbers.len()).collect::<Vec<_>>());
    });
}

pub(crate) fn damaged_files() {
    run(async {
        let mut node = Node::start().await;
        node.coordinator.launch(shell("good", "sleep 1000"));
        let bad = {
            node.coordinator.launch(shell("bad", "sleep 1000"));
            node.coordinator.update("bad", TaskState::TaskRunning).await
        };
        let good = node
            .coordinator
            .update("good", TaskState::TaskRunning)
            .await;
        node.kill_9();
        std::fs::write(node.data().join("tasks/bad.json"), "{ not JSON").unwrap();
        node.start_agent().await;
        // The one without checkpoint belongs to nobody now: it is ended. The other stays.
        node.coordinator
            .until("the stray's end", |_| (!lives(bad.pid)).then_some(()))
            .await;
        assert!(lives(good.pid));
        assert!(node.data().join("tasks.corrupt/bad.json").exists());
        assert!(
            std::fs::read_to_string(node.log())
                .unwrap()
                .contains("bad.json")
        );

        node.kill_9();
        let identity = std::fs::read(node.data().join("agent.json")).unwrap();
        std::fs::write(node.data().join("agent.json"), "{").unwrap();
        node.spawn();
        assert!(!node.wait_exit());
        let log = std::fs::read_to_string(node.log()).unwrap();
        assert!(log.contains("Restore it, or remove it"), "{log}");
        assert!(lives(good.pid), "a refused start harms nobody");
        std::fs::write(node.data().join("agent.json"), identity).unwrap();
        node.start_agent().await;
        node.coordinator.kill("good", 0);
        node.coordinator.terminal("good").await;
    });
}

pub(crate) fn another_cluster_may_not_touch_the_tasks() {
    run(async {
        let mut node = Node::start().await;
        let say = |node: &Node, cluster: &str, hostile_to: Option<&str>| {
            let mut heard = node.coordinator.heard.lock().unwrap();
            heard.cluster = cluster.to_owned();
            heard.hostile_to = hostile_to.map(str::to_owned);
            heard.registers.len()
        };
        node.coordinator.launch(shell("stays", "sleep 1000"));
        let running = node
            .coordinator
            .update("stays", TaskState::TaskRunning)
            .await;
        // What was written before clusters were kept adopts the first that it sees.
        for cluster in ["", "one", "one"] {
            node.kill_9();
            say(&node, cluster, None);
            node.start_agent().await;
            // Registering is answered before the agent has the answer on disk.
            let file = node.data().join("agent.json");
            let kept = || std::fs::read_to_string(&file).unwrap().contains(cluster);
            node.coordinator
                .until("the cluster on disk", |_| kept().then_some(()))
                .await;
        }
        let known = |node: &Node| {
            let heard = node.coordinator.heard.lock().unwrap();
            heard.registers.last().unwrap().cluster_id.clone()
        };
        assert_eq!(known(&node), "one");
        node.kill_9();
        say(&node, "two", Some("stays"));
        node.start_agent().await;
        // It comes again and again, and each time the other cluster wants the task gone.
        for _ in 0..3 {
            node.registered().await;
        }
        let log = std::fs::read_to_string(node.log()).unwrap();
        assert!(log.contains("belongs to the cluster one"), "{log}");
        assert!(lives(running.pid), "{log}");
        let before = say(&node, "one", None);
        node.coordinator
            .until("a registration with its own cluster", |heard| {
                (heard.registers.len() > before).then_some(())
            })
            .await;
        assert_eq!(known(&node), "one");
        node.coordinator.kill("stays", 0);
        let end = node.coordinator.terminal("stays").await;
        assert_eq!(state(&end), TaskState::TaskKilled);
    });
}

pub(crate) fn the_keeper_dies() {
    run(async {
        let mut node = Node::start().await;
        for beside in [true, false] {
            let task = format!("t-{beside}");
            node.coordinator.launch(shell(&task, "sleep 1000"));
            let running = node.coordinator.update(&task, TaskState::TaskRunning).await;
            let keeper = node.keeper().unwrap();
            if !beside {
                node.kill_9();
            }
            kill_process(keeper, Signal::KILL).unwrap();
            if !beside {
                node.start_agent().await;
            }
            let end = node.coordinator.terminal(&task).await;
            assert_eq!(state(&end), TaskState::TaskFailed);
            assert_eq!(
                end.reason,
                Some(Reason::ReasonAgentRestarted as i32),
                "{end:?}"
            );
            node.coordinator
                .until("its process to go", |_| (!lives(running.pid)).then_some(()))
                .await;
            let next = format!("next-{beside}");
            node.coordinator.launch(shell(&next, "true"));
            let end = node.coordinator.terminal(&next).await;
            assert_eq!(state(&end), TaskState::TaskFinished, "{end:?}");
        }
    });
}

/// What one round of `kill_9_at_random_moments` launches: alone and as a group, tasks that end and
/// tasks that do not.
struct Round {
    alone: [Launch; 2],
    group: LaunchGroup,
}

impl Round {
    fn new(round: u32) -> Self {
        // Every other round with networks of their own; some groups share processes, too.
        let network = NetworkMode::try_from(i32::try_from(round % 2).unwrap()).unwrap();
        let task = |name: &str, command: &str| Launch {
            network: network as i32,
            ..shell(&format!("{name}-{round}"), command)
        };
        let (ends, stays) = ("echo ran; exit 5", "echo ran; sleep 1000");
        let members = [task("member", "echo ran"), task("last", stays)];
        let mut group = group(&format!("pod-{round}"), network, &members);
        if let Some(executor) = &mut group.executor {
            executor.share_pids = round.is_multiple_of(3);
        }
        Self {
            alone: [task("quick", ends), task("slow", stays)],
            group,
        }
    }

    fn launch(&self, node: &Node) {
        for launch in &self.alone {
            node.coordinator.launch(launch.clone());
        }
        let group = self.group.clone();
        node.coordinator.say(to_agent::Kind::LaunchGroup(group));
    }
}

/// Each round launches tasks, kills the agent at some moment of their start, run or end, and
/// starts it again. Every task must end as its command says, run exactly once, and leave nothing.
pub(crate) fn kill_9_at_random_moments() {
    run(async {
        let mut node = Node::start().await;
        for round in 0..ROUNDS {
            let tasks = Round::new(round);
            tasks.launch(&node);
            // From before the launch arrives to after the quick ones ended.
            let moment = std::time::Duration::from_millis(u64::from(round * 37 % 120));
            tokio::time::sleep(moment).await;
            node.kill_9();
            node.start_agent().await;
            // As a coordinator does that knows nothing of a task, or wants it again.
            tasks.launch(&node);
            let mut ends = Vec::new();
            for (task, code) in [("quick", 5), ("member", 0)] {
                let end = node.coordinator.terminal(&format!("{task}-{round}")).await;
                assert_eq!(end.exit_code, Some(code), "round {round}: {end:?}");
                ends.push(end);
            }
            for task in ["slow", "last"].map(|task| format!("{task}-{round}")) {
                let running = node.coordinator.update(&task, TaskState::TaskRunning).await;
                // Running says that the shell was executed, not yet that it came to its first word.
                node.written(&format!("{}/stdout", running.sandbox)).await;
                node.coordinator.kill(&task, 500);
                let killed = node.coordinator.terminal(&task).await;
                let state = state(&killed);
                assert_eq!(state, TaskState::TaskKilled, "round {round}: {killed:?}");
                ends.push(killed);
            }
            for end in ends {
                let stdout = node.read(&format!("{}/stdout", end.sandbox)).await;
                assert_eq!(stdout, "ran\n", "round {round}: {}", end.task_id);
            }
        }
        node.no_executors().await;
        let containers = node.data().join("containers");
        let empty = || {
            // The keeper's own slots stay as long as it does.
            let mut left = std::fs::read_dir(&containers).unwrap().flatten();
            let slots = left.all(|dir| dir.file_name().as_encoded_bytes().starts_with(b"."));
            slots.then_some(())
        };
        node.coordinator
            .until("all containers to go", |_| empty())
            .await;
        assert!(node.end(Signal::TERM));
        assert_eq!(node.cgroups(), Vec::<std::path::PathBuf>::new());
        assert_eq!(node.mounts(), Vec::<String>::new());
        assert_eq!(node.keeper(), None);
        assert_eq!(node.links(), Vec::<String>::new());
    });
}
