//! Tasks that share the host's network and its API: out of their reach, unless the node says else.

use std::net::TcpStream;

use gantry_tests::kernel::{Holdings, namespace, tag_of};
use gantry_tests::node::{Node, free_port, signal};
use gantry_tests::poll::until;
use serde_json::json;

/// Rounds of a task that must pass before its results count.
const ROUNDS: u64 = 10;

/// Says of each port what came of connecting to it.
fn one_round(ports: &[u16]) -> String {
    let list: Vec<String> = ports.iter().map(u16::to_string).collect();
    format!(
        "for p in {}; do e=$( (exec 3<>/dev/tcp/127.0.0.1/$p) 2>&1 ) && echo $p open \
         || echo $p ${{e##*: }}; done",
        list.join(" ")
    )
}

/// Adds a native task on the host's network that tries all ports over and over; gives its id.
fn add_prober(node: &Node, id: &str, user: Option<&str>, ports: &[u16]) -> String {
    let script = format!(
        "i=0; while :; do {}; i=$((i+1)); echo round $i; sleep 0.05; done",
        one_round(ports)
    );
    let mut app = json!({
        "id": id, "args": ["bash", "-c", script], "cpus": 0.1, "mem": 32,
        "networks": [{"mode": "host"}]
    });
    if let Some(user) = user {
        app["user"] = json!(user);
    }
    node.add_app(&app);
    let task = node.wait_running(id, 1).remove(0);
    task["id"].as_str().unwrap().to_owned()
}

fn round(text: &str) -> u64 {
    let last = text
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("round "));
    last.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// What the task wrote once it has tried everything some more times.
fn results(node: &Node, task: &str) -> String {
    // Right after a start the agent may not listen yet.
    let mut begun = None;
    until("some more rounds", || {
        let out = node.cli(&["task", "log", task]);
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        if !out.status.success() {
            return Err(String::from_utf8_lossy(&out.stderr).into_owned());
        }
        if round(&text) >= *begun.get_or_insert(round(&text)) + ROUNDS {
            Ok(text)
        } else {
            Err(text)
        }
    })
}

fn all_refused(text: &str, ports: &[u16]) {
    for port in ports {
        assert!(
            text.contains(&format!("{port} Connection refused")),
            "{port}:\n{text}"
        );
    }
    assert!(!text.contains("open"), "{text}");
}

/// The node's keeper, found by its arguments.
fn keeper_pid(node: &Node) -> u32 {
    let data = node.dir().join("data/agent");
    let mine = |pid: &u32| {
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&arguments).into_owned();
        arguments.contains("\0keeper\0") && arguments.contains(&*data.to_string_lossy())
    };
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let mut pids = pids.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok());
    pids.find(mine).unwrap()
}

/// The task that came instead of one that was lost.
fn started_anew(node: &Node, app: &str, lost: &str) -> String {
    until("another task", || {
        let tasks = node.wait_running(app, 1);
        let id = tasks[0]["id"].as_str().unwrap_or(lost).to_owned();
        if id == lost {
            Err(format!("{tasks:?}"))
        } else {
            Ok(id)
        }
    })
}

fn the_test_itself_connects(node: &Node) {
    assert_eq!(node.get("/ping").status, 200);
    TcpStream::connect(("127.0.0.1", node.agent_port)).unwrap();
}

#[test]
fn tasks_on_the_host_network_do_not_reach_the_api_now_or_after_a_crash() {
    let mut node = Node::start(&[]);
    let next = [free_port(), free_port()];
    let ports = [node.port, node.agent_port, next[0], next[1]];
    let root = add_prober(&node, "/root", None, &ports);
    let user = add_prober(&node, "/user", Some("1000:1000"), &ports);
    let tag = tag_of(node.task_pid(&root));
    let pid = node.task_pid(&user);
    assert_eq!(
        namespace(&pid.to_string(), "net"),
        namespace("self", "net"),
        "this is about tasks that share the host's network"
    );
    for task in [&root, &user] {
        all_refused(&results(&node, task), &ports);
        // What is executed in a running task is in its cgroup as well.
        let once = one_round(&ports[..2]);
        let out = node.cli_ok(&["task", "exec", task, "--", "bash", "-c", &once]);
        all_refused(&out, &ports[..2]);
    }
    the_test_itself_connects(&node);

    node.kill_9();
    node.boot();
    for task in [&root, &user] {
        all_refused(&results(&node, task), &ports);
    }
    the_test_itself_connects(&node);

    // A keeper that died took its tasks along; those of the next one are kept out as well.
    signal(keeper_pid(&node), "KILL");
    let root = started_anew(&node, "/root", &root);
    let user = started_anew(&node, "/user", &user);
    for task in [&root, &user] {
        all_refused(&results(&node, task), &ports);
    }

    // Elsewhere after the next crash: the tasks know where, and are kept out from the first moment.
    node.kill_9();
    [node.port, node.agent_port] = next;
    node.boot();
    for task in [&root, &user] {
        all_refused(&results(&node, task), &ports);
    }
    the_test_itself_connects(&node);

    let data = node.dir().join("data");
    let rules = Holdings::look(&tag, &data).nft;
    assert!(
        rules
            .iter()
            .any(|rule| rule.contains(&next[0].to_string()) && rule.contains("reset"))
    );
    assert_eq!(node.stop(), Some(0), "{}", node.log());
    assert_eq!(Holdings::look(&tag, &data).nft.len(), 0);
}

#[test]
fn tasks_do_not_take_the_ports_of_a_node_that_died() {
    let mut node = Node::start(&[]);
    let script = format!(
        "use Socket; $| = 1; while (1) {{ for $p ({}, {}) {{ socket($s, AF_INET, SOCK_STREAM, 0); \
         setsockopt($s, SOL_SOCKET, SO_REUSEADDR, 1); \
         print bind($s, pack_sockaddr_in($p, INADDR_ANY)) ? qq(taken\\n) : qq($!\\n); close $s }} \
         print qq(round ), ++$i, qq(\\n); select(undef, undef, undef, 0.05) }}",
        node.port, node.agent_port
    );
    node.add_app(&json!({
        "id": "/squat", "args": ["perl", "-e", script], "cpus": 0.1, "mem": 32,
        "networks": [{"mode": "host"}]
    }));
    let task = node.wait_running("/squat", 1).remove(0);
    let task = task["id"].as_str().unwrap();
    let refused = |text: &str| {
        assert!(text.contains("Operation not permitted"), "{text}");
        assert!(
            !text.contains("taken") && !text.contains("in use"),
            "{text}"
        );
    };
    refused(&results(&node, task));
    node.kill_9();
    // Long enough for it to try while nobody listens; then the node must have its ports again.
    std::thread::sleep(std::time::Duration::from_millis(300));
    node.boot();
    refused(&results(&node, task));
    the_test_itself_connects(&node);
}

#[test]
fn tasks_reach_the_api_where_the_node_allows_it() {
    let node = Node::start(&["--tasks-may-use-api"]);
    let ports = [node.port, node.agent_port];
    let task = add_prober(&node, "/lb", Some("1000:1000"), &ports);
    let text = results(&node, &task);
    for port in ports {
        assert!(text.contains(&format!("{port} open")), "{text}");
    }
}
