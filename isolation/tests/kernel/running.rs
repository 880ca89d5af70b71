//! Starting, ending and what is reported of it.

use gantry_isolation::keeper::{Event, ListedState, Request};
use gantry_isolation::spec::{ExitStatus, Root};

use crate::node::{Node, id, until};

#[test]
fn a_native_command_runs_and_its_output_and_code_are_kept() {
    let mut node = Node::new();
    let spec = node.shell("c1", "echo out; echo err >&2; pwd; exit 7");
    let ended = node.run(&spec);
    assert_eq!(ended.status, ExitStatus::Code(7), "{ended:?}");
    assert_eq!(ended.stdout, "out\n/mnt/mesos/sandbox\n");
    assert_eq!(ended.stderr, "err\n");
    assert!(!ended.oom_killed);
}

#[test]
fn with_and_without_our_init_a_signal_is_told_from_a_code() {
    let mut node = Node::new();
    for init in [true, false] {
        let name = format!("code-{init}");
        let mut spec = node.shell(&name, "exit 200");
        spec.init = init;
        assert_eq!(node.run(&spec).status, ExitStatus::Code(200), "init {init}");
    }
    let spec = node.shell("sig", "kill -9 $$");
    assert_eq!(node.run(&spec).status, ExitStatus::Signal(9));
}

#[test]
fn sigterm_stops_a_sleep_at_once_through_the_init() {
    let mut node = Node::new();
    let spec = node.shell("c1", "sleep 1000 & sleep 1000");
    node.start(&spec);
    node.started("c1");
    node.send(&Request::Signal {
        id: id("c1"),
        signo: 15,
        all: false,
    });
    assert_eq!(node.exited("c1").0, ExitStatus::Signal(15));
    let spec = node.native("c2", &["sleep", "1000"]);
    node.start(&spec);
    node.started("c2");
    node.send(&Request::Signal {
        id: id("c2"),
        signo: 15,
        all: false,
    });
    assert_eq!(node.exited("c2").0, ExitStatus::Signal(15));
}

#[test]
fn sigkill_to_all_ends_even_what_ignores_signals() {
    let mut node = Node::new();
    let spec = node.shell(
        "c1",
        "trap '' TERM; (trap '' TERM; while :; do sleep 1; done) & wait",
    );
    node.start(&spec);
    node.started("c1");
    node.send(&Request::Signal {
        id: id("c1"),
        signo: 9,
        all: true,
    });
    assert_eq!(node.exited("c1").0, ExitStatus::Signal(9));
}

#[test]
fn orphans_are_reaped_inside() {
    let mut node = Node::new();
    let script = "for i in 1 2 3; do (sleep 0 & ) ; done; \
                  for i in $(seq 500); do grep -l '^State:.Z' /proc/[0-9]*/status >/dev/null \
                  2>&1 || exit 0; sleep 0.01; done; exit 1";
    let spec = node.shell("c1", script);
    assert!(node.run(&spec).status.success());
}

#[test]
fn a_command_that_is_not_there_says_so_and_leaves_nothing() {
    let mut node = Node::new();
    for (name, program, words) in [
        ("c1", "/nope", "exec /nope: No such file or directory"),
        ("c2", "nope", "exec nope: No such file or directory"),
        ("c3", "/etc/passwd", "exec /etc/passwd: Permission denied"),
        ("c4", "/etc", "exec /etc: Permission denied"),
    ] {
        for init in [true, false] {
            let mut spec = node.native(name, &[program]);
            spec.init = init;
            node.start(&spec);
            assert_eq!(node.start_failure(name), words);
            assert_eq!(node.groups(), [] as [std::path::PathBuf; 0]);
        }
    }
    assert_eq!(node.list(), []);
    // The id is free again.
    let spec = node.shell("c1", "exit 0");
    assert!(node.run(&spec).status.success());
}

#[test]
fn other_failures_name_their_step() {
    let mut node = Node::new();
    let mut spec = node.shell("c1", "true");
    spec.root = Root::Layers(vec!["/does/not/exist".into()]);
    node.start(&spec);
    assert_eq!(
        node.start_failure("c1"),
        "mount the root over /does/not/exist: No such file or directory"
    );
    let mut spec = node.shell("c2", "true");
    // Without an init either: there is nothing to run.
    spec.init = false;
    spec.argv.clear();
    node.start(&spec);
    assert_eq!(
        node.start_failure("c2"),
        "check the spec: the command is empty"
    );
    let mut spec = node.shell("c3", "true");
    spec.network = gantry_isolation::spec::Network::Namespace;
    node.start(&spec);
    assert_eq!(
        node.start_failure("c3"),
        "check the spec: no network namespace came with the request"
    );
    let mut spec = node.shell("c4", "true");
    spec.limits.cpu_quota_us = Some(u64::MAX - 1);
    node.start(&spec);
    let words = node.start_failure("c4");
    assert!(
        words.contains("cpu.cfs_quota_us to 18446744073709551614: "),
        "{words}"
    );
}

#[test]
fn starting_twice_starts_once() {
    let mut node = Node::new();
    let spec = node.shell("c1", "echo once; sleep 1000");
    node.start(&spec);
    node.start(&spec);
    let pid = node.started("c1");
    node.start(&spec);
    until("the second answer", || {
        node.start(&spec);
        Some(node.started("c1"))
    });
    assert_eq!(node.started("c1"), pid);
    let listed = node.list();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].state, ListedState::Running { pid });
    until("its output", || {
        (!node.output("c1", "stdout").is_empty()).then_some(())
    });
    node.send(&Request::Signal {
        id: id("c1"),
        signo: 9,
        all: true,
    });
    node.exited("c1");
    node.start(&spec);
    assert_eq!(node.exited("c1").0, ExitStatus::Signal(9));
    assert_eq!(node.output("c1", "stdout"), "once\n");
}

#[test]
fn what_cannot_be_done_is_refused() {
    let mut node = Node::new();
    let spec = node.native("c1", &["sleep", "1000"]);
    node.start(&spec);
    node.started("c1");
    let refusals = [
        (Request::Forget { id: id("c1") }, "it runs"),
        (Request::Stop { kill: false }, "containers run"),
        (
            Request::Signal {
                id: id("c1"),
                signo: 0,
                all: false,
            },
            "0 is not a signal: 1 to 64",
        ),
        (
            Request::Signal {
                id: id("c1"),
                signo: 65,
                all: true,
            },
            "65 is not a signal: 1 to 64",
        ),
        (
            Request::Signal {
                id: id("no"),
                signo: 9,
                all: true,
            },
            "there is no such container",
        ),
        (
            Request::SignalExec {
                session: id("no"),
                signo: 9,
            },
            "there is no such session",
        ),
    ];
    for (request, words) in refusals {
        node.send(&request);
        let error = node.wait("a refusal", |event| match event {
            Event::Refused { error, .. } => Some(error.clone()),
            _ => None,
        });
        assert_eq!(error, words);
    }
    // Forgetting what was never there is done.
    node.forget("never");
}

#[test]
fn the_environment_is_exactly_what_was_given() {
    let mut node = Node::new();
    let mut spec = node.native("c1", &["env"]);
    spec.env = vec![
        ("PATH".to_owned(), "/usr/bin:/bin".to_owned()),
        ("LINES".to_owned(), "a\nb".to_owned()),
    ];
    assert_eq!(node.run(&spec).stdout, "PATH=/usr/bin:/bin\nLINES=a\nb\n");
}

#[test]
fn the_working_directory_is_made() {
    let mut node = Node::new();
    let mut spec = node.native("c1", &["pwd"]);
    spec.cwd = Some("/a/b/c".into());
    assert_eq!(node.run(&spec).stdout, "/a/b/c\n");
    assert!(!std::path::Path::new("/a/b/c").exists());
}

#[test]
fn pid_1_keeps_next_to_nothing_of_the_keepers_memory() {
    let mut node = Node::new();
    node.start(&node.native("c1", &["sleep", "1000"]));
    let pid = node.started("c1");
    // It may still be at it when the command already runs.
    until("PID 1 gave its heap back", || {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        (!maps.contains("[heap]")).then_some(())
    });
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = rollup
        .lines()
        .find(|line| line.starts_with("Private_Dirty:"));
    let kb: u64 = line
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    assert!(kb <= 100, "{rollup}");
    // What is left still does its work.
    node.send(&Request::Signal {
        id: id("c1"),
        signo: 15,
        all: false,
    });
    assert_eq!(node.exited("c1").0, ExitStatus::Signal(15));
}
