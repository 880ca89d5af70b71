//! A coordinator and two agents as processes on machines of their own: an app runs on both, its
//! output is read through both hops, and agents that are killed come back to their tasks.

use std::collections::BTreeSet;
use std::path::Path;

use gantry_tests::apart::{AGENTS, Machines};
use gantry_tests::poll::until;
use serde_json::{Value, json};

fn field(tasks: &[Value], name: &str) -> BTreeSet<String> {
    let text = |task: &Value| task[name].as_str().unwrap().to_owned();
    tasks.iter().map(text).collect()
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story")]
fn two_agents_of_one_coordinator_are_killed_and_come_back() {
    let machines = Machines::new(3);
    let coordinator = machines.coordinator();
    let one = ["--resources", "cpus:1;mem:256", "--attributes", "rack:r1"];
    let mut first = machines.agent(1, &one);
    let mut second = machines.agent(2, &["--resources", "cpus:1;mem:256"]);
    machines.wait_active(2, &[&coordinator, &first, &second]);
    let nodes = machines.nodes();
    assert_eq!(
        field(&nodes, "hostname"),
        ["10.77.0.2", "10.77.0.3"].map(str::to_owned).into()
    );
    let racks: Vec<&Value> = nodes
        .iter()
        .map(|node| &node["attributes"]["rack"])
        .collect();
    assert!(racks.contains(&&json!("r1")), "{racks:?}");

    // More than half a node each, so that each has one.
    let (code, said) = machines.post(
        "/v2/apps",
        &json!({"id": "/a", "instances": 2, "cpus": 0.6, "mem": 32,
            "cmd": "echo begun; while sleep 0.1; do echo on; done"}),
    );
    assert_eq!(code, 201, "{said}");
    let before = machines.wait_running("/a", 2);
    assert_eq!(
        field(&before, "host"),
        ["10.77.0.2", "10.77.0.3"].map(str::to_owned).into()
    );
    let ids = field(&before, "id");
    let output = |id: &str| machines.cli(&["task", "log", id]);
    for id in &ids {
        until(
            "its output, through coordinator and agent",
            || match output(id) {
                text if text.starts_with("begun\non\n") => Ok(()),
                text => Err(text),
            },
        );
    }
    nobody_else_is_answered(&machines);
    // The keeper outlives the agent and knows nothing of what that was told.
    let task = machines.get("/state").unwrap()["frameworks"][0]["tasks"][0].clone();
    let pid =
        task["statuses"].as_array().unwrap().last().unwrap()["container_status"]["executor_pid"]
            .as_u64()
            .unwrap();
    let parent = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let keeper = parent
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .to_owned();
    assert_eq!(
        std::fs::read(format!("/proc/{keeper}/environ")).unwrap(),
        b""
    );

    first.kill_9();
    second.kill_9();
    machines.wait_active(0, &[]);
    first.spawn();
    second.spawn();
    machines.wait_active(2, &[&coordinator, &first, &second]);
    let after = machines.wait_running("/a", 2);
    assert_eq!(field(&after, "id"), ids);
    for id in &ids {
        let lines = output(id).lines().count();
        until("output goes on", || match output(id) {
            text if text.lines().count() > lines && text.matches("begun").count() == 1 => Ok(()),
            text => Err(text),
        });
    }
    // Told to stop, an agent leaves its tasks; the next start can be told to end them.
    assert_eq!(first.stop(), Some(0));
    first.spawn_with(&["--end-tasks"]);
    machines.wait_active(2, &[&first]);
    assert_eq!(first.stop(), Some(0));
    assert!(
        !first.data().join("keeper.sock").exists(),
        "{}",
        first.log()
    );
    for text in [first.log(), second.log(), coordinator.log()] {
        assert!(
            !text.contains(gantry_tests::apart::SECRET),
            "the secret is in a log"
        );
    }
}

/// An agent's address and the coordinator's take those only who know the secret.
fn nobody_else_is_answered(machines: &Machines) {
    for url in [
        "http://10.77.0.2:5051/state",
        "https://10.77.0.2:5051/state",
    ] {
        let mut curl = machines.command(0, Path::new("curl"));
        let out = curl.args(["-skm", "10", url]).output().unwrap();
        assert!(
            !out.status.success() && out.stdout.is_empty(),
            "{url}: {out:?}"
        );
    }
    let wrong = machines.place("wrong");
    std::fs::write(&wrong, gantry_tests::apart::SECRET.replace('v', "w")).unwrap();
    let wrong = wrong.to_string_lossy().into_owned();
    let args = [
        "agent",
        "--coordinator",
        AGENTS,
        "--cluster-secret-file",
        &wrong,
    ];
    let mut stranger = machines.start(1, "stranger", &[&args[..], &["--port", "0"]].concat());
    // The file is readable by all: refused before anything is tried.
    assert_eq!(stranger.wait(), Some(2));
    assert!(
        stranger.log().contains("can be read by others"),
        "{}",
        stranger.log()
    );
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&wrong, private).unwrap();
    stranger.spawn_with(&["-v"]);
    until("it is turned away", || match stranger.log() {
        text if text.contains("ApplicationVerificationFailure") => Ok(()),
        text => Err(text),
    });
    assert_eq!(machines.nodes().len(), 2);
}
