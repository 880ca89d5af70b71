//! Every kind of bad request: exact status and body.

use axum::body::Body;
use axum::extract::Request;
use serde_json::{Value, json};

use super::Cluster;

fn message(text: &str) -> Value {
    json!({ "message": text })
}

/// Method, path, body, status, and the message or the whole body as JSON.
type Case = (&'static str, &'static str, &'static str, u16, &'static str);

const NO_URI: &str = "URI not found";
const NO_METHOD: &str = "Method not allowed";
const NO_APP: &str = "App '/none' does not exist";
const NO_PATH: &str = "Expecting 'path=value' in query.";
const NO_FILE: &str = "No such file or directory";
const NO_AGENT: &str = "Agent 'none' does not exist";
const NO_GROUPS: &str = "Groups: not built yet in this version of Gantry";
const BOTH: &str = "You cannot use scale and wipe at the same time.";
const HELLO: &str = r#"{"id":"/hello","cmd":"sleep 1"}"#;

const ROUTES: &[Case] = &[
    ("GET", "/none", "", 404, NO_URI),
    ("GET", "/v2", "", 404, NO_URI),
    ("GET", "/v2/none", "", 404, NO_URI),
    ("DELETE", "/v2/queue/none", "", 404, NO_URI),
    ("POST", "/v2/apps/hello", "{}", 405, NO_METHOD),
    ("PUT", "/v2/apps/hello/tasks", "{}", 405, NO_METHOD),
    ("GET", "/v2/apps/hello/restart", "", 405, NO_METHOD),
    ("DELETE", "/v2/apps", "", 405, NO_METHOD),
    ("POST", "/v2/tasks", "", 405, NO_METHOD),
    ("POST", "/ping", "", 405, NO_METHOD),
    ("POST", "/state", "", 405, NO_METHOD),
    ("POST", "/files/read", "", 405, NO_METHOD),
    ("GET", "/v2/groups", "", 501, NO_GROUPS),
    ("POST", "/v2/groups/g", "{}", 501, NO_GROUPS),
    (
        "GET",
        "/v2/pods",
        "",
        501,
        "Pods: not built yet in this version of Gantry",
    ),
    (
        "GET",
        "/v2/events",
        "",
        501,
        "The event stream: not built yet in this version of Gantry",
    ),
];

const UNKNOWN: &[Case] = &[
    ("GET", "/v2/apps/none", "", 404, NO_APP),
    ("GET", "/v2/apps//none", "", 404, NO_APP),
    ("GET", "/v2/apps/%2Fnone", "", 404, NO_APP),
    ("GET", "/v2/apps/none/tasks", "", 404, NO_APP),
    ("GET", "/v2/apps/none/versions", "", 404, NO_APP),
    ("PATCH", "/v2/apps/none", r#"{"instances":1}"#, 404, NO_APP),
    ("DELETE", "/v2/apps/none", "", 404, NO_APP),
    ("POST", "/v2/apps/none/restart", "", 404, NO_APP),
    ("DELETE", "/v2/apps/none/tasks", "", 404, NO_APP),
    (
        "DELETE",
        "/v2/apps/hello/tasks/none",
        "",
        404,
        "Task 'none' does not exist",
    ),
    (
        "GET",
        "/v2/apps/hello/versions/x",
        "",
        404,
        "App '/hello' with version 'x' does not exist",
    ),
    (
        "DELETE",
        "/v2/deployments/none",
        "",
        404,
        "DeploymentPlan none does not exist",
    ),
    (
        "DELETE",
        "/v2/queue/none/delay",
        "",
        404,
        "Application /none not found in tasks queue.",
    ),
    ("GET", "/agent/none/state", "", 404, NO_AGENT),
    ("GET", "/slave/none", "", 404, NO_AGENT),
    ("GET", "/files/read?path=/etc/passwd", "", 404, NO_FILE),
    (
        "GET",
        "/files/read?path=/x/slaves/none/stdout",
        "",
        404,
        NO_FILE,
    ),
    (
        "GET",
        "/files/read?path=/frameworks/f/executors/none/runs/latest",
        "",
        404,
        NO_FILE,
    ),
];

const WRONG: &[Case] = &[
    (
        "DELETE",
        "/v2/apps/hello/tasks?scale=true&wipe=true",
        "",
        400,
        BOTH,
    ),
    (
        "POST",
        "/v2/tasks/delete?scale=true&wipe=true",
        r#"{"ids":[]}"#,
        400,
        BOTH,
    ),
    (
        "POST",
        "/v2/tasks/delete",
        r#"{"ids":["a/b"]}"#,
        400,
        "'a/b' is not a valid task id",
    ),
    (
        "POST",
        "/v2/tasks/delete",
        "[]",
        400,
        r#"Expecting a body {"ids":["…"]}"#,
    ),
    ("GET", "/v2/apps/Bad", "", 422, "'Bad' is not a valid id"),
    (
        "GET",
        "/v2/apps?label=a%3Db",
        "",
        422,
        "label selector 'a=b' is not valid at character 1: expected ',' or the end",
    ),
    (
        "POST",
        "/v2/apps",
        HELLO,
        409,
        "An app with id [/hello] already exists.",
    ),
    (
        "POST",
        "/v2/apps",
        r#"{"id":"/a","cmd":"x","cpus":"1"}"#,
        422,
        r#"{"message":"Invalid JSON",
            "details":[{"path":"/cpus","errors":["error.expected.jsnumber"]}]}"#,
    ),
    (
        "POST",
        "/v2/apps",
        r#"{"cmd":"x"}"#,
        422,
        r#"{"message":"Invalid JSON","details":[{"path":"/id","errors":["error.path.missing"]}]}"#,
    ),
    ("GET", "/files/read", "", 400, NO_PATH),
    ("GET", "/files/browse?path=", "", 400, NO_PATH),
    (
        "GET",
        "/files/read?path=/x&offset=a",
        "",
        400,
        "Failed to parse offset.",
    ),
    (
        "GET",
        "/files/read?path=/x&offset=-2",
        "",
        400,
        "Negative offset provided.",
    ),
    (
        "GET",
        "/files/read?path=/x&length=x",
        "",
        400,
        "Failed to parse length.",
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_bad_request_has_its_answer() {
    let cluster = Cluster::start().await;
    assert_eq!(cluster.call("POST", "/v2/apps", HELLO).await.status, 201);
    for &(method, uri, body, status, want) in [ROUTES, UNKNOWN, WRONG].into_iter().flatten() {
        let answer = cluster.call(method, uri, body).await;
        let what = format!("{method} {uri} {body}");
        let want = serde_json::from_str(want).unwrap_or_else(|_| message(want));
        assert_eq!(answer.status, status, "{what}: {}", answer.text);
        assert_eq!(answer.json(), want, "{what}");
        assert_eq!(answer.header("content-type"), "application/json", "{what}");
        if status == 405 && uri == "/v2/tasks" {
            assert_eq!(answer.header("allow"), "GET,HEAD");
        }
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_are_no_json_too_large_or_too_deep() {
    let cluster = Cluster::start().await;
    for (body, text) in [
        (
            String::new(),
            "EOF while parsing a value at line 1 column 0",
        ),
        (
            "{".to_owned(),
            "EOF while parsing an object at line 1 column 1",
        ),
        ("\u{0}".to_owned(), "expected value at line 1 column 1"),
        (
            "[".repeat(100_000),
            "recursion limit exceeded at line 1 column 128",
        ),
    ] {
        for (method, uri) in [("POST", "/v2/apps"), ("PUT", "/v2/apps/a")] {
            let answer = cluster.call(method, uri, &body).await;
            assert_eq!(answer.status, 400, "{method} {uri}: {}", answer.text);
            assert_eq!(
                answer.json(),
                json!({ "message": "Invalid JSON", "details": text })
            );
        }
    }
    let large = format!("\"{}\"", "x".repeat(super::super::body::BODY_MAX_BYTES));
    for (method, uri) in [
        ("POST", "/v2/apps"),
        ("PUT", "/v2/apps"),
        ("POST", "/v2/tasks/delete"),
    ] {
        let answer = cluster.call(method, uri, &large).await;
        assert_eq!(answer.status, 413);
        let text = "The body of a request may have at most 1048576 bytes";
        assert_eq!(answer.json(), message(text));
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_sites_are_refused_before_anything_happens() {
    let cluster = Cluster::start().await;
    let post = |host: &str, origin: &str| {
        Request::builder()
            .method("POST")
            .uri("/v2/apps")
            .header("host", host)
            .header("origin", origin)
            .body(Body::from(r#"{"id":"/a","cmd":"x"}"#))
            .unwrap()
    };
    for (host, origin) in [
        ("evil.example", "http://evil.example"),
        ("localhost:5050", "http://evil.example"),
        ("localhost:5050", "null"),
    ] {
        let answer = cluster.send(post(host, origin)).await;
        assert_eq!(answer.status, 403, "{host} {origin}");
        assert!(answer.json()["message"].is_string());
    }
    assert_eq!(cluster.get("/v2/apps").await.json(), json!({ "apps": [] }));
    assert_eq!(
        cluster
            .send(post("localhost:5050", "http://localhost:5050"))
            .await
            .status,
        201
    );
    let unknown = Request::builder()
        .uri("/nowhere")
        .header("host", "evil.example");
    let answer = cluster.send(unknown.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status, 403);
    assert_eq!(answer.header("cache-control"), "no-store");
    cluster.stop().await;
}
