//! A host with only cgroup v2, as far as this one can play it: every command in a view of the machine
//! where nothing but the v2 tree is mounted. On a hybrid host that tree has no controllers.

use serde_json::{Value, json};

use crate::bundle::Bundle;

/// The controllers of the v2 tree, where this host mounts it.
fn controllers() -> String {
    let trees = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
    let mut files = trees
        .iter()
        .map(|tree| format!("{tree}/cgroup.controllers"));
    files
        .find_map(|file| std::fs::read_to_string(file).ok())
        .expect("a v2 tree")
}

#[test]
fn a_container_lives_from_create_to_delete_in_one_tree() {
    let mut bundle = Bundle::new("one-tree", &["sh", "-c", "sleep 1000 & exec sleep 1000"]);
    bundle.in_v2_view = true;
    bundle.config["linux"]["cgroupsPath"] = json!(format!("/{}", bundle.id));
    bundle.write();
    bundle.create();
    assert_eq!(bundle.state()["status"], "created");
    bundle.ok(&["start", &bundle.id]);
    let pids = gantry_tests::poll::until("both processes", || {
        let text = bundle.ok(&["ps", "--format", "json", &bundle.id]);
        let pids: Vec<i32> = serde_json::from_str(&text).unwrap();
        if pids.len() == 2 { Ok(pids) } else { Err(text) }
    });
    for pid in &pids {
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        assert!(groups.contains(&format!("0::/{}\n", bundle.id)), "{groups}");
    }
    bundle.ok(&["pause", &bundle.id]);
    assert_eq!(bundle.state()["status"], "paused");
    let refused = bundle.run(&["exec", &bundle.id, "true"]);
    assert!(!refused.status.success());
    bundle.ok(&["resume", &bundle.id]);
    assert_eq!(bundle.state()["status"], "running");
    let shown = bundle.ok(&["exec", &bundle.id, "cat", "/proc/self/cgroup"]);
    let own = format!("0::/{}\n", bundle.id);
    assert!(shown.ends_with(&own), "{shown}");
    let stats: Value =
        serde_json::from_str(&bundle.ok(&["events", "--stats", &bundle.id])).unwrap();
    assert!(
        stats["data"]["cpu"]["usage"]["total"].as_u64().unwrap() > 0,
        "{stats}"
    );
    let limited = bundle.run(&["update", "--pids-limit", "9", &bundle.id]);
    if controllers().contains("pids") {
        assert!(limited.status.success(), "{limited:?}");
    } else {
        let words = String::from_utf8_lossy(&limited.stderr).into_owned();
        assert!(words.contains("no cgroup controller pids"), "{words}");
    }
    bundle.ok(&["kill", "--all", &bundle.id, "KILL"]);
    bundle.await_status("stopped");
    bundle.ok(&["delete", &bundle.id]);
    assert_eq!(bundle.leftovers(), Vec::<String>::new());
}

#[test]
fn a_limit_that_the_tree_has_no_controller_for_leaves_nothing() {
    let mut bundle = Bundle::new("no-controller", &["true"]);
    bundle.in_v2_view = true;
    bundle.config["linux"]["cgroupsPath"] = json!(format!("/{}", bundle.id));
    bundle.config["linux"]["resources"]["unified"] = json!({"nothing.max": "1"});
    bundle.write();
    let out = bundle.run(&["run", &bundle.id]);
    let words = String::from_utf8_lossy(&out.stderr).into_owned();
    let wanted = "can't be set: controller";
    assert!(words.contains(wanted), "{words}");
    assert_eq!(bundle.leftovers(), Vec::<String>::new());
}
