//! Images whose paths lead elsewhere. Each is the host's files under a layer with the attack.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use gantry_isolation::spec::{ContainerId, Mount, Root, User};

use super::is_empty;
use crate::node::Node;

/// A layer with the attack, and a directory on the host that must not be touched.
fn attack(node: &Node, prepare: impl FnOnce(&std::path::Path)) -> (Root, PathBuf) {
    let layer = node.layer("layer");
    prepare(&layer);
    let victim = node.path("victim");
    std::fs::create_dir(&victim).unwrap();
    (Root::Layers(vec![layer, "/".into()]), victim)
}

#[test]
fn a_linked_dev_proc_or_sys_fails_the_start() {
    for name in ["dev", "proc", "sys"] {
        let mut node = Node::new();
        let victim = node.path("victim");
        let (root, victim) = attack(&node, |layer| symlink(&victim, layer.join(name)).unwrap());
        let spec = node.spec("c1", root, &["true"]);
        node.start(&spec);
        let words = format!("mount /{name}: Too many levels of symbolic links");
        assert_eq!(node.start_failure("c1"), words);
        assert!(is_empty(&victim));
    }
}

#[test]
fn links_on_the_way_stay_inside_the_root() {
    let mut node = Node::new();
    let victim = node.path("victim");
    let (root, victim) = attack(&node, |layer| {
        // The sandbox's and a volume's way lead to the host, absolutely and by climbing.
        symlink(&victim, layer.join("mnt")).unwrap();
        symlink("../../../../../../../../..", layer.join("up")).unwrap();
    });
    let volume = node.path("volume");
    std::fs::create_dir(&volume).unwrap();
    let mut spec = node.spec("c1", root, &["sh", "-c", "echo x > /mnt/mesos/sandbox/f"]);
    let target = PathBuf::from("/up")
        .join(victim.strip_prefix("/").unwrap())
        .join("deep");
    spec.mounts = vec![Mount::bind(volume, target, false)];
    // Inside, the way does not exist; it is either made there or refused.
    node.start(&spec);
    node.wait("an outcome", |event| match event {
        gantry_isolation::keeper::Event::Exited { .. }
        | gantry_isolation::keeper::Event::StartFailed { .. } => Some(()),
        _ => None,
    });
    assert!(is_empty(&victim));
}

#[test]
fn linked_files_in_etc_are_replaced_not_followed() {
    let mut node = Node::new();
    let victim = node.path("victim");
    let (root, victim) = attack(&node, |layer| {
        std::fs::create_dir(layer.join("etc")).unwrap();
        symlink(victim.join("hosts"), layer.join("etc/hosts")).unwrap();
    });
    std::fs::write(victim.join("hosts"), "host").unwrap();
    let mut spec = node.spec("c1", root, &["cat", "/etc/hosts"]);
    spec.files.hosts = Some("inside".to_owned());
    assert_eq!(node.run(&spec).stdout, "inside");
    assert_eq!(
        std::fs::read_to_string(victim.join("hosts")).unwrap(),
        "host"
    );
}

#[test]
fn a_linked_etc_fails_the_start() {
    let mut node = Node::new();
    let victim = node.path("victim");
    let (root, victim) = attack(&node, |layer| symlink(&victim, layer.join("etc")).unwrap());
    let mut spec = node.spec("c1", root, &["true"]);
    spec.files.hosts = Some("inside".to_owned());
    node.start(&spec);
    assert!(node.start_failure("c1").starts_with("write /etc/hosts: "));
    assert!(is_empty(&victim));
}

#[test]
fn a_working_directory_cannot_be_a_leaked_descriptor() {
    // CVE-2024-21626: a cwd of /proc/self/fd/N that is a directory of the host.
    let mut node = Node::new();
    for number in 0..40 {
        let name = format!("c{number}");
        let mut spec = node.native(&name, &["pwd"]);
        spec.cwd = Some(format!("/proc/self/fd/{number}").into());
        node.start(&spec);
        let words = node.start_failure(&name);
        assert!(words.starts_with("open the working directory"), "{words}");
    }
}

#[test]
fn a_users_file_of_the_host_is_not_read_through_a_link() {
    let mut node = Node::new();
    let victim = node.path("victim");
    let (root, victim) = attack(&node, |layer| {
        std::fs::create_dir(layer.join("etc")).unwrap();
        symlink(victim.join("passwd"), layer.join("etc/passwd")).unwrap();
    });
    std::fs::write(victim.join("passwd"), "evil:x:0:0::/:\n").unwrap();
    // Hidden as the node's data is, so that the link leads nowhere inside.
    let mut spec = node.spec("c1", root, &["id", "-u"]);
    let Root::Layers(layers) = &mut spec.root else {
        unreachable!()
    };
    layers.truncate(1);
    spec.user = User::Name("evil".to_owned());
    node.start(&spec);
    assert!(
        node.start_failure("c1")
            .starts_with("find user evil in the container: no such user")
    );
}

#[test]
fn a_fifo_or_huge_users_file_neither_blocks_nor_eats_memory() {
    let mut node = Node::new();
    let layer = node.layer("layer/etc");
    nix::unistd::mkfifo(&layer.join("passwd"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let root = Root::Layers(vec![node.layer("layer"), "/".into()]);
    let mut spec = node.spec("c1", root.clone(), &["true"]);
    spec.user = User::Name("web".to_owned());
    node.start(&spec);
    assert!(
        node.start_failure("c1")
            .starts_with("find user web in the container: ")
    );
    std::fs::remove_file(layer.join("passwd")).unwrap();
    let huge = std::fs::File::create(layer.join("passwd")).unwrap();
    huge.set_len(1 << 40).unwrap();
    let mut spec = node.spec("c2", root, &["true"]);
    spec.user = User::Name("web".to_owned());
    node.start(&spec);
    assert!(node.start_failure("c2").contains("no such user"));
}

#[test]
fn ids_cannot_climb() {
    for text in [
        "..",
        ".",
        "a/b",
        "",
        "a\0b",
        "../../x",
        ".hidden",
        &"x".repeat(201),
    ] {
        assert!(ContainerId::try_from(text).is_err(), "{text:?}");
    }
}
