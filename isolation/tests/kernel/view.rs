//! What a container sees at `/sys/fs/cgroup`: its own groups, their limits, and nothing else.

use gantry_isolation::cgroup::Hierarchies;
use gantry_isolation::keeper::Request;
use gantry_isolation::spec::{ContainerSpec, Ids, Limits, Root, User};

use crate::changes::update;
use crate::exec::{exec_spec, run};
use crate::node::{Node, id};
use crate::unified::v2_keeper;

/// Mounts of cgroup file systems: where, how, and which directory is their root.
const MOUNTS: &str = "grep -E ' - cgroup2? ' /proc/self/mountinfo | \
                      while read a b c root at how rest; do echo $root $at $how; done; ";

const IDS: [(&str, Ids); 2] = [("host", Ids::Host), ("private", Ids::Private)];

fn limited(mut spec: ContainerSpec) -> ContainerSpec {
    spec.limits = Limits {
        memory_bytes: Some(48 << 20),
        cpu_quota_us: Some(50_000),
        pids_max: Some(77),
        ..Limits::default()
    };
    spec
}

/// Whether this host has trees of v1, which a test is about.
fn has_trees() -> bool {
    !Hierarchies::detect().pure_v2
}

/// Names of the trees that are shown on this host.
fn trees() -> Vec<String> {
    let hosts = Hierarchies::detect();
    let trees = [
        hosts.cpu,
        hosts.cpuacct,
        hosts.cpuset,
        hosts.memory,
        hosts.pids,
    ];
    let name = |tree: std::path::PathBuf| tree.file_name().unwrap().to_str().unwrap().to_owned();
    let mut names: Vec<String> = trees.into_iter().flatten().map(name).collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn a_program_finds_its_limits_where_runtimes_look() {
    let mut node = Node::new();
    let (script, want) = if Hierarchies::detect().pure_v2 {
        let script = "cd /sys/fs/cgroup && cat memory.max cpu.max pids.max";
        (script, "50331648\n50000 100000\n77\n")
    } else {
        let script = "cd /sys/fs/cgroup && cat memory/memory.limit_in_bytes \
                      cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us pids/pids.max && \
                      cat cpuset/cpuset.cpus cpuacct/cpuacct.usage >/dev/null && \
                      grep -vc ':/$' /proc/self/cgroup";
        (script, "50331648\n50000\n100000\n77\n0\n")
    };
    for (name, ids) in IDS {
        for (number, user) in [
            User::Root,
            User::Ids {
                uid: 1000,
                gid: 1000,
            },
        ]
        .into_iter()
        .enumerate()
        {
            let mut spec = limited(node.shell(&format!("{name}-{number}"), script));
            (spec.ids, spec.user) = (ids.clone(), user.clone());
            let ended = node.run(&spec);
            assert_eq!(ended.stdout, want, "{ids:?} {user:?}: {ended:?}");
        }
    }
}

#[test]
fn each_tree_is_mounted_once_with_its_own_group_as_the_root() {
    if !has_trees() {
        return;
    }
    let mut node = Node::new();
    for (name, ids) in IDS {
        let script =
            format!("{MOUNTS} ls /sys/fs/cgroup; ls /sys/fs/cgroup/cpuset | grep -c tasks");
        let mut spec = limited(node.shell(name, &script));
        spec.ids = ids;
        let ended = node.run(&spec);
        let mut want: Vec<String> = trees();
        want = want
            .iter()
            .map(|name| format!("/ /sys/fs/cgroup/{name} ro,nosuid,nodev,noexec,relatime"))
            .chain(want.iter().cloned())
            .chain(["1".to_owned()])
            .collect();
        assert_eq!(ended.stdout.lines().collect::<Vec<_>>(), want, "{ended:?}");
    }
}

#[test]
fn a_neighbour_is_not_seen_in_the_view() {
    if !has_trees() {
        return;
    }
    let mut node = Node::new();
    let mut other = node.shell("other", "exec sleep 1000");
    other.limits.cpuset_cpus = Some("0".to_owned());
    node.start(&other);
    node.started("other");
    // Neither as a directory nor among the processes of the group of CPUs that many share.
    let third = node.shell("third", "exec sleep 1000");
    node.start(&third);
    node.started("third");
    // The shell reads by itself: what it starts could end between being listed and looked up.
    let script = "find /sys/fs/cgroup/ -mindepth 2 -type d; seen=; \
                  for tree in /sys/fs/cgroup/*/cgroup.procs; do \
                  while read pid; do seen=\"$seen $pid\"; done <$tree; done; \
                  for pid in $seen; do [ -d /proc/$pid ] || echo stranger $pid; done; \
                  grep -c . /sys/fs/cgroup/cpuset/cgroup.procs";
    let ended = node.sh("c1", script);
    // PID 1, the shell and grep.
    assert_eq!(ended, "3\n");
}

#[test]
fn one_more_process_and_new_limits_are_in_the_same_view() {
    if !has_trees() {
        return;
    }
    let mut node = Node::new();
    let spec = limited(node.shell("c1", "exec sleep 1000"));
    node.start(&spec);
    node.started("c1");
    let limits = Limits {
        memory_bytes: Some(64 << 20),
        ..Limits::default()
    };
    update(&mut node, "c1", limits).unwrap();
    let read = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes; grep -vc ':/$' /proc/self/cgroup";
    let (_, output) = run(&mut node, &exec_spec("s1", &["sh", "-c", read]));
    assert_eq!(output, "67108864\n0\n");
}

#[test]
fn a_spec_can_take_the_view_away() {
    let mut node = Node::new();
    let mut spec = node.shell("c1", "ls -A /sys/fs/cgroup | grep -c .");
    spec.masked_paths = Some(vec!["/sys/fs/cgroup".into()]);
    assert_eq!(node.run(&spec).stdout, "0\n");
}

#[test]
fn an_image_cannot_stand_in_the_way() {
    // `/sys` of the image leads elsewhere: refused as before, with nothing mounted there.
    let mut node = Node::new();
    let layer = node.layer("l");
    std::os::unix::fs::symlink("/tmp", layer.join("sys")).unwrap();
    let spec = node.spec("c1", Root::Layers(vec![layer]), &["/bin/true"]);
    node.start(&spec);
    assert!(node.start_failure("c1").starts_with("mount /sys: "));
}

#[test]
fn on_v2_the_one_group_is_the_whole_view() {
    let mut node = Node::with_keeper(v2_keeper);
    let script =
        format!("{MOUNTS} cat /proc/self/cgroup | grep ^0; ls /sys/fs/cgroup/cgroup.procs");
    for (name, ids) in IDS {
        let mut spec = node.shell(name, &script);
        spec.ids = ids;
        let ended = node.run(&spec);
        let want = "/ /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime\n0::/\n\
                    /sys/fs/cgroup/cgroup.procs\n";
        assert_eq!(ended.stdout, want, "{ended:?}");
    }
    let spec = node.shell("c2", "exec sleep 1000");
    node.start(&spec);
    node.started("c2");
    let (id, signo, all) = (id("c2"), 9, true);
    node.send(&Request::Signal { id, signo, all });
    node.exited("c2");
    node.forget("c2");
}
