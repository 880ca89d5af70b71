//! Tasks that share an executor: its network, its directories, their ends.

use std::path::Path;
use std::time::Instant;

use gantry_wire::agent::{
    ExecutorInfo, Launch, LaunchGroup, LimitsMessage, NetworkMode, PortMapping, ResourcesMessage,
    SharedVolume, ShutdownExecutor, StatusUpdate, to_agent,
};
use gantry_wire::task::{Reason, TaskState};
use rustix::process::Signal;

use crate::agent::{Node, run};
use crate::bridge::{says, server};
use crate::coordinator::{shell, state};
use crate::image;

/// A group below an executor of its own name.
pub(crate) fn group(executor: &str, network: NetworkMode, tasks: &[Launch]) -> LaunchGroup {
    LaunchGroup {
        executor: Some(ExecutorInfo {
            framework_id: "fw".into(),
            executor_id: executor.into(),
            name: executor.into(),
            resources: Some(ResourcesMessage {
                cpus_milli: 100,
                mem_bytes: 32 << 20,
                ..ResourcesMessage::default()
            }),
            network: network as i32,
            ..ExecutorInfo::default()
        }),
        tasks: tasks.to_vec(),
    }
}

fn shared_pids(group: LaunchGroup) -> LaunchGroup {
    LaunchGroup {
        executor: group.executor.map(|executor| ExecutorInfo {
            share_pids: true,
            ..executor
        }),
        ..group
    }
}

fn with_volume(launch: Launch, container_path: &str) -> Launch {
    Launch {
        shared_volumes: vec![SharedVolume {
            name: "data".into(),
            container_path: container_path.into(),
            read_only: false,
        }],
        ..launch
    }
}

impl Node {
    pub(crate) fn launch_group(&self, group: LaunchGroup) {
        self.coordinator.say(to_agent::Kind::LaunchGroup(group));
    }

    async fn state(&self) -> serde_json::Value {
        let text = reqwest::get(self.url("/state")).await.unwrap().text();
        serde_json::from_str(&text.await.unwrap()).unwrap()
    }

    /// Waits until no executor is left, on disk or anywhere.
    pub(crate) async fn no_executors(&self) {
        let dir = self.data().join("executors");
        self.coordinator
            .until("all executors to go", |_| {
                let mut left = std::fs::read_dir(&dir).unwrap();
                left.next().is_none().then_some(())
            })
            .await;
    }

    async fn stdout(&self, update: &StatusUpdate) -> String {
        self.read(&format!("{}/stdout", update.sandbox)).await
    }
}

/// Looks for what `web` serves and leaves, and tells where it is itself.
const CLIENT: &str = "until perl -MIO::Socket::INET -e '$s=IO::Socket::INET->new(PeerAddr=>\
                      \"127.0.0.1:8080\") or exit 1; print <$s>'; do sleep 0.02; done; echo; \
                      until [ -s /shared/by-web ]; do sleep 0.02; done; cat /shared/by-web; \
                      echo $MESOS_EXECUTOR_ID $MESOS_TASK_ID $MESOS_CONTAINER_IP; hostname; \
                      readlink /proc/self/ns/ipc /proc/self/ns/net; sleep 1000";

/// Serves on a mapped port and leaves a file for others.
fn web() -> Launch {
    let command = format!("umask 0; echo made > data/by-web; {}", server("hello"));
    Launch {
        ports: vec![PortMapping {
            host_port: 31_872,
            container_port: 8_080,
            protocol: "tcp".into(),
            name: "http".into(),
        }],
        ..with_volume(shell("web", &command), "data")
    }
}

pub(crate) fn members_share_what_is_their_executors() {
    run(async {
        let mut node = Node::start().await;
        let tasks = [web(), with_volume(shell("client", CLIENT), "/shared")];
        node.launch_group(group("pod", NetworkMode::Bridge, &tasks));
        let web = node.coordinator.update("web", TaskState::TaskRunning).await;
        let client = node
            .coordinator
            .update("client", TaskState::TaskRunning)
            .await;
        assert_eq!(web.ip_address, client.ip_address);
        assert_eq!(
            (web.executor_id.as_str(), client.executor_id.as_str()),
            ("pod", "pod")
        );
        assert_eq!(says(&node, &web.ip_address, 8_080).await, "hello");
        assert_eq!(says(&node, "127.0.0.1", 31_872).await, "hello");

        let told = node.state().await;
        let executor = &told["frameworks"][0]["executors"][0];
        let root = executor["container"].as_str().unwrap();
        let link = |kind: &str| {
            let link = std::fs::read_link(format!("/proc/{}/ns/{kind}", web.pid)).unwrap();
            link.to_string_lossy().into_owned()
        };
        let ip = &web.ip_address;
        let want = format!(
            "hello\nmade\npod client {ip}\n{root}\n{}\n{}\n",
            link("ipc"),
            link("net")
        );
        let path = "/frameworks/fw/executors/pod/runs/latest/tasks/client/stdout";
        node.holds(path, &want).await;
        assert_eq!(node.stdout(&client).await, want);
        let directory = executor["directory"].as_str().unwrap();
        let nested = format!("{directory}/containers/{}", client.container_id);
        assert_eq!(client.sandbox, nested);
        assert_eq!(executor["tasks"].as_array().unwrap().len(), 2);
        assert_eq!(executor["resources"]["mem"], 32.0);

        // All of it survives the agent.
        node.kill_9();
        assert_eq!(says(&node, "127.0.0.1", 31_872).await, "hello");
        node.start_agent().await;
        assert_eq!(says(&node, "127.0.0.1", 31_872).await, "hello");
        // One that is killed is the end of its group.
        node.coordinator.kill("client", 1_000);
        let end = node.coordinator.terminal("client").await;
        assert_eq!(state(&end), TaskState::TaskKilled);
        let end = node.coordinator.terminal("web").await;
        assert_eq!(state(&end), TaskState::TaskKilled);
        assert!(end.message.contains("after client"), "{}", end.message);
        node.no_executors().await;
        node.holds(path, &want).await;
        assert!(node.end(Signal::TERM));
        assert_eq!(node.links(), Vec::<String>::new());
        assert_eq!(node.cgroups(), Vec::<std::path::PathBuf>::new());
        assert_eq!(node.mounts(), Vec::<String>::new());
    });
}

pub(crate) fn ends_of_members() {
    run(async {
        let node = Node::start().await;
        let sleeper = |task: &str| shell(task, "sleep 1000");
        let long = sleeper("long");
        node.launch_group(group(
            "one",
            NetworkMode::Host,
            &[shell("short", "true"), long],
        ));
        // Another group below the same executor.
        let two = [sleeper("failing"), sleeper("beside")];
        node.coordinator
            .update("long", TaskState::TaskRunning)
            .await;
        node.launch_group(group("one", NetworkMode::Host, &two));
        let end = node.coordinator.terminal("short").await;
        assert_eq!(state(&end), TaskState::TaskFinished);
        let failing = node
            .coordinator
            .update("failing", TaskState::TaskRunning)
            .await;
        node.coordinator
            .update("beside", TaskState::TaskRunning)
            .await;
        // A second message of a group that was seen changes nothing.
        node.launch_group(group("one", NetworkMode::Host, &two));
        let command = rustix::process::Pid::from_raw(failing.pid.cast_signed()).unwrap();
        rustix::process::kill_process(command, Signal::KILL).unwrap();
        let end = node.coordinator.terminal("failing").await;
        assert_eq!(state(&end), TaskState::TaskFailed);
        let end = node.coordinator.terminal("beside").await;
        assert_eq!(state(&end), TaskState::TaskKilled);
        assert!(end.message.contains("after failing"), "{}", end.message);
        let starting_running = [TaskState::TaskStarting, TaskState::TaskRunning];
        assert_eq!(node.coordinator.states("long"), starting_running);

        // All that is left goes with the executor.
        node.coordinator
            .say(to_agent::Kind::ShutdownExecutor(ShutdownExecutor {
                framework_id: "fw".into(),
                executor_id: "one".into(),
                grace_ms: None,
            }));
        let end = node.coordinator.terminal("long").await;
        assert_eq!(state(&end), TaskState::TaskKilled);
        node.no_executors().await;
    });
}

/// One that is invalid or cannot be made ready is the end of all, for one reason.
pub(crate) fn a_group_is_launched_whole_or_not_at_all() {
    run(async {
        let node = Node::start().await;
        let sleeper = |task: &str| shell(task, "sleep 1000");
        let nothing = shell("nothing", "");
        node.launch_group(group("two", NetworkMode::Host, &[sleeper("good"), nothing]));
        for task in ["good", "nothing"] {
            let end = node.coordinator.terminal(task).await;
            assert_eq!(state(&end), TaskState::TaskError);
            assert_eq!(end.reason, Some(Reason::ReasonTaskGroupInvalid as i32));
            let why = "nothing: the task has neither a command nor arguments to run";
            assert_eq!(end.message, why);
        }
        let missing = Launch {
            image: "not a reference".into(),
            ..shell("missing", "true")
        };
        node.launch_group(group(
            "three",
            NetworkMode::Host,
            &[sleeper("waiting"), missing],
        ));
        let ends = [
            node.coordinator.terminal("waiting").await,
            node.coordinator.terminal("missing").await,
        ];
        for end in &ends {
            assert_eq!(state(end), TaskState::TaskFailed);
            assert_eq!(end.reason, Some(Reason::ReasonContainerLaunchFailed as i32));
            assert_eq!(end.message, ends[0].message);
        }
        assert_eq!(
            node.coordinator.states("waiting"),
            [TaskState::TaskStarting, TaskState::TaskFailed]
        );
        node.no_executors().await;
    });
}

pub(crate) fn kills_have_their_grace() {
    run(async {
        let node = Node::start().await;
        // The first takes no notice; the other's end does not wait for it.
        let deaf = "trap : TERM; echo ready; while :; do sleep 0.05; done";
        let members = ["deaf", "kind"].map(|task| Launch {
            killing_state: true,
            kill_grace_ms: 60_000,
            ..shell(task, if task == "deaf" { deaf } else { "sleep 1000" })
        });
        node.launch_group(group("kills", NetworkMode::Host, &members));
        let running = node
            .coordinator
            .update("deaf", TaskState::TaskRunning)
            .await;
        node.coordinator
            .update("kind", TaskState::TaskRunning)
            .await;
        node.written(&format!("{}/stdout", running.sandbox)).await;
        node.coordinator.kill("deaf", 60_000);
        node.coordinator
            .update("deaf", TaskState::TaskKilling)
            .await;
        node.coordinator.kill("kind", 60_000);
        let kind = node.coordinator.terminal("kind").await;
        assert_eq!(
            (state(&kind), kind.exit_code),
            (TaskState::TaskKilled, Some(143))
        );
        let asked = Instant::now();
        node.coordinator.kill("deaf", 200);
        let deaf = node.coordinator.terminal("deaf").await;
        assert_eq!(
            (state(&deaf), deaf.exit_code),
            (TaskState::TaskKilled, Some(137))
        );
        assert!(asked.elapsed().as_secs() < 30, "the second kill shortens");
        let states = [
            TaskState::TaskStarting,
            TaskState::TaskRunning,
            TaskState::TaskKilling,
            TaskState::TaskKilled,
        ];
        assert_eq!(node.coordinator.states("deaf"), states);
    });
}

pub(crate) fn times_and_limits() {
    run(async {
        let node = Node::start().await;
        let late = Launch {
            max_completion_ms: 300,
            ..shell("late", "sleep 1000")
        };
        let alone = Launch {
            task_id: "alone".into(),
            ..late.clone()
        };
        node.coordinator.launch(alone);
        node.launch_group(group(
            "times",
            NetworkMode::Host,
            &[late, shell("other", "sleep 1000")],
        ));
        for task in ["late", "alone"] {
            let end = node.coordinator.terminal(task).await;
            let reason = Reason::ReasonMaxCompletionTimeReached;
            assert_eq!(
                (state(&end), end.reason),
                (TaskState::TaskFailed, Some(reason as i32))
            );
        }
        let end = node.coordinator.terminal("other").await;
        assert_eq!(state(&end), TaskState::TaskKilled);

        // What was requested is not what it may use; who uses more is told apart.
        let eater = "exec perl -e '$x = \"x\" x (400 << 20); sleep 1000'";
        let eater = Launch {
            limits: Some(LimitsMessage {
                cpus_milli: Some(LimitsMessage::UNLIMITED),
                mem_bytes: Some(96 << 20),
            }),
            ..shell("eater", eater)
        };
        node.launch_group(group(
            "limits",
            NetworkMode::Host,
            &[eater, shell("modest", "sleep 1000")],
        ));
        let end = node.coordinator.terminal("eater").await;
        let reason = Reason::ReasonContainerLimitationMemory;
        assert_eq!(
            (state(&end), end.reason),
            (TaskState::TaskFailed, Some(reason as i32))
        );
        assert!(end.message.contains("limited to 96 MiB"), "{}", end.message);
        let end = node.coordinator.terminal("modest").await;
        assert_eq!(state(&end), TaskState::TaskKilled);
        node.no_executors().await;
    });
}

pub(crate) fn processes_are_shared_when_asked_for() {
    run(async {
        let node = Node::start().await;
        let target = shell(
            "target",
            "trap 'echo told; exit 0' USR1; echo $$ > data/pid; while :; do sleep 0.05; done",
        );
        let teller = "until [ -s data/pid ]; do sleep 0.02; done; cat /proc/1/comm; \
                      kill -USR1 $(cat data/pid); (trap '' TERM; sleep 986) & sleep 1000";
        let tasks = [
            with_volume(target, "data"),
            with_volume(shell("teller", teller), "data"),
        ];
        node.launch_group(shared_pids(group("pids", NetworkMode::Host, &tasks)));
        let end = node.coordinator.terminal("target").await;
        assert_eq!(state(&end), TaskState::TaskFinished, "{end:?}");
        assert_eq!(node.stdout(&end).await, "told\n");
        let teller = node
            .coordinator
            .update("teller", TaskState::TaskRunning)
            .await;
        node.holds(&format!("{}/stdout", teller.sandbox), "gantry-init\n")
            .await;
        // Its process tree is told to end, and what takes no notice is killed with it.
        node.coordinator.kill("teller", 10_000);
        let end = node.coordinator.terminal("teller").await;
        assert_eq!(
            (state(&end), end.exit_code),
            (TaskState::TaskKilled, Some(143))
        );
        node.no_executors().await;
        let left = crate::agent::processes().into_iter().any(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline"));
            line.is_ok_and(|line| line == b"sleep\x00986\x00")
        });
        assert!(!left, "what it left behind is gone");
    });
}

pub(crate) fn the_executor_or_its_keeper_dies() {
    run(async {
        let mut node = Node::start().await;
        let sleepers = |tasks: [&str; 2]| tasks.map(|task| shell(task, "sleep 1000"));
        node.launch_group(group("one", NetworkMode::Bridge, &sleepers(["a", "b"])));
        for task in ["a", "b"] {
            node.coordinator.update(task, TaskState::TaskRunning).await;
        }
        let told = node.state().await;
        let root = told["frameworks"][0]["executors"][0]["container"].clone();
        node.kill_container(root.as_str().unwrap());
        for task in ["a", "b"] {
            let end = node.coordinator.terminal(task).await;
            let reason = Reason::ReasonExecutorTerminated;
            assert_eq!(
                (state(&end), end.reason),
                (TaskState::TaskFailed, Some(reason as i32))
            );
        }
        node.no_executors().await;

        node.launch_group(group("one", NetworkMode::Bridge, &sleepers(["c", "d"])));
        for task in ["c", "d"] {
            node.coordinator.update(task, TaskState::TaskRunning).await;
        }
        let keeper = node.keeper().unwrap();
        node.kill_9();
        rustix::process::kill_process(keeper, Signal::KILL).unwrap();
        node.start_agent().await;
        for task in ["c", "d"] {
            let end = node.coordinator.terminal(task).await;
            let reason = Reason::ReasonAgentRestarted;
            assert_eq!(
                (state(&end), end.reason),
                (TaskState::TaskFailed, Some(reason as i32))
            );
        }
        node.no_executors().await;
        assert!(node.end(Signal::TERM));
        assert_eq!(node.links(), Vec::<String>::new());
        assert_eq!(node.cgroups(), Vec::<std::path::PathBuf>::new());
    });
}

pub(crate) fn members_from_images() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let node = Node::start().await;
        let (_registry, image) = image::registry(&node, dir.path()).await;
        let writer = Launch {
            image: image.clone(),
            ..with_volume(shell("writer", "id -u > /v/file; echo $COLOUR"), "/v")
        };
        let native = "until [ -s data/file ]; do sleep 0.02; done; cat data/file";
        let native = with_volume(shell("native", native), "data");
        let pod = group("pod", NetworkMode::Bridge, &[writer, native]);
        node.launch_group(pod);
        for (task, want) in [("writer", "green\n"), ("native", "1234\n")] {
            let end = node.coordinator.terminal(task).await;
            assert_eq!(state(&end), TaskState::TaskFinished, "{end:?}");
            assert_eq!(node.stdout(&end).await, want);
        }
        node.no_executors().await;
        let volume = node
            .data()
            .join("slaves/S0/frameworks/fw/executors/pod/runs/latest/data");
        assert!(
            Path::new(&volume).join("file").exists(),
            "kept with the sandbox"
        );
    });
}
