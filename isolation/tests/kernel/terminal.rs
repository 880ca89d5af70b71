//! A terminal as stdin, stdout, stderr and controlling terminal, and its size.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use gantry_isolation::caps;
use gantry_isolation::keeper::{Event, ExecSpec, Request};
use gantry_isolation::spec::{ContainerSpec, ExitStatus, Ids, Output, User};
use nix::pty::{Winsize, openpty};

use crate::node::{Node, id};

const SMALL: Winsize = Winsize {
    ws_row: 10,
    ws_col: 20,
    ws_xpixel: 0,
    ws_ypixel: 0,
};
const LARGE: Winsize = Winsize {
    ws_row: 33,
    ws_col: 44,
    ..SMALL
};

/// As whoever holds the master does.
fn resize(master: &std::fs::File, to: &Winsize) {
    let (rows, columns) = (to.ws_row.to_string(), to.ws_col.to_string());
    let mut stty = std::process::Command::new("stty");
    stty.args(["rows", &rows, "cols", &columns])
        .stdin(master.try_clone().unwrap());
    assert!(stty.status().unwrap().success());
}

/// Says its size at first and whenever told of another one; ends by a line of input.
const SCRIPT: &str = "trap 'stty size; echo resized' WINCH; tty -s && echo terminal; stty size; \
                      echo ready > /dev/tty; while ! read -r line; do :; done; echo \"got $line\"; exit 7";

/// Both sides of a terminal.
struct Pair {
    master: std::fs::File,
    slave: OwnedFd,
}

fn pair() -> Pair {
    let made = openpty(Some(&SMALL), None).unwrap();
    Pair {
        master: made.master.into(),
        slave: made.slave,
    }
}

/// Reads until the text ends with `end`, and gives all of it.
fn read_until(master: &mut std::fs::File, text: &mut String, end: &str) {
    let mut bytes = [0; 256];
    while !text.replace('\r', "").contains(end) {
        let got = master.read(&mut bytes).unwrap_or(0);
        assert!(got > 0, "{text:?}, not {end:?}");
        text.push_str(&String::from_utf8_lossy(&bytes[..got]));
    }
}

/// Plays the other side of [`SCRIPT`]. Letting the master go would hang up.
fn talk(pair: Pair) -> std::fs::File {
    let Pair { mut master, slave } = pair;
    drop(slave);
    let mut text = String::new();
    read_until(&mut master, &mut text, "terminal\n10 20\nready\n");
    resize(&master, &LARGE);
    read_until(&mut master, &mut text, "33 44\nresized\n");
    master.write_all(b"hello\n").unwrap();
    read_until(&mut master, &mut text, "got hello\n");
    master
}

fn spec(node: &Node, name: &str, script: &str) -> ContainerSpec {
    let mut spec = node.shell(name, script);
    spec.output = Output::Discard;
    spec.terminal = true;
    spec
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
        let mut spec = spec(&node, name, SCRIPT);
        spec.ids = ids;
        spec.user = User::Ids { uid, gid: uid };
        spec.init = init;
        let pair = pair();
        node.start_with(&spec, &[pair.slave.as_fd()]);
        let _held = talk(pair);
        assert_eq!(node.exited(name).0, ExitStatus::Code(7));
    }
}

#[test]
fn a_session_has_one_of_its_own() {
    let mut node = Node::new();
    for (name, ids) in [("c1", Ids::Host), ("c2", Ids::Private)] {
        let mut container = node.native(name, &["sleep", "1000"]);
        container.ids = ids;
        node.start(&container);
        node.started(name);
        let exec = ExecSpec {
            session: id("s1"),
            id: id(name),
            argv: ["sh", "-c", SCRIPT].map(str::to_owned).to_vec(),
            env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
            cwd: None,
            user: User::Root,
            tty: true,
            capabilities: caps::default_set(),
        };
        let pair = pair();
        let request = Request::Exec {
            exec: Box::new(exec),
        };
        node.client
            .request(&request, &[pair.slave.as_fd(); 3])
            .unwrap();
        let _held = talk(pair);
        let status = node.wait("the session's end", |event| match event {
            Event::ExecExited { status, .. } => Some(*status),
            _ => None,
        });
        assert_eq!(status, ExitStatus::Code(7));
    }
}

#[test]
fn one_that_did_not_come_along_is_missed() {
    let mut node = Node::new();
    let mut wanted = spec(&node, "c1", "true");
    node.start(&wanted);
    let words = "check the spec: no terminal came with the request";
    assert_eq!(node.start_failure("c1"), words);
    wanted.output = Output::files(node.path("sandbox-c1"), 0, 0);
    node.start(&wanted);
    assert!(node.start_failure("c1").contains("no output files"));
}
