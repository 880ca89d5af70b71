//! In which trees a container has groups, and when.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::bundle::Bundle;

/// Two processes: the shell becomes the second one. The output says when both are there.
const TWO: &str = "sleep 1000 & echo two; exec sleep 1000";

/// A group above the containers' own, removed from every tree in the end.
struct Parent(String);

impl Parent {
    fn dirs(&self) -> Vec<PathBuf> {
        let trees = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
        let dirs = trees.map(|tree| tree.path().join(&self.0));
        dirs.chain([Path::new("/sys/fs/cgroup").join(&self.0)])
            .filter(|dir| dir.is_dir())
            .collect()
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        for dir in self.dirs() {
            let _ = std::fs::remove_dir(dir);
        }
    }
}

/// A container of two processes that runs.
fn running(bundle: &Bundle) -> Vec<i32> {
    bundle.create();
    bundle.ok(&["start", &bundle.id]);
    gantry_tests::poll::until("two processes", || {
        let pids = bundle.ok(&["ps", "--format", "json", &bundle.id]);
        let pids: Vec<i32> = serde_json::from_str(&pids).unwrap();
        if pids.len() == 2 && bundle.output() == "two\n" {
            Ok(pids)
        } else {
            Err(format!("{pids:?} {}", bundle.output()))
        }
    })
}

/// The lines of a process's groups in trees of v1.
fn v1_groups(pid: i32) -> Vec<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let v1 = text.lines().filter(|line| !line.contains("::"));
    v1.map(str::to_owned).collect()
}

fn cpus(pid: i32) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text
        .lines()
        .find(|line| line.starts_with("Cpus_allowed_list"));
    line.unwrap().split_whitespace().last().unwrap().to_owned()
}

#[test]
fn an_update_makes_the_groups_that_nobody_needed_before() {
    // Dropped after the container is.
    let parent = Parent(format!("gantry-oci-later-{}", std::process::id()));
    let mut bundle = Bundle::new("later", &["sh", "-c", TWO]);
    bundle.config["linux"]["cgroupsPath"] = json!(format!("/{}/c", parent.0));
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| mount["type"] != "cgroup");
    bundle.write();
    let pids = running(&bundle);
    let own = |pid: &i32| {
        let lines = v1_groups(*pid).into_iter();
        let own = lines.filter(|line| line.ends_with(&format!("/{}/c", parent.0)));
        own.collect::<Vec<_>>()
    };
    for pid in &pids {
        assert!(!own(pid).iter().any(|line| line.contains("cpuset")));
    }
    let before = own(&pids[0]).len();
    bundle.ok(&["update", "--cpuset-cpus", "0", &bundle.id]);
    for pid in &pids {
        assert_eq!(cpus(*pid), "0");
        let v1_has_it = v1_groups(*pid).iter().any(|line| line.contains("cpuset"));
        assert_eq!(own(pid).len(), before + usize::from(v1_has_it));
    }
    // One more process finds all of them.
    let inside = bundle.ok(&[
        "exec",
        &bundle.id,
        "grep",
        "Cpus_allowed_list",
        "/proc/self/status",
    ]);
    assert_eq!(inside, "Cpus_allowed_list:\t0\n");
    bundle.ok(&["kill", "--all", &bundle.id, "KILL"]);
    bundle.await_status("stopped");
    bundle.ok(&["delete", &bundle.id]);
    for dir in parent.dirs() {
        assert!(!dir.join("c").exists(), "{}", dir.display());
    }
}

#[test]
fn groups_in_which_somebody_is_are_refused_and_left_alone() {
    let parent = Parent(format!("gantry-oci-taken-{}", std::process::id()));
    let bundle = |name: &str| {
        let mut bundle = Bundle::new(name, &["sh", "-c", TWO]);
        bundle.config["linux"]["cgroupsPath"] = json!(format!("/{}/c", parent.0));
        bundle.write();
        bundle
    };
    let (first, second) = (bundle("first"), bundle("second"));
    let pids = running(&first);
    let before = v1_groups(pids[0]);
    let out = second.run(&["run", &second.id]);
    let words = String::from_utf8_lossy(&out.stderr).into_owned();
    let wanted = "container's cgroup is not empty: 2 process(es) found";
    assert!(!out.status.success() && words.contains(wanted), "{words}");
    assert_eq!(v1_groups(pids[0]), before);
    first.ok(&["kill", "--all", &first.id, "KILL"]);
    first.await_status("stopped");
    first.ok(&["delete", &first.id]);
}

#[test]
fn a_container_that_is_shown_its_groups_has_one_in_every_tree() {
    let mut bundle = Bundle::new("shown", &["sh", "-c", TWO]);
    let namespaces = &mut bundle.config["linux"]["namespaces"];
    let namespaces = namespaces.as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "cgroup");
    namespaces.push(json!({"type": "cgroup"}));
    bundle.write();
    let pids = running(&bundle);
    for pid in pids {
        for line in v1_groups(pid) {
            assert!(line.ends_with(&format!("/{}", bundle.id)), "{line}");
        }
    }
    let shown = bundle.ok(&["exec", &bundle.id, "cat", "/proc/self/cgroup"]);
    assert!(shown.lines().all(|line| line.ends_with(":/")), "{shown}");
    let script = "cd /sys/fs/cgroup; for t in . *; do [ -e $t/cgroup.procs ] && cat $t/cgroup.procs | grep -c .; done; true";
    let counts = bundle.ok(&["exec", &bundle.id, "sh", "-c", script]);
    // Its two, and those that look.
    assert!(counts.lines().count() > 0, "{counts}");
    assert!(
        counts
            .lines()
            .all(|count| (2..=6).contains(&count.parse::<i32>().unwrap())),
        "{counts}"
    );
    bundle.ok(&["delete", "--force", &bundle.id]);
    assert_eq!(bundle.leftovers(), Vec::<String>::new());
}

#[test]
fn limits_are_the_kernels_from_the_start() {
    let mut bundle = Bundle::new("limits", &["sh", "-c", TWO]);
    bundle.config["linux"]["resources"] = json!({
        "memory": {"limit": 64 << 20, "reservation": 32 << 20},
        "cpu": {"shares": 512, "quota": 50_000, "period": 100_000},
        "pids": {"limit": 77}, "blockIO": {"weight": 500},
    });
    bundle.write();
    running(&bundle);
    let stats = |bundle: &Bundle| -> serde_json::Value {
        let text = bundle.ok(&["events", "--stats", &bundle.id]);
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["data"].take()
    };
    let found = stats(&bundle);
    assert_eq!(found["memory"]["usage"]["limit"], 64 << 20);
    assert_eq!(found["pids"]["limit"], 77);
    assert_eq!(found["pids"]["current"], 2);
    assert!(found["cpu"]["usage"]["total"].as_u64().unwrap() > 0);
    assert!(found["memory"]["raw"]["pgfault"].as_u64().unwrap() > 0);
    let file = bundle.path("resources.json");
    let resources = json!({"memory": {"limit": 32 << 20}, "pids": {"limit": -1}});
    std::fs::write(&file, resources.to_string()).unwrap();
    bundle.ok(&["update", "--resources", &file, &bundle.id]);
    let found = stats(&bundle);
    assert_eq!(found["memory"]["usage"]["limit"], 32 << 20);
    assert_eq!(found["pids"]["limit"], 0);
    let out = bundle.run(&["update", "--memory-swap", "1m", &bundle.id]);
    let words = String::from_utf8_lossy(&out.stderr);
    assert!(
        words.contains("memory+swap limit should be >= memory limit"),
        "{words}"
    );
}
