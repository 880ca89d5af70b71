//! Containers that the API is asked for: inside those of tasks, and for themselves.

use gantry_wire::agent::NetworkMode;
use gantry_wire::mesos::Encoding::{Json, Protobuf};
use gantry_wire::mesos::amounts::scalar_resource;
use gantry_wire::mesos::v1::agent::Call;
use gantry_wire::mesos::v1::agent::call::{
    GetContainers, KillContainer, KillNestedContainer, LaunchContainer, LaunchNestedContainer,
    RemoveContainer, RemoveNestedContainer, Type, WaitContainer, WaitNestedContainer,
};
use gantry_wire::mesos::v1::{CommandInfo, ContainerId, Environment, environment};
use gantry_wire::task::TaskState;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::agent::{Node, run};
use crate::api::{ask, of, send};
use crate::coordinator::shell;

/// A chain of names as an id.
fn id(chain: &[&str]) -> ContainerId {
    let inside = |parent: Option<ContainerId>, name: &&str| {
        Some(ContainerId {
            value: (*name).to_owned(),
            parent: parent.map(Box::new),
        })
    };
    chain.iter().fold(None, inside).unwrap()
}

fn command(line: &str) -> CommandInfo {
    let variable = environment::Variable {
        name: "COLOUR".into(),
        value: Some("green".into()),
        ..environment::Variable::default()
    };
    CommandInfo {
        value: Some(line.into()),
        environment: Some(Environment {
            variables: vec![variable],
        }),
        ..CommandInfo::default()
    }
}

fn launch_nested(chain: &[&str], line: &str) -> Call {
    Call {
        launch_nested_container: Some(LaunchNestedContainer {
            container_id: id(chain),
            command: Some(command(line).into()),
            ..LaunchNestedContainer::default()
        }),
        ..of(Type::LaunchNestedContainer)
    }
}

fn launch(chain: &[&str], line: &str) -> Call {
    let launch = LaunchContainer {
        container_id: id(chain),
        command: Some(command(line).into()),
        resources: vec![scalar_resource("cpus", 0.25), scalar_resource("mem", 48.0)],
        ..LaunchContainer::default()
    };
    Call {
        launch_container: Some(launch.into()),
        ..of(Type::LaunchContainer)
    }
}

fn kill(chain: &[&str], signal: Option<i32>) -> Call {
    Call {
        kill_container: Some(KillContainer {
            container_id: id(chain),
            signal,
        }),
        ..of(Type::KillContainer)
    }
}

fn remove(chain: &[&str]) -> Call {
    Call {
        remove_container: Some(RemoveContainer {
            container_id: id(chain),
        }),
        ..of(Type::RemoveContainer)
    }
}

fn wait(chain: &[&str]) -> Call {
    Call {
        wait_container: Some(WaitContainer {
            container_id: id(chain),
        }),
        ..of(Type::WaitContainer)
    }
}

async fn status(node: &Node, call: &Call) -> u16 {
    send(node, Json, call).await.0
}

/// The status of its end, as wait(2) has it.
async fn end(node: &Node, chain: &[&str]) -> i32 {
    let answer = ask(node, Protobuf, &wait(chain)).await;
    answer.wait_container.unwrap().exit_status()
}

/// The containers that are shown, with all that is to be shown.
async fn shown(node: &Node) -> Vec<ContainerId> {
    let call = Call {
        get_containers: Some(GetContainers {
            show_nested: Some(true),
            show_standalone: Some(true),
        }),
        ..of(Type::GetContainers)
    };
    let answer = ask(node, Protobuf, &call).await.get_containers.unwrap();
    answer
        .containers
        .into_iter()
        .map(|it| it.container_id)
        .collect()
}

async fn bridged(node: &Node, task: &str) -> (String, String) {
    let mut launch = shell(task, "readlink /proc/self/ns/net; sleep 1000");
    launch.network = NetworkMode::Bridge as i32;
    node.coordinator.launch(launch);
    let running = node.coordinator.update(task, TaskState::TaskRunning).await;
    node.written(&format!("{}/stdout", running.sandbox)).await;
    (running.container_id, running.sandbox)
}

#[expect(clippy::too_many_lines, reason = "one story, or one table")]
pub(crate) fn nested_containers_live_in_a_task() {
    run(async {
        let mut node = Node::start().await;
        let (task, sandbox) = bridged(&node, "t").await;
        let net = node.read(&format!("{sandbox}/stdout")).await;
        let line = "readlink /proc/self/ns/net; echo $COLOUR; id -u; ls / >/dev/null; exit 3";
        let first = [task.as_str(), "first"];
        assert_eq!(
            send(&node, Protobuf, &launch_nested(&first, line)).await,
            (200, vec![])
        );
        let nested = Call {
            wait_nested_container: Some(WaitNestedContainer {
                container_id: id(&first),
            }),
            ..of(Type::WaitNestedContainer)
        };
        for encoding in [Json, Protobuf] {
            let end = ask(&node, encoding, &nested).await.wait_nested_container;
            assert_eq!(end.unwrap().exit_status(), 3 << 8);
        }
        let out = format!("/frameworks/fw/executors/{task}.first/runs/latest/stdout");
        assert_eq!(node.read(&out).await, format!("{net}green\n0\n"));
        // It is there until it is removed.
        assert_eq!(status(&node, &launch_nested(&first, "true")).await, 202);
        let removal = Call {
            remove_nested_container: Some(RemoveNestedContainer {
                container_id: id(&first),
            }),
            ..of(Type::RemoveNestedContainer)
        };
        assert_eq!(status(&node, &removal).await, 200);
        assert_eq!(
            (status(&node, &removal).await, status(&node, &nested).await),
            (404, 404)
        );

        let (sleeper, inner) = ([task.as_str(), "s"], [task.as_str(), "s", "inner"]);
        assert_eq!(
            status(&node, &launch_nested(&sleeper, "exec sleep 1000")).await,
            200
        );
        assert_eq!(status(&node, &launch(&inner, "exec sleep 1000")).await, 200);
        assert_eq!(status(&node, &launch(&inner, "exec sleep 1000")).await, 202);
        let here = shown(&node).await;
        for chain in [&[task.as_str()][..], &sleeper, &inner] {
            assert!(here.contains(&id(chain)), "{chain:?} {here:?}");
        }
        assert_eq!(status(&node, &remove(&sleeper)).await, 500);
        let term = Call {
            kill_nested_container: Some(KillNestedContainer {
                container_id: id(&sleeper),
                signal: Some(15),
            }),
            ..of(Type::KillNestedContainer)
        };
        assert_eq!(status(&node, &term).await, 200);
        assert_eq!(end(&node, &sleeper).await, 15);
        // What is inside goes with it.
        node.coordinator
            .until("the inner one's end", |_| {
                (node.containers() == 1).then_some(())
            })
            .await;
        assert_eq!(status(&node, &wait(&inner)).await, 404);

        let last = [task.as_str(), "last"];
        assert_eq!(
            status(&node, &launch_nested(&last, "exec sleep 1000")).await,
            200
        );
        node.coordinator.kill("t", 0);
        node.coordinator.terminal("t").await;
        node.coordinator
            .until("the end of all", |_| (node.containers() == 0).then_some(()))
            .await;
        assert!(shown(&node).await.is_empty());
        assert!(node.end(Signal::TERM));
    });
}

#[expect(clippy::too_many_lines, reason = "one story, or one table")]
pub(crate) fn launches_are_refused_in_words() {
    run(async {
        let node = Node::start().await;
        let (task, _) = bridged(&node, "t").await;
        let nested = |value: &str| json!({"value": value, "parent": {"value": task}});
        let fine = json!({"value": "true"});
        let with = |container: Value| json!({"container_id": nested("n"), "command": fine, "container": container});
        let volume = json!({"type": "MESOS", "volumes": [{"mode": "RW", "container_path": "/x", "host_path": "/etc"}]});
        let cut = |id: &Value| json!({"container_id": id, "command": fine});
        let secret = json!({"value": "true", "environment": {"variables": [{"name": "x", "secret": {"type": "REFERENCE"}}]}});
        for (body, want, words) in [
            (cut(&json!({"value": "n"})), 400, "parent"),
            (
                cut(&json!({"value": "n", "parent": {"value": "nobody"}})),
                404,
                "nobody",
            ),
            (cut(&nested("a/b")), 400, "a/b"),
            (cut(&nested("..")), 400, ".."),
            (cut(&nested("a.b")), 400, "name"),
            (cut(&nested("")), 400, ""),
            (cut(&nested(&"x".repeat(300))), 400, "xxx"),
            (with(volume), 400, "volumes"),
            (
                with(json!({"type": "DOCKER", "docker": {"image": "x"}})),
                400,
                "MESOS",
            ),
            (
                with(json!({"type": "MESOS", "tty_info": {}})),
                400,
                "tty_info",
            ),
            (
                with(json!({"type": "MESOS", "linux_info": {"share_pid_namespace": true}})),
                400,
                "linux_info",
            ),
            (json!({"container_id": nested("n")}), 400, "command"),
            (
                json!({"container_id": nested("n"), "command": {"value": ""}}),
                400,
                "value",
            ),
            (
                json!({"container_id": nested("n"), "command": secret}),
                400,
                "secret",
            ),
            (
                json!({"container_id": nested("n"), "command": {"value": "x", "uris": [{"value": "/etc/passwd"}]}}),
                400,
                "uris",
            ),
            (
                json!({"container_id": nested("n"), "command": {"value": "/no/such", "shell": false}}),
                400,
                "/no/such",
            ),
            (json!({"command": fine}), 400, "container_id"),
        ] {
            let call = json!({"type": "LAUNCH_NESTED_CONTAINER", "launch_nested_container": body});
            let request = reqwest::Client::new().post(node.url("/api/v1"));
            let answer = request
                .header("Content-Type", "application/json")
                .body(call.to_string());
            let answer = answer.send().await.unwrap();
            assert_eq!(answer.status().as_u16(), want, "{body}");
            let text = answer.text().await.unwrap();
            assert!(text.contains(words), "{body}: {text}");
        }
        // The task's own are its framework's.
        for call in [kill(&[&task], None), remove(&[&task])] {
            assert_eq!(status(&node, &call).await, 403);
        }
        for call in [
            kill(&["no"], None),
            kill(&[&task, "no"], None),
            remove(&["no"]),
            wait(&["no"]),
        ] {
            assert_eq!(status(&node, &call).await, 404);
        }
        assert_eq!(status(&node, &kill(&["no"], Some(65))).await, 400);
        let deep: Vec<&str> = std::iter::repeat_n("a", 33).collect();
        assert_eq!(status(&node, &wait(&deep)).await, 400);
        assert_eq!(node.containers(), 1, "nothing is left of them");
        node.coordinator.kill("t", 0);
        node.coordinator.terminal("t").await;
    });
}

pub(crate) fn standalone_containers_outlive_the_agent() {
    run(async {
        let mut node = Node::start().await;
        let line = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done";
        for encoding in [Json, Protobuf] {
            let name = format!("alone-{encoding:?}");
            let call = launch(&[&name], line);
            assert_eq!(send(&node, encoding, &call).await.0, 200);
            let path =
                format!("/frameworks/standalone/executors/standalone.{name}/runs/latest/stdout");
            node.holds(&path, "ready\n").await;
            let limit = node.limit_of(&format!("standalone.{name}"));
            assert_eq!(limit, 48 << 20);
        }
        let names = [["alone-Json"], ["alone-Protobuf"]];
        assert_eq!(shown(&node).await, names.map(|name| id(&name)));
        node.kill_9();
        node.start_agent().await;
        node.coordinator
            .until("both to be taken up", |_| {
                (node.containers() == 2).then_some(())
            })
            .await;
        let taken_up = async || {
            let deadline = std::time::Instant::now() + crate::coordinator::PATIENCE;
            while shown(&node).await.is_empty() {
                assert!(
                    std::time::Instant::now() < deadline,
                    "they are not taken up"
                );
            }
        };
        taken_up().await;
        assert_eq!(status(&node, &launch(&names[0], line)).await, 202);
        assert_eq!(status(&node, &kill(&names[0], Some(15))).await, 200);
        assert_eq!(end(&node, &names[0]).await, 9 << 8);
        // Its end is known after a restart, too.
        node.kill_9();
        node.start_agent().await;
        assert_eq!(end(&node, &names[0]).await, 9 << 8);
        assert_eq!(status(&node, &remove(&names[0])).await, 200);
        // One that is lost with its keeper has ended.
        rustix::process::kill_process(node.keeper().unwrap(), Signal::KILL).unwrap();
        assert_eq!(end(&node, &names[1]).await, 9);
        assert_eq!(
            status(&node, &launch(&["another"], "exec sleep 1000")).await,
            200
        );
        assert!(node.end(Signal::TERM));
        assert_eq!(node.containers(), 0);
    });
}

impl Node {
    /// Containers that have a cgroup.
    fn containers(&self) -> usize {
        let has_process = |dir: &std::path::PathBuf| {
            let procs = std::fs::read_to_string(dir.join("cgroup.procs"));
            procs.is_ok_and(|text| !text.trim().is_empty())
        };
        let below = |group: &std::path::PathBuf| {
            let dirs = std::fs::read_dir(group).into_iter().flatten().flatten();
            dirs.map(|entry| entry.path()).filter(has_process).count()
        };
        self.cgroups().iter().map(below).max().unwrap_or_default()
    }

    fn limit_of(&self, container: &str) -> u64 {
        let files = ["memory.limit_in_bytes", "memory.max"];
        let groups = self.cgroups();
        let paths = groups
            .iter()
            .flat_map(|dir| files.map(|file| dir.join(container).join(file)));
        let mut found = paths.filter_map(|path| std::fs::read_to_string(path).ok());
        found.next().unwrap().trim().parse().unwrap()
    }
}
