//! Who the command is and what it may do.

use gantry_isolation::caps;
use gantry_isolation::spec::{Root, User};

use crate::node::Node;

fn status_field(text: &str, name: &str) -> String {
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_once(':')
        .unwrap()
        .1
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn root_has_the_stated_capabilities_and_can_gain_none() {
    let mut node = Node::new();
    let out = node.sh("c1", "cat /proc/self/status");
    let stated = format!("{:016x}", caps::default_set().bits());
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(status_field(&out, set), stated, "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(status_field(&out, set), "0000000000000000", "{set}");
    }
    assert_eq!(status_field(&out, "NoNewPrivs"), "1");
    assert_eq!(status_field(&out, "SigBlk"), "0000000000000000");
    assert_eq!(status_field(&out, "SigIgn"), "0000000000000000");
    assert_eq!(status_field(&out, "Groups"), "");
}

#[test]
fn another_user_has_none_effective() {
    let mut node = Node::new();
    let mut spec = node.shell("c1", "cat /proc/self/status; umask");
    spec.user = User::Ids {
        uid: 1234,
        gid: 2345,
    };
    let out = node.run(&spec).stdout;
    for set in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
        assert_eq!(status_field(&out, set), "0000000000000000", "{set}");
    }
    assert_eq!(status_field(&out, "Uid"), "1234 1234 1234 1234");
    assert_eq!(status_field(&out, "Gid"), "2345 2345 2345 2345");
    assert!(out.ends_with("0022\n"));
}

/// A layer with users of its own over the host's files.
fn users(node: &Node) -> Root {
    let etc = node.layer("layer/etc");
    std::fs::write(
        etc.join("passwd"),
        "root:x:0:0::/:/bin/sh\nweb:x:1000:1001::/:/bin/sh\n",
    )
    .unwrap();
    std::fs::write(
        etc.join("group"),
        "web:x:1001:\nstaff:x:50:web\nextra:x:51:x,web\n",
    )
    .unwrap();
    Root::Layers(vec![node.layer("layer"), "/".into()])
}

#[test]
fn users_are_found_in_the_images_own_files() {
    let mut node = Node::new();
    let root = users(&node);
    for (name, user, expected) in [
        ("c1", "web", "1000 1001 1001 50 51"),
        ("c2", "1000", "1000 1001 1001 50 51"),
        ("c3", "web:staff", "1000 50 50"),
        ("c4", "77", "77 0 0"),
        ("c5", "77:88", "77 88 88"),
        ("c6", "", "0 0 0"),
    ] {
        let mut spec = node.spec(
            name,
            root.clone(),
            &["sh", "-c", "echo $(id -u) $(id -g) $(id -G)"],
        );
        spec.user = User::Name(user.to_owned());
        assert_eq!(node.run(&spec).stdout.trim(), expected, "{user}");
    }
    for (name, user, words) in [
        (
            "d1",
            "nobody-here",
            "find user nobody-here in the container: no such user in its /etc/passwd",
        ),
        (
            "d2",
            "web:none",
            "find user web:none in the container: no such group in its /etc/group",
        ),
    ] {
        let mut spec = node.spec(name, root.clone(), &["true"]);
        spec.user = User::Name(user.to_owned());
        node.start(&spec);
        assert_eq!(node.start_failure(name), words);
    }
}

#[test]
fn nothing_of_the_keeper_can_be_reached() {
    let mut node = Node::new();
    // PID 1 is a copy of the keeper: its program, memory and descriptors are closed to root inside.
    let script = "tr -d '\\0' < /proc/1/cmdline; cat /proc/1/exe; cat /proc/1/fd/0; cat /proc/1/mem; cat /proc/1/environ; \
                  for d in root cwd; do ls /proc/1/$d/.; done";
    let spec = node.shell("c1", &format!("{script}; exit 0"));
    let ended = node.run(&spec);
    assert_eq!(ended.stdout, "", "{ended:?}");
    assert!(
        ended.stderr.matches("ermission denied").count() >= 6,
        "{ended:?}"
    );
}

#[test]
fn a_script_run_by_proc_self_exe_cannot_write_to_our_program() {
    let mut node = Node::new();
    let layer = node.layer("layer");
    // CVE-2019-5736: the interpreter is whoever is about to exec, which is a copy of the keeper.
    std::fs::write(layer.join("evil"), "#!/proc/self/exe\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(layer.join("evil"), mode).unwrap();
    let root = Root::Layers(vec![layer, "/".into()]);
    let before = std::fs::metadata(crate::node::keeper_exe())
        .unwrap()
        .modified()
        .unwrap();
    let script = "/evil & p=$!; for i in $(seq 200); do ( : >> /proc/$p/exe ) && echo wrote; done; \
                  exit 0";
    let spec = node.spec("c1", root.clone(), &["sh", "-c", script]);
    assert_eq!(node.run(&spec).stdout, "");
    let mut spec = node.spec("c2", root, &["/evil"]);
    spec.init = false;
    // It runs our program with nonsense for arguments, which fails.
    assert!(!node.run(&spec).status.success());
    let after = std::fs::metadata(crate::node::keeper_exe())
        .unwrap()
        .modified()
        .unwrap();
    assert_eq!(before, after);
}

#[test]
fn the_keepers_program_is_on_a_read_only_mount() {
    let node = Node::new();
    let lock = node.path("keeper.lock");
    let pid = crate::node::until("the keeper's process", || keeper_of(&lock));
    // Opening it for writing fails with ETXTBSY while it runs; this is what holds afterwards.
    let exe = std::fs::File::open(format!("/proc/{pid}/exe")).unwrap();
    let flags = rustix::fs::fstatvfs(&exe).unwrap().f_flag;
    assert!(
        flags.contains(rustix::fs::StatVfsMountFlags::RDONLY),
        "{flags:?}"
    );
}

/// The process that has the lock file open.
fn keeper_of(lock: &std::path::Path) -> Option<u32> {
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.find(|pid| {
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten()
            .flatten();
        fds.into_iter()
            .any(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to == lock))
    })
}
