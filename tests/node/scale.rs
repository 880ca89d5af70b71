//! Changes of a service: scale, new command, restart, delete, backoff, one-shots.

use std::collections::BTreeSet;

use gantry_tests::node::Node;
use gantry_tests::poll::until;
use serde_json::{Value, json};

fn ids(tasks: &[Value]) -> BTreeSet<String> {
    tasks
        .iter()
        .map(|t| t["id"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn scaling_keeps_instances_and_a_new_command_replaces_them() {
    let node = Node::start(&[]);
    node.add_app(&json!({"id": "/s", "cmd": "sleep 1000", "cpus": 0.05, "mem": 32}));
    let one = ids(&node.wait_running("/s", 1));
    let scaled = node.put("/v2/apps/s", &json!({"instances": 3}));
    assert_eq!(scaled.status, 200, "{}", scaled.body);
    let three = ids(&node.wait_running("/s", 3));
    assert!(three.is_superset(&one), "scaling restarts nothing");
    node.wait_deployed();

    assert_eq!(node.put("/v2/apps/s", &json!({"instances": 2})).status, 200);
    let two = ids(&node.wait_running("/s", 2));
    assert!(two.is_subset(&three));
    node.wait_deployed();

    assert_eq!(
        node.put("/v2/apps/s", &json!({"cmd": "sleep 2000"})).status,
        200
    );
    node.wait_deployed();
    let replaced = ids(&node.wait_running("/s", 2));
    assert!(replaced.is_disjoint(&two), "{replaced:?} {two:?}");

    assert_eq!(node.post("/v2/apps/s/restart", &json!({})).status, 200);
    node.wait_deployed();
    let restarted = ids(&node.wait_running("/s", 2));
    assert!(restarted.is_disjoint(&replaced));

    assert_eq!(node.delete("/v2/apps/s").status, 200);
    until("the app is gone", || {
        let answer = node.get("/v2/apps/s");
        if answer.status == 404 {
            Ok(())
        } else {
            Err(answer.body.to_string())
        }
    });
    until("its tasks are gone too", || {
        let tasks = node.get("/v2/tasks").body;
        if tasks["tasks"] == json!([]) {
            Ok(())
        } else {
            Err(tasks.to_string())
        }
    });
}

#[test]
fn a_crashing_command_is_restarted_with_growing_delay() {
    let node = Node::start(&[]);
    node.add_app(&json!({
        "id": "/crash", "cmd": "exit 3", "cpus": 0.05, "mem": 32, "backoffSeconds": 1,
        "backoffFactor": 2
    }));
    let message = node.wait_failure("/crash");
    assert!(message.contains('3'), "{message}");
    let failure = node.get("/v2/apps/crash").body["app"]["lastTaskFailure"].clone();
    assert_eq!(failure["state"], "TASK_FAILED");
    until("a delay in the queue", || {
        let queue = node.get("/v2/queue").body;
        let item = queue["queue"].as_array().into_iter().flatten().find(|q| {
            q["app"]["id"] == "/crash" && q["delay"]["timeLeftSeconds"].as_u64() > Some(1)
        });
        item.map(|_| ()).ok_or_else(|| queue.to_string())
    });
    let first = failure["taskId"].as_str().unwrap().to_owned();
    until("a second task that failed", || {
        let now = node.get("/v2/apps/crash").body["app"]["lastTaskFailure"]["taskId"].clone();
        if now == first.as_str() {
            Err(now.to_string())
        } else {
            Ok(())
        }
    });
}

#[test]
fn a_one_shot_ends_and_its_output_stays() {
    let node = Node::start(&[]);
    node.add_app(&json!({
        "id": "/once", "cmd": "echo computed 42", "cpus": 0.05, "mem": 32,
        "backoffSeconds": 3600, "maxLaunchDelaySeconds": 3600
    }));
    let id = until("a finished task", || {
        let state = node.get("/state").body;
        let tasks = state["frameworks"][0]["completed_tasks"]
            .as_array()
            .cloned();
        let done = tasks
            .into_iter()
            .flatten()
            .find(|t| t["state"] == "TASK_FINISHED");
        done.and_then(|t| t["id"].as_str().map(str::to_owned))
            .ok_or_else(|| state.to_string())
    });
    assert!(node.output(&id).contains("computed 42"));
}

#[test]
fn a_stop_is_quick_for_a_command_that_honours_sigterm() {
    let node = Node::start(&[]);
    node.add_app(&json!({
        "id": "/t", "cmd": "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.1; done",
        "cpus": 0.1, "mem": 32, "taskKillGracePeriodSeconds": 300
    }));
    let tasks = node.wait_running("/t", 1);
    let id = tasks[0]["id"].as_str().unwrap();
    until("the trap is set", || {
        let text = node.output(id);
        if text.contains("up") {
            Ok(())
        } else {
            Err(text)
        }
    });
    node.delete("/v2/apps/t");
    until("the task ended by itself", || {
        let task = node.state_task(id).ok_or("not in /state")?;
        if task["state"] == "TASK_KILLED" {
            Ok(())
        } else {
            Err(task.to_string())
        }
    });
    assert!(node.output(id).contains("bye"));
}
