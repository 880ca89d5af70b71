//! Changing containers that run: limits, freezing, thawing; on this host's trees and, for the
//! freezer, where only those of v1 are there.

use std::path::Path;

use gantry_isolation::cgroup::{Hierarchies, usage};
use gantry_isolation::keeper::{Client, Event, Request};
use gantry_isolation::reap;
use gantry_isolation::spec::{ExitStatus, Limits};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::node::{Node, connect, id, until};

pub(crate) fn update(node: &mut Node, name: &str, limits: Limits) -> Result<(), String> {
    node.send(&Request::Update {
        id: id(name),
        limits: Box::new(limits),
    });
    answer(node, "update", name)
}

fn freeze(node: &mut Node, name: &str) -> Result<(), String> {
    node.send(&Request::Freeze { id: id(name) });
    answer(node, "freeze", name)
}

fn thaw(node: &mut Node, name: &str) -> Result<(), String> {
    node.send(&Request::Thaw { id: id(name) });
    answer(node, "thaw", name)
}

fn answer(node: &mut Node, what: &str, name: &str) -> Result<(), String> {
    let wanted = id(name);
    node.wait(what, |event| match event {
        Event::Updated { id } if *id == wanted && what == "update" => Some(Ok(())),
        Event::Frozen { id } if *id == wanted && what == "freeze" => Some(Ok(())),
        Event::Thawed { id } if *id == wanted && what == "thaw" => Some(Ok(())),
        Event::Refused { request, error, .. } if request == what => Some(Err(error.clone())),
        _ => None,
    })
}

fn kill(node: &Node, name: &str, all: bool) {
    node.send(&Request::Signal {
        id: id(name),
        signo: 9,
        all,
    });
}

fn said(node: &Node, name: &str, word: &str) {
    until(word, || {
        node.output(name, "stdout").contains(word).then_some(())
    });
}

const MIB: u64 = 1 << 20;

fn memory(bytes: u64) -> Limits {
    Limits {
        memory_bytes: Some(bytes),
        ..Limits::default()
    }
}

#[test]
fn a_larger_limit_saves_what_the_smaller_would_have_killed() {
    let mut node = Node::new();
    let script = "until test -e gate; do sleep 0.01; done; \
                  x=$(head -c 60m /dev/zero | tr '\\0' x); echo holding ${#x}; \
                  until test -e end; do sleep 0.01; done; exit 7";
    let mut spec = node.shell("c1", script);
    spec.limits = memory(32 * MIB);
    node.start(&spec);
    node.started("c1");
    update(&mut node, "c1", memory(512 * MIB)).unwrap();
    std::fs::write(node.path("sandbox-c1/gate"), "").unwrap();
    said(&node, "c1", "holding 62914560");
    let limit = || usage(&Hierarchies::detect(), &node.parent, &id("c1")).unwrap();
    assert_eq!(limit().memory_limit_bytes, Some(512 * MIB));
    // What is in use cannot be limited away: refused, and the earlier limit holds.
    let refused = update(&mut node, "c1", memory(16 * MIB)).unwrap_err();
    assert!(refused.contains("memory."), "{refused}");
    let limit = usage(&Hierarchies::detect(), &node.parent, &id("c1")).unwrap();
    assert_eq!(limit.memory_limit_bytes, Some(512 * MIB));
    assert_eq!(limit.oom_kills, 0);
    update(&mut node, "c1", memory(256 * MIB)).unwrap();
    update(&mut node, "c1", memory(Limits::UNLIMITED)).unwrap();
    let limit = usage(&Hierarchies::detect(), &node.parent, &id("c1")).unwrap();
    assert_eq!(limit.memory_limit_bytes, None);
    std::fs::write(node.path("sandbox-c1/end"), "").unwrap();
    assert_eq!(node.exited("c1"), (ExitStatus::Code(7), false));
}

#[test]
fn a_smaller_limit_counts_kills_from_then_on() {
    let mut node = Node::new();
    let script = "until test -e gate; do sleep 0.01; done; exec tail /dev/zero";
    let mut spec = node.shell("c1", script);
    spec.init = false;
    node.start(&spec);
    node.started("c1");
    update(&mut node, "c1", memory(32 * MIB)).unwrap();
    std::fs::write(node.path("sandbox-c1/gate"), "").unwrap();
    assert_eq!(node.exited("c1"), (ExitStatus::Signal(9), true));
}

#[test]
fn a_change_that_fails_in_part_changes_nothing() {
    let mut node = Node::new();
    let mut spec = node.shell("c1", "exec sleep 1000");
    spec.limits = Limits {
        cpu_quota_us: Some(50_000),
        cpu_burst_us: Some(10_000),
        pids_max: Some(50),
        ..memory(64 * MIB)
    };
    node.start(&spec);
    let pid = node.started("c1");
    let change = Limits {
        pids_max: Some(60),
        cpuset_cpus: Some("4000".to_owned()),
        ..memory(128 * MIB)
    };
    let refused = update(&mut node, "c1", change).unwrap_err();
    assert!(refused.contains("cpuset.cpus"), "{refused}");
    let hosts = Hierarchies::detect();
    let found = usage(&hosts, &node.parent, &id("c1")).unwrap();
    assert_eq!(found.memory_limit_bytes, Some(64 * MIB));
    if !hosts.pure_v2 {
        let dir = |tree: &Option<std::path::PathBuf>| {
            tree.as_ref().unwrap().join(&node.parent).join("c1")
        };
        assert!(!dir(&hosts.cpuset).exists());
        let pids = std::fs::read_to_string(dir(&hosts.pids).join("pids.max")).unwrap();
        assert_eq!(pids.trim(), "50");
    }
    // A quota below the burst that is there: the burst has to go first.
    let change = Limits {
        cpu_quota_us: Some(5_000),
        cpu_burst_us: Some(1_000),
        pids_max: Some(Limits::UNLIMITED),
        // A tree in which it had no group until now.
        cpuset_cpus: Some("0".to_owned()),
        ..Limits::default()
    };
    update(&mut node, "c1", change).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("Cpus_allowed_list:\t0\n"), "{status}");
    let senseless = Limits {
        cpu_burst_us: Some(9_000),
        ..Limits::default()
    };
    let refused = update(&mut node, "c1", senseless).unwrap_err();
    assert!(refused.contains("at most cpu_quota_us"), "{refused}");
    let unknown = update(&mut node, "none", memory(MIB)).unwrap_err();
    assert_eq!(unknown, "there is no such container");
    kill(&node, "c1", true);
    node.exited("c1");
    node.forget("c1");
    assert_eq!(node.groups(), [] as [std::path::PathBuf; 0]);
}

/// Freezing, in whichever trees the keeper has.
pub(crate) fn stands_still_and_goes_on(mut node: Node) {
    let script = "i=0; while :; do i=$((i+1)); echo $i >n; done";
    let spec = node.shell("c1", script);
    node.start(&spec);
    node.started("c1");
    let file = node.path("sandbox-c1/n");
    // A write truncates first: an empty file is no number.
    let number = || {
        std::fs::read_to_string(&file)
            .ok()?
            .trim()
            .parse::<u64>()
            .ok()
    };
    until("a number", number);
    freeze(&mut node, "c1").unwrap();
    assert!(node.list()[0].frozen);
    let text = || std::fs::read_to_string(&file).unwrap();
    let before = text();
    // Time in which it could have run: a whole other container.
    assert_eq!(node.sh("c2", "sleep 0.2; echo done"), "done\n");
    assert_eq!(text(), before);
    thaw(&mut node, "c1").unwrap();
    assert!(!node.list()[0].frozen);
    until("progress", || (text() != before).then_some(()));
    // Thawing what runs is nothing.
    thaw(&mut node, "c1").unwrap();
    freeze(&mut node, "c1").unwrap();
    kill(&node, "c1", true);
    assert_eq!(node.exited("c1").0, ExitStatus::Signal(9));
    node.forget("c1");
    let spec = node.shell("c3", script);
    node.start(&spec);
    node.started("c3");
    freeze(&mut node, "c3").unwrap();
    kill(&node, "c3", false);
    assert_eq!(node.exited("c3").0, ExitStatus::Signal(9));
    node.forget("c3");
    assert!(freeze(&mut node, "c3").is_err());
    assert_eq!(node.groups(), [] as [std::path::PathBuf; 0]);
    // The end of the keeper ends the frozen, too.
    let spec = node.shell("c4", script);
    node.start(&spec);
    node.started("c4");
    freeze(&mut node, "c4").unwrap();
    node.send(&Request::Stop { kill: true });
    node.wait("the end", |event| {
        matches!(event, Event::Stopping).then_some(())
    });
    assert_eq!(node.groups(), [] as [std::path::PathBuf; 0]);
}

#[test]
fn a_frozen_container_stands_still_until_thawed_or_killed() {
    stands_still_and_goes_on(Node::new());
}

/// Runs `then` in a thread that sees no v2 tree.
fn in_v1_view<T: Send>(then: impl FnOnce() -> T + Send) -> T {
    let view = || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        umount2("/sys/fs/cgroup/unified", MntFlags::MNT_DETACH).unwrap();
        assert_eq!(Hierarchies::detect().unified, None);
        then()
    };
    std::thread::scope(|scope| scope.spawn(view).join().unwrap())
}

/// A keeper that sees no v2 tree.
pub(crate) fn v1_keeper(dir: &Path, parent: &str) -> Client {
    in_v1_view(|| connect(dir, parent))
}

#[test]
fn where_there_is_only_v1_its_freezer_does_it() {
    if Hierarchies::detect().pure_v2 {
        return;
    }
    stands_still_and_goes_on(Node::with_keeper(v1_keeper));
}

#[test]
fn what_a_dead_keeper_left_frozen_is_reaped() {
    if Hierarchies::detect().pure_v2 {
        return;
    }
    let mut node = Node::with_keeper(v1_keeper);
    let spec = node.shell("c1", "sleep 1000 & sleep 1000");
    node.start(&spec);
    let pid = node.started("c1");
    freeze(&mut node, "c1").unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("PPid:"));
    let keeper = line.unwrap().split_whitespace().last().unwrap();
    let keeper = nix::unistd::Pid::from_raw(keeper.parse().unwrap());
    nix::sys::signal::kill(keeper, nix::sys::signal::Signal::SIGKILL).unwrap();
    until("the socket to close", || {
        node.client.recv().ok()?.is_none().then_some(())
    });
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    let left = in_v1_view(|| reap::leftovers(&node.path("containers"), &node.parent, &[]));
    assert_eq!(
        (left.removed, left.failures),
        (vec!["c1".to_owned()], Vec::new())
    );
    assert_eq!(node.groups(), [] as [std::path::PathBuf; 0]);
    // A keeper to take the parents with it.
    node.client = v1_keeper(node.dir.path(), &node.parent);
}

#[test]
fn nothing_is_run_in_a_frozen_container() {
    let mut node = Node::new();
    let spec = node.shell("c1", "exec sleep 1000");
    node.start(&spec);
    node.started("c1");
    freeze(&mut node, "c1").unwrap();
    let exec = gantry_isolation::keeper::ExecSpec {
        session: id("s1"),
        id: id("c1"),
        argv: vec!["true".to_owned()],
        env: Vec::new(),
        cwd: None,
        user: gantry_isolation::spec::User::Root,
        tty: false,
        window: None,
        capabilities: gantry_isolation::caps::default_set(),
    };
    let null = std::fs::File::open("/dev/null").unwrap();
    let fd = std::os::fd::AsFd::as_fd(&null);
    let request = Request::Exec {
        exec: Box::new(exec),
    };
    node.client.request(&request, &[fd, fd, fd]).unwrap();
    let error = node.wait("a refusal", |event| match event {
        Event::ExecFailed { error, .. } => Some(error.clone()),
        _ => None,
    });
    assert_eq!(error, "the container is frozen");
}
