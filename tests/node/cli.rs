//! The command line, as a script uses it.

use std::io::Write;
use std::process::{Command, Stdio};

use gantry_tests::node::{Node, gantry_binary};
use gantry_tests::poll::until;
use serde_json::Value;

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn an_app_from_add_to_remove() {
    let node = Node::start(&[]);
    let file = node.dir().join("app.json");
    let app = r#"{"id": "/cli", "cmd": "echo line one; echo line two; exec sleep 1000", "cpus": 0.1, "mem": 32}"#;
    std::fs::write(&file, app).unwrap();
    node.cli_ok(&["app", "add", &file.to_string_lossy()]);
    let list = parse(&node.cli_ok(&["app", "list", "--json"])).to_string();
    assert!(list.contains("/cli"), "{list}");
    assert!(node.cli_ok(&["app", "list"]).contains("/cli"));
    assert!(
        node.cli_ok(&["app", "show", "/cli", "--json"])
            .contains("sleep 1000")
    );

    node.cli_ok(&["app", "scale", "/cli", "2"]);
    assert_eq!(
        node.tasks("/cli").len(),
        2,
        "scale waits for its deployment"
    );
    let tasks = node.cli_ok(&["task", "list"]);
    assert_eq!(
        tasks
            .matches("TASK_RUNNING")
            .count()
            .max(tasks.matches("running").count()),
        2,
        "{tasks}"
    );
    parse(&node.cli_ok(&["task", "list", "--json"]));
    parse(&node.cli_ok(&["node", "list", "--json"]));
    assert!(!node.cli_ok(&["node", "list"]).trim().is_empty());

    let id = node.tasks("/cli")[0]["id"].as_str().unwrap().to_owned();
    until("both lines", || {
        let text = node.output(&id);
        if text == "line one\nline two\n" {
            Ok(())
        } else {
            Err(text)
        }
    });
    node.cli_ok(&["app", "restart", "/cli"]);
    assert!(node.tasks("/cli").iter().all(|t| t["id"] != id.as_str()));
    node.cli_ok(&["app", "remove", "/cli"]);
    assert_eq!(node.get("/v2/apps/cli").status, 404);
}

#[test]
fn exec_runs_inside_and_passes_the_exit_code_on() {
    let node = Node::start(&[]);
    node.cli_ok(&[
        "app",
        "add",
        "--id",
        "/e",
        "--cmd",
        "sleep 1000",
        "--cpus",
        "0.1",
        "--mem",
        "64",
    ]);
    let id = node.tasks("/e")[0]["id"].as_str().unwrap().to_owned();
    let out = node.cli(&[
        "task",
        "exec",
        &id,
        "--",
        "sh",
        "-c",
        "echo out; echo err >&2; hostname; exit 7",
    ]);
    assert_eq!(out.status.code(), Some(7), "{out:?}");
    assert!(
        String::from_utf8_lossy(&out.stdout).starts_with("out\n"),
        "{out:?}"
    );
    assert_eq!(String::from_utf8_lossy(&out.stderr), "err\n");
    let out = node.cli(&["task", "exec", &id, "--", "readlink", "/proc/self/ns/mnt"]);
    let inside = String::from_utf8_lossy(&out.stdout).trim().to_owned();
    let pid = node.task_pid(&id);
    assert_eq!(
        inside,
        gantry_tests::kernel::namespace(&pid.to_string(), "mnt")
    );
    let out = node.cli(&[
        "task",
        "exec",
        &id,
        "--",
        "head",
        "-c",
        "30000000",
        "/dev/zero",
    ]);
    assert_eq!(
        out.stdout.len(),
        30_000_000,
        "{:?}",
        String::from_utf8_lossy(&out.stderr)
    );
    let out = node.cli(&["task", "exec", &id, "--", "/no/such"]);
    assert!(!out.status.success());
}

#[test]
fn follow_shows_lines_as_they_come_and_ends_with_the_task() {
    let node = Node::start(&[]);
    node.cli_ok(&[
        "app",
        "add",
        "--id",
        "/f",
        "--cmd",
        "echo first; sleep 1; echo second; sleep 1; exit 0",
        "--cpus",
        "0.1",
        "--mem",
        "32",
        "--no-wait",
    ]);
    let id = until("a task", || {
        let state = node.get("/state").body;
        let of = |k: &str| {
            state["frameworks"][0][k]
                .as_array()
                .cloned()
                .unwrap_or_default()
        };
        let found = of("tasks").into_iter().chain(of("completed_tasks")).next();
        found
            .and_then(|t| t["id"].as_str().map(str::to_owned))
            .ok_or_else(|| state.to_string())
    });
    let text = node.cli_ok(&["task", "log", "-f", &id]);
    assert_eq!(text, "first\nsecond\n");
}

#[test]
fn scripts_can_tell_what_went_wrong() {
    let node = Node::start(&[]);
    assert_eq!(node.cli(&["app", "show", "/none"]).status.code(), Some(3));
    assert_eq!(node.cli(&["app", "scale", "/none"]).status.code(), Some(2));
    node.cli_ok(&[
        "app",
        "add",
        "--id",
        "/a",
        "--cmd",
        "sleep 1000",
        "--cpus",
        "0.1",
        "--mem",
        "32",
    ]);
    let again = node.cli(&["app", "add", "--id", "/a", "--cmd", "sleep 1000"]);
    assert_eq!(again.status.code(), Some(4), "{again:?}");
    let mut child = Command::new(gantry_binary())
        .args(["app", "add", "-"])
        .env("GANTRY_URL", node.url(""))
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"{\"id\": 7}")
        .unwrap();
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&out.stderr).contains("/id"),
        "{out:?}"
    );
    let nobody = Command::new(gantry_binary())
        .args(["app", "list", "--url", "http://127.0.0.1:1"])
        .output()
        .unwrap();
    assert_eq!(nobody.status.code(), Some(5));
    assert!(
        String::from_utf8_lossy(&nobody.stderr).contains("gantry dev"),
        "{nobody:?}"
    );
}
