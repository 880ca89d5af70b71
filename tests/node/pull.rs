//! A pull that takes its time says how far it is, goes on after the registry died, and is done once
//! for all tasks that wait for it.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use gantry_tests::line::Line;
use gantry_tests::node::{Node, gantry_binary};
use gantry_tests::poll::until;
use gantry_tests::registry::{Layout, Registry, install_program};
use serde_json::json;

/// What the slow line carries in a second, and how much the image's layer has: a few seconds.
const BYTES_PER_S: usize = 2 << 20;
const LAYER_BYTES: usize = 12 << 20;

/// A registry with an image that does not compress, and its name there.
fn large() -> (Registry, &'static str) {
    let registry = Registry::start();
    let layout = Layout::new(registry.scratch(), "large");
    layout.layer(|root| {
        install_program(root, "/bin/sleep");
        let mut noise = vec![0; LAYER_BYTES];
        std::fs::File::open("/dev/urandom")
            .unwrap()
            .read_exact(&mut noise)
            .unwrap();
        std::fs::write(root.join("noise"), noise).unwrap();
    });
    registry.push(&layout, "large:1");
    (registry, "large:1")
}

#[test]
fn a_slow_pull_is_told_in_the_tasks_status_and_by_the_cli() {
    let (registry, name) = large();
    let line = Line::to(&registry.host, BYTES_PER_S);
    let image = format!("{}/{name}", line.address);
    let node = Node::start(&[]);
    node.add_app(&json!({
        "id": "/large", "args": ["/bin/sleep", "1000"], "cpus": 0.1, "mem": 32,
        "container": {"type": "DOCKER", "docker": {"image": image}}
    }));
    let message = until("the pull in the task", || {
        let tasks = node.tasks("/large");
        let message = tasks.first().and_then(|task| task["message"].as_str());
        let message = message.map(str::to_owned);
        message.ok_or_else(|| format!("{tasks:?}"))
    });
    assert!(
        message.starts_with("pulling image: ") && message.ends_with(" MB"),
        "{message}"
    );
    let listed = node.cli_ok(&["task", "list"]);
    assert!(listed.contains("starting: pulling image: "), "{listed}");
    let state = node.get("/state").body;
    let statuses = &state["frameworks"][0]["tasks"][0]["statuses"];
    let latest = statuses.as_array().unwrap().last().unwrap();
    assert_eq!(latest["state"], "TASK_STARTING", "{statuses}");
    assert!(latest["message"].as_str().is_some(), "{statuses}");
    let running = node.wait_running("/large", 1);
    assert_eq!(running[0]["message"], json!(null));
}

#[test]
fn many_tasks_wait_for_one_download_that_outlives_its_registry() {
    const TASKS: usize = 20;
    let (mut registry, name) = large();
    let line = Line::to(&registry.host, BYTES_PER_S);
    let image = format!("{}/{name}", line.address);
    let node = Node::start(&[]);
    let app = json!({
        "id": "/many", "args": ["/bin/sleep", "1000"], "cpus": 0.01, "mem": 16, "instances": TASKS,
        "container": {"type": "DOCKER", "docker": {"image": image}}
    });
    let file = registry.scratch().join("many.json");
    std::fs::write(&file, app.to_string()).unwrap();
    let mut adding = Command::new(gantry_binary())
        .args(["app", "add", &file.to_string_lossy()])
        .env("GANTRY_URL", node.url(""))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(adding.stderr.take().unwrap()).lines();
    let is_pull = |line: &String| line.contains("pulling image: 0/1 layers, ");
    assert!(
        told.by_ref()
            .map_while(Result::ok)
            .any(|line| is_pull(&line))
    );
    registry.kill();
    registry.resume();
    line.set_speed(usize::MAX);
    let rest: Vec<String> = told.map_while(Result::ok).collect();
    assert!(adding.wait().unwrap().success(), "{rest:?}");
    node.wait_running("/many", TASKS);

    // The config and the layer; the manifest is asked for by name.
    let blobs = line.requests("/blobs/");
    let (parts, wholes): (Vec<&String>, Vec<&String>) = blobs
        .iter()
        .partition(|head| head.to_ascii_lowercase().contains("\r\nrange: "));
    assert_eq!(wholes.len(), 2, "{blobs:?}");
    assert_eq!(parts.len(), 1, "{blobs:?}");
    assert_eq!(line.requests("/manifests/").len(), 1);
    let failed = node.get("/v2/apps//many").body;
    assert_eq!(failed["app"]["lastTaskFailure"], json!(null), "{failed}");
}
