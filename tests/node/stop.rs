//! The end of a node: clean by default, tasks kept with `--keep-tasks`.

use gantry_tests::kernel::{Holdings, tag_of};
use gantry_tests::node::Node;
use gantry_tests::poll::until;
use serde_json::json;

fn bridged(id: &str) -> serde_json::Value {
    json!({
        "id": id, "cmd": "sleep 1000", "cpus": 0.1, "mem": 32, "instances": 2,
        "networks": [{"mode": "container/bridge"}],
        "container": {"type": "MESOS", "portMappings": [{"containerPort": 80, "hostPort": 0}]}
    })
}

#[test]
fn sigterm_stops_tasks_and_leaves_nothing() {
    let mut node = Node::start(&[]);
    node.add_app(&bridged("/b"));
    node.add_app(
        &json!({"id": "/n", "cmd": "trap '' TERM; sleep 1000", "cpus": 0.1, "mem": 32,
        "taskKillGracePeriodSeconds": 1}),
    );
    let task = node.wait_running("/b", 2).remove(0);
    node.wait_running("/n", 1);
    let tag = tag_of(node.task_pid(task["id"].as_str().unwrap()));
    let data = node.dir().join("data");
    let held = Holdings::look(&tag, &data);
    assert!(
        held.processes.len() >= 3 && held.links.len() >= 3 && !held.nft.is_empty(),
        "{held:?}"
    );
    assert_eq!(node.stop(), Some(0), "{}", node.log());
    until("nothing is left", || {
        let left = Holdings::look(&tag, &data);
        if left == Holdings::default() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    });
    node.boot();
    node.wait_running("/b", 2);
    node.wait_running("/n", 1);
}

#[test]
fn keep_tasks_leaves_them_for_the_next_start() {
    let mut node = Node::start(&["--keep-tasks"]);
    node.add_app(&bridged("/b"));
    let before = node.wait_running("/b", 2);
    let pid = node.task_pid(before[0]["id"].as_str().unwrap());
    assert_eq!(node.stop(), Some(0), "{}", node.log());
    assert!(
        std::path::Path::new(&format!("/proc/{pid}")).exists(),
        "the task runs on"
    );
    node.boot();
    let after = node.wait_running("/b", 2);
    let ids = |tasks: &[serde_json::Value]| {
        let mut ids: Vec<String> = tasks.iter().map(|t| t["id"].to_string()).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&before), ids(&after));
    assert_eq!(node.task_pid(before[0]["id"].as_str().unwrap()), pid);
}
