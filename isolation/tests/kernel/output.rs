//! Files of output: rotation, a container that meddles with them, a full disk.

use std::os::unix::fs::MetadataExt;

use gantry_isolation::keeper::Event;
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

/// What the outlet has done so far: how often its threads gave a processor back, and the memory that
/// it has in use.
fn outlet(node: &Node) -> (u64, u64) {
    let pid = crate::survival::helper(node, "gantry-outlet").unwrap();
    let number = |text: &str, name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let word = line.and_then(|line| line.split_whitespace().next());
        word.unwrap().parse().unwrap()
    };
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let mut switches = 0;
    for thread in threads.flatten() {
        // A worker too many may have ended.
        if let Ok(text) = std::fs::read_to_string(thread.path().join("status")) {
            switches += number(&text, "voluntary_ctxt_switches:");
        }
    }
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    (switches, number(&status, "VmRSS:") << 10)
}

#[test]
fn who_writes_single_bytes_does_not_keep_the_outlet_awake() {
    let mut node = Node::new();
    let script = "exec dd if=/dev/zero bs=1 count=1000000000";
    for name in ["c1", "c2"] {
        node.start(&rotating(&node, name, script, 1 << 20, 1));
        node.started(name);
    }
    for name in ["c1", "c2"] {
        let file = node.path(&format!("sandbox-{name}")).join("stdout");
        until("its output", || {
            (file.metadata().ok()?.size() > 10_000).then_some(())
        });
    }
    let (before, began) = (outlet(&node).0, std::time::Instant::now());
    until("some seconds", || {
        (began.elapsed().as_secs() >= 3).then_some(())
    });
    let a_second = (outlet(&node).0 - before) as f64 / began.elapsed().as_secs_f64();
    // Each call of theirs would wake somebody: hundreds of thousands. A turn each 16 ms has few.
    assert!(a_second < 2_000.0, "{a_second} waits a second");
    // Meanwhile a line of somebody else is there at once.
    assert_eq!(node.sh("c3", "echo here"), "here\n");
    for name in ["c1", "c2"] {
        node.send(&gantry_isolation::keeper::Request::Signal {
            id: crate::node::id(name),
            signo: 9,
            all: true,
        });
        node.exited(name);
    }
}

#[test]
fn lost_output_is_said_where_it_lacks() {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    let mut node = Node::new();
    let small = node.path("small");
    std::fs::create_dir(&small).unwrap();
    let size = |flags, data: &str| {
        mount(Some("tmpfs"), &small, Some("tmpfs"), flags, Some(data)).unwrap();
    };
    size(MsFlags::empty(), "size=64k");
    let script = "head -c 1m /dev/zero | tr '\\0' x; touch /mnt/mesos/sandbox/full; \
                  until test -e /mnt/mesos/sandbox/more; do sleep 0.01; done; echo after";
    let mut spec = node.shell("c1", script);
    spec.output = Output::files(&small, 0, 0);
    node.start(&spec);
    node.started("c1");
    let sandbox = node.path("sandbox-c1");
    // Writing to a full disk neither blocks nor kills it.
    until("the end of its writing", || {
        sandbox.join("full").exists().then_some(())
    });
    let dropped = until("all that was written", || {
        let dropped = node.list()[0].dropped_output_bytes;
        let kept = small.join("stdout").metadata().unwrap().size();
        (dropped + kept >= 1 << 20).then_some(dropped)
    });
    size(MsFlags::MS_REMOUNT, "size=1m");
    std::fs::write(sandbox.join("more"), "").unwrap();
    assert!(node.exited("c1").0.success());
    let text = std::fs::read_to_string(small.join("stdout")).unwrap();
    let words = format!(
        "\n[gantry: {dropped} bytes of output were lost here: No space left on device (os error 28)]\nafter\n"
    );
    assert!(text.ends_with(&words), "{}", &text[text.len() - 200..]);
    umount2(&small, MntFlags::MNT_DETACH).unwrap();
}

/// A file system of its own in a file, which can stand still.
struct Disk {
    dir: std::path::PathBuf,
    frozen: bool,
}

impl Disk {
    fn make(node: &Node) -> Self {
        let (file, dir) = (node.path("disk.img"), node.path("disk"));
        std::fs::create_dir(&dir).unwrap();
        std::fs::File::create(&file)
            .unwrap()
            .set_len(64 << 20)
            .unwrap();
        let done = |program: &str, args: &[&std::ffi::OsStr]| {
            let output = std::process::Command::new(program)
                .args(args)
                .output()
                .unwrap();
            assert!(output.status.success(), "{program}: {output:?}");
        };
        done("mkfs.ext4", &["-q".as_ref(), file.as_os_str()]);
        let loop_mount = [
            "-o".as_ref(),
            "loop".as_ref(),
            file.as_os_str(),
            dir.as_os_str(),
        ];
        done("mount", &loop_mount);
        Self { dir, frozen: false }
    }

    fn freeze(&mut self, frozen: bool) {
        let flag = if frozen { "--freeze" } else { "--unfreeze" };
        let output = std::process::Command::new("fsfreeze")
            .arg(flag)
            .arg(&self.dir)
            .output();
        assert!(output.unwrap().status.success());
        self.frozen = frozen;
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.frozen {
            self.freeze(false);
        }
        let flags = nix::mount::MntFlags::MNT_DETACH;
        nix::mount::umount2(&self.dir, flags).unwrap();
    }
}

#[test]
fn a_disk_that_stands_still_blocks_only_who_writes_to_it() {
    let mut node = Node::new();
    let mut disk = Disk::make(&node);
    let lines = 300_000;
    let script = format!(
        "echo ready; until test -e /mnt/mesos/sandbox/go; do sleep 0.01; done; seq {lines}; \
         touch /mnt/mesos/sandbox/written"
    );
    let sandbox = |name: &str| node.path(&format!("sandbox-{name}"));
    let (slow, other) = (["s1", "s2", "s3"], "o1");
    let gates: Vec<_> = slow
        .iter()
        .chain([&other])
        .map(|name| sandbox(name).join("go"))
        .collect();
    let written: Vec<_> = slow
        .iter()
        .map(|name| sandbox(name).join("written"))
        .collect();
    for name in slow {
        let dir = disk.dir.join(name);
        std::fs::create_dir(&dir).unwrap();
        let mut spec = node.shell(name, &script);
        spec.output = Output::files(&dir, 0, 0);
        node.start(&spec);
        node.started(name);
        let file = dir.join("stdout");
        until("a line", || {
            (file.metadata().ok()?.size() > 0).then_some(())
        });
    }
    node.start(&node.shell(other, &script));
    node.started(other);
    disk.freeze(true);
    for gate in &gates {
        std::fs::write(gate, "").unwrap();
    }
    // Others go on, those that were there and new ones.
    assert!(node.exited(other).0.success());
    for number in 0..4 {
        assert_eq!(node.sh(&format!("n{number}"), "echo alive"), "alive\n");
    }
    let (_, memory) = outlet(&node);
    assert!(memory < 32 << 20, "{memory} bytes");
    assert!(
        written.iter().all(|file| !file.exists()),
        "they wait for the disk"
    );
    node.wait("a word about it", |event| match event {
        Event::Output { held_up, .. } if *held_up == slow.len() as u64 => Some(()),
        _ => None,
    });
    disk.freeze(false);
    let want: String = (1..=lines).map(|number| format!("{number}\n")).collect();
    for name in slow {
        assert!(node.exited(name).0.success());
        let text = std::fs::read_to_string(disk.dir.join(name).join("stdout")).unwrap();
        assert!(
            text.strip_prefix("ready\n") == Some(&want),
            "{name}: {}",
            text.len()
        );
    }
}
