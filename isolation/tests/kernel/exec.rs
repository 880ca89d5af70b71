//! One more process in a running container.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};

use gantry_isolation::caps;
use gantry_isolation::keeper::{Event, ExecSpec, Request};
use gantry_isolation::seccomp::Seccomp;
use gantry_isolation::spec::{ExitStatus, Limits, User};

use crate::node::{Node, id};

pub(crate) fn exec_spec(session: &str, argv: &[&str]) -> ExecSpec {
    ExecSpec {
        session: id(session),
        id: id("c1"),
        argv: argv.iter().map(ToString::to_string).collect(),
        env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
        cwd: None,
        user: User::Root,
        tty: false,
        window: None,
        capabilities: caps::default_set(),
    }
}

fn send(node: &Node, spec: &ExecSpec, stdio: [BorrowedFd<'_>; 3]) {
    node.client
        .request(
            &Request::Exec {
                exec: Box::new(spec.clone()),
            },
            &stdio,
        )
        .unwrap();
}

fn outcome(node: &mut Node, session: &str) -> Result<ExitStatus, String> {
    let wanted = id(session);
    node.wait("the session's end", |event| match event {
        Event::ExecExited { session, status } if *session == wanted => Some(Ok(*status)),
        Event::ExecFailed {
            session,
            step,
            error,
        } if *session == wanted => Some(Err(format!("{step}: {error}"))),
        _ => None,
    })
}

pub(crate) fn run(node: &mut Node, spec: &ExecSpec) -> (Result<ExitStatus, String>, String) {
    let null = std::fs::File::open("/dev/null").unwrap();
    let (mut read, write) = std::io::pipe().unwrap();
    send(node, spec, [null.as_fd(), write.as_fd(), write.as_fd()]);
    drop(write);
    let result = outcome(node, spec.session.as_str());
    let mut text = String::new();
    read.read_to_string(&mut text).unwrap();
    (result, text)
}

fn running(node: &mut Node) {
    let mut spec = node.native("c1", &["sleep", "1000"]);
    spec.hostname = Some("box".to_owned());
    spec.limits = Limits {
        memory_bytes: Some(64 << 20),
        pids_max: Some(20),
        ..Limits::default()
    };
    node.start(&spec);
    node.started("c1");
}

#[test]
fn it_is_in_the_containers_namespaces_groups_and_bounds() {
    let mut node = Node::new();
    running(&mut node);
    let script = "hostname; cat /proc/1/comm; grep -E 'Cap(Eff|Bnd)|NoNew' /proc/self/status; \
                  for k in mnt pid ipc uts cgroup net; do readlink /proc/self/ns/$k; done; \
                  grep -E ':(memory|pids):|0::' /proc/self/cgroup; ls /proc/self/fd | wc -l; exit 5";
    let (result, text) = run(&mut node, &exec_spec("s1", &["sh", "-c", script]));
    assert_eq!(result, Ok(ExitStatus::Code(5)), "{text}");
    assert!(text.starts_with("box\ngantry-init\n"), "{text}");
    let stated = format!("{:016x}", caps::default_set().bits());
    assert_eq!(text.matches(&stated).count(), 2, "{text}");
    assert!(text.contains("NoNewPrivs:\t1"), "{text}");
    let groups: Vec<&str> = text.lines().filter(|line| line.ends_with(":/")).collect();
    assert!(groups.len() >= 2, "{text}");
    assert!(text.ends_with("\n4\n"), "{text}");
    for kind in ["mnt", "pid", "ipc", "uts", "cgroup"] {
        let own = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert!(!text.contains(own.to_str().unwrap()), "{text}");
    }
}

#[test]
fn failures_and_users_are_as_for_a_container() {
    let mut node = Node::new();
    running(&mut node);
    let (result, _) = run(&mut node, &exec_spec("s1", &["nope"]));
    assert_eq!(
        result,
        Err("exec nope: No such file or directory".to_owned())
    );
    let mut spec = exec_spec("s2", &["id", "-u"]);
    spec.user = User::Name("1000:1000".to_owned());
    spec.cwd = Some("/tmp".into());
    assert_eq!(
        run(&mut node, &spec),
        (Ok(ExitStatus::Code(0)), "1000\n".to_owned())
    );
    let mut spec = exec_spec("s3", &["true"]);
    spec.id = id("other");
    let (result, _) = run(&mut node, &spec);
    assert_eq!(
        result,
        Err("check the request: there is no such container".to_owned())
    );
    node.send(&Request::Exec {
        exec: Box::new(exec_spec("s4", &["true"])),
    });
    assert_eq!(
        outcome(&mut node, "s4"),
        Err("check the request: 0 descriptors came along, not 3".to_owned())
    );
    // A container started after an exec is not born in the other's namespace.
    assert_eq!(node.sh("c2", "echo $$"), "2\n");
}

#[test]
fn a_session_takes_input_and_signals() {
    let mut node = Node::new();
    running(&mut node);
    let (stdin, mut feed) = std::io::pipe().unwrap();
    let (mut read, write) = std::io::pipe().unwrap();
    send(
        &node,
        &exec_spec("s1", &["cat"]),
        [stdin.as_fd(), write.as_fd(), write.as_fd()],
    );
    std::io::Write::write_all(&mut feed, b"hello\n").unwrap();
    let mut got = [0; 6];
    read.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"hello\n");
    node.send(&Request::SignalExec {
        session: id("s1"),
        signo: 15,
    });
    assert_eq!(outcome(&mut node, "s1"), Ok(ExitStatus::Signal(15)));
}

#[test]
fn it_ends_with_the_container() {
    let mut node = Node::new();
    running(&mut node);
    let null = std::fs::File::open("/dev/null").unwrap();
    let null = null.as_fd();
    send(
        &node,
        &exec_spec("s1", &["sleep", "1000"]),
        [null, null, null],
    );
    node.wait("the session", |event| {
        matches!(event, Event::ExecStarted { .. }).then_some(())
    });
    node.send(&Request::Signal {
        id: id("c1"),
        signo: 9,
        all: true,
    });
    assert_eq!(outcome(&mut node, "s1"), Ok(ExitStatus::Signal(9)));
    node.exited("c1");
}

/// Prints the id of the session keyring.
fn keyring_script() -> String {
    // KEYCTL_GET_KEYRING_ID of KEY_SPEC_SESSION_KEYRING, making none.
    format!("print syscall({}, 0, -3, 0)", libc::SYS_keyctl)
}

#[test]
fn no_two_containers_and_no_session_share_a_keyring_with_another_or_the_host() {
    let script = keyring_script();
    let command = ["perl", "-e", script.as_str()];
    let on_host = std::process::Command::new(command[0])
        .args(&command[1..])
        .output()
        .unwrap();
    let mut seen = vec![String::from_utf8(on_host.stdout).unwrap()];
    let mut node = Node::new();
    for name in ["k1", "k2"] {
        // The built-in filter has no keyrings at all.
        let mut spec = node.native(name, &command);
        spec.seccomp = Seccomp::Unconfined;
        let ended = node.run(&spec);
        assert!(ended.status.success(), "{ended:?}");
        seen.push(ended.stdout);
    }
    let mut spec = node.native("c1", &["sleep", "1000"]);
    spec.seccomp = Seccomp::Unconfined;
    node.start(&spec);
    node.started("c1");
    for session in ["s1", "s2"] {
        let (result, text) = run(&mut node, &exec_spec(session, &command));
        assert_eq!(result, Ok(ExitStatus::Code(0)), "{text}");
        seen.push(text);
    }
    for (at, id) in seen.iter().enumerate() {
        assert!(id.parse::<i32>().is_ok_and(|id| id > 0), "{seen:?}");
        assert!(!seen[..at].contains(id), "{seen:?}");
    }
}
