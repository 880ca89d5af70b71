//! The container is elsewhere: namespaces, root, devices, network.

use std::os::fd::AsFd;

use gantry_isolation::spec::{Network, Root};

use crate::node::Node;

const KINDS: [&str; 6] = ["mnt", "pid", "ipc", "uts", "cgroup", "net"];

fn own(kind: &str) -> String {
    std::fs::read_link(format!("/proc/self/ns/{kind}"))
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned()
}

#[test]
fn every_namespace_is_its_own() {
    let mut node = Node::new();
    let script = "for k in mnt pid ipc uts cgroup net; do readlink /proc/self/ns/$k; done";
    let mut spec = node.shell("c1", script);
    spec.network = Network::New;
    let ended = node.run(&spec);
    let inside: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(inside.len(), KINDS.len(), "{ended:?}");
    for (kind, inside) in KINDS.iter().zip(&inside) {
        assert!(inside.starts_with(&format!("{kind}:[")), "{inside}");
        assert_ne!(*inside, own(kind));
    }
}

#[test]
fn host_network_is_the_hosts() {
    let mut node = Node::new();
    assert_eq!(
        node.sh("c1", "readlink /proc/self/ns/net").trim(),
        own("net")
    );
}

#[test]
fn a_fresh_network_has_loopback_up_and_nothing_else() {
    let mut node = Node::new();
    let script = "ls /sys/class/net; cat /sys/class/net/lo/flags; \
                  tr '\\t' ' ' < /proc/sys/net/ipv4/ping_group_range";
    let mut spec = node.shell("c1", script);
    spec.network = Network::New;
    // IFF_UP | IFF_LOOPBACK, as Documentation/ABI/testing/sysfs-class-net has it.
    assert_eq!(node.run(&spec).stdout, "lo\n0x9\n0 2147483647\n");
}

#[test]
fn a_namespace_that_came_along_is_entered() {
    let mut node = Node::new();
    // A thread's own namespace: it ends with the thread, the descriptor keeps it.
    let namespace = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        std::fs::File::open("/proc/thread-self/ns/net").unwrap()
    })
    .join()
    .unwrap();
    let mut spec = node.shell("c1", "readlink /proc/self/ns/net; ls /sys/class/net");
    spec.network = Network::Namespace;
    node.start_with(&spec, &[namespace.as_fd()]);
    assert!(node.exited("c1").0.success());
    let inode = std::os::unix::fs::MetadataExt::ino(&namespace.metadata().unwrap());
    assert_eq!(node.output("c1", "stdout"), format!("net:[{inode}]\nlo\n"));
}

#[test]
fn only_its_own_processes_are_there() {
    let mut node = Node::new();
    // PID 1 is the init, 2 the shell.
    assert_eq!(
        node.sh("c1", "echo $$; ls -d /proc/[0-9]* | head -2"),
        "2\n/proc/1\n/proc/2\n"
    );
    let mut spec = node.shell("c2", "echo $$; cat /proc/1/comm");
    spec.init = false;
    assert_eq!(node.run(&spec).stdout, "1\nsh\n");
}

#[test]
fn the_host_name_and_the_groups_are_the_containers() {
    let mut node = Node::new();
    let mut spec = node.shell("c1", "hostname; sed 's/^[0-9]*:[^:]*://' /proc/self/cgroup");
    spec.hostname = Some("box".to_owned());
    let ended = node.run(&spec);
    let mut lines = ended.stdout.lines();
    assert_eq!(lines.next(), Some("box"));
    // Controllers that we do not use stay where the keeper is, outside of the namespace's root.
    assert!(
        lines.clone().filter(|line| *line == "/").count() >= 3,
        "{ended:?}"
    );
    assert!(!ended.stdout.contains("gantry-test"), "{ended:?}");
}

#[test]
fn dev_holds_the_usual_nodes_and_no_disk() {
    let mut node = Node::new();
    let script = "ls /dev; test -c /dev/null && echo x > /dev/null && head -c1 /dev/zero | wc -c; \
                  echo hi > /dev/shm/f && cat /dev/shm/f; test -e /dev/pts/ptmx && echo ptmx; \
                  ls /proc/self/fd | wc -l";
    let out = node.sh("c1", script);
    let expected = "fd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\n\
                    urandom\nzero\n1\nhi\nptmx\n4\n";
    assert_eq!(out, expected);
}

#[test]
fn the_root_is_private_and_the_hosts_is_untouched() {
    let mut node = Node::new();
    let script = "echo x > /gantry-test-file && cat /gantry-test-file && rm /etc/hostname; \
                  ls /tmp /run; grep -c ' / / ' /proc/self/mountinfo; grep -c . /proc/self/mountinfo";
    let out = node.sh("c1", script);
    assert!(!std::path::Path::new("/gantry-test-file").exists());
    assert!(std::path::Path::new("/etc/hostname").exists());
    let mut lines = out.lines();
    assert_eq!(lines.next(), Some("x"));
    assert_eq!(
        lines.clone().next(),
        Some("/run:"),
        "fresh /tmp and /run: {out}"
    );
    // The host's mounts are gone: only ours are there.
    let mounts: u32 = lines.next_back().unwrap().parse().unwrap();
    assert!(mounts < 30, "{out}");
}

#[test]
fn an_image_is_its_layers_topmost_first() {
    let mut node = Node::new();
    for (layer, text) in [("base", "base"), ("top", "top")] {
        let etc = node.layer(layer).join("etc");
        std::fs::create_dir_all(&etc).unwrap();
        std::fs::write(etc.join("which"), text).unwrap();
        std::fs::write(etc.join(layer), text).unwrap();
    }
    let layers = vec![node.layer("top"), node.layer("base"), "/".into()];
    let script = "cat /etc/which /etc/base /etc/top; echo new > /etc/which";
    let spec = node.spec("c1", Root::Layers(layers), &["sh", "-c", script]);
    assert_eq!(node.run(&spec).stdout, "topbasetop");
    assert_eq!(
        std::fs::read_to_string(node.layer("top").join("etc/which")).unwrap(),
        "top"
    );
}

#[test]
fn nothing_is_mounted_on_the_host() {
    let mut node = Node::new();
    let spec = node.native("c1", &["sleep", "1000"]);
    node.start(&spec);
    node.started("c1");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let dir = node.dir.path().to_str().unwrap();
    assert!(!mounts.contains(dir), "{mounts}");
}
