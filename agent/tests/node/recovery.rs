//! What a node takes up again: under a new binary, after a reboot, with a coordinator that was away,
//! with files that are not what was written.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use gantry_wire::agent::{Launch, NetworkMode, to_agent};
use gantry_wire::task::{Reason, TaskState};
use rustix::process::Signal;

use crate::agent::{Node, run};
use crate::bridge::bridged;
use crate::coordinator::{shell, state};
use crate::faults::port;
use crate::group::group;
use crate::image;
use crate::survival::lives;

pub(crate) fn a_new_binary_takes_up_what_the_old_one_left() {
    run(async {
        let mut node = Node::start().await;
        assert!(node.end(Signal::TERM));
        let old = node.beside("old").join("gantry");
        std::fs::copy(std::env::current_exe().unwrap(), &old).unwrap();
        node.exe.clone_from(&old);
        node.start_agent().await;
        node.coordinator.launch(shell("native", "sleep 1000"));
        node.coordinator
            .launch(bridged("net", "sleep 1000", port()));
        let mut running = Vec::new();
        for task in ["native", "net"] {
            running.push(node.coordinator.update(task, TaskState::TaskRunning).await);
        }
        let keeper = node.keeper().unwrap();
        node.kill_9();
        std::fs::remove_file(&old).unwrap();
        node.exe = std::env::current_exe().unwrap();
        node.start_agent().await;
        assert_eq!(node.keeper(), Some(keeper), "the old keeper is kept");
        // It goes on being the parent of containers, new ones too.
        node.coordinator.launch(shell("late", "echo late"));
        let late = node.coordinator.terminal("late").await;
        assert_eq!(state(&late), TaskState::TaskFinished, "{late:?}");
        for update in running {
            assert!(lives(update.pid), "{update:?}");
            node.coordinator.kill(&update.task_id, 500);
            let end = node.coordinator.terminal(&update.task_id).await;
            assert_eq!(state(&end), TaskState::TaskKilled, "{end:?}");
        }
        assert_eq!(node.keeper(), Some(keeper));
        assert!(node.end(Signal::TERM));
        node.is_gone();
    });
}

/// One of each kind, that stay.
fn launch_all(node: &Node, name: &str, image: &str) -> Vec<String> {
    let stays = "echo ran; while :; do sleep 1000; done";
    node.coordinator
        .launch(shell(&format!("native-{name}"), stays));
    node.coordinator
        .launch(bridged(&format!("net-{name}"), stays, port()));
    node.coordinator.launch(Launch {
        image: image.to_owned(),
        ..shell(
            &format!("image-{name}"),
            "echo ran; while read x; do :; done </dev/zero",
        )
    });
    let members = ["a", "b"].map(|member| shell(&format!("{member}-{name}"), stays));
    let pod = group(&format!("pod-{name}"), NetworkMode::Bridge, &members);
    node.coordinator.say(to_agent::Kind::LaunchGroup(pod));
    ["native", "net", "image", "a", "b"]
        .map(|kind| format!("{kind}-{name}"))
        .to_vec()
}

async fn all_run(node: &Node, tasks: &[String]) -> Vec<u32> {
    let mut pids = Vec::new();
    for task in tasks {
        let running = node.coordinator.update(task, TaskState::TaskRunning).await;
        pids.push(running.pid);
    }
    pids
}

/// Nothing of the kernel's is there any more, files are, and unpacked layers that were not yet
/// synced may be torn.
pub(crate) fn after_a_reboot() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let mut node = Node::start().await;
        let (_registry, image) = image::registry(&node, dir.path()).await;
        let tasks = launch_all(&node, "before", &image);
        let pids = all_run(&node, &tasks).await;
        node.kill_9();
        node.wipe();
        let marks = node.data().join("images/complete");
        for mark in std::fs::read_dir(&marks).unwrap().flatten() {
            std::fs::write(mark.path(), "another-boot\n").unwrap();
        }
        node.coordinator
            .until("all processes to go", |_| {
                pids.iter().all(|pid| !lives(*pid)).then_some(())
            })
            .await;
        node.start_agent().await;
        for task in &tasks {
            let end = node.coordinator.terminal(task).await;
            let why = Some(Reason::ReasonAgentRestarted as i32);
            let states = node.coordinator.states(task);
            assert_eq!(
                (state(&end), end.reason),
                (TaskState::TaskFailed, why),
                "{end:?} {states:?}"
            );
        }
        // The same agent, and a node as good as new.
        let ids: BTreeSet<String> = {
            let heard = node.coordinator.heard.lock().unwrap();
            heard.registers[1..]
                .iter()
                .map(|it| it.agent_id.clone())
                .collect()
        };
        assert_eq!(ids.len(), 1, "{ids:?}");
        node.no_executors().await;
        let tasks = launch_all(&node, "after", &image);
        all_run(&node, &tasks).await;
        assert!(node.end(Signal::TERM));
        node.is_gone();
    });
}

pub(crate) fn updates_wait_for_their_coordinator() {
    run(async {
        let mut node = Node::start().await;
        let came = |node: &Node| {
            let heard = node.coordinator.heard.lock().unwrap();
            heard.came.clone()
        };
        let silent = |node: &Node, is: bool| node.coordinator.heard.lock().unwrap().silent = is;
        silent(&node, true);
        node.coordinator.launch(shell("t", "exit 3"));
        let first = node.coordinator.update("t", TaskState::TaskStarting).await;
        // Its end is on disk, and waits behind what was not acknowledged.
        let file = node.data().join("tasks/t.json");
        let ended = || std::fs::read_to_string(&file).is_ok_and(|text| text.contains("\"ended\""));
        node.coordinator
            .until("the end on disk", |_| ended().then_some(()))
            .await;
        // The coordinator is restarted, then the agent, then both at once.
        for (coordinator, agent) in [(true, false), (false, true), (true, true)] {
            let before = came(&node).len();
            if agent {
                node.kill_9();
            }
            if coordinator {
                node.coordinator.hang_up();
            }
            if agent {
                node.start_agent().await;
            }
            node.coordinator
                .until("the update again", |heard| {
                    (heard.came.len() > before).then_some(())
                })
                .await;
        }
        let same = came(&node).iter().all(|(_, uuid)| *uuid == first.uuid);
        assert!(
            same,
            "one at a time, and always the same: {:?}",
            came(&node)
        );
        silent(&node, false);
        node.coordinator.hang_up();
        let end = node.coordinator.terminal("t").await;
        assert_eq!(
            (state(&end), end.exit_code),
            (TaskState::TaskFailed, Some(3))
        );
        let want = [
            TaskState::TaskStarting,
            TaskState::TaskRunning,
            TaskState::TaskFailed,
        ];
        assert_eq!(node.coordinator.states("t"), want);
        node.coordinator
            .until("the checkpoint to go", |_| (!file.exists()).then_some(()))
            .await;
    });
}

/// Every file that the agent keeps, but for checkpoints (whose content is their tasks') and what
/// belongs to tasks.
fn own_files(data: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![data.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).unwrap().flatten() {
            let path = entry.path();
            let kind = entry.file_type().unwrap();
            let below = path
                .strip_prefix(data)
                .unwrap()
                .to_string_lossy()
                .into_owned();
            let theirs = [
                "slaves",
                "containers",
                "tasks",
                "executors",
                "images/layers",
            ];
            if kind.is_dir() && !theirs.contains(&below.as_str()) {
                dirs.push(path);
            } else if kind.is_file() && below != "keeper.lock" && below != "lock" {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Whatever a file of the agent's holds, tasks run on: it starts, or says what it does not start for.
pub(crate) fn files_of_any_content() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let mut node = Node::start().await;
        let (_registry, image) = image::registry(&node, dir.path()).await;
        let tasks = launch_all(&node, "t", &image);
        let pids = all_run(&node, &tasks).await;
        let files = own_files(&node.data());
        assert!(files.len() > 5, "{files:?}");
        for file in files {
            let Ok(whole) = std::fs::read(&file) else {
                continue;
            };
            let half = whole[..whole.len() / 2].to_vec();
            let keeper_id = file.ends_with("keeper.id");
            for content in [Vec::new(), half, vec![0xff; 100]] {
                // Without its id a keeper is taken for a stranger, which costs only what was on its
                // way to it; what runs is adopted.
                node.kill_9();
                std::fs::write(&file, &content).unwrap();
                let before = node.coordinator.heard.lock().unwrap().registers.len();
                node.spawn();
                let started = node.starts(before).await;
                let log = std::fs::read_to_string(node.log()).unwrap();
                assert!(!log.contains("panicked"), "{file:?}: {log}");
                for (task, pid) in tasks.iter().zip(&pids) {
                    assert!(lives(*pid), "{file:?} {content:?}: {task} died");
                }
                if started {
                    node.kill_9();
                } else {
                    let name = file.file_name().unwrap().to_string_lossy().into_owned();
                    assert!(log.contains(&name), "{file:?} is not named: {log}");
                }
                if !keeper_id {
                    std::fs::write(&file, &whole).unwrap();
                }
                node.start_agent().await;
            }
        }
        for task in &tasks {
            assert_eq!(
                node.coordinator.states(task).last(),
                Some(&TaskState::TaskRunning)
            );
        }
        assert!(node.end(Signal::TERM));
        node.is_gone();
    });
}

impl Node {
    /// Whether the agent registers, rather than ends.
    async fn starts(&mut self, before: usize) -> bool {
        let deadline = std::time::Instant::now() + crate::coordinator::PATIENCE;
        loop {
            if self.ended().is_some() {
                return false;
            }
            if self.coordinator.heard.lock().unwrap().registers.len() > before {
                return true;
            }
            assert!(
                std::time::Instant::now() < deadline,
                "neither starts nor ends"
            );
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    /// Panics if anything of a node that has ended is left.
    fn is_gone(&self) {
        assert_eq!(self.cgroups(), Vec::<PathBuf>::new());
        assert_eq!(self.links(), Vec::<String>::new());
        assert_eq!(self.mounts(), Vec::<String>::new());
    }
}
