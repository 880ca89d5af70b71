//! Extra device nodes.

use gantry_isolation::spec::{Access, Device, User};

use crate::node::Node;

fn device(source: &str, target: &str, access: &str) -> Device {
    Device {
        source: source.into(),
        target: target.into(),
        access: Access::try_from(access.to_owned()).unwrap(),
    }
}

#[test]
fn the_nodes_that_were_asked_for_are_in_dev() {
    let mut node = Node::new();
    let script = "stat -c '%n %F %t:%T %a' /dev/loop-control /dev/deep/er/zero /dev/disk";
    let mut spec = node.shell("c", script);
    spec.devices = vec![
        device("/dev/loop-control", "/dev/loop-control", "r"),
        device("/dev/zero", "/dev/deep/er/zero", "rw"),
        device("/dev/loop0", "/dev/disk", "r"),
    ];
    let wanted = "/dev/loop-control character special file a:ed 666\n\
                  /dev/deep/er/zero character special file 1:5 666\n\
                  /dev/disk block special file 7:0 666\n";
    assert_eq!(node.run(&spec).stdout, wanted);
    spec.user = User::Ids {
        uid: 1000,
        gid: 1000,
    };
    spec.sandbox = None;
    assert_eq!(node.run(&spec).stdout.len(), wanted.len() * 2);
}

#[test]
fn what_is_no_device_or_is_there_already_fails_the_start() {
    let mut node = Node::new();
    let link = node.path("link");
    std::os::unix::fs::symlink("/dev/loop-control", &link).unwrap();
    let link = link.to_str().unwrap();
    let file = node.path("file");
    std::fs::write(&file, "").unwrap();
    let file = file.to_str().unwrap();
    for (source, target, words) in [
        (
            "/dev/none",
            "/dev/x",
            "find the device /dev/none: No such file or directory",
        ),
        (link, "/dev/x", ": Too many levels of symbolic links"),
        (file, "/dev/x", ": neither a character nor a block device"),
        (
            "/dev/zero",
            "/dev/null",
            "make the device /dev/null: File exists",
        ),
        (
            "/dev/zero",
            "/dev/fd/x",
            "make the device /dev/fd/x: No such file or directory",
        ),
        (
            "/dev/zero",
            "/dev/zero/x",
            "make the device /dev/zero/x: Not a directory",
        ),
        ("/dev/zero", "/etc/x", "outside its pts, shm and mqueue"),
    ] {
        let mut spec = node.shell("c", "true");
        spec.devices = vec![device(source, target, "r")];
        node.start(&spec);
        let failure = node.start_failure("c");
        assert!(failure.ends_with(words), "{failure}");
    }
}
