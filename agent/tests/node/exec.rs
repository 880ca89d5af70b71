//! Processes inside running containers, over HTTP.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use gantry_wire::task::TaskState;
use serde_json::{Value, json};

use crate::agent::{Node, processes, run};
use crate::coordinator::shell;

async fn call(node: &Node, body: Value) -> reqwest::Response {
    let client = reqwest::Client::new();
    client
        .post(node.url("/api/v1"))
        .json(&body)
        .send()
        .await
        .unwrap()
}

fn launch(container: &str, session: &str, command: &Value) -> Value {
    json!({
        "type": "LAUNCH_NESTED_CONTAINER_SESSION",
        "launch_nested_container_session": {
            "container_id": {"value": session, "parent": {"value": container}},
            "command": command,
        },
    })
}

/// Takes whole records off the front.
fn records(buffer: &mut Vec<u8>) -> Vec<Value> {
    let mut found = Vec::new();
    loop {
        let Some(newline) = buffer.iter().position(|&b| b == b'\n') else {
            return found;
        };
        let length: usize = std::str::from_utf8(&buffer[..newline])
            .unwrap()
            .parse()
            .unwrap();
        if buffer.len() < newline + 1 + length {
            return found;
        }
        let rest = buffer.split_off(newline + 1 + length);
        found.push(serde_json::from_slice(&buffer[newline + 1..]).unwrap());
        *buffer = rest;
    }
}

/// Output as (stdout, stderr).
async fn output(mut response: reqwest::Response) -> (Vec<u8>, Vec<u8>) {
    let (mut out, mut err, mut buffer) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(chunk) = response.chunk().await.unwrap() {
        buffer.extend(chunk);
        for record in records(&mut buffer) {
            if record["type"] == "DATA" {
                let data = BASE64
                    .decode(record["data"]["data"].as_str().unwrap())
                    .unwrap();
                let into = if record["data"]["type"] == "STDOUT" {
                    &mut out
                } else {
                    &mut err
                };
                into.extend(data);
            }
        }
    }
    (out, err)
}

async fn wait(node: &Node, container: &str, session: &str) -> Value {
    let body = json!({
        "type": "WAIT_CONTAINER",
        "wait_container": {"container_id": {"value": session, "parent": {"value": container}}},
    });
    let response = call(node, body).await;
    assert_eq!(response.status(), 200);
    serde_json::from_str(&response.text().await.unwrap()).unwrap()
}

async fn refusals(node: &Node, container: &str) {
    let sleep = json!({"shell": true, "value": "true"});
    let no_stream = json!({"type": "ATTACH_CONTAINER_INPUT"});
    let nothing = json!({"shell": false, "value": "/no/such"});
    let missing = json!({"type": "WAIT_CONTAINER"});
    for (body, status, words) in [
        (launch("nowhere", "s5", &sleep), 404, "not running"),
        (launch(container, "s6", &nothing), 400, "/no/such"),
        (no_stream, 415, "ATTACH_CONTAINER_INPUT"),
        (missing, 400, "wait_container"),
        (json!([1]), 400, "parse"),
        (json!({"type": "NO_SUCH_CALL"}), 400, "'type'"),
    ] {
        let response = call(node, body.clone()).await;
        assert_eq!(response.status().as_u16(), status, "{body}");
        let text = response.text().await.unwrap();
        assert!(text.contains(words), "{body}: {text}");
    }
}

pub(crate) fn output_status_and_refusals() {
    run(async {
        let node = Node::start().await;
        let mut task = shell("t", "echo $$ > /tmp/here; sleep 1000");
        task.env.insert("COLOUR".into(), "green".into());
        node.coordinator.launch(task);
        let container = node
            .coordinator
            .update("t", TaskState::TaskRunning)
            .await
            .container_id;

        let line = "until test -e /tmp/here; do sleep 0.01; done; \
                    echo $COLOUR; ls /tmp; pwd; echo oops >&2; exit 3";
        let command = json!({"shell": true, "value": line});
        let response = call(&node, launch(&container, "s1", &command)).await;
        assert_eq!(response.status(), 200);
        let (out, err) = output(response).await;
        assert_eq!(
            String::from_utf8_lossy(&out),
            "green\nhere\n/mnt/mesos/sandbox\n"
        );
        assert_eq!(String::from_utf8_lossy(&err), "oops\n");
        assert_eq!(
            wait(&node, &container, "s1").await["wait_container"]["exit_status"],
            3 << 8
        );

        let command =
            json!({"shell": false, "value": "printf", "arguments": ["x", "%s-%s", "a b", "c"]});
        let (out, _) = output(call(&node, launch(&container, "s2", &command)).await).await;
        assert_eq!(String::from_utf8_lossy(&out), "a b-c");

        // Whoever goes away takes the process along.
        let command = json!({"shell": true, "value": "echo on; exec sleep 98765"});
        let mut response = call(&node, launch(&container, "s3", &command)).await;
        response.chunk().await.unwrap();
        drop(response);
        let sleeper = || {
            processes().into_iter().find(|pid| {
                let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                line == b"sleep\x0098765\0"
            })
        };
        node.coordinator
            .until("the sleeper's end", |_| sleeper().is_none().then_some(()))
            .await;

        refusals(&node, &container).await;
        let client = reqwest::Client::new();
        let evil = client
            .get(node.url("/state"))
            .header("Host", "evil.example")
            .send()
            .await
            .unwrap();
        assert_eq!(evil.status(), 403);
        node.coordinator.kill("t", 0);
        node.coordinator.terminal("t").await;
    });
}

pub(crate) fn a_flood_does_not_grow_memory() {
    run(async {
        const FLOOD: usize = 100 << 20;
        let node = Node::start().await;
        let mut task = shell("t", "sleep 1000");
        task.resources.as_mut().unwrap().cpus_milli = 2_000;
        node.coordinator.launch(task);
        let container = node
            .coordinator
            .update("t", TaskState::TaskRunning)
            .await
            .container_id;
        let peak_kib = || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("VmHWM:"))
                .unwrap();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
        };
        let before = peak_kib();
        let command = json!({"shell": true, "value": format!("head -c {FLOOD} /dev/zero")});
        let mut response = call(&node, launch(&container, "s", &command)).await;
        // A client that does not read for a while, then reads all.
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        let (mut total, mut buffer) = (0, Vec::new());
        while let Some(chunk) = response.chunk().await.unwrap() {
            buffer.extend(chunk);
            for record in records(&mut buffer) {
                if record["type"] == "DATA" {
                    total += BASE64
                        .decode(record["data"]["data"].as_str().unwrap())
                        .unwrap()
                        .len();
                }
            }
        }
        assert_eq!(total, FLOOD);
        let grown = peak_kib() - before;
        assert!(grown < 16 * 1024, "grew by {grown} KiB");
        assert_eq!(
            wait(&node, &container, "s").await["wait_container"]["exit_status"],
            0
        );
        node.coordinator.kill("t", 0);
        node.coordinator.terminal("t").await;
    });
}
