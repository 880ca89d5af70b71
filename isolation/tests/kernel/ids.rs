//! Users of a container's own: a user namespace, and files that belong to it everywhere.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use gantry_isolation::spec::{ContainerSpec, ExitStatus, Ids, Mount, Network, Root, User};

use crate::node::{Node, id};

/// The first number of the host that any container's users may have.
const FIRST: u32 = 1 << 20;

fn private(node: &Node, name: &str, script: &str) -> ContainerSpec {
    let mut spec = node.shell(name, script);
    spec.ids = Ids::Private;
    spec
}

fn owner(path: &Path) -> (u32, u32) {
    let found = std::fs::symlink_metadata(path).unwrap();
    (found.uid(), found.gid())
}

/// The first field after the name in `/proc/<pid>/status`.
fn status_number(pid: i32, name: &str) -> u32 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn root_inside_is_nobody_outside() {
    let mut node = Node::new();
    let script = "cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; id -u; id -g; exec sleep 1000";
    node.start(&private(&node, "c1", script));
    let init = node.started("c1");
    let out = crate::node::until("output", || {
        Some(node.output("c1", "stdout")).filter(|out| out.lines().count() == 5)
    });
    let children = std::fs::read_to_string(format!("/proc/{init}/task/{init}/children")).unwrap();
    let command: i32 = children.split_whitespace().next().unwrap().parse().unwrap();
    for pid in [init, command] {
        let base = status_number(pid, "Uid:");
        assert!(base >= FIRST && base.is_multiple_of(65536), "{base}");
        assert_eq!(status_number(pid, "Gid:"), base);
        let user = std::fs::read_link(format!("/proc/{pid}/ns/user")).unwrap();
        assert_ne!(user, std::fs::read_link("/proc/self/ns/user").unwrap());
        let fields: Vec<String> = out
            .lines()
            .take(2)
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        let map = format!("0 {base} 65536");
        assert_eq!(fields, [map.clone(), map]);
    }
    assert!(out.ends_with("allow\n0\n0\n"), "{out}");
}

#[test]
fn files_belong_to_the_containers_users_inside_and_on_disk() {
    let mut node = Node::new();
    let volume = node.path("volume");
    std::fs::create_dir(&volume).unwrap();
    std::fs::write(volume.join("theirs"), "").unwrap();
    std::os::unix::fs::chown(volume.join("theirs"), Some(7), Some(8)).unwrap();
    let script = "stat -c '%u:%g %n' / /etc /etc/passwd /tmp /run /dev /dev/null /dev/shm /dev/pts \
                  /dev/pts/ptmx /dev/mqueue /mnt/mesos/sandbox /volume /volume/theirs /made/cwd /etc/hosts; \
                  touch new /volume/new /etc/new; chown 5:6 new /volume/new /etc/new; \
                  stat -c '%u:%g %n' /etc/new; rm /etc/hostname; chown 3:4 /etc/passwd";
    let mut spec = private(&node, "c1", script);
    spec.mounts = vec![Mount::bind(&volume, "/volume", false)];
    spec.cwd = Some("/made/cwd".into());
    spec.files.hosts = Some("127.0.0.1 localhost\n".to_owned());
    let ended = node.run(&spec);
    assert!(ended.status.success(), "{ended:?}");
    for line in ended.stdout.lines() {
        let expected = match line.split_once(' ').unwrap().1 {
            "/volume/theirs" => "7:8",
            "/etc/new" => "5:6",
            // Made with the IPC namespace, before there are users; everyone may write there.
            "/dev/mqueue" => "65534:65534",
            _ => "0:0",
        };
        assert!(
            line.starts_with(&format!("{expected} ")),
            "{}",
            ended.stdout
        );
    }
    assert_eq!(ended.stdout.lines().count(), 17, "{}", ended.stdout);
    assert_eq!(owner(&volume.join("new")), (5, 6));
    assert_eq!(owner(&volume.join("theirs")), (7, 8));
    assert_eq!(owner(Path::new("/etc/passwd")), (0, 0));
}

#[test]
fn its_writable_layer_holds_its_own_numbers() {
    let mut node = Node::new();
    let script = "touch /mine && chown 11:12 /mine && chown 13 /etc/passwd && exec sleep 1000";
    node.start(&private(&node, "c1", script));
    node.started("c1");
    let upper = crate::node::until("the slot", || {
        let slots = std::fs::read_dir(node.path("containers"))
            .unwrap()
            .flatten();
        let mut uppers = slots.map(|set| set.path().join("1/upper"));
        uppers.find(|upper| {
            std::fs::symlink_metadata(upper.join("etc/passwd")).is_ok_and(|found| found.uid() == 13)
        })
    });
    assert_eq!(owner(&upper.join("mine")), (11, 12));
    assert_eq!(owner(&upper.join("etc/passwd")), (13, 0));
    assert_eq!(owner(&upper.join("etc")), (0, 0));
    assert_eq!(owner(&upper), (0, 0));
}

#[test]
fn an_image_of_several_layers_keeps_its_owners() {
    let mut node = Node::new();
    for (layer, uid) in [("base", 21), ("middle", 22), ("top", 23)] {
        let file = node.layer(layer).join(layer);
        std::fs::write(&file, "").unwrap();
        std::os::unix::fs::chown(&file, Some(uid), Some(uid)).unwrap();
    }
    let layers = ["top", "middle", "base"].map(|layer| node.layer(layer));
    let root = Root::Layers(layers.into_iter().chain(["/".into()]).collect());
    let argv = ["stat", "-c", "%u", "/base", "/middle", "/top", "/etc"];
    let mut spec = node.spec("c1", root, &argv);
    spec.ids = Ids::Private;
    assert_eq!(node.run(&spec).stdout, "21\n22\n23\n0\n");
}

#[test]
fn the_kernels_own_files_work_as_they_do_elsewhere() {
    let mut node = Node::new();
    let script = "set -e; hostname; echo x > /dev/null; head -c1 /dev/urandom | wc -c; \
                  echo hi > /dev/shm/f; cat /dev/shm/f; echo y > /tmp/f; cat /tmp/f; \
                  echo to-stdout > /dev/stdout; echo to-stderr > /dev/stderr; \
                  echo 500 > /proc/self/oom_score_adj; cat /proc/self/oom_score_adj; \
                  ulimit -n 100; mkdir /d; chmod 700 /d; chown 1000:1000 /d; \
                  setpriv --reuid 1000 --regid 1000 --clear-groups sh -c 'cd /d; echo z > f; cat f; id -u'; \
                  script -qec 'tty; stat -c %u:%g:%a $(tty)' /dev/null";
    let mut spec = private(&node, "c1", script);
    spec.hostname = Some("box".to_owned());
    let ended = node.run(&spec);
    assert!(ended.status.success(), "{ended:?}");
    let text = ended.stdout.replace('\r', "");
    let expected = "box\n1\nhi\ny\nto-stdout\n500\nz\n1000\n";
    assert_eq!(
        text,
        format!("{expected}/dev/pts/0\n0:5:620\n"),
        "{ended:?}"
    );
    assert_eq!(ended.stderr, "to-stderr\n");
}

#[test]
fn a_low_port_and_ping_need_no_capability_in_a_network_of_its_own() {
    let mut node = Node::new();
    let script = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start; python3 -c 'from socket import *; s = socket(); s.bind((\"127.0.0.1\", 80)); \
                  p = socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP); p.connect((\"127.0.0.1\", 0)); \
                  p.send(b\"\\x08\" + bytes(15)); print(s.getsockname()[1], p.recv(99)[0])'";
    let mut spec = private(&node, "c1", script);
    spec.network = Network::New;
    let ended = node.run(&spec);
    assert_eq!(ended.stdout, "0\n80 0\n", "{ended:?}");
}

#[test]
fn its_root_has_no_power_over_what_the_hosts_root_made() {
    let mut node = Node::new();
    let script = "hostname other; mount -t tmpfs none /mnt; umount /proc; kill -9 1; echo $?; \
                  echo 1 > /proc/sys/kernel/panic; chown 70000 /tmp; mknod /tmp/sda b 8 0; exit 0";
    let ended = node.run(&private(&node, "c1", script));
    assert_eq!(
        ended.stdout, "0\n",
        "kill(1) is ignored by PID 1: {ended:?}"
    );
    assert!(ended.stderr.lines().count() >= 6, "{ended:?}");
    assert_eq!(ended.status, ExitStatus::Code(0));
}

#[test]
fn users_of_the_image_and_numbers_beyond_the_range() {
    let mut node = Node::new();
    let mut spec = private(
        &node,
        "c1",
        "id -u; id -G; touch /tmp/f; stat -c %u /tmp/f; echo x > /dev/stdout",
    );
    spec.user = User::Name("daemon".to_owned());
    spec.groups = vec![77, 78];
    let ended = node.run(&spec);
    assert_eq!(ended.stdout, "1\n1 77 78\n1\nx\n", "{ended:?}");
    let mut spec = private(&node, "c2", "true");
    spec.user = User::Ids { uid: 65536, gid: 0 };
    node.start(&spec);
    let words = "give the streams to the user: its number is not one of the container's 65536";
    assert_eq!(node.start_failure("c2"), words);
}

#[test]
fn no_two_containers_have_the_same_numbers_unless_they_share_them() {
    let mut node = Node::new();
    let base = |node: &mut Node, name: &str, ids: Ids| {
        let mut spec = node.native(name, &["sleep", "1000"]);
        spec.ids = ids;
        node.start(&spec);
        let pid = node.started(name);
        crate::node::until("the init", || {
            Some(status_number(pid, "Uid:")).filter(|uid| *uid > 0)
        })
    };
    let first = base(&mut node, "c1", Ids::Private);
    let second = base(&mut node, "c2", Ids::Private);
    assert_ne!(first, second);
    assert_eq!(base(&mut node, "c3", Ids::Of(id("c1"))), first);
    // While c3 has them, nobody else gets them, though c1 is gone.
    node.send(&gantry_isolation::keeper::Request::Signal {
        id: id("c1"),
        signo: 9,
        all: true,
    });
    node.exited("c1");
    node.forget("c1");
    let fourth = base(&mut node, "c4", Ids::Private);
    assert!(![first, second].contains(&fourth));
}

/// A view of the host's root that stays below the container's would be where sessions end up.
#[test]
fn a_session_stands_on_the_containers_root() {
    let mut node = Node::new();
    let mut spec = private(&node, "c1", "touch /mark; exec sleep 1000");
    node.start(&spec);
    let init = node.started("c1");
    // As sessions do, it enters the namespace and is put where that begins.
    let seen = |pid: i32| {
        let pid = pid.to_string();
        let mut enter = std::process::Command::new("nsenter");
        enter.args(["-t", &pid, "-m", "ls", "/mark"]);
        crate::node::until("the mark", || {
            Some(enter.output().unwrap().status.success()).filter(|seen| *seen)
        })
    };
    assert!(seen(init));
    spec.id = id("c2");
    spec.ids = Ids::Host;
    node.start(&spec);
    let init = node.started("c2");
    assert!(seen(init));
}

#[test]
fn a_file_system_without_mapping_is_refused_in_words() {
    let mut node = Node::new();
    let mut spec = private(&node, "c1", "true");
    spec.mounts = vec![Mount::bind("/proc", "/data", false)];
    node.start(&spec);
    let words = "mount /proc at /data: its file system cannot be id-mapped";
    assert_eq!(node.start_failure("c1"), words);
}
