//! The path of a native service: isolation, limits, environment, output.

use std::path::Path;
use std::process::Command;

use gantry_tests::kernel::{cgroup_file, namespace};
use gantry_tests::node::Node;
use gantry_tests::poll::until;
use serde_json::json;

#[test]
fn a_native_service_runs_isolated_and_limited() {
    let node = Node::start(&[]);
    node.add_app(&json!({
        "id": "/hello", "cmd": "echo hello from $MESOS_TASK_ID; exec sleep 1000",
        "cpus": 0.1, "mem": 32, "instances": 2
    }));
    let tasks = node.wait_running("/hello", 2);
    node.wait_deployed();
    let id = tasks[0]["id"].as_str().unwrap();
    let pid = node.task_pid(id);

    for kind in ["mnt", "pid", "ipc", "uts", "cgroup"] {
        assert_ne!(
            namespace(&pid.to_string(), kind),
            namespace("self", kind),
            "{kind}"
        );
    }
    assert_eq!(
        namespace(&pid.to_string(), "net"),
        namespace("self", "net"),
        "host network"
    );
    assert_eq!(
        cgroup_file(pid, "memory", "memory.limit_in_bytes"),
        (32 << 20).to_string()
    );
    assert_eq!(cgroup_file(pid, "cpu", "cpu.shares"), "102");
    let quota: u64 = cgroup_file(pid, "cpu", "cpu.cfs_quota_us").parse().unwrap();
    let period: u64 = cgroup_file(pid, "cpu", "cpu.cfs_period_us")
        .parse()
        .unwrap();
    assert_eq!(quota * 10, period, "0.1 cpu");
    let pids: u64 = cgroup_file(pid, "pids", "pids.max").parse().unwrap();
    assert!(pids > 0);

    let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let root = mounts
        .lines()
        .find(|l| l.split(' ').nth(4) == Some("/"))
        .unwrap();
    assert!(root.contains(" - overlay "), "{root}");
    until("the task's output", || {
        let text = node.output(id);
        if text.contains(&format!("hello from {id}")) {
            Ok(())
        } else {
            Err(text)
        }
    });
}

#[test]
fn a_task_has_the_stated_privileges_and_no_more() {
    let node = Node::start(&[]);
    node.add_app(&json!({
        "id": "/p", "cmd": "cat /proc/self/status; exec sleep 1000", "cpus": 0.1, "mem": 32
    }));
    let tasks = node.wait_running("/p", 1);
    let id = tasks[0]["id"].as_str().unwrap();
    let status = until("the whole of /proc/self/status", || {
        let text = node.output(id);
        if text.contains("nonvoluntary") {
            Ok(text)
        } else {
            Err(text)
        }
    });
    let field = |name: &str| {
        let line = status.lines().find(|l| l.starts_with(&format!("{name}:")));
        line.unwrap_or_else(|| panic!("{name} in {status}"))
            .split_whitespace()
            .nth(1)
            .unwrap()
    };
    // chown dac_override fsetid fowner mknod setgid setuid setfcap setpcap net_bind_service
    // sys_chroot kill audit_write: capabilities(7), Docker's default list without net_raw (13).
    let stated: u64 = 0xa804_25fb & !(1 << 13);
    let given = |name| u64::from_str_radix(field(name), 16).unwrap();
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(given(set) & !stated, 0, "{set} {:x}", given(set));
    }
    assert_eq!(given("CapInh"), 0);
    assert_eq!(field("NoNewPrivs"), "1");
}

#[test]
fn the_environment_is_marathons() {
    let node = Node::start(&[]);
    node.add_app(&json!({
        "id": "/g/env", "cmd": "env | sort; echo done; pwd; exec sleep 1000", "cpus": 0.1,
        "mem": 32, "env": {"MINE": "a b", "HOST": "overridden"}, "labels": {"tier": "x"},
        "portDefinitions": [{"port": 0, "name": "http"}, {"port": 0, "name": "admin"}]
    }));
    let tasks = node.wait_running("/g/env", 1);
    let id = tasks[0]["id"].as_str().unwrap();
    let text = until("the environment", || {
        let text = node.output(id);
        if text.contains("done\n/") {
            Ok(text)
        } else {
            Err(text)
        }
    });
    let ports: Vec<u64> = tasks[0]["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p.as_u64().unwrap())
        .collect();
    assert_eq!(ports.len(), 2);
    let version = tasks[0]["version"].as_str().unwrap();
    for line in [
        "MARATHON_APP_ID=/g/env".to_owned(),
        format!("MARATHON_APP_VERSION={version}"),
        "MARATHON_APP_RESOURCE_CPUS=0.1".to_owned(),
        "MARATHON_APP_RESOURCE_MEM=32.0".to_owned(),
        "MARATHON_APP_LABELS=TIER".to_owned(),
        "MARATHON_APP_LABEL_TIER=x".to_owned(),
        format!("MESOS_TASK_ID={id}"),
        "MESOS_SANDBOX=/mnt/mesos/sandbox".to_owned(),
        "MINE=a b".to_owned(),
        "HOST=overridden".to_owned(),
        format!("PORT={}", ports[0]),
        format!("PORT0={}", ports[0]),
        format!("PORT1={}", ports[1]),
        format!("PORTS={},{}", ports[0], ports[1]),
        format!("PORT_HTTP={}", ports[0]),
        format!("PORT_ADMIN={}", ports[1]),
        "/mnt/mesos/sandbox".to_owned(),
    ] {
        assert!(
            text.lines().any(|l| l == line),
            "no line {line:?} in:\n{text}"
        );
    }
    assert!(
        !text.contains("GANTRY_"),
        "the agent's own environment leaks:\n{text}"
    );
}

#[test]
fn the_nodes_own_files_are_out_of_reach() {
    let node = Node::start_in(Path::new("/var/tmp"), &[]);
    let data = node.dir().join("data");
    let log = data.join("coordinator/log");
    assert!(log.is_dir() && data.join("agent/keeper.sock").exists());
    node.add_app(&json!({
        "id": "/other", "cmd": "sleep 1000", "cpus": 0.1, "mem": 32,
        "env": {"PASSWORD": "correct-horse"}
    }));
    node.wait_running("/other", 1);
    let in_log = |dir: &Path| {
        let found = Command::new("grep")
            .args(["-rqa", "correct-horse"])
            .arg(dir)
            .status();
        found.unwrap().success()
    };
    assert!(in_log(&log), "the log holds what the task looks for");
    let cmd = format!(
        "echo listing; find {data} 2>&1; ls -la {data}/coordinator {data}/agent 2>&1; \
         grep -rqa correct-ho[r]se {data} /proc/1/root{data} && echo LEAKED; \
         cat {data}/agent/agent.json 2>/dev/null && echo OPENED; echo looked; sleep 1000",
        data = data.display()
    );
    node.add_app(&json!({"id": "/spy", "cmd": cmd, "cpus": 0.1, "mem": 32}));
    let tasks = node.wait_running("/spy", 1);
    let text = until("the listing", || {
        let text = node.output(tasks[0]["id"].as_str().unwrap());
        if text.contains("looked") {
            Ok(text)
        } else {
            Err(text)
        }
    });
    let listed: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with(&*data.to_string_lossy()))
        .collect();
    assert!(
        listed.iter().all(|line| Path::new(line) == data),
        "{listed:?}"
    );
    for secret in ["keeper.sock", "agent.sock", "LEAKED", "OPENED"] {
        assert!(
            !text.lines().any(|l| l.contains(secret)),
            "{secret}: {text}"
        );
    }
}

#[test]
fn the_kernel_enforces_the_memory_limit() {
    let node = Node::start(&[]);
    node.add_app(&json!({
        "id": "/fat", "cmd": "x=a; while :; do x=$x$x; done", "cpus": 0.5, "mem": 32,
        "backoffSeconds": 60
    }));
    let message = node.wait_failure("/fat");
    assert!(message.to_lowercase().contains("memory"), "{message}");
}

#[test]
fn a_volume_may_lie_in_the_sandbox_or_anywhere_else() {
    let node = Node::start(&[]);
    let host = tempfile::tempdir().unwrap();
    std::fs::write(host.path().join("note"), "from the host").unwrap();
    let volume = |path: &str, mode: &str| json!({"containerPath": path, "hostPath": host.path().to_string_lossy(), "mode": mode});
    node.add_app(&json!({
        "id": "/v", "cpus": 0.1, "mem": 32,
        "cmd": "cat data/note /elsewhere/note; echo; touch /elsewhere/no || echo refused; \
                echo back > data/answer; echo done; exec sleep 1000",
        "container": {"type": "MESOS", "volumes": [volume("data", "RW"), volume("/elsewhere", "RO")]}
    }));
    let task = node.wait_running("/v", 1).remove(0);
    let text = until("the task's words", || {
        let text = node.output(task["id"].as_str().unwrap());
        if text.contains("done") {
            Ok(text)
        } else {
            Err(text)
        }
    });
    assert!(
        text.starts_with("from the hostfrom the host\nrefused"),
        "{text}"
    );
    assert_eq!(
        std::fs::read_to_string(host.path().join("answer")).unwrap(),
        "back\n"
    );
}
