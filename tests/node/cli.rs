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
    for (command, code) in [("/no/such", 127), ("nosuch", 127), ("/etc/passwd", 126)] {
        let out = node.cli(&["task", "exec", &id, "--", command]);
        assert_eq!(out.status.code(), Some(code), "{out:?}");
    }
}

/// Processes of this machine whose command line has these words.
fn running(words: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|e| std::fs::read(e.path().join("cmdline")).ok());
    let lines = lines.map(|l| {
        String::from_utf8_lossy(&l)
            .replace('\0', " ")
            .trim()
            .to_owned()
    });
    lines.filter(|line| line == words).collect()
}

#[test]
fn an_interrupted_exec_leaves_no_process() {
    let node = Node::start(&[]);
    add(&node, "/x", "sleep 1000", &[]);
    // A figure that no other test uses.
    let wanted = format!("sleep {}.5", 100_000 + node.pid());
    let shell = format!("{wanted} & wait; true");
    let direct: Vec<&str> = wanted.split(' ').collect();
    for command in [direct, vec!["sh", "-c", &shell]] {
        let mut cli = Command::new(gantry_binary())
            .args(["task", "exec", "/x", "--"])
            .args(&command)
            .env("GANTRY_URL", node.url(""))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        until("the command runs", || match running(&wanted).len() {
            1 => Ok(()),
            other => Err(format!("{other} of it")),
        });
        gantry_tests::node::signal(cli.id(), "INT");
        assert_eq!(cli.wait().unwrap().code(), Some(130));
        until("the command ends", || match running(&wanted) {
            none if none.is_empty() => Ok(()),
            some => Err(format!("{some:?}")),
        });
    }
    node.wait_running("/x", 1);
}

fn add(node: &Node, id: &str, cmd: &str, more: &[&str]) -> std::process::Output {
    let mut line = vec!["app", "add", "--id", id, "--cmd", cmd];
    line.extend(["--mem", "32"]);
    if !more.contains(&"--cpus") {
        line.extend(["--cpus", "0.1"]);
    }
    line.extend(more);
    node.cli(&line)
}

fn stderr(out: &std::process::Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

#[test]
fn a_service_that_does_not_stay_up_is_a_failure() {
    let node = Node::start(&[]);
    let file = node.dir().join("crash.json");
    let app =
        r#"{"id": "/crash", "cmd": "exit 3", "cpus": 0.1, "mem": 32, "backoffSeconds": 3600}"#;
    std::fs::write(&file, app).unwrap();
    let out = node.cli(&["app", "add", &file.to_string_lossy()]);
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    let text = stderr(&out);
    assert!(
        text.contains("0 of 1 running") && text.contains("gantry task log crash.instance-"),
        "{text}"
    );
    let out = add(&node, "/up", "sleep 1000", &[]);
    assert!(out.status.success(), "{out:?}");
    let out = node.cli(&["app", "update", "/up", "--cmd", "exit 4", "--json"]);
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    let last = stderr(&out).lines().last().unwrap_or_default().to_owned();
    assert!(
        parse(&last)["message"]
            .as_str()
            .is_some_and(|m| m.contains("of 1 running"))
    );
}

#[test]
fn what_show_prints_can_be_given_back() {
    let node = Node::start(&[]);
    let port = ["--port", "31777"];
    assert!(add(&node, "/a", "sleep 1000", &port).status.success());
    let task = node.wait_running("/a", 1).remove(0);
    assert_eq!(task["ports"], serde_json::json!([31777]));
    let file = node.dir().join("shown.json");
    std::fs::write(&file, node.cli_ok(&["app", "show", "/a", "--json"])).unwrap();
    let file = file.to_string_lossy();
    node.cli_ok(&["app", "update", "/a", &file, "--replace"]);
    node.cli_ok(&["app", "remove", "/a"]);
    node.cli_ok(&["app", "add", &file]);
    assert_eq!(node.tasks("/a").len(), 1);
    let nothing = node.cli(&["app", "add"]);
    assert_eq!(nothing.status.code(), Some(2));
    assert!(stderr(&nothing).contains("--id"));
}

#[test]
fn rotated_output_is_part_of_the_log() {
    let node = Node::start(&[]);
    // 1,250,000 lines of 16 bytes: nine files of 2 MiB and a rest.
    let cmd = "seq -f %015.0f 1250000; sleep 1000";
    assert!(add(&node, "/r", cmd, &["--cpus", "1"]).status.success());
    let tail = until("the last line", || {
        let text = node.cli_ok(&["task", "log", "/r", "-n", "1100000"]);
        if text.ends_with("000000001250000\n") {
            Ok(text)
        } else {
            Err(text.chars().rev().take(40).collect())
        }
    });
    assert_eq!(tail.lines().count(), 1_100_000);
    assert!(tail.starts_with("000000000150001\n"));
    let out = node.cli(&["task", "log", "/r"]);
    assert_eq!(out.stdout.len(), 20_000_000);
    assert!(out.stdout.starts_with(b"000000000000001\n"));
    assert_eq!(stderr(&out), "");
}

#[test]
fn output_that_was_rotated_away_is_missed_aloud() {
    let node = Node::start(&[]);
    let cmd = "seq -f %015.0f 2000000; sleep 1000";
    assert!(add(&node, "/r", cmd, &["--cpus", "1"]).status.success());
    until("the last line", || {
        let text = node.cli_ok(&["task", "log", "/r", "-n", "1"]);
        if text.ends_with("000000002000000\n") {
            Ok(())
        } else {
            Err(text)
        }
    });
    let out = node.cli(&["task", "log", "/r"]);
    assert!(stderr(&out).contains("rotated away"), "{}", stderr(&out));
    let text = String::from_utf8(out.stdout).unwrap();
    let lines: Vec<u64> = text.lines().map(|line| line.parse().unwrap()).collect();
    let first = lines[0];
    assert!(first > 1);
    assert!(
        lines.iter().copied().eq(first..=2_000_000),
        "no gap and nothing twice"
    );
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
