//! Each controller on the real kernel: that it acts, and what the statistics say.
//!
//! They look at the v1 files of hybrid hosts; on a v2 host the same limits are in other files, which
//! the fixture tests beside each controller hold.

use std::path::PathBuf;

use gantry_isolation::cgroup::{Hierarchies, Usage, usage};
use gantry_isolation::keeper::Request;
use gantry_isolation::spec::{Access, Device, ExitStatus, HugePageLimit, IoLimit, Limits};

use crate::changes::v1_keeper;
use crate::node::{Node, id, until};

/// What a file of a container's group says.
fn read(tree: Option<&PathBuf>, node: &Node, name: &str, file: &str) -> String {
    let path = tree.unwrap().join(&node.parent).join(name).join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
    text.trim().to_owned()
}

fn used(node: &Node, name: &str) -> Usage {
    usage(&Hierarchies::detect(), &node.parent, &id(name)).unwrap()
}

#[test]
fn a_quota_holds_back_and_a_burst_is_taken() {
    let mut node = Node::new();
    let mut spec = node.shell("c1", "while :; do :; done");
    spec.limits = Limits {
        cpu_quota_us: Some(10_000),
        cpu_burst_us: Some(5_000),
        ..Limits::default()
    };
    node.start(&spec);
    node.started("c1");
    let hosts = Hierarchies::detect();
    if !hosts.pure_v2 {
        let burst = read(hosts.cpu.as_ref(), &node, "c1", "cpu.cfs_burst_us");
        assert_eq!(burst, "5000");
    }
    let found = until("throttling", || {
        Some(used(&node, "c1")).filter(|used| used.cpu_throttled_periods > 2)
    });
    assert!(
        found.cpu_periods >= found.cpu_throttled_periods,
        "{found:?}"
    );
    assert!(found.cpu_throttled_ns > 0 && found.cpu_ns > 0, "{found:?}");
}

#[test]
fn a_container_of_one_cpu_sees_one() {
    let mut node = Node::new();
    let mut spec = node.shell("c1", "nproc; grep Mems_allowed_list /proc/self/status");
    spec.limits.cpuset_cpus = Some("0".to_owned());
    let ended = node.run(&spec);
    assert_eq!(ended.stdout, "1\nMems_allowed_list:\t0\n", "{ended:?}");
    let mut spec = node.shell("c2", "true");
    spec.limits.cpuset_cpus = Some("4000".to_owned());
    node.start(&spec);
    let words = node.start_failure("c2");
    assert!(words.contains("cpuset.cpus to 4000: "), "{words}");
    assert_eq!(node.groups(), [] as [PathBuf; 0]);
}

/// Some block device of this machine.
fn block_device() -> (u32, u32) {
    let entries = std::fs::read_dir("/sys/block").unwrap().flatten();
    let numbers = entries.filter_map(|entry| {
        let text = std::fs::read_to_string(entry.path().join("dev")).ok()?;
        let (major, minor) = text.trim().split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    });
    numbers.min().unwrap()
}

#[test]
fn rates_and_weights_of_block_devices_are_in_the_files() {
    let mut node = Node::new();
    let (major, minor) = block_device();
    let mut spec = node.shell("c1", "exec sleep 1000");
    spec.limits = Limits {
        io_weight: Some(10_000),
        io_devices: vec![IoLimit {
            major,
            minor,
            read_bytes: Some(1 << 20),
            write_ops: Some(50),
            ..IoLimit::default()
        }],
        ..Limits::default()
    };
    node.start(&spec);
    node.started("c1");
    let hosts = Hierarchies::detect();
    let Some(blkio) = &hosts.blkio else { return };
    let read = |file: &str| read(Some(blkio), &node, "c1", file);
    assert_eq!(
        read("blkio.throttle.read_bps_device"),
        format!("{major}:{minor} 1048576")
    );
    assert_eq!(
        read("blkio.throttle.write_iops_device"),
        format!("{major}:{minor} 50")
    );
    assert_eq!(read("blkio.bfq.weight"), "1000");
    assert!(read("cgroup.procs").lines().count() >= 1);
    assert!(used(&node, "c1").io.iter().all(|one| one.major < 4096));
}

#[test]
fn huge_pages_are_limited_or_refused_by_name() {
    let mut node = Node::new();
    let hosts = Hierarchies::detect();
    let limit = |page_bytes| HugePageLimit {
        page_bytes,
        bytes: 4 << 20,
    };
    let mut spec = node.shell("c1", "exec sleep 1000");
    spec.limits.huge_pages = vec![limit(512)];
    node.start(&spec);
    assert!(node.start_failure("c1").contains("a power of two"));
    spec.limits.huge_pages = vec![limit(8 << 20)];
    node.start(&spec);
    let words = node.start_failure("c1");
    assert!(
        words.contains("controller hugetlb") && words.contains("(limit huge_pages)"),
        "{words}"
    );
    if !hosts.controllers.contains("hugetlb") || !hosts.huge_pages.contains(&(2 << 20)) {
        return;
    }
    spec.limits.huge_pages = vec![limit(2 << 20)];
    node.start(&spec);
    node.started("c1");
    let max = read(hosts.unified.as_ref(), &node, "c1", "hugetlb.2MB.max");
    assert_eq!(max, "4194304");
    assert!(used(&node, "c1").huge_pages.contains(&(2 << 20, 0)));
}

#[test]
fn a_limit_that_v1_has_not_is_refused() {
    let mut node = Node::new();
    if Hierarchies::detect().pure_v2 {
        return;
    }
    let mut spec = node.shell("c1", "true");
    spec.limits.memory_high_bytes = Some(1 << 20);
    node.start(&spec);
    assert_eq!(
        node.start_failure("c1"),
        "check the spec: this host has cgroup v1, which has nothing like memory.high \
         (limit memory_high_bytes)"
    );
}

#[test]
fn a_device_of_its_own_is_allowed_and_no_other() {
    let node = allows_one_device(Node::new());
    let hosts = Hierarchies::detect();
    if let Some(tree) = &hosts.devices {
        let own = tree.join(format!("{}-devices", node.parent));
        let left = std::fs::read_dir(&own).unwrap().flatten();
        assert_eq!(left.filter(|entry| entry.path().is_dir()).count(), 0);
        drop(node);
        assert!(!own.exists());
    }
}

/// Whichever way the keeper's trees filter devices.
pub(crate) fn allows_one_device(mut node: Node) -> Node {
    let script = "(: </dev/loop-control) && echo read; \
                  (: >/dev/loop-control) || echo not written; \
                  mknod /dev/mem c 1 1; cat /dev/mem || echo not read; \
                  head -c 1 /dev/zero | wc -c";
    let spec = node.shell("c1", script);
    let before = node.run(&spec);
    assert_eq!(before.stdout, "not read\n1\n", "{before:?}");
    let mut spec = node.shell("c2", script);
    spec.devices = vec![Device {
        source: "/dev/loop-control".into(),
        target: "/dev/loop-control".into(),
        access: Access::try_from("r".to_owned()).unwrap(),
    }];
    let ended = node.run(&spec);
    assert_eq!(
        ended.stdout, "read\nnot written\nnot read\n1\n",
        "{ended:?}"
    );
    assert_eq!(node.groups(), [] as [PathBuf; 0]);
    node
}

#[test]
fn a_hundred_processes_that_fork_are_killed_at_once() {
    kill_a_hundred(Node::new());
}

#[test]
fn a_hundred_are_killed_one_by_one_where_there_is_only_v1() {
    if Hierarchies::detect().pure_v2 {
        return;
    }
    kill_a_hundred(Node::with_keeper(v1_keeper));
}

fn kill_a_hundred(mut node: Node) {
    let script = "for i in $(seq 100); do (while :; do /bin/true & wait; done) & done; \
                  echo all; wait";
    let mut spec = node.shell("c1", script);
    spec.limits.pids_max = Some(1000);
    node.start(&spec);
    until("all of them", || {
        node.output("c1", "stdout").contains("all").then_some(())
    });
    let most = until("all of them", || {
        Some(used(&node, "c1").pids).filter(|pids| *pids > 100)
    });
    assert!(most <= 1000);
    node.send(&Request::Signal {
        id: id("c1"),
        signo: 9,
        all: true,
    });
    assert_eq!(node.exited("c1").0, ExitStatus::Signal(9));
    node.forget("c1");
    assert_eq!(node.groups(), [] as [PathBuf; 0]);
}

#[test]
fn statistics_are_plausible() {
    let node = Node::new();
    let script = "x=$(head -c 20m /dev/zero | tr '\\0' x); i=0; \
                  while [ $i -lt 100000 ]; do i=$((i+1)); done; echo ready; sleep 1000";
    let mut spec = node.shell("c1", script);
    spec.limits = Limits {
        memory_bytes: Some(512 << 20),
        ..Limits::default()
    };
    node.start(&spec);
    until("the loop", || {
        node.output("c1", "stdout").contains("ready").then_some(())
    });
    let used = used(&node, "c1");
    assert!(used.rss_bytes >= 20 << 20, "{used:?}");
    assert!(used.memory_bytes >= used.rss_bytes, "{used:?}");
    assert!(
        used.memory_peak_bytes >= Some(used.memory_bytes),
        "{used:?}"
    );
    assert!(
        used.cpu_user_ns > 0 && used.cpu_ns >= used.cpu_user_ns,
        "{used:?}"
    );
    assert_eq!((used.oom_kills, used.swap_bytes), (0, 0));
    assert_eq!(used.memory_limit_bytes, Some(512 << 20));
    let pressure = std::path::Path::new("/proc/pressure/cpu").exists();
    let tree = Hierarchies::detect().unified.is_some();
    assert_eq!(used.cpu_pressure.is_some(), pressure && tree, "{used:?}");
}
