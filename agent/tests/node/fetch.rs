//! What a task has fetched: there before it starts, its own, and gone with it when it is killed.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use gantry_wire::agent::{Launch, Uri};
use gantry_wire::task::{Reason, TaskState};

use crate::agent::{Node, run};
use crate::coordinator::{shell, state};

/// Serves files by name; holds its answers back while it is closed.
struct Server {
    host: String,
    open: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    hung_up: Arc<AtomicUsize>,
}

impl Server {
    fn start(files: Vec<(&'static str, Vec<u8>)>, open: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            host: listener.local_addr().unwrap().to_string(),
            open: Arc::new(AtomicBool::new(open)),
            asked: Arc::default(),
            hung_up: Arc::default(),
        };
        let (open, asked) = (server.open.clone(), server.asked.clone());
        let (hung_up, files) = (server.hung_up.clone(), Arc::new(files));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (open, asked) = (open.clone(), asked.clone());
                let (hung_up, files) = (hung_up.clone(), files.clone());
                std::thread::spawn(move || answer(stream, &files, &open, &asked, &hung_up));
            }
        });
        server
    }

    fn uri(&self, name: &str) -> Uri {
        Uri {
            value: format!("http://me:secret@{}/{name}", self.host),
            extract: true,
            ..Uri::default()
        }
    }
}

fn answer(
    mut stream: TcpStream,
    files: &[(&str, Vec<u8>)],
    open: &AtomicBool,
    asked: &AtomicUsize,
    hung_up: &AtomicUsize,
) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let name = line
        .split(' ')
        .nth(1)
        .unwrap()
        .trim_start_matches('/')
        .to_owned();
    while reader.read_line(&mut line).is_ok_and(|length| length > 2) {}
    asked.fetch_add(1, Ordering::Relaxed);
    let found = files.iter().find(|(file, _)| *file == name);
    let Some((_, content)) = found else {
        let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
        return;
    };
    let length = content.len();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    if !open.load(Ordering::Relaxed) {
        // Returns when the other end closes.
        let _ = stream.read(&mut [0; 1]);
        hung_up.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let _ = stream.write_all(content);
}

fn packed(dir: &Path) -> Vec<u8> {
    let script = "mkdir -p app/bin; printf '#!/bin/sh\\necho the program ran\\n' >app/bin/run; \
                  chmod 755 app/bin/run; tar czf app.tgz app";
    let mut command = std::process::Command::new("sh");
    let done = command.args(["-ec", script]).current_dir(dir).status();
    assert!(done.unwrap().success());
    std::fs::read(dir.join("app.tgz")).unwrap()
}

fn with(task: &str, command: &str, uris: Vec<Uri>) -> Launch {
    Launch {
        uris,
        ..shell(task, command)
    }
}

pub(crate) fn files_are_there_before_the_task() {
    run(async {
        let node = Node::start().await;
        let script = b"#!/bin/sh\necho the script ran\n".to_vec();
        let app = packed(&node.beside("made"));
        let server = Server::start(vec![("script", script), ("app.tgz", app)], true);
        let uris = || {
            let script = Uri {
                executable: true,
                output_file: "bin/go".into(),
                ..server.uri("script")
            };
            vec![server.uri("app.tgz"), script]
        };
        let command = "bin/go && app/bin/run && ls -lnd app app/bin/run bin/go app.tgz && \
                       touch app/mine && echo done";
        for (task, user, ids) in [("root", "", "0 0"), ("other", "1234:567", "1234 567")] {
            let mut launch = with(task, command, uris());
            launch.user = user.into();
            // What is accounted holds the files too.
            launch.resources.as_mut().unwrap().disk_bytes = 64 << 20;
            node.coordinator.launch(launch);
            let end = node.coordinator.terminal(task).await;
            let stdout = node.read(&format!("{}/stdout", end.sandbox)).await;
            assert_eq!(
                state(&end),
                TaskState::TaskFinished,
                "{}: {stdout}",
                end.message
            );
            for line in ["the script ran", "the program ran", "done"] {
                assert!(stdout.lines().any(|l| l == line), "{stdout}");
            }
            let owned = stdout.lines().filter(|line| {
                let fields: Vec<_> = line.split_whitespace().collect();
                fields.len() > 4 && fields[2..4].join(" ") == ids
            });
            assert_eq!(owned.count(), 4, "{stdout}");
        }
    });
}

pub(crate) fn what_cannot_be_had_is_said() {
    run(async {
        let node = Node::start().await;
        let broken = Server::start(vec![("bad.tgz", b"no archive".to_vec())], true);
        let of = |value: &str| Uri {
            value: value.into(),
            ..Uri::default()
        };
        let host = broken.host.clone();
        for (task, uri, why) in [
            (
                "missing",
                broken.uri("none"),
                format!("'http://{host}/none': {host} answered with status 404"),
            ),
            (
                "broken",
                broken.uri("bad.tgz"),
                format!("'http://{host}/bad.tgz': it is not a tar.gz archive"),
            ),
            (
                "scheme",
                of("ftp://me:secret@a/b"),
                "'ftp://a/b': the scheme 'ftp' is not".into(),
            ),
            (
                "private",
                of("/etc/shadow"),
                "is not readable for everyone".into(),
            ),
            (
                "own",
                of(&format!("{}/agent.json", node.data().display())),
                "not readable".into(),
            ),
            (
                "here",
                of("http://localhost:5051/state"),
                "this machine itself".into(),
            ),
            (
                "cloud",
                of("http://169.254.169.254/latest"),
                "link-local".into(),
            ),
        ] {
            node.coordinator.launch(with(task, "true", vec![uri]));
            let end = node.coordinator.terminal(task).await;
            let reason = Reason::ReasonContainerLaunchFailed as i32;
            assert_eq!(
                (state(&end), end.reason),
                (TaskState::TaskFailed, Some(reason))
            );
            let said = end
                .message
                .starts_with("Failed to launch the task: fetching '");
            assert!(said && end.message.contains(&why), "{}", end.message);
            assert!(!end.message.contains("secret"), "{}", end.message);
        }
    });
}

pub(crate) fn a_kill_ends_a_fetch() {
    run(async {
        let node = Node::start().await;
        let server = Server::start(vec![("slow", b"x".to_vec())], false);
        for cache in [false, true] {
            let task = format!("t-{cache}");
            let uri = Uri {
                cache,
                ..server.uri("slow")
            };
            let before = server.asked.load(Ordering::Relaxed);
            node.coordinator.launch(with(&task, "true", vec![uri]));
            let asked = |_: &_| (server.asked.load(Ordering::Relaxed) > before).then_some(());
            node.coordinator.until("the download", asked).await;
            node.coordinator.kill(&task, 60_000);
            let end = node.coordinator.terminal(&task).await;
            assert_eq!(state(&end), TaskState::TaskKilled, "{}", end.message);
            let gone = |_: &_| (server.hung_up.load(Ordering::Relaxed) > before).then_some(());
            node.coordinator
                .until("the end of the download", gone)
                .await;
        }
    });
}

pub(crate) fn a_crash_leaves_nothing_half() {
    run(async {
        let mut node = Node::start().await;
        let server = Server::start(vec![("slow", b"whole".to_vec())], false);
        let uri = Uri {
            cache: true,
            ..server.uri("slow")
        };
        node.coordinator
            .launch(with("t", "ls -a; cat slow", vec![uri]));
        let asked = |_: &_| (server.asked.load(Ordering::Relaxed) > 0).then_some(());
        node.coordinator.until("the download", asked).await;
        let starting = node.coordinator.update("t", TaskState::TaskStarting).await;
        node.kill_9();
        // As if it had died while it placed what it had.
        std::fs::create_dir_all(&starting.sandbox).unwrap();
        let half = Path::new(&starting.sandbox).join("half");
        std::fs::create_dir(&half).unwrap();
        std::fs::write(half.join("slow"), "wh").unwrap();
        std::fs::write(Path::new(&starting.sandbox).join("slow"), "wh").unwrap();
        server.open.store(true, Ordering::Relaxed);
        node.start_agent().await;
        let end = node.coordinator.terminal("t").await;
        assert_eq!(state(&end), TaskState::TaskFinished, "{}", end.message);
        let stdout = node.read(&format!("{}/stdout", end.sandbox)).await;
        assert!(
            stdout.ends_with("whole") && !stdout.contains("half"),
            "{stdout}"
        );
        let parts = std::fs::read_dir(node.data().join("fetch/parts")).unwrap();
        assert_eq!(parts.count(), 0);
    });
}
