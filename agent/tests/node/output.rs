//! Output of tasks over HTTP: kept, bounded, followed.

use std::path::Path;

use gantry_wire::agent::{Launch, StatusUpdate};
use gantry_wire::task::TaskState;
use reqwest::{Response, StatusCode};

use crate::agent::{Node, run};
use crate::coordinator::{PATIENCE, shell};

/// Waits for a file that the test makes.
const GATE: &str = "until test -e go; do sleep 0.01; done;";

/// So many lines of eight bytes: what is at which place is known.
fn lines(count: usize) -> Vec<u8> {
    let lines = (0..count).map(|number| format!("{number:07}\n"));
    lines.collect::<String>().into_bytes()
}

fn write(from: usize, count: usize) -> String {
    format!("seq -f %07.0f {from} {};", from + count - 1)
}

/// A task with a logger of its own.
fn task(name: &str, command: &str, size: &str, options: &str) -> Launch {
    let mut launch = shell(name, command);
    for (name, value) in [
        ("CONTAINER_LOGGER_LOGROTATE_MAX_STDOUT_SIZE", size),
        ("CONTAINER_LOGGER_LOGROTATE_STDOUT_OPTIONS", options),
    ] {
        launch.env.insert(name.into(), value.into());
    }
    launch
}

async fn running(node: &Node, launch: Launch) -> StatusUpdate {
    let name = launch.task_id.clone();
    node.coordinator.launch(launch);
    node.coordinator.update(&name, TaskState::TaskRunning).await
}

fn open_gate(sandbox: &str) {
    std::fs::write(Path::new(sandbox).join("go"), "").unwrap();
}

async fn get(node: &Node, path: &str) -> Response {
    let answer = reqwest::get(node.url(path)).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "{path}");
    answer
}

fn place(answer: &Response, name: &str) -> usize {
    let value = answer.headers().get(name).unwrap();
    value.to_str().unwrap().parse().unwrap()
}

/// What is there of an output, as (place, bytes).
async fn stream(node: &Node, path: &str, query: &str) -> (usize, Vec<u8>) {
    let answer = get(node, &format!("/files/stream?path={path}{query}")).await;
    let at = place(&answer, "gantry-offset");
    (at, answer.bytes().await.unwrap().to_vec())
}

/// Follows an output to its end as a client does that goes on where it was; gives every connection
/// up after so many bytes. What was not kept is zero.
async fn follow(node: &Node, path: &str, give_up_after: usize) -> (Vec<u8>, usize) {
    let (mut all, mut holes, mut from) = (Vec::new(), 0, String::new());
    loop {
        let query = format!("/files/stream?path={path}&follow=true{from}");
        let mut answer = get(node, &query).await;
        let at = place(&answer, "gantry-offset");
        assert!(at >= all.len(), "{at} comes twice");
        holes += usize::from(at > all.len());
        all.resize(at, 0);
        while let Some(bytes) = tokio::time::timeout(PATIENCE, answer.chunk())
            .await
            .expect("it goes on")
            .unwrap()
        {
            all.extend(bytes);
            if all.len() - at >= give_up_after {
                break;
            }
        }
        if all.len() == at {
            return (all, holes);
        }
        from = format!("&offset={}", all.len());
    }
}

pub(crate) fn whoever_follows_loses_and_doubles_nothing() {
    run(async {
        let node = Node::start().await;
        // Thirteen files of 64 KiB, all of which are kept.
        let command = format!("{GATE} {}", write(0, 100_000));
        let launch = task("t", &command, "64KB", "rotate 15");
        let sandbox = running(&node, launch).await.sandbox;
        let path = format!("{sandbox}/stdout");
        let want = lines(100_000);
        let all = (0..100).map(|number| {
            // Most keep their connection; some lose it again and again.
            let most = if number % 10 == 9 {
                10_007 + number
            } else {
                usize::MAX
            };
            follow(&node, &path, most)
        });
        let gate = async {
            // Nothing is there yet; most are connected by the time that this is answered.
            let other = node.url("/metrics/snapshot");
            assert!(reqwest::get(other).await.unwrap().status().is_success());
            open_gate(&sandbox);
        };
        let (followed, ()) = tokio::join!(futures_util::future::join_all(all), gate);
        for (seen, holes) in followed {
            assert!(seen == want, "{} bytes of {}", seen.len(), want.len());
            assert_eq!(holes, 0);
        }
        node.coordinator.terminal("t").await;
        // It stays when the task has ended, as long as its sandbox.
        let (at, seen) = stream(&node, &path, "").await;
        assert!(at == 0 && seen == want);
        let (seen, holes) = follow(&node, &path, usize::MAX).await;
        assert!(seen == want && holes == 0);
        let (at, seen) = stream(&node, &path, "&lines=20000").await;
        assert!(at == 80_000 * 8 && seen == want[at..]);
        let (at, seen) = stream(&node, &path, "&lines=0").await;
        assert_eq!((at, seen.len()), (want.len(), 0));
        let (at, seen) = stream(&node, &path, "&offset=799990").await;
        assert_eq!((at, seen), (799_990, want[799_990..].to_vec()));
        let virtual_path = "/frameworks/fw/executors/t/runs/latest/stdout";
        assert!(stream(&node, virtual_path, "").await.1 == want);
    });
}

pub(crate) fn a_hole_is_said_and_never_passed_over() {
    run(async {
        let node = Node::start().await;
        let command = format!("{GATE} {}", write(0, 100_000));
        let launch = task("t", &command, "64KB", "rotate 1");
        let sandbox = running(&node, launch).await.sandbox;
        let path = format!("{sandbox}/stdout");
        let query = format!("/files/stream?path={path}&follow=true");
        let slow = get(&node, &query).await;
        open_gate(&sandbox);
        node.coordinator.terminal("t").await;
        // It is asked for its bytes only now: the connection holds some, the rest is gone.
        let want = lines(100_000);
        let first = slow.bytes().await.unwrap();
        assert!(want.starts_with(&first), "{} bytes", first.len());
        let from = format!("&offset={}", first.len());
        let (at, rest) = stream(&node, &path, &from).await;
        assert!(rest == want[at..]);
        // What is kept are at most two files.
        let (at, rest) = stream(&node, &path, "").await;
        assert!(
            at > 0 && rest == want[at..] && rest.len() <= 2 * 65_536,
            "{at}"
        );
        // One that begins in the hole, one after the end.
        assert_eq!(stream(&node, &path, "&offset=8").await.0, at);
        let past = stream(&node, &path, "&offset=99999999").await;
        assert_eq!(past, (want.len(), Vec::new()));
        let (seen, holes) = follow(&node, &path, usize::MAX).await;
        assert_eq!((seen.len(), holes), (want.len(), 1));
    });
}

pub(crate) fn tricks_with_names_mislead_nobody() {
    run(async {
        let node = Node::start().await;
        let secret = node.beside("secret");
        std::fs::write(secret.join("file"), "secret").unwrap();
        let tricks = [
            "rm stdout;".to_owned(),
            format!("rm stdout; ln -s {}/file stdout;", secret.display()),
            "mv stdout gone; echo fake > stdout;".to_owned(),
            "rm stdout.1; echo fake > stdout.1; mkfifo stdout.9;".to_owned(),
            "mv stdout.1 x; mv stdout.2 stdout.1; mv x stdout.2;".to_owned(),
            "rm stdout; mkdir -p stdout/a/b;".to_owned(),
        ];
        // Each is done in the middle of a file, and two are filled after it.
        let part = 24_576;
        let mut command = format!("{GATE} {}", write(0, part / 2));
        for (number, trick) in tricks.iter().enumerate() {
            let from = part / 2 + number * part;
            // What it wrote is in the file: the trick is no race with the outlet.
            let wait = format!("until test -e step{number}; do sleep 0.01; done;");
            command += &format!("{wait} {{ {trick} }} 2>/dev/null; {}", write(from, part));
        }
        let count = part / 2 + tricks.len() * part;
        let launch = task("t", &command, "64KB", "rotate 15");
        let sandbox = running(&node, launch).await.sandbox;
        let path = format!("{sandbox}/stdout");
        let query = format!("/files/stream?path={path}&follow=true");
        let mut early = get(&node, &query).await;
        open_gate(&sandbox);
        let want = lines(count);
        let mut seen = Vec::new();
        for step in 0..=tricks.len() {
            let until = (part / 2 + step * part) * 8;
            while seen.len() < until {
                let next = tokio::time::timeout(PATIENCE, early.chunk()).await;
                let next = next.unwrap_or_else(|_| panic!("step {step}: {}", seen.len()));
                let next = next.unwrap();
                seen.extend(next.unwrap_or_else(|| panic!("step {step}: {}", seen.len())));
            }
            assert!(seen == want[..until], "step {step}");
            std::fs::write(Path::new(&sandbox).join(format!("step{step}")), "").unwrap();
        }
        assert_eq!(early.chunk().await.unwrap(), None, "it ends with the task");
        node.coordinator.terminal("t").await;
        // Whoever comes later gets what is still there, at its right place.
        let (late, holes) = follow(&node, &path, usize::MAX).await;
        assert_eq!(late.len(), want.len());
        assert!(holes > 0, "files are gone");
        for (number, line) in late.chunks(8).enumerate() {
            let is_right = line == &want[number * 8..][..8] || line == [0; 8];
            assert!(is_right, "line {number}: {line:?}");
        }
    });
}

pub(crate) fn a_task_says_how_much_is_kept() {
    run(async {
        let node = Node::start().await;
        let bad = task("bad", "true", "10 parsecs", "rotate 1");
        node.coordinator.launch(bad);
        let ended = node.coordinator.terminal("bad").await;
        assert_eq!(ended.state, TaskState::TaskFailed as i32, "{ended:?}");
        assert!(ended.message.contains("10 parsecs"), "{}", ended.message);
        let negative = task("negative", "true", "4KB", "rotate -1");
        node.coordinator.launch(negative);
        let ended = node.coordinator.terminal("negative").await;
        assert!(ended.message.contains("rotate -1"), "{}", ended.message);

        let mut launch = task("t", &write(0, 10_000), "4KB", "compress\nrotate 2");
        let stderr = "CONTAINER_LOGGER_LOGROTATE_STDERR_OPTIONS";
        launch.env.insert(stderr.into(), "rotate 4000000000".into());
        let sandbox = running(&node, launch).await.sandbox;
        node.coordinator.terminal("t").await;
        let size = |name: &str| {
            let file = Path::new(&sandbox).join(name);
            file.metadata().map(|found| found.len()).ok()
        };
        let sizes = ["stdout", "stdout.1", "stdout.2", "stdout.3"].map(size);
        let rest = 80_000 % 4_096;
        assert_eq!(sizes, [Some(rest), Some(4_096), Some(4_096), None]);
        // By its name each is a file like any other.
        let piece = node.read(&format!("{sandbox}/stdout.2")).await;
        let at = 80_000 - usize::try_from(rest).unwrap() - 2 * 4_096;
        assert_eq!(piece.as_bytes(), &lines(10_000)[at..at + 4_096]);
        let log = std::fs::read_to_string(node.log()).unwrap();
        for words in ["'compress' has no meaning here", "15 old files at most"] {
            assert!(log.contains(words), "{words}");
        }
    });
}

pub(crate) fn bytes_are_given_as_they_are() {
    run(async {
        let node = Node::start().await;
        let command = r"printf 'a\000b\377\303(\033]0;x\007'";
        let sandbox = running(&node, shell("t", command)).await.sandbox;
        node.coordinator.terminal("t").await;
        let path = format!("{sandbox}/stdout");
        let want = b"a\0b\xff\xc3(\x1b]0;x\x07";
        assert_eq!(stream(&node, &path, "").await.1, want);
        let download = get(&node, &format!("/files/download?path={path}")).await;
        assert_eq!(download.bytes().await.unwrap().as_ref(), want);
        // In JSON each byte that is no text is one character: places stay right.
        assert_eq!(node.read(&path).await, "a\0b??(\u{1b}]0;x\u{7}");

        for (query, status) in [
            (format!("path={sandbox}/nothing"), 404),
            (format!("path={sandbox}"), 404),
            (format!("path={sandbox}/"), 400),
            (format!("path={sandbox}/../x"), 404),
            ("path=/etc/passwd".to_owned(), 404),
            (format!("path={path}&offset=-1"), 400),
            (format!("path={path}&offset=1&lines=1"), 400),
            (format!("path={path}&follow=perhaps"), 400),
            (String::new(), 400),
        ] {
            let url = node.url(&format!("/files/stream?{query}"));
            let answer = reqwest::get(url).await.unwrap();
            assert_eq!(answer.status().as_u16(), status, "{query}");
        }
    });
}
