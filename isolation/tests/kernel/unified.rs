//! A host with only cgroup v2, as far as this one can play it: a keeper in a mount namespace where
//! the v2 tree stands in for `/sys/fs/cgroup`. On a hybrid host that tree has no controllers.

use std::path::Path;

use gantry_isolation::cgroup::{self, DeviceFilter, DeviceKind, DeviceRule, Hierarchies};
use gantry_isolation::keeper::{Client, Request};
use gantry_isolation::reap;
use gantry_isolation::spec::{Access, ExitStatus, Limits};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::changes::{stands_still_and_goes_on, update};
use crate::controllers::allows_one_device;
use crate::node::{Node, connect, id};

const ROOT: &str = "/sys/fs/cgroup";

/// Runs `then` in a thread whose mount namespace has only the v2 tree.
fn in_v2_view<T: Send>(then: impl FnOnce() -> T + Send) -> T {
    let view = || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        umount2(ROOT, MntFlags::MNT_DETACH).unwrap();
        mount(
            Some("cgroup2"),
            ROOT,
            Some("cgroup2"),
            MsFlags::empty(),
            None::<&str>,
        )
        .unwrap();
        then()
    };
    std::thread::scope(|scope| scope.spawn(view).join().unwrap())
}

pub(crate) fn v2_keeper(dir: &Path, parent: &str) -> Client {
    in_v2_view(|| connect(dir, parent))
}

#[test]
fn containers_start_exec_and_are_killed_in_one_tree() {
    let mut node = Node::with_keeper(v2_keeper);
    let spec = node.shell(
        "c1",
        "cat /proc/self/cgroup; grep CapBnd /proc/self/status; \
         mknod /dev/evil c 1 1 && cat /dev/evil; mknod /dev/none c 1 3 && cat /dev/none; \
         head -c 1 /dev/zero | wc -c; exit 9",
    );
    let ended = node.run(&spec);
    assert_eq!(ended.status, ExitStatus::Code(9));
    assert!(ended.stdout.contains("0::/\n"), "{ended:?}");
    // Nodes may be made, since a program filters which of them can be opened.
    assert!(
        ended.stdout.ends_with("CapBnd:\t00000000a80405fb\n1\n"),
        "{ended:?}"
    );
    assert!(
        ended
            .stderr
            .ends_with("/dev/evil: Operation not permitted\n"),
        "{ended:?}"
    );
    let spec = node.shell("c2", "trap '' TERM; sleep 1000 & wait; sleep 1000");
    node.start(&spec);
    node.started("c2");
    node.send(&Request::Signal {
        id: id("c2"),
        signo: 9,
        all: true,
    });
    assert_eq!(node.exited("c2").0, ExitStatus::Signal(9));
    node.forget("c2");
}

#[test]
fn a_frozen_container_stands_still_in_one_tree_too() {
    stands_still_and_goes_on(Node::with_keeper(v2_keeper));
}

#[test]
fn a_device_of_its_own_is_allowed_by_a_program() {
    allows_one_device(Node::with_keeper(v2_keeper));
}

#[test]
fn no_limit_is_changed_to_one_that_the_host_cannot_keep() {
    let mut node = Node::with_keeper(v2_keeper);
    if in_v2_view(Hierarchies::detect)
        .controllers
        .contains("cpuset")
    {
        return;
    }
    let spec = node.shell("c1", "exec sleep 1000");
    node.start(&spec);
    node.started("c1");
    let limits = Limits {
        cpuset_cpus: Some("0".to_owned()),
        ..Limits::default()
    };
    assert_eq!(
        update(&mut node, "c1", limits).unwrap_err(),
        "this host has no cgroup controller cpuset (limit cpuset_cpus)"
    );
}

/// The rest of a group's life, also after a failed check.
struct Own(std::path::PathBuf);

impl Drop for Own {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn a_device_program_denies_what_it_says_and_nothing_else() {
    let tree = Hierarchies::detect().unified.unwrap();
    let own = Own(tree.join(format!("gantry-test-filter-{}", std::process::id())));
    std::fs::create_dir(&own.0).unwrap();
    let zero = DeviceRule {
        kind: DeviceKind::Char,
        major: Some(1),
        minor: Some(5),
        access: Access::try_from("r".to_owned()).unwrap(),
    };
    let mut filter = DeviceFilter::all(true);
    filter.apply(false, zero);
    let script = "echo $$ >$0/cgroup.procs; for d in zero null random; do \
                  (: </dev/$d) 2>/dev/null && echo $d; done; (: >/dev/zero) && echo written";
    let run = || {
        let out = std::process::Command::new("sh")
            .args(["-c", script])
            .arg(&own.0)
            .output();
        String::from_utf8(out.unwrap().stdout).unwrap()
    };
    assert_eq!(run(), "zero\nnull\nrandom\nwritten\n");
    cgroup::filter_devices(&own.0, &filter).unwrap();
    assert_eq!(run(), "null\nrandom\nwritten\n");
    // A second one takes more away and gives nothing back.
    cgroup::filter_devices(&own.0, &DeviceFilter::default()).unwrap();
    assert_eq!(run(), "null\nrandom\nwritten\n");
}

#[test]
fn a_limit_that_the_host_cannot_keep_is_refused() {
    let hosts = in_v2_view(Hierarchies::detect);
    assert!(hosts.pure_v2);
    let lacks = in_v2_view(reap::preflight);
    if lacks.is_empty() {
        // This host has the controllers in the v2 tree: nothing to refuse.
        return;
    }
    assert!(
        lacks.iter().any(|lack| lack.contains("controller memory")),
        "{lacks:?}"
    );
    let mut node = Node::with_keeper(v2_keeper);
    let mut spec = node.shell("c1", "true");
    spec.limits = Limits {
        memory_bytes: Some(32 << 20),
        ..Limits::default()
    };
    node.start(&spec);
    let words = node.start_failure("c1");
    assert_eq!(
        words,
        "check the spec: this host has no cgroup controller memory (limit memory_bytes)"
    );
}
