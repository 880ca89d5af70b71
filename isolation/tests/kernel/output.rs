//! Files of output: rotation, a container that meddles with them, a full disk.

use std::os::unix::fs::MetadataExt;

use gantry_isolation::spec::Output;

use crate::node::{Node, until};

fn rotating(
    node: &Node,
    name: &str,
    script: &str,
    max_bytes: u64,
    keep: u32,
) -> gantry_isolation::spec::ContainerSpec {
    let mut spec = node.shell(name, script);
    let dir = spec.sandbox.clone().unwrap();
    spec.output = Output::files(dir, max_bytes, keep);
    spec
}

#[test]
fn files_are_rotated_by_size_and_only_so_many_are_kept() {
    let mut node = Node::new();
    let spec = rotating(&node, "c1", "seq 10000", 10_000, 2);
    node.run(&spec);
    let sandbox = node.path("sandbox-c1");
    let size = |name: &str| sandbox.join(name).metadata().map(|found| found.size()).ok();
    // 48,894 bytes in all: four full files and a rest.
    assert_eq!(size("stdout"), Some(8_894));
    assert_eq!(
        (size("stdout.1"), size("stdout.2"), size("stdout.3")),
        (Some(10_000), Some(10_000), None)
    );
    let all = ["stdout.2", "stdout.1", "stdout"]
        .map(|name| node.output("c1", name))
        .concat();
    assert!(all.ends_with("9999\n10000\n"), "in order and whole");
    let whole: String = (1..=10_000).map(|number| format!("{number}\n")).collect();
    assert!(whole.ends_with(&all));
}

#[test]
fn a_name_in_the_way_is_never_followed() {
    let mut node = Node::new();
    let victim = node.path("victim");
    std::fs::write(&victim, "untouched").unwrap();
    let script = format!(
        "cd /mnt/mesos/sandbox; head -c 1000 /dev/zero; until test -e stdout.1; do :; done; \
         rm -f stdout; ln -s {} stdout; head -c 3000 /dev/zero; \
         until test -e stdout.2; do :; done; rm stdout; mkfifo stdout; head -c 3000 /dev/zero",
        victim.display()
    );
    let mut spec = rotating(&node, "c1", &script, 1000, 5);
    spec.limits.pids_max = Some(50);
    // Something is needed to make the file rotate at once: the next byte does.
    spec.argv[2] = spec.argv[2].replacen("head -c 1000", "head -c 1001", 1);
    assert!(node.run(&spec).status.success());
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "untouched");
}

#[test]
fn a_link_that_was_there_first_is_replaced() {
    let mut node = Node::new();
    let spec = node.shell("c1", "echo hi");
    let victim = node.path("victim");
    std::fs::write(&victim, "untouched").unwrap();
    std::os::unix::fs::symlink(&victim, node.path("sandbox-c1").join("stdout")).unwrap();
    assert_eq!(node.run(&spec).stdout, "hi\n");
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "untouched");
}

#[test]
fn output_goes_on_after_what_is_there() {
    let mut node = Node::new();
    let spec = node.shell("c1", "echo two");
    std::fs::write(node.path("sandbox-c1").join("stdout"), "one\n").unwrap();
    assert_eq!(node.run(&spec).stdout, "one\ntwo\n");
}

#[test]
fn much_output_arrives_whole() {
    let mut node = Node::new();
    let spec = node.shell("c1", "head -c 50m /dev/zero; head -c 5m /dev/zero >&2");
    node.start(&spec);
    assert!(node.exited("c1").0.success());
    let size = |name: &str| {
        node.path("sandbox-c1")
            .join(name)
            .metadata()
            .unwrap()
            .size()
    };
    assert_eq!((size("stdout"), size("stderr")), (50 << 20, 5 << 20));
}

#[test]
fn a_full_disk_costs_output_which_is_counted() {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    let mut node = Node::new();
    let small = node.path("small");
    std::fs::create_dir(&small).unwrap();
    mount(
        Some("tmpfs"),
        &small,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("size=64k"),
    )
    .unwrap();
    let mut spec = node.shell("c1", "head -c 1m /dev/zero; echo end >&2; sleep 1000");
    spec.output = Output::files(small.clone(), 0, 0);
    node.start(&spec);
    node.started("c1");
    let dropped = until("drops", || {
        let listed = node.list();
        // The container is not blocked: it got to the end of its writing.
        (listed[0].dropped_output_bytes > 900_000).then_some(listed[0].dropped_output_bytes)
    });
    assert!(dropped <= (1 << 20) + 4);
    node.send(&gantry_isolation::keeper::Request::Signal {
        id: crate::node::id("c1"),
        signo: 9,
        all: true,
    });
    node.exited("c1");
    umount2(&small, MntFlags::MNT_DETACH).unwrap();
}
