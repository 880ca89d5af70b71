//! Volumes, files in /etc, and what of the kernel's file systems is covered.

use gantry_isolation::spec::{Mount, MountKind, Root};

use crate::node::{Node, id};

#[test]
fn host_volumes_appear_read_write_or_read_only() {
    let mut node = Node::new();
    let data = node.path("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("f"), "from the host\n").unwrap();
    let mut spec = node.shell(
        "c1",
        "cat /v/ro/f; echo x > /v/ro/g || echo denied; echo x > /v/rw/g && cat /one; \
         cat /run/late/f",
    );
    spec.mounts = vec![
        Mount::bind(&data, "/v/ro", true),
        Mount::bind(&data, "/v/rw", false),
        Mount::bind(data.join("f"), "/one", true),
        Mount::bind(&data, "/run/late", true),
    ];
    let ended = node.run(&spec);
    assert_eq!(
        ended.stdout, "from the host\ndenied\nfrom the host\nfrom the host\n",
        "{ended:?}"
    );
    assert_eq!(std::fs::read_to_string(data.join("g")).unwrap(), "x\n");
}

#[test]
fn a_volume_that_is_not_there_says_so() {
    let mut node = Node::new();
    let mut spec = node.shell("c1", "true");
    spec.mounts = vec![Mount::bind("/no/such", "/v", false)];
    node.start(&spec);
    assert_eq!(
        node.start_failure("c1"),
        "mount /no/such at /v: No such file or directory"
    );
}

#[test]
fn hosts_and_resolv_conf_are_written() {
    let mut node = Node::new();
    let mut spec = node.shell("c1", "cat /etc/hosts /etc/resolv.conf");
    spec.files.hosts = Some("1.2.3.4 here\n".to_owned());
    spec.files.resolv_conf = Some("nameserver 1.2.3.4\n".to_owned());
    assert_eq!(node.run(&spec).stdout, "1.2.3.4 here\nnameserver 1.2.3.4\n");
    assert!(
        !std::fs::read_to_string("/etc/hosts")
            .unwrap()
            .contains("1.2.3.4 here")
    );
}

#[test]
fn the_kernels_knobs_cannot_be_turned() {
    let mut node = Node::new();
    let script = "for f in /proc/sys/kernel/domainname /proc/sysrq-trigger /sys/kernel/uevent_seqnum; \
                  do echo x > $f && echo wrote $f; done; \
                  for f in /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug; do \
                  test ! -e $f || test ! -s $f || test ! -r $f || cat $f; done; \
                  ls /sys/firmware /proc/acpi 2>/dev/null | grep -v :; \
                  mount -t tmpfs none /mnt && echo mounted; umount /proc && echo unmounted; \
                  chroot / true && echo chroot; exit 0";
    let spec = node.shell("c1", script);
    let ended = node.run(&spec);
    assert_eq!(ended.stdout.trim(), "chroot", "{ended:?}");
}

#[test]
fn what_is_hidden_cannot_be_read() {
    let mut node = Node::new();
    let secret = node.path("containers/secret");
    std::fs::write(&secret, "s").unwrap();
    let dir = node.path("containers");
    let script = format!(
        "ls -A {0}; cat {0}/secret; echo > {0}/new; exit 0",
        dir.display()
    );
    let spec = node.shell("c1", &script);
    let ended = node.run(&spec);
    assert_eq!(ended.stdout, "");
    assert!(ended.stderr.contains("No such file"), "{ended:?}");
    assert!(ended.stderr.contains("Read-only file system"), "{ended:?}");
}

/// `root` with the node's directory as a volume, in which `keep` is covered, and a later volume
/// whose mount point lies in what is covered.
fn covered(node: &mut Node, name: &str, root: Root) {
    std::fs::create_dir_all(node.path("keep/deep")).unwrap();
    std::fs::write(node.path("keep/deep/secret"), "s").unwrap();
    std::fs::write(node.path("beside"), "b\n").unwrap();
    let script =
        "cat /v/beside; ls -A /v/keep; cat /v/keep/deep/secret; echo > /v/keep/new; exit 0";
    let mut spec = node.spec(name, root, &["sh", "-c", script]);
    let (source, keep) = (node.dir.path().to_owned(), node.path("keep"));
    let mount = |target: &str| Mount {
        target: target.into(),
        read_only: false,
        kind: MountKind::Bind {
            source: source.clone(),
            cover: vec![keep.clone()],
            recursive: true,
        },
    };
    spec.mounts = vec![mount("/v")];
    let ended = node.run(&spec);
    assert_eq!(ended.stdout, "b\n", "{ended:?}");
    assert!(ended.stderr.contains("No such file"), "{ended:?}");
    assert!(ended.stderr.contains("Read-only file system"), "{ended:?}");
    assert!(node.path("keep/deep/secret").exists());
    let again = format!("{name}-again");
    spec.id = id(&again);
    spec.mounts = vec![mount("/v"), mount("/v/keep/deep/new")];
    node.start(&spec);
    let words = node.start_failure(&again);
    assert!(words.ends_with(": Read-only file system"), "{words}");
    assert!(!node.path("keep/deep/new").exists());
}

#[test]
fn what_is_covered_in_a_volume_cannot_be_reached() {
    let mut node = Node::new();
    covered(&mut node, "c1", Root::Host { hide: Vec::new() });
    let layers = vec![node.layer("layer"), "/".into()];
    covered(&mut node, "c2", Root::Layers(layers));
}

#[test]
fn what_cannot_be_covered_fails_the_start() {
    let mut node = Node::new();
    let mut spec = node.shell("c1", "true");
    let volume = node.path("volume");
    std::fs::create_dir(&volume).unwrap();
    std::os::unix::fs::symlink("containers", volume.join("link")).unwrap();
    for (name, error) in [
        ("gone", "No such file or directory"),
        ("link", "Too many levels of symbolic links"),
    ] {
        spec.mounts = vec![Mount {
            target: "/v".into(),
            read_only: false,
            kind: MountKind::Bind {
                source: volume.clone(),
                cover: vec![volume.join(name)],
                recursive: true,
            },
        }];
        node.start(&spec);
        let path = volume.join(name);
        let words = format!("cover {} in the volume: {error}", path.display());
        assert_eq!(node.start_failure("c1"), words);
    }
}

#[test]
fn a_volume_follows_no_symbolic_link() {
    let mut node = Node::new();
    std::os::unix::fs::symlink(node.path("containers"), node.path("link")).unwrap();
    let mut spec = node.shell("c1", "true");
    for source in [node.path("link"), node.path("link/x")] {
        spec.mounts = vec![Mount::bind(source, "/v", false)];
        node.start(&spec);
        let words = node.start_failure("c1");
        let error = "at /v: Too many levels of symbolic links";
        assert!(words.ends_with(error), "{words}");
    }
}
