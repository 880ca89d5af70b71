//! What is said of common mistakes, and that they leave nothing.

use serde_json::json;

use crate::bundle::Bundle;

fn says(bundle: &Bundle, words: &[&str], wanted: &str) {
    let out = bundle.run(words);
    let stderr = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(
        out.status.code(),
        Some(if words[0] == "exec" { 255 } else { 1 }),
        "{stderr}"
    );
    assert!(stderr.contains(wanted), "{words:?}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn mistakes_are_told_in_the_words_of_runc() {
    let bundle = Bundle::new("words", &["sleep", "1000"]);
    let id = bundle.id.as_str();
    says(&bundle, &["state", "nope"], "container does not exist");
    says(&bundle, &["state"], "requires exactly 1 argument(s)");
    says(
        &bundle,
        &["create", "--bundle", "/nope", id],
        "chdir /nope: no such file or directory",
    );
    says(
        &bundle,
        &["create", "--bundle", "/tmp", id],
        "config.json not found",
    );
    says(&bundle, &["create", "a/b"], "invalid container id format");
    bundle.create();
    says(
        &bundle,
        &["create", id],
        "container with given ID already exists",
    );
    says(&bundle, &["resume", id], "container not paused");
    bundle.ok(&["start", id]);
    says(
        &bundle,
        &["start", id],
        "cannot start an already running container",
    );
    says(&bundle, &["delete", id], "that is not stopped: running");
    says(&bundle, &["kill", id, "NOPE"], "unknown signal");
    bundle.ok(&["kill", id, "KILL"]);
    bundle.await_status("stopped");
    says(&bundle, &["kill", id, "TERM"], "container not running");
    says(
        &bundle,
        &["exec", id, "true"],
        "cannot exec in a stopped container",
    );
    says(
        &bundle,
        &["start", id],
        "cannot start a container that has stopped",
    );
}

#[test]
fn a_set_up_that_fails_leaves_nothing() {
    let changes = [
        (
            json!({"args": ["/nope"]}),
            "stat /nope: no such file or directory",
        ),
        (
            json!({"args": ["nope"]}),
            "executable file not found in $PATH",
        ),
        (json!({"args": ["/etc/passwd"]}), "permission denied"),
        (json!({"args": []}), "args must not be empty"),
        (json!({"cwd": "tmp"}), "Cwd must be an absolute path"),
        (
            json!({"rlimits": [{"type": "RLIMIT_NOPE", "soft": 1, "hard": 1}]}),
            "invalid rlimit type",
        ),
        (json!({"apparmorProfile": "x"}), "apparmor"),
    ];
    for (change, words) in changes {
        let mut bundle = Bundle::new("fail", &["true"]);
        for (key, value) in change.as_object().unwrap() {
            bundle.config["process"][key] = value.clone();
        }
        bundle.write();
        says(&bundle, &["run", &bundle.id], words);
        assert_eq!(bundle.leftovers(), Vec::<String>::new());
    }
    let mounts = [
        (
            json!({"destination": "/proc/sys", "type": "tmpfs", "source": "x"}),
            "inside /proc",
        ),
        (
            json!({"destination": "/a", "type": "bind", "source": "/nope", "options": ["bind"]}),
            "/nope",
        ),
        (
            json!({"destination": "/dev/b", "type": "nope", "source": "x"}),
            "mount x at /dev/b",
        ),
    ];
    for (mount, words) in mounts {
        let mut bundle = Bundle::new("fail", &["true"]);
        bundle.config["mounts"].as_array_mut().unwrap().push(mount);
        bundle.write();
        says(&bundle, &["run", &bundle.id], words);
        assert_eq!(bundle.leftovers(), Vec::<String>::new());
    }
}

#[test]
fn a_log_is_lines_of_json_that_engines_parse() {
    let bundle = Bundle::new("log", &["true"]);
    let log = bundle.path("log.json");
    let out = bundle.run(&["--log", &log, "--log-format", "json", "start", "nope"]);
    assert_eq!(
        String::from_utf8_lossy(&out.stderr),
        "container does not exist\n"
    );
    let text = std::fs::read_to_string(log).unwrap();
    let line: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&line["level"], &line["msg"]),
        (&json!("error"), &json!("container does not exist"))
    );
}
