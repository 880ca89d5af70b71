//! What a task is on the node when it does not ask for anything: no user of the host, and under the
//! strict filter of system calls.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use gantry_tests::node::Node;
use gantry_tests::poll::until;
use serde_json::json;

/// Where the ranges of containers begin.
const FIRST_ID: u32 = 1 << 20;

fn status_field(pid: &str, field: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.unwrap().split_whitespace().next().unwrap().to_owned()
}

#[test]
fn root_in_a_task_is_nobody_on_the_node() {
    let node = Node::start(&[]);
    let app = |id: &str, port: u16| {
        json!({"id": id, "cmd": "id -u; echo mine > file; exec sleep 1000", "cpus": 0.1,
            "mem": 32, "user": "root", "requirePorts": true,
            "portDefinitions": [{"port": port, "protocol": "tcp"}]})
    };
    node.add_app(&app("/a", 31_500));
    node.add_app(&app("/b", 31_501));
    let mut ids = Vec::new();
    for name in ["/a", "/b"] {
        let tasks = node.wait_running(name, 1);
        let task = tasks[0]["id"].as_str().unwrap();
        until("its output", || match node.output(task) {
            text if text.contains("0\n") => Ok(()),
            text => Err(text),
        });
        let pid = node.task_pid(task).to_string();
        // PID 1 is ours; the command is its child.
        let children = format!("/proc/{pid}/task/{pid}/children");
        let command = std::fs::read_to_string(children).unwrap();
        let command = command.split_whitespace().next().unwrap();
        ids.push(status_field(command, "Uid:").parse::<u32>().unwrap());
        assert_eq!(status_field(command, "Seccomp:"), "2");
        assert_eq!(status_field(command, "NoNewPrivs:"), "1");
        let record = node.state_task(task).unwrap();
        let container = &record["statuses"].as_array().unwrap().last().unwrap()["container_status"]
            ["container_id"]["value"];
        let file = find(node.dir(), container.as_str().unwrap()).join("file");
        assert_eq!(
            std::fs::metadata(file).unwrap().uid(),
            0,
            "ids on disk are the container's"
        );
    }
    assert!(ids.iter().all(|id| *id >= FIRST_ID), "{ids:?}");
    assert_ne!(ids[0], ids[1], "each has a range of its own");
}

/// The sandbox of a container.
fn find(dir: &Path, container: &str) -> std::path::PathBuf {
    let found = std::process::Command::new("find")
        .arg(dir)
        .args(["-path", &format!("*/runs/{container}")])
        .output()
        .unwrap();
    String::from_utf8(found.stdout).unwrap().trim().into()
}
