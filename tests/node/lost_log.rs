//! A log that is gone: no new cluster begins over the tasks that run, and what is restored goes on.

use std::path::{Path, PathBuf};

use gantry_tests::node::Node;
use gantry_tests::poll::until;
use serde_json::json;

/// A stopped node whose one task, with this id and pid, runs on.
fn stopped() -> (Node, String, u32) {
    let mut node = Node::start(&["--keep-tasks"]);
    node.add_app(&json!({"id": "/stays", "cmd": "sleep 100000", "cpus": 0.1, "mem": 32}));
    let id = running(&node);
    let pid = node.task_pid(&id);
    assert_eq!(node.stop(), Some(0), "{}", node.log());
    assert!(lives(pid));
    (node, id, pid)
}

fn running(node: &Node) -> String {
    let task = node.wait_running("/stays", 1).remove(0);
    task["id"].as_str().unwrap().to_owned()
}

fn lives(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

fn coordinator(node: &Node) -> PathBuf {
    node.dir().join("data/coordinator")
}

fn says(node: &Node, sentence: &str) {
    until(&format!("'{sentence}' in the log"), || {
        let log = node.log();
        if log.contains(sentence) {
            Ok(())
        } else {
            Err(log)
        }
    });
}

fn goes_on(node: &mut Node, id: &str, pid: u32) {
    node.boot();
    assert_eq!(running(node), id);
    assert_eq!(node.task_pid(id), pid);
}

#[test]
fn a_deleted_log_stops_the_start_and_not_the_tasks() {
    let (mut node, id, pid) = stopped();
    let log = coordinator(&node).join("log");
    let kept = node.dir().join("kept");
    std::fs::rename(&log, &kept).unwrap();
    node.spawn();
    says(&node, "neither its log nor a snapshot does");
    assert_eq!(node.stop(), Some(1), "{}", node.log());
    let marker = coordinator(&node).join("cluster.id");
    says(&node, &marker.to_string_lossy());
    says(&node, "Restore");
    assert!(lives(pid));
    std::fs::remove_dir(&log).unwrap();
    std::fs::rename(&kept, &log).unwrap();
    goes_on(&mut node, &id, pid);
}

#[test]
fn a_new_cluster_does_not_take_over_the_agent_of_an_old_one() {
    let (mut node, id, pid) = stopped();
    let kept = node.dir().join("kept");
    std::fs::rename(coordinator(&node), &kept).unwrap();
    node.spawn();
    says(&node, "it belongs to the cluster");
    let agents = node.get("/state").body["slaves"].clone();
    assert_eq!(agents, json!([]));
    assert_eq!(node.stop(), Some(0), "{}", node.log());
    assert!(lives(pid));
    std::fs::remove_dir_all(coordinator(&node)).unwrap();
    std::fs::rename(&kept, coordinator(&node)).unwrap();
    goes_on(&mut node, &id, pid);
}
