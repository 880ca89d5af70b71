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

/// A task that ignores SIGTERM, and does so by now: its process.
fn deaf(node: &Node, grace_seconds: u64) -> u32 {
    node.add_app(&json!({
        "id": "/n", "cmd": "trap '' TERM; echo up; while :; do sleep 1; done",
        "cpus": 0.1, "mem": 32, "taskKillGracePeriodSeconds": grace_seconds
    }));
    let task = node.wait_running("/n", 1).remove(0);
    let id = task["id"].as_str().unwrap();
    until("the trap is set", || {
        let text = node.output(id);
        if text.contains("up") {
            Ok(())
        } else {
            Err(text)
        }
    });
    node.task_pid(id)
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
fn a_signal_passed_on_twice_is_one() {
    let mut node = Node::start(&[]);
    let pid = deaf(&node, 3);
    gantry_tests::node::signal(node.pid(), "TERM");
    until("gantry stops", || {
        let log = node.log();
        let said = log.contains("again to stop at once and leave them");
        if said { Ok(()) } else { Err(log) }
    });
    gantry_tests::node::signal(node.pid(), "INT");
    // `stop` sends a third.
    assert_eq!(node.stop(), Some(0), "{}", node.log());
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn a_signal_a_while_after_the_first_leaves_the_tasks() {
    let mut node = Node::start(&[]);
    let pid = deaf(&node, 5);
    let begin = std::time::Instant::now();
    until("gantry stops at once", || {
        gantry_tests::node::signal(node.pid(), "INT");
        let log = node.log();
        if log.contains("stopped at once") {
            Ok(())
        } else {
            Err(log)
        }
    });
    assert!(begin.elapsed() >= std::time::Duration::from_secs(1));
    assert_eq!(node.stop(), Some(130), "{}", node.log());
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists());
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
