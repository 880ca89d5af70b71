//! What is read and not changed: the system endpoints, Mesos's view, the proxy, the page, and the
//! exact JSON of an app.

use axum::body::Body;
use axum::extract::Request;
use serde_json::{Value, json};

use super::{Cluster, node};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_looks_exactly_so() {
    let cluster = Cluster::start().await;
    let made = cluster
        .call("POST", "/v2/apps", r#"{"id":"a","cmd":"sleep 1"}"#)
        .await;
    assert_eq!(made.status, 201, "{}", made.text);
    let mut app = cluster.get("/v2/apps/a").await.json()["app"].take();
    let version = app["version"].as_str().unwrap().to_owned();
    assert!(version.ends_with('Z') && version.len() == 24, "{version}");
    let port = app["portDefinitions"][0]["port"].as_u64().unwrap();
    assert!((10_000..=20_000).contains(&port));
    let deployment = made.header("marathon-deployment-id");
    // Timestamps and the assigned port are the only things that vary.
    for place in [
        "/version",
        "/versionInfo/lastScalingAt",
        "/versionInfo/lastConfigChangeAt",
    ] {
        assert_eq!(app.pointer(place), Some(&json!(version)), "{place}");
        *app.pointer_mut(place).unwrap() = json!("V");
    }
    let want = json!({
        "id": "/a",
        "cmd": "sleep 1",
        "backoffFactor": 1.15,
        "backoffSeconds": 1,
        "cpus": 1,
        "disk": 0,
        "executor": "",
        "gpus": 0,
        "instances": 1,
        "killSelection": "YOUNGEST_FIRST",
        "labels": {},
        "maxLaunchDelaySeconds": 300,
        "mem": 128,
        "networks": [{ "mode": "host" }],
        "portDefinitions": [{ "port": port, "name": "default", "protocol": "tcp" }],
        "requirePorts": false,
        "role": "*",
        "unreachableStrategy": { "inactiveAfterSeconds": 0, "expungeAfterSeconds": 0 },
        "upgradeStrategy": { "maximumOverCapacity": 1, "minimumHealthCapacity": 1 },
        "version": "V",
        "versionInfo": { "lastConfigChangeAt": "V", "lastScalingAt": "V" },
        "tasksHealthy": 0,
        "tasksRunning": 0,
        "tasksStaged": 0,
        "tasksUnhealthy": 0,
        "deployments": [{ "id": deployment }],
        "tasks": [],
    });
    assert_eq!(app, want);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn system_endpoints_answer() {
    let cluster = Cluster::start().await;
    let port = cluster.handle().node().http_port;
    assert_eq!(cluster.get("/ping").await.text, "pong");
    let ping = Request::builder().uri("/ping").header("host", "localhost");
    let ping = ping
        .header("accept", "application/json")
        .body(Body::empty())
        .unwrap();
    assert_eq!(cluster.send(ping).await.text, "\"pong\"");
    let leader = cluster.get("/v2/leader").await.json();
    assert_eq!(leader, json!({ "leader": format!("127.0.0.1:{port}") }));
    let info = cluster.get("/v2/info").await.json();
    assert_eq!(
        (&info["name"], &info["elected"]),
        (&json!("marathon"), &json!(true))
    );
    assert!(info["version"].as_str().unwrap().starts_with("1.11."));
    assert!(info["frameworkId"].as_str().unwrap().ends_with("-marathon"));
    assert_eq!(cluster.get("/health").await.text, "");
    assert!(cluster.get("/version").await.json()["version"].is_string());
    assert!(cluster.get("/metrics").await.json()["gauges"].is_object());
    assert_eq!(cluster.call("HEAD", "/v2/apps", "").await.status, 200);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_is_seen_and_reached() {
    let cluster = Cluster::start().await;
    node::connect(&cluster.dir.path().join("agent.sock")).await;
    let seen = |seen: &Value| seen["slaves"][0]["active"] == true;
    let state = cluster.until("/mesos/master/state/", seen).await;
    assert_eq!(state["cluster"], "test");
    let id = state["slaves"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(cluster.get("/state").await.json()["slaves"][0]["id"], id);
    let slaves = cluster.get("/slaves").await.json();
    assert_eq!(slaves["slaves"][0]["resources"]["cpus"], 4.0);
    assert_eq!(slaves["slaves"][0]["hostname"], "10.1.2.3");
    let one = async |id: &str| {
        let seen = cluster.get(&format!("/slaves?slave_id={id}")).await.json();
        seen["slaves"].as_array().unwrap().len()
    };
    assert_eq!((one(&id).await, one("none").await), (1, 0));
    let summary = cluster.get("/state-summary").await.json();
    assert_eq!(summary["slaves"][0]["TASK_RUNNING"], 0);
    assert_eq!(summary["frameworks"][0]["name"], "marathon");
    let numbers = cluster.get("/metrics/snapshot").await.json();
    assert_eq!(numbers["master/slaves_active"], 1.0);
    assert_eq!(numbers["master/cpus_total"], 4.0);

    for (uri, want) in [
        (format!("/agent/{id}/state?x=%2F"), "/state?x=%2F"),
        (format!("/agent/{id}"), "/"),
        (format!("/agent/{id}/"), "/"),
        (format!("/slave/{id}/slave(1)/a//b/"), "/slave(1)/a//b/"),
    ] {
        let answer = cluster.get(&uri).await;
        assert_eq!(
            (answer.status.as_u16(), answer.text.as_str()),
            (200, want),
            "{uri}"
        );
        assert_eq!(
            answer.header("content-security-policy"),
            "default-src 'none'; frame-ancestors 'none'; sandbox"
        );
    }
    let climbing = cluster.get(&format!("/agent/{id}/%2e%2e/x")).await;
    assert_eq!(climbing.status, 400);
    let path = format!("/files/read?path=/data/slaves/{id}/frameworks/f/stdout&offset=0&length=9");
    assert_eq!(cluster.get(&path).await.text, path);
    assert_eq!(cluster.get(&format!("/master{path}")).await.text, path);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_runs_only_its_own_script() {
    let cluster = Cluster::start().await;
    for uri in ["/", "/ui", "/ui/", "/service/marathon/ui/"] {
        let page = cluster.get(uri).await;
        assert_eq!(page.status, 200, "{uri}");
        let policy = page.header("content-security-policy");
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self';"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe"));
        assert!(page.text.contains("<title>Gantry</title>"));
        // Nothing inline, nothing from elsewhere.
        assert!(!page.text.contains("style=\"") && !page.text.contains(" onclick"));
        assert_eq!(page.text.matches("<script").count(), 1);
        for link in page
            .text
            .split("src=\"")
            .chain(page.text.split("href=\""))
            .skip(1)
        {
            assert!(link.starts_with('/') || link.starts_with("data:") || link.starts_with("<!"));
        }
    }
    let script = cluster.get("/page.js").await;
    assert!(script.header("content-type").starts_with("text/javascript"));
    assert!(!script.text.contains("innerHTML") && !script.text.contains("eval("));
    assert!(
        cluster
            .get("/page.css")
            .await
            .header("content-type")
            .starts_with("text/css")
    );
    for uri in ["/", "/v2/apps", "/nowhere", "/page.js"] {
        let answer = cluster.get(uri).await;
        for (name, value) in [
            ("cache-control", "no-store"),
            ("x-frame-options", "DENY"),
            ("x-content-type-options", "nosniff"),
        ] {
            assert_eq!(answer.header(name), value, "{uri} {name}");
        }
    }
    cluster.stop().await;
}
