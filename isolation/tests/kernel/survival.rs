//! The keeper outlives its clients and whatever they send.

use std::os::fd::AsFd;
use std::time::Instant;

use gantry_isolation::keeper::{Client, Event, ListedState, Request};
use gantry_isolation::reap;
use gantry_isolation::spec::{Access, Device, ExitStatus, Limits, Network};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

use crate::node::{Node, connect, id, until};

#[test]
fn output_flows_and_an_exit_is_kept_while_nobody_is_connected() {
    let mut node = Node::new();
    let gate = node.path("sandbox-c1/gate");
    let script = "seq 1000; until test -e gate; do sleep 0.01; done; echo late; exit 42";
    let mut spec = node.shell("c1", script);
    let dir = spec.sandbox.clone().unwrap();
    spec.output = gantry_isolation::spec::Output::files(dir, 1000, 9);
    node.start(&spec);
    node.started("c1");
    node.client.shutdown();
    std::fs::write(gate, "").unwrap();
    until("the late output", || {
        node.output("c1", "stdout").contains("late").then_some(())
    });
    node.reconnect();
    assert_eq!(node.exited("c1").0, ExitStatus::Code(42));
    // And again for the next, until it is forgotten.
    node.reconnect();
    assert_eq!(node.exited("c1").0, ExitStatus::Code(42));
    node.forget("c1");
    node.reconnect();
    assert_eq!(node.list(), []);
}

#[test]
fn a_killed_client_takes_nothing_with_it() {
    // The keeper is started by a process that is then killed: it must not be its child any more.
    let node = Node::new();
    let exe = crate::node::keeper_exe();
    let other = node.path("other");
    std::fs::create_dir(&other).unwrap();
    let parent = format!("{}-other", node.parent);
    let mut starter = std::process::Command::new("sh")
        .args([
            "-c",
            "\"$0\" --dir \"$1\" --cgroup-parent \"$2\"; exec sleep 1000",
        ])
        .args([exe.as_os_str(), other.as_os_str(), parent.as_ref()])
        .spawn()
        .unwrap();
    let client = until("the keeper", || Client::connect(&other).unwrap());
    starter.kill().unwrap();
    starter.wait().unwrap();
    client.request(&Request::List, &[]).unwrap();
    assert_eq!(
        client.recv().unwrap(),
        Some(Event::Listing {
            containers: Vec::new()
        })
    );
    client.request(&Request::Stop { kill: false }, &[]).unwrap();
    assert_eq!(client.recv().unwrap(), Some(Event::Stopping));
    assert_eq!(client.recv().unwrap(), None);
    assert!(Client::connect(&other).unwrap().is_none());
}

#[test]
fn one_keeper_per_directory() {
    let mut node = Node::new();
    let spec = node.native("c1", &["sleep", "1000"]);
    node.start(&spec);
    let pid = node.started("c1");
    let clients: Vec<_> = std::thread::scope(|scope| {
        let connect = || connect(node.dir.path(), &node.parent);
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(connect)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    for client in clients {
        client.request(&Request::List, &[]).unwrap();
        let Some(Event::Listing { containers }) = client.recv().unwrap() else {
            panic!()
        };
        assert_eq!(containers[0].state, ListedState::Running { pid });
    }
    let second = std::process::Command::new(crate::node::keeper_exe())
        .arg("--dir")
        .arg(node.dir.path())
        .args(["--cgroup-parent", &node.parent])
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(75));
    assert!(String::from_utf8_lossy(&second.stderr).contains("another keeper holds"));
}

#[test]
fn keepers_that_are_started_at_once_agree_on_one() {
    let node = Node::new();
    let other = node.path("other");
    std::fs::create_dir(&other).unwrap();
    let parent = format!("{}-other", node.parent);
    let clients: Vec<Client> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| connect(&other, &parent)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    for client in &clients {
        client.request(&Request::List, &[]).unwrap();
        assert!(matches!(
            client.recv().unwrap(),
            Some(Event::Listing { .. })
        ));
    }
    clients[0]
        .request(&Request::Stop { kill: false }, &[])
        .unwrap();
    for client in &clients {
        assert_eq!(client.recv().unwrap(), Some(Event::Stopping));
    }
}

#[test]
fn garbage_on_the_socket_harms_nobody() {
    let mut node = Node::new();
    let spec = node.native("c1", &["sleep", "1000"]);
    node.start(&spec);
    node.started("c1");
    let socket = || {
        let socket = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let address = SocketAddrUnix::new(node.path("keeper.sock")).unwrap();
        rustix::net::connect(&socket, &address).unwrap();
        socket
    };
    let deep = format!("J{}", "[".repeat(60_000));
    let big = vec![b'J'; 150_000];
    let texts: [&[u8]; 8] = [
        b"\0",
        b"J",
        b"M",
        b"Jnull",
        b"J{\"start\":{\"spec\":{\"id\":\"../x\"}}}",
        b"J{\"signal\":{\"id\":\"c1\",\"signo\":99999999999999999999,\"all\":true}}",
        deep.as_bytes(),
        &big,
    ];
    for text in texts {
        let socket = socket();
        rustix::net::send(&socket, text, SendFlags::NOSIGNAL).unwrap();
    }
    // A descriptor that is no memfd, and one whose size would lie.
    for path in ["/dev/zero", "/proc/self/mem"] {
        let file = std::fs::File::open(path).unwrap();
        let fds = [file.as_fd()];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(rustix::net::SendAncillaryMessage::ScmRights(&fds));
        let iov = [std::io::IoSlice::new(b"M")];
        rustix::net::sendmsg(socket(), &iov, &mut control, SendFlags::NOSIGNAL).unwrap();
    }
    // Too many connections at once; then all go.
    let crowd: Vec<_> = (0..12).map(|_| socket()).collect();
    drop(crowd);
    assert_eq!(node.list().len(), 1);
}

#[test]
fn a_client_that_sends_nonsense_is_told_and_may_go_on() {
    let node = Node::new();
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    rustix::net::connect(
        &socket,
        &SocketAddrUnix::new(node.path("keeper.sock")).unwrap(),
    )
    .unwrap();
    rustix::net::send(&socket, b"J{\"what\":1}", SendFlags::empty()).unwrap();
    let mut text = [0; 4096];
    let (got, _) = rustix::net::recv(&socket, &mut text, rustix::net::RecvFlags::empty()).unwrap();
    let text = String::from_utf8_lossy(&text[..got]).into_owned();
    assert!(
        text.contains("refused") && text.contains("unreadable"),
        "{text}"
    );
    // A newer client's start, of which only the id is understood: whoever waits for it is told.
    let newer = b"J{\"start\":{\"spec\":{\"id\":\"c1\",\"root\":\"of a newer kind\"}}}";
    rustix::net::send(&socket, newer, SendFlags::empty()).unwrap();
    let mut failed = [0; 4096];
    let (got, _) =
        rustix::net::recv(&socket, &mut failed, rustix::net::RecvFlags::empty()).unwrap();
    let text = String::from_utf8_lossy(&failed[..got]).into_owned();
    let told = text.contains("start_failed") && text.contains("c1");
    assert!(told && text.contains("earlier gantry"), "{text}");
    rustix::net::send(&socket, b"J\"list\"", SendFlags::empty()).unwrap();
    let mut more = [0; 4096];
    let (got, _) = rustix::net::recv(&socket, &mut more, rustix::net::RecvFlags::empty()).unwrap();
    assert!(String::from_utf8_lossy(&more[..got]).contains("listing"));
}

#[test]
fn a_long_message_goes_by_memfd() {
    let mut node = Node::new();
    let mut spec = node.shell("c1", "printf %s \"$BIG\" | wc -c");
    // Below the kernel's 128 KiB for one variable.
    spec.env = vec![
        ("PATH".to_owned(), "/usr/bin:/bin".to_owned()),
        ("BIG".to_owned(), "x".repeat(120_000)),
    ];
    assert_eq!(node.run(&spec).stdout.trim(), "120000");
    spec.env.push(("MORE".to_owned(), "x".repeat(5 << 20)));
    let request = Request::Start {
        spec: Box::new(spec),
    };
    assert!(node.client.request(&request, &[]).is_err());
}

#[test]
fn a_long_directory_name_has_a_socket_too() {
    let node = Node::new();
    let deep = node.path(&"d".repeat(120));
    std::fs::create_dir(&deep).unwrap();
    let client = connect(&deep, &format!("{}-deep", node.parent));
    client.request(&Request::Stop { kill: false }, &[]).unwrap();
    assert_eq!(client.recv().unwrap(), Some(Event::Stopping));
}

#[test]
fn two_hundred_at_once() {
    let mut node = Node::new();
    for number in 0..200 {
        let name = format!("c{number}");
        let mut spec = node.native(&name, &["sh", "-c", "echo $0 $$; exit 3", &name]);
        spec.network = Network::New;
        spec.limits = Limits {
            memory_bytes: Some(32 << 20),
            pids_max: Some(10),
            cpu_shares: Some(100),
            cpu_quota_us: Some(100_000),
            ..Limits::default()
        };
        node.start(&spec);
    }
    for number in 0..200 {
        let name = format!("c{number}");
        assert_eq!(node.exited(&name).0, ExitStatus::Code(3));
        assert_eq!(node.output(&name, "stdout"), format!("{name} 2\n"));
        node.send(&Request::Forget { id: id(&name) });
    }
    for number in 0..200 {
        let wanted = id(&format!("c{number}"));
        node.wait("forgetting", |event| match event {
            Event::Forgotten { id } if *id == wanted => Some(()),
            _ => None,
        });
    }
    assert_eq!(node.groups(), [] as [std::path::PathBuf; 0]);
    assert_eq!(entries(&node), 1, "the set of slots");
}

#[test]
fn stop_with_kill_ends_everything() {
    let mut node = Node::new();
    for number in 0..5 {
        let spec = node.native(&format!("c{number}"), &["sleep", "1000"]);
        node.start(&spec);
    }
    for number in 0..5 {
        node.started(&format!("c{number}"));
    }
    node.send(&Request::Stop { kill: true });
    node.wait("the end", |event| {
        matches!(event, Event::Stopping).then_some(())
    });
    assert_eq!(node.groups(), [] as [std::path::PathBuf; 0]);
    assert_eq!(entries(&node), 0);
    assert!(!node.path("keeper.sock").exists());
}

#[test]
fn a_signal_to_a_whole_group_spares_the_keeper_and_reaches_its_commands() {
    let mut node = Node::new();
    let spec = node.shell("c1", "grep -E 'SigIgn' /proc/self/status; exec sleep 1000");
    node.start(&spec);
    node.started("c1");
    let keeper = rustix::net::sockopt::socket_peercred(raw(&node))
        .unwrap()
        .pid;
    use nix::sys::signal::Signal::{SIGHUP, SIGINT, SIGTERM};
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        let pid = nix::unistd::Pid::from_raw(keeper.as_raw_nonzero().get());
        nix::sys::signal::kill(pid, signal).unwrap();
    }
    assert_eq!(
        node.list().len(),
        1,
        "the keeper answers and holds its container"
    );
    let ignored = until("the command's words", || {
        let text = node.output("c1", "stdout");
        text.contains("SigIgn").then_some(text)
    });
    let ignored = ignored.split_whitespace().last().unwrap().to_owned();
    assert_eq!(
        u64::from_str_radix(&ignored, 16),
        Ok(0),
        "a command ignores nothing"
    );
}

#[test]
fn a_sweeper_that_is_killed_is_replaced_and_nothing_waits_for_it() {
    let mut node = Node::new();
    node.sh("first", "true");
    let mut former = None;
    for round in 0..20 {
        let pid = until("another sweeper", || {
            helper(&node, "gantry-sweeper").filter(|pid| Some(*pid) != former)
        });
        kill_9(pid);
        former = Some(pid);
        assert_eq!(node.sh(&format!("c{round}"), "echo served"), "served\n");
    }
    assert!(
        node.list().is_empty() && node.groups().is_empty(),
        "all was removed"
    );
}

/// The process of the keeper's own that has this name.
pub(crate) fn helper(node: &Node, name: &str) -> Option<i32> {
    let keeper = rustix::net::sockopt::socket_peercred(raw(node)).unwrap();
    let keeper = keeper.pid.as_raw_nonzero();
    let children = format!("/proc/{keeper}/task/{keeper}/children");
    let children = std::fs::read_to_string(children).unwrap();
    let mut pids = children
        .split_whitespace()
        .map(|pid| pid.parse::<i32>().unwrap());
    pids.find(|pid| {
        let found = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        found.trim() == name
    })
}

pub(crate) fn kill_9(pid: i32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).unwrap();
}

#[test]
fn an_outlet_that_is_killed_is_replaced_and_no_output_is_lost() {
    let mut node = Node::new();
    let script = "for i in 1 2 3 4 5; do seq 1000; until test -e gate$i; do sleep 0.01; done; done";
    let mut spec = node.shell("c1", script);
    let dir = spec.sandbox.clone().unwrap();
    spec.output = gantry_isolation::spec::Output::files(dir, 10_000, 9);
    node.start(&spec);
    node.started("c1");
    let whole = |node: &Node| -> String {
        let mut text = String::new();
        for number in (1..=9).rev() {
            text += &node.output("c1", &format!("stdout.{number}"));
        }
        text + &node.output("c1", "stdout")
    };
    let round: String = (1..=1000).map(|number| format!("{number}\n")).collect();
    let mut former = None;
    for number in 1..=5 {
        let wanted = round.repeat(number);
        until("the output of a round", || {
            (whole(&node) == wanted).then_some(())
        });
        let pid = until("another outlet", || {
            helper(&node, "gantry-outlet").filter(|pid| Some(*pid) != former)
        });
        kill_9(pid);
        former = Some(pid);
        std::fs::write(node.path(&format!("sandbox-c1/gate{number}")), "").unwrap();
    }
    assert!(node.exited("c1").0.success());
    assert_eq!(whole(&node), round.repeat(5));
}

#[test]
fn a_removal_that_no_sweeper_survives_is_left_to_the_next_start() {
    let mut node = Node::new();
    let gate = node.path("sandbox-c1/gate");
    let spec = node.shell("c1", "until test -e gate; do sleep 0.01; done");
    node.start(&spec);
    node.started("c1");
    // A stranger in its group: removing that is tried for five seconds.
    let mut stranger = std::process::Command::new("sleep")
        .arg("1000")
        .spawn()
        .unwrap();
    let mut groups = node.groups().into_iter();
    let group = groups.find(|group| group.to_string_lossy().contains("/pids/"));
    let group = group.unwrap();
    std::fs::write(group.join("cgroup.procs"), stranger.id().to_string()).unwrap();
    std::fs::write(gate, "").unwrap();
    node.exited("c1");
    node.send(&Request::Forget { id: id("c1") });
    let log = node.path("keeper.log");
    let mut former = None;
    until("the keeper to give up", || {
        let fresh = helper(&node, "gantry-sweeper").filter(|pid| Some(*pid) != former);
        if let Some(pid) = fresh {
            kill_9(pid);
            former = Some(pid);
        }
        let log = std::fs::read_to_string(&log).unwrap();
        log.contains("sweepers ended while removing").then_some(())
    });
    let log = std::fs::read_to_string(&log).unwrap();
    assert!(log.contains("left to the next start"), "{log}");
    node.wait("the end of c1", |event| {
        matches!(event, Event::Forgotten { id: gone } if *gone == id("c1")).then_some(())
    });
    // The keeper and its next sweeper go on.
    assert_eq!(node.sh("c2", "echo served"), "served\n");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    let left = reap::leftovers(&node.path("containers"), &node.parent, &[]);
    assert_eq!(left.removed, ["c1"]);
    assert_eq!(left.failures, [] as [String; 0]);
}

#[test]
fn what_a_dead_keeper_left_is_reaped() {
    let mut node = Node::new();
    for name in ["c1", "c2"] {
        let mut spec = node.native(name, &["sleep", "1000"]);
        // Groups in trees where most have none.
        spec.limits.cpuset_cpus = Some("0".to_owned());
        spec.devices = vec![Device {
            source: "/dev/loop-control".into(),
            target: "/dev/loop-control".into(),
            access: Access::try_from("rw".to_owned()).unwrap(),
        }];
        node.start(&spec);
    }
    let pids = [node.started("c1"), node.started("c2")];
    let keeper = rustix::net::sockopt::socket_peercred(raw(&node))
        .unwrap()
        .pid;
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(keeper.as_raw_nonzero().get()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    until("the socket to close", || {
        node.client.recv().ok()?.is_none().then_some(())
    });
    let started = Instant::now();
    let left = reap::leftovers(&node.path("containers"), &node.parent, &[id("c2")]);
    assert_eq!(
        (left.removed, left.failures),
        (vec!["c1".to_owned()], Vec::new())
    );
    let alive = |pid: i32| {
        std::path::Path::new(&format!("/proc/{pid}/ns/pid"))
            .read_link()
            .is_ok()
    };
    assert!(alive(pids[1]), "after {:?}", started.elapsed());
    until("c1 to be dead", || (!alive(pids[0])).then_some(()));
    let left = reap::leftovers(&node.path("containers"), &node.parent, &[]);
    assert_eq!(
        (left.removed, left.failures),
        (vec!["c2".to_owned()], Vec::new())
    );
    assert_eq!(node.groups(), [] as [std::path::PathBuf; 0]);
    // A new keeper starts where the old one was, and its end removes the parent.
    node.reconnect();
    assert_eq!(node.list(), []);
    node.sh("c1", "true");
    until("the old slots to go", || {
        (entries(&node) == 1).then_some(())
    });
}

fn entries(node: &Node) -> usize {
    std::fs::read_dir(node.path("containers")).unwrap().count()
}

fn raw(node: &Node) -> std::os::fd::OwnedFd {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    rustix::net::connect(
        &socket,
        &SocketAddrUnix::new(node.path("keeper.sock")).unwrap(),
    )
    .unwrap();
    socket
}

#[test]
fn this_host_lacks_nothing() {
    assert_eq!(reap::preflight(), [] as [String; 0]);
}
