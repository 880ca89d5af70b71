//! `kill -9` of gantry at random moments: tasks run on, output flows, nothing is lost, started
//! twice or leaked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, SystemTime};

use gantry_tests::kernel::{Holdings, tag_of};
use gantry_tests::node::Node;
use gantry_tests::poll::until;
use serde_json::{Value, json};

/// Kills of one run.
const ROUNDS: u32 = 50;

/// A small generator (xorshift64*), so that a failure prints a seed that can be tried again.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % bound
    }
}

fn seed() -> u64 {
    let given = std::env::var("GANTRY_SEED")
        .ok()
        .and_then(|s| s.parse().ok());
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_nanos() as u64;
    let seed = given.unwrap_or(now) | 1;
    eprintln!("GANTRY_SEED={seed}");
    seed
}

/// An app whose instances note each start in a folder of the host.
fn app(id: &str, notes: &Path, cmd: &str, more: &Value) -> Value {
    let mut app = json!({
        "id": id, "cpus": 0.05, "mem": 32,
        "cmd": format!("echo start >> /notes/$MESOS_TASK_ID; {cmd}"),
        "container": {"type": "MESOS", "volumes": [
            {"containerPath": "/notes", "hostPath": notes.to_string_lossy(), "mode": "RW"}
        ]}
    });
    for (key, value) in more.as_object().unwrap() {
        app[key] = value.clone();
    }
    app
}

fn ids(tasks: &[Value]) -> BTreeSet<String> {
    tasks
        .iter()
        .map(|t| t["id"].as_str().unwrap().to_owned())
        .collect()
}

fn started_once(notes: &Path) {
    for entry in std::fs::read_dir(notes).unwrap().flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap();
        assert_eq!(
            text,
            "start\n",
            "{:?} was started more than once",
            entry.file_name()
        );
    }
}

/// Length of the running tasks' stdout files, by task.
fn output_sizes(data: &Path) -> BTreeMap<String, u64> {
    let mut sizes = BTreeMap::new();
    let mut folders = vec![data.join("agent/slaves")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(_) if entry.file_name() == "stdout" => {
                    let size = entry.metadata().map_or(0, |m| m.len());
                    sizes.insert(entry.path().to_string_lossy().into_owned(), size);
                }
                _ => {}
            }
        }
    }
    sizes
}

/// The services of which instances come and go, and how many of each are wanted in a round.
const LOADS: [&str; 2] = ["/load", "/load-net"];

fn add_loads(node: &Node, notes: &Path) {
    for id in LOADS {
        let mut load = app(id, notes, "sleep 100000", &json!({"instances": 0}));
        if id == "/load-net" {
            load["networks"] = json!([{"mode": "container/bridge"}]);
            load["container"]["portMappings"] = json!([{"containerPort": 80, "hostPort": 0}]);
        }
        node.add_app(&load);
    }
}

fn scale_loads(node: &Node, wanted: [u64; 2]) {
    for (id, count) in LOADS.iter().zip(wanted) {
        let path = format!("/v2/apps{id}?force=true");
        let change = node.put(&path, &json!({"instances": count}));
        assert_eq!(change.status, 200, "{}", change.body);
    }
}

fn wait_loads(node: &Node, wanted: [u64; 2]) {
    for (id, count) in LOADS.iter().zip(wanted) {
        node.wait_running(id, usize::try_from(count).unwrap());
    }
}

fn output_flows(data: &Path) {
    let before = output_sizes(data);
    until("output flows while gantry is dead", || {
        let now = output_sizes(data);
        let grown = before
            .iter()
            .filter(|(path, size)| now.get(*path) > Some(*size));
        if grown.count() >= 2 {
            Ok(())
        } else {
            Err(format!("{before:?} {now:?}"))
        }
    });
}

#[test]
fn fifty_kills_lose_double_and_leak_nothing() {
    let mut random = Random(seed());
    let notes = tempfile::tempdir().unwrap();
    let mut node = Node::start(&[]);
    let data = node.dir().join("data");
    let chatter = "while :; do echo tick; sleep 0.05; done";
    node.add_app(&app(
        "/chat",
        notes.path(),
        chatter,
        &json!({"instances": 2}),
    ));
    let bridged = json!({"networks": [{"mode": "container/bridge"}]});
    node.add_app(&app("/net", notes.path(), "sleep 100000", &bridged));
    let chat = ids(&node.wait_running("/chat", 2));
    let net = ids(&node.wait_running("/net", 1));
    let tag = tag_of(node.task_pid(net.iter().next().unwrap()));
    add_loads(&node, notes.path());

    for round in 0..ROUNDS {
        // Something is on its way when the kill comes: starts, stops, or nothing.
        let wanted = [random.below(3), random.below(3)];
        scale_loads(&node, wanted);
        std::thread::sleep(Duration::from_millis(random.below(120)));
        node.kill_9();
        if round % 10 == 0 {
            output_flows(&data);
        }
        if random.below(3) == 0 {
            // Killed again while it takes up what it finds.
            node.spawn();
            std::thread::sleep(Duration::from_millis(random.below(500)));
            node.kill_9();
        }
        node.boot();
        wait_loads(&node, wanted);
        assert_eq!(ids(&node.wait_running("/chat", 2)), chat, "round {round}");
        assert_eq!(ids(&node.wait_running("/net", 1)), net, "round {round}");
    }
    node.wait_deployed();
    started_once(notes.path());

    scale_loads(&node, [0, 0]);
    wait_loads(&node, [0, 0]);
    // Three containers are left: each with its own cgroups, one of them with a bridge port.
    until("only what the three tasks need is left", || {
        let held = Holdings::look(&tag, &data);
        let names: BTreeSet<&str> = held
            .cgroups
            .iter()
            .filter_map(|c| c.rsplit('/').next())
            .collect();
        let good = names.len() == 3 && held.links.len() == 2 && held.mounts.is_empty();
        if good {
            Ok(())
        } else {
            Err(format!("{held:#?}"))
        }
    });
}

#[test]
fn an_exit_while_gantry_is_dead_is_not_lost() {
    let notes = tempfile::tempdir().unwrap();
    let mut node = Node::start(&[]);
    let backoff = json!({"backoffSeconds": 3600, "maxLaunchDelaySeconds": 3600});
    let cmd =
        "until [ -e /notes/go ]; do sleep 0.02; done; echo last words; echo > /notes/gone; exit 9";
    node.add_app(&app("/dies", notes.path(), cmd, &backoff));
    let id = ids(&node.wait_running("/dies", 1)).pop_first().unwrap();
    node.kill_9();
    std::fs::write(notes.path().join("go"), "").unwrap();
    until("the task ended", || {
        if notes.path().join("gone").exists() {
            Ok(())
        } else {
            Err("not yet".to_owned())
        }
    });
    node.boot();
    let message = node.wait_failure("/dies");
    assert!(message.contains('9'), "{message}");
    let task = node.state_task(&id).unwrap();
    assert_eq!(task["state"], "TASK_FAILED", "{task}");
    assert!(node.output(&id).contains("last words"));
    assert_eq!(
        std::fs::read_to_string(notes.path().join(&id)).unwrap(),
        "start\n"
    );
}
