//! Nodes that operators take out and back in, nodes that are gone, and one that is cut off.

use gantry_tests::apart::{Machines, Member};
use gantry_tests::poll::until;
use serde_json::{Value, json};

fn agent<'a>(machines: &'a Machines, machine: usize) -> Member<'a> {
    machines.agent(machine, &["--resources", "cpus:1;mem:256"])
}

fn add(machines: &Machines, id: &str, instances: u32, cmd: &str) {
    let app = json!({"id": id, "instances": instances, "cpus": 0.4, "mem": 32, "cmd": cmd,
        "backoffSeconds": 1, "maxLaunchDelaySeconds": 1});
    let (code, said) = machines.post("/v2/apps", &app);
    assert_eq!(code, 201, "{said}");
}

fn node(machines: &Machines, host: &str) -> Value {
    let nodes = machines.nodes();
    nodes
        .into_iter()
        .find(|node| node["hostname"] == host)
        .unwrap_or_default()
}

fn hosts(tasks: &[Value]) -> Vec<&str> {
    tasks
        .iter()
        .map(|task| task["host"].as_str().unwrap())
        .collect()
}

fn wait_status(machines: &Machines, host: &str, is: impl Fn(&Value) -> bool) {
    until(&format!("{host} is as it should be"), || {
        match node(machines, host) {
            node if is(&node) => Ok(()),
            node => Err(node.to_string()),
        }
    });
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story")]
fn a_node_is_drained_across_a_restart_reactivated_and_gone() {
    let machines = Machines::new(3);
    let coordinator = machines.coordinator();
    let mut first = agent(&machines, 1);
    let mut second = agent(&machines, 2);
    machines.wait_active(2, &[&coordinator, &first, &second]);
    // Deaf to SIGTERM, and with a grace that outlasts the test: only the drain's counts.
    let deaf = json!({"id": "/deaf", "cpus": 0.4, "mem": 32, "instances": 2,
        "cmd": "trap '' TERM; while true; do sleep 0.1; done", "taskKillGracePeriodSeconds": 3600});
    assert_eq!(machines.post("/v2/apps", &deaf).0, 201);
    let tasks = machines.wait_running("/deaf", 2);
    let mut placed = hosts(&tasks);
    placed.sort_unstable();
    assert_eq!(placed, ["10.77.0.2", "10.77.0.3"]);

    machines.cli(&["node", "deactivate", "10.77.0.3"]);
    wait_status(&machines, "10.77.0.3", |node| {
        node["deactivated"] == true && node["active"] == false
    });
    assert!(machines.cli(&["node", "list"]).contains("deactivated"));
    machines.cli(&["node", "reactivate", "10.77.0.3"]);
    wait_status(&machines, "10.77.0.3", |node| {
        node["deactivated"] == false && node["active"] == true
    });

    // It hears of the drain after it was killed, and is killed again while it drains.
    first.kill_9();
    machines.wait_active(1, &[]);
    machines.cli(&["node", "drain", "10.77.0.2", "--max-grace-period", "2"]);
    let id = node(&machines, "10.77.0.2")["id"].clone();
    let back = json!({"type": "REACTIVATE_AGENT", "reactivate_agent": {"agent_id": {"value": id}}});
    assert_eq!(
        machines.post("/api/v1", &back).0,
        400,
        "not before it is drained"
    );
    first.spawn();
    until("it keeps the drain", || {
        match first.data().join("drain.json").exists() {
            true => Ok(()),
            false => Err(first.log()),
        }
    });
    first.kill_9();
    first.spawn();
    wait_status(&machines, "10.77.0.2", |node| {
        node["drain_info"]["state"] == "DRAINED"
    });
    let config = &node(&machines, "10.77.0.2")["drain_info"]["config"];
    assert_eq!(config["max_grace_period"]["nanoseconds"], 2_000_000_000_u64);
    let tasks = machines.wait_running("/deaf", 2);
    assert_eq!(hosts(&tasks), ["10.77.0.3", "10.77.0.3"]);
    let state = machines.get("/state").unwrap();
    let ended = state["frameworks"][0]["completed_tasks"]
        .as_array()
        .unwrap()
        .clone();
    let drained = ended.iter().find(|task| task["slave_id"] == id).unwrap();
    assert_eq!(drained["state"], "TASK_KILLED", "{drained}");

    machines.cli(&["node", "reactivate", "10.77.0.2"]);
    until("it forgets the drain", || {
        match first.data().join("drain.json").exists() {
            false => Ok(()),
            true => Err(first.log()),
        }
    });
    add(&machines, "/more", 1, "sleep 1000");
    assert_eq!(hosts(&machines.wait_running("/more", 1)), ["10.77.0.2"]);

    machines.cli(&["node", "gone", "10.77.0.3"]);
    assert_eq!(second.wait(), Some(1));
    assert!(
        second.log().contains("marked this node as gone"),
        "{}",
        second.log()
    );
    assert!(!second.data().join("keeper.sock").exists());
    assert_eq!(machines.nodes().len(), 1);
    let (code, said) = machines.post("/api/v1", &json!({"type": "GET_WEIGHTS"}));
    assert_eq!(code, 501, "{said}");
    // Its id never comes back.
    second.spawn();
    assert_eq!(second.wait(), Some(1));
    assert_eq!(machines.nodes().len(), 1);
}

#[test]
fn a_node_that_is_cut_off_goes_on_and_says_later_what_happened() {
    let machines = Machines::new(2);
    let coordinator = machines.coordinator();
    let first = agent(&machines, 1);
    machines.wait_active(1, &[&coordinator, &first]);
    let flag = machines.place("flag");
    let wait = "while ! test -e /notes/flag; do sleep 0.1; done; echo over > /notes/over";
    let app = json!({"id": "/ends", "cpus": 0.1, "mem": 32, "cmd": wait, "backoffSeconds": 3600,
        "container": {"type": "MESOS", "volumes": [{"containerPath": "/notes", "mode": "RW",
            "hostPath": flag.parent().unwrap().to_string_lossy()}]}});
    assert_eq!(machines.post("/v2/apps", &app).0, 201);
    add(&machines, "/stays", 1, "sleep 1000");
    let ends = machines.wait_running("/ends", 1)[0]["id"].clone();
    let stays = machines.wait_running("/stays", 1)[0]["id"].clone();

    machines.connect(1, false);
    machines.wait_active(0, &[]);
    std::fs::write(&flag, "").unwrap();
    until("the task ends on a node that nobody hears", || {
        if machines.place("over").exists() {
            Ok(())
        } else {
            Err(first.log())
        }
    });
    // For the coordinator it is still as it was last told.
    assert_eq!(machines.wait_running("/ends", 1)[0]["id"], ends);
    machines.connect(1, true);
    machines.wait_active(1, &[&first]);
    until("the end is told", || {
        let state = machines.get("/state").unwrap_or_default();
        let done = state["frameworks"][0]["completed_tasks"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let told = |task: &Value| task["id"] == ends && task["state"] == "TASK_FINISHED";
        if done.iter().any(told) {
            Ok(())
        } else {
            Err(state.to_string())
        }
    });
    assert_eq!(machines.wait_running("/stays", 1)[0]["id"], stays);
}
