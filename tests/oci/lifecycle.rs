//! From `create` to `delete`, and what is seen in between.

use serde_json::{Value, json};

use crate::bundle::Bundle;

#[test]
fn a_container_lives_from_create_to_delete_and_leaves_nothing() {
    let mut bundle = Bundle::new("life", &["sleep", "1000"]);
    bundle.config["annotations"] = json!({"org.example": "yes"});
    bundle.write();
    bundle.create();
    let state = bundle.state();
    let pid = std::fs::read_to_string(bundle.path("pid")).unwrap();
    assert_eq!(state["pid"].to_string(), pid);
    assert_eq!(state["status"], "created");
    assert_eq!(state["id"], bundle.id.as_str());
    assert_eq!(
        state["bundle"],
        bundle.dir.path().to_string_lossy().as_ref()
    );
    assert_eq!(state["annotations"]["org.example"], "yes");
    assert_eq!(state["ociVersion"], "1.2.0");
    bundle.ok(&["start", &bundle.id]);
    assert_eq!(bundle.state()["status"], "running");
    let listed: Value = serde_json::from_str(&bundle.ok(&["list", "-f", "json"])).unwrap();
    assert_eq!(listed[0]["owner"], "root");
    assert_eq!(bundle.ok(&["list", "-q"]), format!("{}\n", bundle.id));
    assert_eq!(
        bundle.ok(&["ps", "--format", "json", &bundle.id]),
        format!("[{pid}]\n")
    );
    bundle.ok(&["pause", &bundle.id]);
    assert_eq!(bundle.state()["status"], "paused");
    bundle.ok(&["resume", &bundle.id]);
    bundle.ok(&["update", "--memory", "32m", "--pids-limit", "9", &bundle.id]);
    let stats: Value =
        serde_json::from_str(&bundle.ok(&["events", "--stats", &bundle.id])).unwrap();
    assert_eq!(stats["data"]["memory"]["usage"]["limit"], 32 << 20);
    assert_eq!(stats["data"]["pids"]["limit"], 9);
    bundle.ok(&["kill", &bundle.id, "KILL"]);
    bundle.await_status("stopped");
    bundle.ok(&["delete", &bundle.id]);
    assert_eq!(bundle.leftovers(), Vec::<String>::new());
    assert_eq!(bundle.ok(&["list", "-f", "json"]), "null");
}

#[test]
fn run_gives_the_status_and_the_output_of_its_program() {
    let bundle = Bundle::new("run", &["sh", "-c", "echo out; id -u; exit 7"]);
    let out = bundle.run(&["run", &bundle.id]);
    assert_eq!(out.status.code(), Some(7));
    assert_eq!(String::from_utf8_lossy(&out.stdout), "out\n0\n");
    assert_eq!(bundle.leftovers(), Vec::<String>::new());
}

#[test]
fn a_process_is_what_the_configuration_says() {
    let script = "grep -E 'CapBnd|NoNewPrivs|Seccomp:' /proc/self/status; id; echo $HOME; \
                  cat /proc/sys/kernel/shmmax; ls /proc/self/fd; touch /x";
    let mut bundle = Bundle::new("conf", &["sh", "-c", script]);
    bundle.config["linux"]["sysctl"] = json!({"kernel.shmmax": "4096"});
    bundle.config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["mount"], "action": "SCMP_ACT_ERRNO"}]});
    bundle.config["process"]["user"] = json!({"uid": 5, "gid": 6, "additionalGids": [7]});
    bundle.write();
    let out = bundle.run(&["run", &bundle.id]);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    for words in [
        "CapBnd:\t0000000020000420",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "uid=5 gid=6 groups=7",
        "\n/\n4096\n0\n1\n2\n3\n",
    ] {
        assert!(text.contains(words), "{words:?} in {text}");
    }
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert!(stderr.contains("Read-only file system"), "{stderr}");
}

#[test]
fn hooks_run_in_order_with_the_state() {
    let mut bundle = Bundle::new("hooks", &["true"]);
    let log = bundle.path("hooks.log");
    let hook = |name: &str| {
        let script = format!("echo {name} $(cat | grep -o '\"status\":\"[a-z]*\"') >>{log}");
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}])
    };
    bundle.config["hooks"] = json!({
        "prestart": hook("prestart"), "createRuntime": hook("createRuntime"),
        "createContainer": hook("createContainer"), "poststart": hook("poststart"),
        "poststop": hook("poststop"),
        "startContainer": [{"path": "/bin/true", "args": ["true"]}],
    });
    bundle.write();
    bundle.ok(&["run", &bundle.id]);
    let lines = std::fs::read_to_string(&log).unwrap();
    let status = |status: &str| format!("\"status\":\"{status}\"");
    let wanted = [
        format!("prestart {}", status("creating")),
        format!("createRuntime {}", status("creating")),
        format!("createContainer {}", status("creating")),
        format!("poststart {}", status("running")),
        format!("poststop {}", status("stopped")),
    ];
    assert_eq!(lines.lines().collect::<Vec<_>>(), wanted);
}

#[test]
fn exec_joins_with_its_own_user_and_status() {
    let bundle = Bundle::new("exec", &["sleep", "1000"]);
    bundle.create();
    bundle.ok(&["start", &bundle.id]);
    let id = bundle.id.as_str();
    let words = [
        "exec", "-e", "A=b", "-u", "7:8", "--cwd", "/tmp", id, "sh", "-c",
    ];
    let out = bundle.run(
        &[
            &words[..],
            &["id -u; echo $A; pwd; ps | grep -c '[s]leep 1000'; exit 9"],
        ]
        .concat(),
    );
    assert_eq!(String::from_utf8_lossy(&out.stdout), "7\nb\n/tmp\n1\n");
    assert_eq!(out.status.code(), Some(9));
    let process = json!({"args": ["sh", "-c", "exit 3"], "cwd": "/", "env": ["PATH=/bin"]});
    std::fs::write(bundle.path("process.json"), process.to_string()).unwrap();
    let out = bundle.run(&["exec", "--process", &bundle.path("process.json"), id]);
    assert_eq!(out.status.code(), Some(3));
    let out = bundle.run(&["exec", id, "nope"]);
    assert_eq!(out.status.code(), Some(255));
    let stderr = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(
        stderr.contains("executable file not found in $PATH"),
        "{stderr}"
    );
}

#[test]
fn a_user_namespace_maps_its_ids() {
    let mut bundle = Bundle::new(
        "users",
        &["sh", "-c", "cat /proc/self/uid_map; id -u; touch /tmp/x"],
    );
    let map = json!([{"containerID": 0, "hostID": 300_000, "size": 65_536}]);
    let linux = &mut bundle.config["linux"];
    linux["uidMappings"] = map.clone();
    linux["gidMappings"] = map;
    linux["namespaces"]
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "user"}));
    let mount = json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"});
    bundle.config["mounts"].as_array_mut().unwrap().push(mount);
    bundle.write();
    std::process::Command::new("chmod")
        .args(["755"])
        .arg(bundle.dir.path())
        .status()
        .unwrap();
    let out = bundle.run(&["run", &bundle.id]);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    assert!(text.contains("300000") && text.ends_with("\n0\n"), "{text}");
}

#[test]
fn spec_and_state_have_what_runcs_have() {
    let bundle = Bundle::new("same", &["sleep", "1000"]);
    let theirs = tempfile::tempdir().unwrap();
    let dir = theirs.path().to_string_lossy().into_owned();
    gantry_tests::kernel::run("runc", &["spec", "--bundle", &dir]);
    let read = |path: &std::path::Path| -> Value {
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    };
    let mut runcs = read(&theirs.path().join("config.json"));
    std::fs::remove_file(bundle.path("config.json")).unwrap();
    bundle.ok(&["spec"]);
    let mut ours = read(&bundle.dir.path().join("config.json"));
    for document in [&mut runcs, &mut ours] {
        document["ociVersion"] = Value::Null;
    }
    // Moot without inheritable ones; later runcs leave them out, too.
    let sets = runcs["process"]["capabilities"].as_object_mut().unwrap();
    sets.remove("ambient");
    assert_eq!(ours, runcs);
    bundle.write();
    let root = format!("{dir}/runc");
    let path = bundle.dir.path().to_string_lossy().into_owned();
    let other = format!("{}-runc", bundle.id);
    let status = std::process::Command::new("runc")
        .args(["--root", &root, "create", "--bundle", &path, &other])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let text = gantry_tests::kernel::run("runc", &["--root", &root, "state", &other]);
    gantry_tests::kernel::run("runc", &["--root", &root, "delete", "--force", &other]);
    bundle.create();
    let runcs: Value = serde_json::from_str(&text).unwrap();
    let keys = |value: &Value| {
        value
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(keys(&bundle.state()), keys(&runcs));
    assert_eq!(bundle.state()["status"], runcs["status"]);
}
