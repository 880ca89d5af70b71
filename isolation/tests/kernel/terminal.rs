//! A terminal as stdin, stdout, stderr and controlling terminal: made in the container's own
//! `/dev/pts`, its size, who watches it, and what its end takes along.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use gantry_isolation::keeper::terminal::{self, TerminalError};
use gantry_isolation::keeper::{Event, ExecSpec, Request};
use gantry_isolation::spec::{ContainerSpec, ExitStatus, Ids, Output, User, WindowSize};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::exec::exec_spec;
use crate::node::{Node, id, until};
use crate::survival::{helper, kill_9};

const SMALL: WindowSize = WindowSize {
    rows: 10,
    columns: 20,
};
const LARGE: WindowSize = WindowSize {
    rows: 33,
    columns: 44,
};
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Says its size at first and whenever told of another one; ends by a line of input.
const SCRIPT: &str = "trap 'stty size; echo resized' WINCH; tty; tty -s && echo terminal; stty size; \
                      echo ready > /dev/tty; while ! read -r line; do :; done; echo \"got $line\"; exit 7";

/// The master, what comes out, and what was read of that.
struct Screen {
    master: File,
    shown: File,
    text: String,
}

impl Screen {
    fn new(master: OwnedFd) -> Self {
        let shown = master.try_clone().unwrap();
        Self::apart(master, shown)
    }

    fn apart(master: OwnedFd, shown: OwnedFd) -> Self {
        Self {
            master: master.into(),
            shown: shown.into(),
            text: String::new(),
        }
    }

    /// Reads until the text has `end` in it, after what was found before.
    fn until(&mut self, end: &str) {
        while !self.text.contains(end) {
            let more = self.read();
            assert!(more, "{:?}, not {end:?}", self.text);
        }
        let at = self.text.find(end).unwrap_or(0) + end.len();
        self.text.drain(..at);
    }

    /// False at the end.
    fn read(&mut self) -> bool {
        wait_for(self.shown.as_fd());
        let mut bytes = [0; 256];
        let got = self.shown.read(&mut bytes).unwrap_or(0);
        let more = String::from_utf8_lossy(&bytes[..got]).replace('\r', "");
        self.text.push_str(&more);
        got > 0
    }

    fn line(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// Types a line to a program that says it again.
    fn until_said(&mut self, text: &str) {
        self.line(&format!("{text}\n"));
        self.until(&format!("{text}\n"));
    }

    fn resize(&self, to: WindowSize) {
        terminal::resize(self.master.as_fd(), to).unwrap();
    }

    /// Plays the other side of [`SCRIPT`].
    fn talk(&mut self) {
        self.until("/dev/pts/0\nterminal\n10 20\nready\n");
        self.resize(LARGE);
        self.until("33 44\nresized\n");
        self.line("hello\n");
        self.until("got hello\n");
    }
}

fn wait_for(fd: BorrowedFd<'_>) {
    let patience = Timespec::try_from(PATIENCE).unwrap();
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    assert!(poll(&mut fds, Some(&patience)).unwrap() > 0, "nothing came");
}

fn arrived(ours: &OwnedFd) -> Result<OwnedFd, TerminalError> {
    wait_for(ours.as_fd());
    terminal::receive(ours.as_fd())
}

/// The master of a running container's terminal.
fn attach(node: &Node, name: &str, pipe: Option<BorrowedFd<'_>>) -> Result<OwnedFd, TerminalError> {
    let (ours, theirs) = terminal::pair().unwrap();
    let mut fds = vec![theirs.as_fd()];
    fds.extend(pipe);
    let request = Request::Attach { id: id(name) };
    node.client.request(&request, &fds).unwrap();
    drop(theirs);
    arrived(&ours)
}

/// Watches the terminal of a running container: the outlet reads the master.
fn watch(node: &Node, name: &str) -> Screen {
    watch_by(node, name, 64 << 10)
}

/// The same, by a pipe that holds so much.
fn watch_by(node: &Node, name: &str, bytes: usize) -> Screen {
    let (read, write) = std::io::pipe().unwrap();
    rustix::pipe::fcntl_setpipe_size(&write, bytes).unwrap();
    let master = attach(node, name, Some(write.as_fd())).unwrap();
    Screen::apart(master, read.into())
}

fn spec(node: &Node, name: &str, script: &str) -> ContainerSpec {
    let mut spec = node.shell(name, script);
    spec.terminal = true;
    spec.window = Some(SMALL);
    spec
}

/// Starts a session at a terminal.
fn session(node: &Node, spec: &ExecSpec) -> Screen {
    let mut spec = spec.clone();
    (spec.tty, spec.window) = (true, Some(SMALL));
    let (ours, theirs) = terminal::pair().unwrap();
    let request = Request::Exec {
        exec: Box::new(spec),
    };
    node.client.request(&request, &[theirs.as_fd()]).unwrap();
    drop(theirs);
    Screen::new(arrived(&ours).unwrap())
}

fn session_end(node: &mut Node) -> ExitStatus {
    node.wait("the session's end", |event| match event {
        Event::ExecExited { status, .. } => Some(*status),
        _ => None,
    })
}

#[test]
fn a_container_has_it_and_hears_of_its_size() {
    let mut node = Node::new();
    for (name, ids, uid, init) in [
        ("c1", Ids::Host, 0, true),
        ("c2", Ids::Private, 0, true),
        ("c3", Ids::Private, 1000, true),
        ("c4", Ids::Host, 1000, false),
    ] {
        let mut spec = spec(&node, name, &format!("read -r go; {SCRIPT}"));
        spec.ids = ids;
        spec.user = User::Ids { uid, gid: uid };
        spec.init = init;
        node.start(&spec);
        node.started(name);
        let mut screen = watch(&node, name);
        screen.line("go\n");
        screen.talk();
        assert_eq!(node.exited(name).0, ExitStatus::Code(7));
        let text = node.output(name, "stdout").replace('\r', "");
        assert!(text.contains("terminal\n10 20\nready\n"), "{text}");
        assert!(text.ends_with("got hello\n"), "{text}");
        assert_eq!(node.output(name, "stderr"), "");
        // The end of the container is that of whoever watches it.
        while screen.read() {}
        let refused = attach(&node, name, None).unwrap_err().to_string();
        assert_eq!(refused, "the container does not run");
    }
}

#[test]
fn who_watches_too_slowly_is_cut_and_holds_up_nobody() {
    let mut node = Node::new();
    let script = "stty -onlcr; read -r go; i=0; while [ $i -lt 3000 ]; do \
                  echo 0123456789012345678901234567890123456789012345678901234567890123456789; \
                  i=$((i+1)); done; echo done; read -r go";
    node.start(&spec(&node, "c1", script));
    node.started("c1");
    let (lazy, mut awake) = (watch(&node, "c1"), watch_by(&node, "c1", 1 << 20));
    awake.line("go\n");
    // More than a pipe holds, three times over.
    awake.until("done\n");
    let mut seen = Screen::apart(lazy.master.into(), lazy.shown.into());
    while seen.read() {}
    assert!(!seen.text.contains("done"), "it was not cut");
    assert!(seen.text.len() < 100 << 10, "{}", seen.text.len());
    awake.line("go\n");
    assert_eq!(node.exited("c1").0, ExitStatus::Code(0));
    let lines = node.output("c1", "stdout").matches("0123456789\n").count();
    assert_eq!(lines, 3000, "the file has all");
}

#[test]
fn watchers_that_left_make_room_and_too_many_find_their_end() {
    let mut node = Node::new();
    node.start(&spec(
        &node,
        "c1",
        "stty -echo; while read -r line; do echo $line; done",
    ));
    node.started("c1");
    for _ in 0..40 {
        drop(watch(&node, "c1"));
    }
    let mut watchers: Vec<_> = (0..16).map(|_| watch(&node, "c1")).collect();
    let mut late = watch(&node, "c1");
    while late.read() {}
    watchers[0].line("hello\n");
    for watcher in &mut watchers {
        watcher.until("hello\n");
    }
    drop(watchers);
    watch(&node, "c1").until_said("again");
}

#[test]
fn a_session_has_one_of_its_own() {
    let mut node = Node::new();
    for (name, ids) in [("c1", Ids::Host), ("c2", Ids::Private)] {
        let mut container = node.native(name, &["sleep", "1000"]);
        container.ids = ids;
        node.start(&container);
        node.started(name);
        for user in [User::Root, User::Name("1000:1000".to_owned())] {
            let mut exec = exec_spec("s1", &["sh", "-c", SCRIPT]);
            (exec.id, exec.user) = (id(name), user);
            let mut screen = session(&node, &exec);
            screen.talk();
            assert_eq!(session_end(&mut node), ExitStatus::Code(7));
        }
    }
}

#[test]
fn control_c_ends_what_is_in_front() {
    let mut node = Node::new();
    node.start(&node.native("c1", &["sleep", "1000"]));
    node.started("c1");
    let script = "trap : INT; sh -c 'echo asleep; exec sleep 1000'; echo \"ended by $?\"; exit 4";
    let mut screen = session(&node, &exec_spec("s1", &["sh", "-c", script]));
    screen.until("asleep\n");
    screen.line("\u{3}");
    screen.until("ended by 130\n");
    assert_eq!(session_end(&mut node), ExitStatus::Code(4));
}

#[test]
fn without_a_master_it_hangs_up() {
    let mut node = Node::new();
    node.start(&node.native("c1", &["sleep", "1000"]));
    node.started("c1");
    let mut screen = session(
        &node,
        &exec_spec("s1", &["sh", "-c", "echo on; exec sleep 1000"]),
    );
    screen.until("on\n");
    drop(screen);
    assert_eq!(session_end(&mut node), ExitStatus::Signal(1));
}

/// Number of processes in `c1`, seen from inside.
fn processes(node: &mut Node) -> usize {
    let (result, text) = crate::exec::run(node, &exec_spec("count", &["ls", "/proc"]));
    assert_eq!(result, Ok(ExitStatus::Code(0)));
    text.lines()
        .filter(|name| name.parse::<u32>().is_ok())
        .count()
}

#[test]
fn jobs_of_a_shell_end_with_it() {
    let mut node = Node::new();
    node.start(&node.native("c1", &["sleep", "1000"]));
    node.started("c1");
    let before = processes(&mut node);
    // With job control each job is a process group of its own, here deaf to a hangup, too.
    let job = "set -m; trap '' HUP; sleep 1000 & sleep 1000 & echo jobs; ";
    for (end, status) in [
        ("exit 3", ExitStatus::Code(3)),
        ("cat", ExitStatus::Signal(9)),
    ] {
        let script = format!("{job} {end}");
        let mut screen = session(&node, &exec_spec("s1", &["sh", "-c", &script]));
        screen.until("jobs\n");
        if end == "cat" {
            assert_eq!(processes(&mut node), before + 4);
            node.send(&Request::SignalExec {
                session: id("s1"),
                signo: 9,
            });
        }
        assert_eq!(session_end(&mut node), status);
        until("the end of the jobs", || {
            (processes(&mut node) == before).then_some(())
        });
    }
}

#[test]
fn terminals_of_others_are_out_of_reach() {
    let mut node = Node::new();
    for name in ["c1", "c2"] {
        let mut spec = node.native(name, &["sleep", "1000"]);
        spec.ids = Ids::Host;
        node.start(&spec);
        node.started(name);
    }
    let mut screen = session(&node, &exec_spec("s1", &["cat"]));
    screen.line("mine\n");
    screen.until("mine\nmine\n");
    // The other container has the same number for no terminal at all.
    let mut other = exec_spec(
        "s2",
        &[
            "sh",
            "-c",
            "ls /dev/pts; echo pwned > /dev/pts/0; echo x > /dev/tty",
        ],
    );
    other.id = id("c2");
    let (_, text) = crate::exec::run(&mut node, &other);
    assert!(text.starts_with("ptmx\n"), "{text}");
    // What is pushed back into the input of one's own terminal stays there.
    let push = "ioctl(STDIN, 0x5412, my $c = $_) or print qq{refused\\n} for split //, qq{typed\\n}; \
                print qq{pushed\\n}; my $line = <STDIN>; print qq{got $line};";
    let mut exec = exec_spec("s3", &["perl", "-e", push]);
    exec.id = id("c2");
    let mut pushing = session(&node, &exec);
    pushing.until("pushed\n");
    pushing.line("end\n");
    pushing.until("got ");
    screen.line("still mine\n");
    screen.until("still mine\nstill mine\n");
    assert!(!screen.text.contains("pwned") && !screen.text.contains("typed"));
}

#[test]
fn thousands_of_sizes_are_taken_and_the_last_one_holds() {
    let mut node = Node::new();
    node.start(&node.native("c1", &["sleep", "1000"]));
    node.started("c1");
    let script = "echo ready; read -r line; stty size; exit 0";
    let mut screen = session(&node, &exec_spec("s1", &["sh", "-c", script]));
    screen.until("ready\n");
    for rows in 1..=5000 {
        screen.resize(WindowSize { rows, columns: 7 });
    }
    screen.line("\n");
    screen.until("5000 7\n");
}

#[test]
fn there_is_none_without_files_and_none_where_none_was_wanted() {
    let mut node = Node::new();
    let mut wanted = spec(&node, "c1", "true");
    wanted.output = Output::Discard;
    node.start(&wanted);
    assert!(node.start_failure("c1").contains("needs output files"));
    node.start(&node.native("c2", &["sleep", "1000"]));
    node.started("c2");
    let words = |name| attach(&node, name, None).unwrap_err().to_string();
    assert_eq!(words("c2"), "it has no terminal");
    assert_eq!(words("c3"), "the container does not run");
}

#[test]
fn it_outlives_the_outlet() {
    let mut node = Node::new();
    node.start(&spec(
        &node,
        "c1",
        "stty -echo; while read -r line; do echo $line; done",
    ));
    node.started("c1");
    let mut first = watch(&node, "c1");
    first.until_said("one");
    let outlet = || helper(&node, "gantry-outlet");
    let former = outlet().unwrap();
    kill_9(former);
    until("another outlet", || outlet().filter(|pid| *pid != former));
    while first.read() {}
    watch(&node, "c1").until_said("two");
    until("both in the file", || {
        node.output("c1", "stdout")
            .ends_with("one\r\ntwo\r\n")
            .then_some(())
    });
}
