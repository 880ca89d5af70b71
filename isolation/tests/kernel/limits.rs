//! What the kernel enforces.

use std::path::{Path, PathBuf};

use gantry_isolation::cgroup::{Hierarchies, usage};
use gantry_isolation::keeper::Request;
use gantry_isolation::spec::{ExitStatus, Limits};

use crate::node::{Node, id, until};

fn read(tree: Option<&PathBuf>, node: &Node, name: &str, file: &str) -> Option<String> {
    let path = tree?.join(&node.parent).join(name).join(file);
    Some(std::fs::read_to_string(&path).unwrap().trim().to_owned())
}

#[test]
fn more_memory_than_allowed_kills_and_is_told() {
    let mut node = Node::new();
    // tail keeps the whole of a file without line ends in memory.
    let mut spec = node.shell("c1", "head -c 200m /dev/zero | tail");
    spec.limits = Limits {
        memory_bytes: Some(32 << 20),
        ..Limits::default()
    };
    let ended = node.run(&spec);
    assert!(ended.oom_killed, "{ended:?}");
    let mut spec = node.shell("c2", "exec tail /dev/zero");
    spec.init = false;
    spec.limits = Limits {
        memory_bytes: Some(32 << 20),
        ..Limits::default()
    };
    let ended = node.run(&spec);
    assert_eq!(
        (ended.status, ended.oom_killed),
        (ExitStatus::Signal(9), true)
    );
    let mut spec = node.shell("c3", "exit 0");
    spec.limits = Limits {
        memory_bytes: Some(32 << 20),
        ..Limits::default()
    };
    assert!(!node.run(&spec).oom_killed);
}

#[test]
fn no_more_processes_than_allowed() {
    let mut node = Node::new();
    let script = "for i in $(seq 50); do sleep 1000 & done; wait";
    let mut spec = node.shell("c1", script);
    spec.limits = Limits {
        pids_max: Some(10),
        ..Limits::default()
    };
    node.start(&spec);
    until("the fork to fail", || {
        node.output("c1", "stderr").contains("ork").then_some(())
    });
    let hosts = Hierarchies::detect();
    let used = usage(&hosts, &node.parent, &id("c1")).unwrap();
    assert!(used.pids <= 10, "{used:?}");
    node.send(&Request::Signal {
        id: id("c1"),
        signo: 9,
        all: true,
    });
    node.exited("c1");
}

#[test]
fn limits_are_in_the_kernels_files_and_usage_can_be_read() {
    let mut node = Node::new();
    let mut spec = node.shell(
        "c1",
        "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo done; \
                                     sleep 1000",
    );
    spec.limits = Limits {
        cpu_shares: Some(102),
        cpu_quota_us: Some(50_000),
        cpu_period_us: None,
        memory_bytes: Some(64 << 20),
        pids_max: Some(20),
        ..Limits::default()
    };
    node.start(&spec);
    node.started("c1");
    let hosts = Hierarchies::detect();
    if !hosts.pure_v2 {
        for (tree, file, value) in [
            (&hosts.cpu, "cpu.shares", "102"),
            (&hosts.cpu, "cpu.cfs_quota_us", "50000"),
            (&hosts.cpu, "cpu.cfs_period_us", "100000"),
            (&hosts.memory, "memory.limit_in_bytes", "67108864"),
            (&hosts.pids, "pids.max", "20"),
        ] {
            assert_eq!(
                read(tree.as_ref(), &node, "c1", file).as_deref(),
                Some(value),
                "{file}"
            );
        }
        let trees = [
            &hosts.cpu,
            &hosts.cpuacct,
            &hosts.memory,
            &hosts.pids,
            &hosts.unified,
        ];
        for tree in trees.into_iter().flatten() {
            let procs = read(Some(tree), &node, "c1", "cgroup.procs").unwrap();
            assert!(procs.lines().count() >= 2, "{}: {procs:?}", tree.display());
        }
        let filter = hosts
            .devices
            .as_ref()
            .unwrap()
            .join(&node.parent)
            .join("devices.list");
        let filter = std::fs::read_to_string(filter).unwrap();
        assert!(
            filter.contains("c 1:3 rwm") && !filter.contains("a *:*"),
            "{filter}"
        );
    }
    until("output", || {
        node.output("c1", "stdout").contains("done").then_some(())
    });
    // The init, the shell and, soon, the sleep.
    let used = until("three processes", || {
        usage(&hosts, &node.parent, &id("c1")).filter(|used| used.pids == 3)
    });
    assert!(used.cpu_ns > 0 && used.memory_bytes > 0, "{used:?}");
    assert_eq!(used.memory_limit_bytes, Some(64 << 20));
    assert_eq!(usage(&hosts, &node.parent, &id("none")), None);
}

#[test]
fn a_device_that_the_filter_denies_cannot_be_opened() {
    let mut node = Node::new();
    if Hierarchies::detect().devices.is_none() {
        // There the node cannot even be made; `privileges` looks at that.
        return;
    }
    // 1:1 is /dev/mem.
    let script = "mknod /dev/evil c 1 1 && ! cat /dev/evil 2>/dev/null && echo denied; \
                  mknod /evil c 1 3 && ! cat /evil 2>/dev/null && echo nodev";
    assert_eq!(node.sh("c1", script), "denied\nnodev\n");
}

#[test]
fn forgetting_leaves_no_group_mount_or_directory() {
    let mut node = Node::new();
    let mut spec = node.shell(
        "c1",
        "mkdir -p /x/y/z; echo > /x/y/z/f; chmod 0 /x/y; exit 3",
    );
    spec.limits = Limits {
        memory_bytes: Some(32 << 20),
        pids_max: Some(5),
        cpu_shares: Some(10),
        cpu_quota_us: Some(10_000),
        ..Limits::default()
    };
    node.start(&spec);
    node.exited("c1");
    assert!(!node.groups().is_empty());
    node.forget("c1");
    assert_eq!(node.groups(), [] as [PathBuf; 0]);
    assert!(
        spec.sandbox.unwrap().join("stdout").exists(),
        "the sandbox stays"
    );
    let parent = node.parent.clone();
    drop(node);
    for tree in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        assert!(!Path::new(&tree.path()).join(&parent).exists());
    }
}
