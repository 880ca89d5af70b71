//! Bad input: each a clear answer in the API's own form, and the node goes on.

use gantry_tests::node::Node;
use gantry_tests::poll::until;
use serde_json::json;

/// Method, path, body, status and what the answer must name.
const REFUSALS: &[(&str, &str, &str, u16, &str)] = &[
    ("POST", "/v2/apps", "{nope", 400, "Invalid JSON"),
    ("POST", "/v2/apps", r#"{"id": 5, "cmd": "x"}"#, 422, "/id"),
    ("POST", "/v2/apps", r#"{"cmd": "x"}"#, 422, "/id"),
    (
        "POST",
        "/v2/apps",
        r#"{"id": "/x", "cmd": "x", "cpus": "a"}"#,
        422,
        "/cpus",
    ),
    (
        "POST",
        "/v2/apps",
        r#"{"id": "/x", "cmd": "x", "mem": -1}"#,
        422,
        "/mem",
    ),
    (
        "POST",
        "/v2/apps",
        r#"{"id": "/x", "cmd": "x", "mem": 1e300}"#,
        422,
        "/mem",
    ),
    (
        "POST",
        "/v2/apps",
        r#"{"id": "/x", "cmd": "x", "instances": -1}"#,
        422,
        "/instances",
    ),
    (
        "POST",
        "/v2/apps",
        r#"{"id": "/X Y", "cmd": "x"}"#,
        422,
        "/id",
    ),
    ("POST", "/v2/apps", r#"{"id": "/x"}"#, 422, "cmd"),
    (
        "POST",
        "/v2/apps",
        r#"{"id": "/x", "cmd": "x", "wat": 1}"#,
        422,
        "wat",
    ),
    (
        "POST",
        "/v2/apps",
        r#"{"id": "/x", "cmd": "x", "healthChecks": [{}]}"#,
        422,
        "healthChecks",
    ),
    (
        "GET",
        "/v2/apps/none",
        "",
        404,
        "App '/none' does not exist",
    ),
    ("DELETE", "/v2/apps/none", "", 404, "does not exist"),
    ("DELETE", "/v2/deployments/none", "", 404, "does not exist"),
    ("GET", "/files/read?path=/etc/passwd", "", 404, ""),
    ("GET", "/agent/none/state", "", 404, ""),
];

#[test]
fn the_api_refuses_in_its_own_form() {
    let node = Node::start(&[]);
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let mut rows = REFUSALS.to_vec();
    rows.push(("POST", "/v2/apps", deep.as_str(), 400, "Invalid JSON"));
    for (method, path, body, status, needle) in rows {
        let answer = node.raw(method, path, body);
        let text = answer.body.to_string();
        assert_eq!(answer.status, status, "{method} {path} {body:.60}: {text}");
        assert!(text.contains(needle), "{method} {path}: {text}");
    }
    let big = format!(r#"{{"id": "/big", "cmd": "{}"}}"#, "x".repeat(40 << 20));
    let status = node.raw("POST", "/v2/apps", &big).status;
    assert!(status == 413 || status == 422, "{status}");
    node.add_app(&json!({"id": "/x", "cmd": "sleep 1000", "cpus": 0.1, "mem": 32}));
    let twice = node.post("/v2/apps", &json!({"id": "/x", "cmd": "sleep 1"}));
    assert_eq!(twice.status, 409, "{}", twice.body);
    node.wait_running("/x", 1);
}

#[test]
fn what_cannot_run_says_why() {
    let node = Node::start(&[]);
    node.add_app(&json!({"id": "/huge", "cmd": "true", "cpus": 0.1, "mem": 99_999_999}));
    node.add_app(&json!({"id": "/nocmd", "args": ["/no/such/program"], "cpus": 0.1, "mem": 32}));
    node.add_app(
        &json!({"id": "/nouser", "cmd": "true", "user": "nobody-here", "cpus": 0.1, "mem": 32}),
    );
    until("the queue names the missing memory", || {
        let queue = node.get("/v2/queue").body;
        let item = queue["queue"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|q| q["app"]["id"] == "/huge");
        let text = item.map(ToString::to_string).unwrap_or_default();
        if text.contains("InsufficientMemory") {
            Ok(())
        } else {
            Err(queue.to_string())
        }
    });
    let message = node.wait_failure("/nocmd");
    assert!(message.contains("/no/such/program"), "{message}");
    let message = node.wait_failure("/nouser");
    assert!(message.contains("nobody-here"), "{message}");
}

#[test]
fn a_port_in_use_is_told() {
    let node = Node::start(&[]);
    let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    // Outside the node's range: the offer never has it, and the queue says so.
    node.add_app(&json!({
        "id": "/port", "cmd": "sleep 1000", "cpus": 0.1, "mem": 32, "requirePorts": true,
        "portDefinitions": [{"port": port}]
    }));
    until(
        "the queue names the port, or the task's failure does",
        || {
            let queue = node.get("/v2/queue").body.to_string();
            let failure = node.get("/v2/apps/port").body["app"]["lastTaskFailure"].to_string();
            let told = queue.contains("InsufficientPorts") || failure.contains(&port.to_string());
            if told {
                Ok(())
            } else {
                Err(format!("{queue} {failure}"))
            }
        },
    );
    // Inside the range but held by a process that is not ours.
    let inside = (31000..32000).find_map(|p| {
        std::net::TcpListener::bind(("0.0.0.0", p))
            .ok()
            .map(|l| (p, l))
    });
    let (port, _listener) = inside.unwrap();
    node.add_app(&json!({
        "id": "/held", "cmd": "sleep 1000", "cpus": 0.1, "mem": 32, "requirePorts": true,
        "portDefinitions": [{"port": port}]
    }));
    let message = node.wait_failure("/held");
    assert!(message.contains(&port.to_string()), "{message}");
}
