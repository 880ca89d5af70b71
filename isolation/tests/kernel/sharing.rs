//! Namespaces and numbers that containers of one keeper share.

use gantry_isolation::keeper::{ListedState, Request};
use gantry_isolation::spec::{ExitStatus, Ids, Network, Sharing, TimeOffsets};

use crate::node::{Node, id};

#[test]
fn a_network_is_shared_with_a_running_container() {
    let mut node = Node::new();
    let mut first = node.shell("c1", "readlink /proc/self/ns/net; exec sleep 1000");
    first.network = Network::New;
    node.start(&first);
    node.started("c1");
    let mut second = node.shell("c2", "readlink /proc/self/ns/net; ls /sys/class/net");
    second.network = Network::Of(id("c1"));
    let inside = node.run(&second).stdout;
    assert_eq!(inside, format!("{}lo\n", node.output("c1", "stdout")));
    let mut third = node.shell("c3", "true");
    third.network = Network::Of(id("gone"));
    node.start(&third);
    let words = "share the network of gone: no such container runs";
    assert_eq!(node.start_failure("c3"), words);
}

#[test]
fn processes_of_a_group_see_and_signal_each_other() {
    let mut node = Node::new();
    for ids in [Ids::Host, Ids::Private] {
        let word = if ids == Ids::Host { "host" } else { "private" };
        let (one, two) = (format!("{word}-1"), format!("{word}-2"));
        let mut first = node.shell(&one, "sleep 987 & wait; exec sleep 1000");
        first.ids = ids.clone();
        node.start(&first);
        node.started(&one);
        let script = "cat /proc/1/comm; echo $$ > me; test -e /proc/$(cat me) && echo seen; \
                      until pkill -x sleep; do :; done; echo killed; sleep 986 & exec sleep 1000";
        let mut second = node.shell(&two, script);
        second.namespaces.pid = Sharing::Of(id(&one));
        if ids == Ids::Private {
            second.ids = Ids::Of(id(&one));
        }
        node.start(&second);
        let pid = node.started(&two);
        crate::node::until("the kill", || {
            Some(()).filter(|()| node.output(&two, "stdout") == "gantry-init\nseen\nkilled\n")
        });
        let space = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap();
        let listed = node.list();
        let first_pid = listed.iter().find_map(|one_listed| match one_listed.state {
            ListedState::Running { pid } if one_listed.id == id(&one) => Some(pid),
            _ => None,
        });
        assert_eq!(space(pid), space(first_pid.unwrap()));
        // The end of its first process is the end of what that left behind, and of nobody else.
        node.send(&Request::Signal {
            id: id(&two),
            signo: 9,
            all: false,
        });
        assert_eq!(node.exited(&two).0, ExitStatus::Signal(9));
        node.forget(&two);
        assert!(!sleeps("986"));
        assert!(node.list().iter().any(|listed| listed.id == id(&one)));
        // The end of PID 1 is the end of everyone.
        let mut third = node.native(&two, &["sleep", "1000"]);
        third.namespaces.pid = Sharing::Of(id(&one));
        node.start(&third);
        node.started(&two);
        node.send(&Request::Signal {
            id: id(&one),
            signo: 9,
            all: true,
        });
        assert_eq!(node.exited(&two).0, ExitStatus::Signal(9));
        node.exited(&one);
    }
}

#[test]
fn a_container_without_command_holds_namespaces_for_others() {
    let mut node = Node::new();
    for ids in [Ids::Host, Ids::Private] {
        let word = if ids == Ids::Host { "host" } else { "private" };
        let (root, one, two) = (word.to_owned(), format!("{word}-1"), format!("{word}-2"));
        let mut holder = node.native(&root, &[]);
        holder.ids = ids.clone();
        holder.network = Network::New;
        node.start(&holder);
        let pid = node.started(&root);
        let link =
            |pid: i32, kind: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        let below = std::fs::read_dir(format!("/proc/{pid}/root")).map(Iterator::count);
        assert!(below.unwrap() > 0, "its root is there for us");
        let member = |name: &str, script: &str| {
            let mut spec = node.shell(name, script);
            spec.network = Network::Of(id(&root));
            spec.namespaces.ipc = Sharing::Of(id(&root));
            spec.namespaces.pid = Sharing::Of(id(&root));
            if ids == Ids::Private {
                spec.ids = Ids::Of(id(&root));
            }
            spec
        };
        let first = member(&one, "(sleep 984 &); cat /proc/1/comm; ls /proc/1/root");
        let second = member(&two, "exec sleep 1000");
        let ended = node.run(&first);
        assert_eq!(ended.stdout, "gantry-init\n", "{ended:?}");
        assert!(ended.stderr.contains("Permission denied"), "{ended:?}");
        // What was left behind is killed, and the holder's to reap.
        crate::node::until("the orphan's end", || {
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
            Some(()).filter(|()| children.unwrap().is_empty())
        });
        node.start(&second);
        let inside = node.started(&two);
        for kind in ["net", "ipc", "pid"] {
            assert_eq!(link(inside, kind), link(pid, kind), "{kind}");
        }
        assert_ne!(link(inside, "mnt"), link(pid, "mnt"));
        // It takes no notice of signals that others would end by, but passes them on.
        let signal = |signo, all| Request::Signal {
            id: id(&root),
            signo,
            all,
        };
        node.send(&signal(15, false));
        assert_eq!(node.exited(&two).0, ExitStatus::Signal(15));
        let running = |listed: &gantry_isolation::keeper::Listed| {
            listed.id == id(&root) && matches!(listed.state, ListedState::Running { .. })
        };
        assert!(node.list().iter().any(running));
        node.send(&signal(9, true));
        assert_eq!(node.exited(&root).0, ExitStatus::Signal(9));
        for name in [&two, &root] {
            node.forget(name);
        }
    }
}

fn sleeps(seconds: &str) -> bool {
    let wanted = format!("sleep\0{seconds}\0");
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        std::fs::read(entry.path().join("cmdline")).is_ok_and(|line| line == wanted.as_bytes())
    })
}

#[test]
fn the_hosts_processes_are_there_only_when_asked_for() {
    let mut node = Node::new();
    let own = std::fs::read_link("/proc/self/ns/pid").unwrap();
    let mut spec = node.shell(
        "c1",
        "readlink /proc/self/ns/pid; sleep 985 & exec sleep 1000",
    );
    spec.namespaces.pid = Sharing::Host;
    spec.ids = Ids::Private;
    node.start(&spec);
    node.started("c1");
    crate::node::until("the link", || {
        Some(()).filter(|()| node.output("c1", "stdout").trim() == own.to_str().unwrap())
    });
    crate::node::until("the other process", || Some(()).filter(|()| sleeps("985")));
    node.send(&Request::Signal {
        id: id("c1"),
        signo: 15,
        all: false,
    });
    assert_eq!(node.exited("c1").0, ExitStatus::Signal(15));
    node.forget("c1");
    assert!(!sleeps("985"));
}

#[test]
fn message_queues_are_shared_with_whom_it_is_said() {
    let mut node = Node::new();
    let link = "readlink /proc/self/ns/ipc";
    let mut first = node.shell(
        "c1",
        &format!("{link}; touch /dev/mqueue/q; exec sleep 1000"),
    );
    first.ids = Ids::Private;
    node.start(&first);
    node.started("c1");
    let of_first = crate::node::until("the link", || {
        Some(node.output("c1", "stdout")).filter(|out| out.ends_with('\n'))
    });
    let mut second = node.shell(
        "c2",
        &format!("{link}; ls /dev/mqueue; echo x > /dev/mqueue/own"),
    );
    second.namespaces.ipc = Sharing::Of(id("c1"));
    second.ids = Ids::Of(id("c1"));
    let ended = node.run(&second);
    assert_eq!(ended.stdout, format!("{of_first}q\n"), "{ended:?}");
    let mut third = node.shell("c3", link);
    third.namespaces.ipc = Sharing::Host;
    let own = std::fs::read_link("/proc/self/ns/ipc").unwrap();
    assert_eq!(node.run(&third).stdout.trim(), own.to_str().unwrap());
    assert_ne!(of_first.trim(), own.to_str().unwrap());
}

#[test]
fn clocks_are_moved_by_what_is_said() {
    let mut node = Node::new();
    let script = "cut -d. -f1 /proc/uptime; readlink /proc/self/ns/time; \
                  python3 -c 'import time; print(int(time.clock_gettime(time.CLOCK_MONOTONIC)))'";
    let seconds = |text: &str| text.trim().parse::<i64>().unwrap();
    for init in [true, false] {
        let name = if init { "init" } else { "alone" };
        let mut spec = node.shell(name, script);
        spec.init = init;
        spec.namespaces.time = Some(TimeOffsets {
            monotonic_ns: 500_000_000_000_000,
            boottime_ns: 1_000_000_000_000_000,
        });
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let uptime = seconds(uptime.split('.').next().unwrap());
        let ended = node.run(&spec);
        let lines: Vec<&str> = ended.stdout.lines().collect();
        let [inside, link, monotonic] = lines.as_slice() else {
            panic!("{ended:?}");
        };
        assert!(
            (0..100).contains(&(seconds(inside) - uptime - 1_000_000)),
            "{ended:?}"
        );
        assert!(
            (0..100).contains(&(seconds(monotonic) - uptime - 500_000)),
            "{ended:?}"
        );
        assert_ne!(
            std::fs::read_link("/proc/self/ns/time").unwrap().to_str(),
            Some(*link)
        );
    }
}

#[test]
fn nobody_shares_with_itself_or_with_what_does_not_run() {
    let mut node = Node::new();
    let mut spec = node.shell("c1", "true");
    spec.namespaces.pid = Sharing::Of(id("c1"));
    node.start(&spec);
    assert_eq!(
        node.start_failure("c1"),
        "check the spec: c1 cannot share with itself"
    );
    spec.namespaces.pid = Sharing::Own;
    spec.namespaces.ipc = Sharing::Of(id("gone"));
    node.start(&spec);
    assert_eq!(
        node.start_failure("c1"),
        "share the IPC of gone: no such container runs"
    );
    spec.namespaces.ipc = Sharing::Own;
    spec.ids = Ids::Of(id("gone"));
    node.start(&spec);
    assert_eq!(
        node.start_failure("c1"),
        "share the ids of gone: no such container runs"
    );
}
