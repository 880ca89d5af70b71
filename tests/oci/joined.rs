//! Namespaces that a configuration gives by path, and the places and words of mounts and hooks that
//! conformance suites look at.

use std::os::unix::fs::symlink;

use serde_json::json;

use crate::bundle::Bundle;

fn link(pid: i64, kind: &str) -> String {
    let path = format!("/proc/{pid}/ns/{kind}");
    std::fs::read_link(path).unwrap().display().to_string()
}

/// Joins these namespaces of a running container and looks at them from inside.
fn joins(target: &Bundle, kinds: &[(&str, &str)]) {
    let pid = target.state()["pid"].as_i64().unwrap();
    let mut bundle = Bundle::new("joined", &["ls", "-l", "/proc/self/ns"]);
    let namespaces = &mut bundle.config["linux"]["namespaces"];
    let namespaces = namespaces.as_array_mut().unwrap();
    for (kind, file) in kinds {
        namespaces.retain(|namespace| namespace["type"] != *kind);
        namespaces.push(json!({"type": kind, "path": format!("/proc/{pid}/ns/{file}")}));
    }
    bundle.config["hostname"] = json!("");
    bundle.write();
    let seen = bundle.ok(&["run", &bundle.id]);
    for (_, file) in kinds {
        let wanted = link(pid, file);
        assert!(seen.contains(&wanted), "{wanted} is not in:\n{seen}");
    }
    assert_eq!(bundle.leftovers(), Vec::<String>::new());
}

fn running(bundle: &Bundle) {
    bundle.create();
    bundle.ok(&["start", &bundle.id]);
}

#[test]
fn namespaces_are_joined_by_path() {
    let mut target = Bundle::new("target", &["sleep", "1000"]);
    let namespaces = &mut target.config["linux"]["namespaces"];
    let namespaces = namespaces.as_array_mut().unwrap();
    namespaces.extend([json!({"type": "time"}), json!({"type": "cgroup"})]);
    target.config["linux"]["timeOffsets"] = json!({"monotonic": {"secs": 7881}});
    target.write();
    running(&target);
    let plain = [
        ("network", "net"),
        ("ipc", "ipc"),
        ("uts", "uts"),
        ("time", "time"),
    ];
    joins(&target, &plain);
    joins(&target, &[("cgroup", "cgroup")]);
    joins(&target, &[("pid", "pid")]);
    joins(
        &target,
        &[("network", "net"), ("pid", "pid"), ("uts", "uts")],
    );
}

#[test]
fn a_user_namespace_is_joined_with_those_that_it_owns() {
    let mut target = Bundle::new("owner", &["sleep", "1000"]);
    let map = json!([{"containerID": 0, "hostID": 0, "size": 1000}]);
    let linux = &mut target.config["linux"];
    linux["namespaces"]
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "user"}));
    linux["uidMappings"] = map.clone();
    linux["gidMappings"] = map;
    target.write();
    running(&target);
    joins(
        &target,
        &[("user", "user"), ("network", "net"), ("ipc", "ipc")],
    );
    joins(&target, &[("user", "user"), ("pid", "pid")]);
}

#[test]
fn a_mount_goes_where_a_link_to_nothing_points() {
    let mut bundle = Bundle::new("dangling", &["cat", "/run/deep/resolv.conf"]);
    std::fs::write(bundle.path("source"), "nameserver 192.0.2.1\n").unwrap();
    symlink(
        "../run/deep/resolv.conf",
        bundle.path("rootfs/etc/resolv.conf"),
    )
    .unwrap();
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.push(json!({
        "destination": "/etc/resolv.conf",
        "source": "source",
        "options": ["bind", "ro"],
    }));
    bundle.write();
    let seen = bundle.ok(&["run", &bundle.id]);
    assert_eq!(seen, "nameserver 192.0.2.1\n");
    assert_eq!(bundle.leftovers(), Vec::<String>::new());
}

#[test]
fn a_hook_that_fails_in_the_container_is_told_with_its_words() {
    let mut bundle = Bundle::new("words", &["true"]);
    let loud = "i=0; while [ $i -lt 9000 ]; do echo 0123456789 >&2; i=$((i+1)); done";
    let says = "echo no luck >&2; exit 3";
    for (kind, program) in [("createRuntime", "/bin/sh"), ("startContainer", "/bin/sh")] {
        let hook = |words: &str| json!({"path": program, "args": ["sh", "-c", words]});
        bundle.config["hooks"] = json!({kind: [hook(loud), hook(says)]});
        bundle.write();
        let out = bundle.run(&["run", &bundle.id]);
        assert!(!out.status.success());
        let told = String::from_utf8_lossy(&out.stderr);
        let wanted =
            format!("error running {kind} hook #1: exit status 3, stdout: , stderr: no luck");
        assert!(told.contains(&wanted), "{told}");
        assert_eq!(bundle.leftovers(), Vec::<String>::new());
    }
}

#[test]
fn of_a_variable_given_twice_the_last_counts() {
    let mut bundle = Bundle::new("twice", &["env"]);
    bundle.config["process"]["env"] = json!(["A=1", "PATH=/bin", "HOME=", "A=2"]);
    bundle.write();
    assert_eq!(
        bundle.ok(&["run", &bundle.id]),
        "PATH=/bin\nA=2\nHOME=/root\n"
    );
}
