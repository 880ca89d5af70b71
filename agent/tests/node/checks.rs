//! Tasks that are looked at while they run.

use gantry_wire::agent::{Launch, NetworkMode, StatusUpdate};
use gantry_wire::check::{Check, CommandProbe, HttpProbe, Probe, Purpose, TcpProbe};
use gantry_wire::task::{Reason, TaskState};

use crate::agent::{Node, run};
use crate::coordinator::{shell, state};

/// Answers every connection to the loopback address with what the file `answer` holds then. Perl
/// is part of every Debian.
const SERVER: &str = "exec perl -MIO::Socket::INET -e '\
    $s=IO::Socket::INET->new(LocalAddr=>\"127.0.0.1\",LocalPort=>8080,Listen=>5,ReuseAddr=>1) \
    or die; while($c=$s->accept){sysread($c,$x,4096); open F,\"<answer\"; \
    print $c <F>; close F; close $c}'";

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const SICK: &str = "HTTP/1.1 500 Oh no\r\ncontent-length: 0\r\n\r\n";

fn check(purpose: Purpose, probe: Probe) -> Check {
    Check {
        purpose: purpose as i32,
        interval_ms: 100,
        timeout_ms: 10_000,
        probe: Some(probe),
        ..Check::default()
    }
}

fn http(ignore_1xx: bool) -> Probe {
    Probe::Http(HttpProbe {
        port: 8080,
        path: "/health?x=1".to_owned(),
        ignore_1xx,
        ..HttpProbe::default()
    })
}

fn command(line: &str) -> Probe {
    Probe::Command(CommandProbe {
        shell: line.to_owned(),
        args: Vec::new(),
    })
}

/// A task with a loopback address of its own, so that no two tests meet.
fn looked_at(task: &str, line: &str, checks: Vec<Check>) -> Launch {
    Launch {
        network: NetworkMode::Bridge as i32,
        checks,
        ..shell(task, line)
    }
}

/// The first update of a task that satisfies.
async fn heard(
    node: &Node,
    task: &str,
    what: &str,
    wanted: impl Fn(&StatusUpdate) -> bool,
) -> StatusUpdate {
    node.coordinator
        .until(&format!("{task}: {what}"), |heard| {
            let updates = heard.updates.get(task)?;
            updates.iter().find(|update| wanted(update)).cloned()
        })
        .await
}

fn value(update: &StatusUpdate) -> Option<i32> {
    update.check.as_ref().and_then(|check| check.value)
}

fn cause(update: &StatusUpdate) -> &str {
    update.check.as_ref().map_or("", |check| &check.cause)
}

/// Replaces the server's answer in one step.
fn answer(sandbox: &str, text: &str) {
    let sandbox = std::path::Path::new(sandbox);
    std::fs::write(sandbox.join("answer.new"), text).unwrap();
    std::fs::rename(sandbox.join("answer.new"), sandbox.join("answer")).unwrap();
}

pub(crate) fn the_unhealthy_are_killed() {
    run(async {
        let mut node = Node::start().await;
        let health = Check {
            failures_to_kill: 3,
            grace_ms: 60_000,
            name: "front".to_owned(),
            ..check(Purpose::Health, http(false))
        };
        node.coordinator
            .launch(looked_at("web", SERVER, vec![health]));
        let running = node.coordinator.update("web", TaskState::TaskRunning).await;
        assert_eq!((running.healthy, running.check), (None, None));
        // What fails while it still starts does not count.
        answer(&running.sandbox, OK);
        let good = heard(&node, "web", "healthy", |u| u.healthy == Some(true)).await;
        assert_eq!(state(&good), TaskState::TaskRunning);
        let reason = Reason::ReasonTaskHealthCheckStatusUpdated as i32;
        assert_eq!((good.reason, value(&good)), (Some(reason), Some(200)));

        // The agent's death changes nothing: what was healthy stays so, and is looked at.
        node.kill_9();
        node.start_agent().await;
        answer(&running.sandbox, SICK);
        let bad = heard(&node, "web", "unhealthy", |u| u.healthy == Some(false)).await;
        assert_eq!(
            (value(&bad), state(&bad)),
            (Some(500), TaskState::TaskRunning)
        );
        let end = node.coordinator.terminal("web").await;
        assert_eq!(
            (state(&end), end.healthy),
            (TaskState::TaskKilled, Some(false))
        );
        let words = "The health check 'front' failed 3 times in a row (500). Command terminated";
        assert!(end.message.starts_with(words), "{}", end.message);
    });
}

pub(crate) fn every_kind_of_probe() {
    run(async {
        let node = Node::start().await;
        let dir = "openssl req -x509 -newkey rsa:2048 -nodes -keyout k -out c -days 1 -subj /CN=x \
                   2>/dev/null; openssl s_server -accept 127.0.0.1:8443 -cert c -key k -www -quiet \
                   >/dev/null 2>&1 & ";
        let https = Probe::Http(HttpProbe {
            tls: true,
            port: 8443,
            ..HttpProbe::default()
        });
        let tcp = |port| Probe::Tcp(TcpProbe { port, ipv6: false });
        let checks = vec![
            check(Purpose::Value, https),
            check(Purpose::Value, tcp(8080)),
            check(Purpose::Readiness, tcp(9)),
            check(Purpose::Value, command("exit $(cat code)")),
            check(Purpose::Value, command("no such command")),
            check(Purpose::Value, http(false)),
        ];
        let line = format!("echo 3 >code; {dir}{SERVER}");
        node.coordinator.launch(looked_at("t", &line, checks));
        let running = node.coordinator.update("t", TaskState::TaskRunning).await;
        answer(
            &running.sandbox,
            "HTTP/1.1 302 Found\r\nlocation: http://elsewhere/\r\n\r\n",
        );
        let found = |index: u32, wanted: Option<i32>| {
            move |u: &StatusUpdate| {
                u.check.as_ref().is_some_and(|c| c.index == index) && value(u) == wanted
            }
        };
        heard(
            &node,
            "t",
            "HTTPS, whose certificate is anybody's",
            found(0, Some(200)),
        )
        .await;
        let open = heard(&node, "t", "an open port", found(1, Some(1))).await;
        assert_eq!(open.healthy, None, "a value says nothing of health");
        let closed = heard(&node, "t", "a closed port", found(2, None)).await;
        assert!(cause(&closed).contains("refused"), "{closed:?}");
        heard(&node, "t", "an exit status", found(3, Some(3))).await;
        heard(&node, "t", "a shell's own status", found(4, Some(127))).await;
        heard(&node, "t", "a redirect to elsewhere", found(5, Some(302))).await;

        // What changes is told; a redirect to itself is followed, and an end to that.
        std::fs::write(std::path::Path::new(&running.sandbox).join("code"), "4").unwrap();
        heard(&node, "t", "another exit status", found(3, Some(4))).await;
        answer(
            &running.sandbox,
            "HTTP/1.1 302 Found\r\nlocation: /again\r\n\r\n",
        );
        heard(&node, "t", "redirects in a circle", |u| {
            cause(u).contains("more than 5 redirects")
        })
        .await;
        answer(&running.sandbox, OK);
        heard(&node, "t", "a good answer", found(5, Some(200))).await;
        answer(&running.sandbox, "nonsense\r\n\r\n");
        heard(&node, "t", "nonsense", |u| {
            cause(u).contains("invalid HTTP version")
        })
        .await;
    });
}

pub(crate) fn probes_that_say_nothing_or_never_end() {
    run(async {
        let node = Node::start().await;
        let stuck = Check {
            timeout_ms: 300,
            failures_to_kill: 2,
            ..check(Purpose::Health, command("echo x >>tried; exec sleep 86399"))
        };
        let checks = vec![check(Purpose::Health, http(true)), stuck.clone()];
        node.coordinator.launch(looked_at("t", SERVER, checks));
        let running = node.coordinator.update("t", TaskState::TaskRunning).await;
        // Informational only, again and again: no news, neither good nor bad.
        answer(&running.sandbox, "HTTP/1.1 103 Early Hints\r\n\r\n");
        let end = node.coordinator.terminal("t").await;
        assert_eq!(state(&end), TaskState::TaskKilled);
        let words = "The health check failed 2 times in a row: no answer within 300ms";
        assert!(end.message.starts_with(words), "{}", end.message);
        let sandbox = std::path::Path::new(&end.sandbox);
        let tried = std::fs::read_to_string(sandbox.join("tried")).unwrap();
        assert_eq!(tried, "x\n".repeat(2), "one at a time");

        // What took too long does not stay: they do not pile up.
        let count = "exit $(grep -lz '^8639[9]$' /proc/[0-9]*/cmdline 2>/dev/null | wc -l)";
        let alone = check(Purpose::Value, command(count));
        let stuck = Check {
            failures_to_kill: 0,
            ..stuck
        };
        node.coordinator
            .launch(looked_at("u", "sleep 1000", vec![stuck, alone]));
        heard(&node, "u", "a fifth try", |u| {
            u.check.as_ref().is_some_and(|c| c.failures >= 5)
        })
        .await;
        let updates = node.coordinator.heard.lock().unwrap().updates["u"].clone();
        let seen = updates
            .iter()
            .filter(|u| u.check.as_ref().is_some_and(|c| c.index == 1));
        let most = seen.filter_map(value).max();
        assert!(most.is_some_and(|most| most < 4), "{updates:#?}");
    });
}
