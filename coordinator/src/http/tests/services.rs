//! A service from POST to DELETE, as a client sees it, with an agent that plays along.

use serde_json::{Value, json};

use super::{Cluster, node};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_lives_and_ends() {
    let cluster = Cluster::start().await;
    node::connect(&cluster.dir.path().join("agent.sock")).await;
    let body = r#"{"id":"/g/web","cmd":"sleep 100","cpus":0.1,"mem":32,"instances":2}"#;
    let made = cluster.call("POST", "/v2/apps", body).await;
    assert_eq!(made.status, 201, "{}", made.text);
    assert_eq!(made.header("location"), "/v2/apps/g/web");
    let deployment = made.header("marathon-deployment-id").to_owned();
    assert_eq!(made.json()["deployments"], json!([{ "id": deployment }]));
    assert_eq!(made.json()["tasks"], json!([]));

    let runs = |n: u64| move |seen: &Value| seen["app"]["tasksRunning"] == n;
    let app = cluster.until("/v2/apps//g/web", runs(2)).await;
    let tasks = app["app"]["tasks"].as_array().unwrap().clone();
    assert_eq!(tasks.len(), 2);
    assert!(
        tasks
            .iter()
            .all(|task| task["host"] == "10.1.2.3" && task["state"] == "TASK_RUNNING")
    );
    cluster
        .until("/v2/deployments", |seen| *seen == json!([]))
        .await;
    assert_eq!(
        cluster.get("/v2/queue").await.json(),
        json!({ "queue": [] })
    );
    listings(&cluster, &tasks).await;

    let changed = cluster
        .call("PUT", "/v2/apps/g/web", r#"{"instances":3}"#)
        .await;
    assert_eq!(changed.status, 200, "{}", changed.text);
    assert_eq!(
        changed.json()["deploymentId"],
        changed.header("marathon-deployment-id")
    );
    assert!(changed.json()["version"].is_string());
    cluster.until("/v2/apps/g/web", runs(3)).await;
    let versions = cluster.get("/v2/apps/g/web/versions").await.json();
    let versions = versions["versions"].as_array().unwrap().clone();
    assert_eq!(versions.len(), 2);
    let first = versions[1].as_str().unwrap();
    let old = cluster
        .get(&format!("/v2/apps/g/web/versions/{first}"))
        .await;
    assert_eq!(old.json()["instances"], 2, "{}", old.text);

    killing(&cluster).await;
    let gone = cluster.call("DELETE", "/v2/apps/g/web", "").await;
    assert_eq!(gone.status, 200, "{}", gone.text);
    cluster
        .until("/v2/tasks", |seen| *seen == json!({ "tasks": [] }))
        .await;
    cluster
        .until("/v2/apps", |seen| *seen == json!({ "apps": [] }))
        .await;
    cluster.stop().await;
}

async fn listings(cluster: &Cluster, tasks: &[Value]) {
    for uri in [
        "/v2/tasks",
        "/v2/tasks?status=running",
        "/v2/apps/g/web/tasks",
        "/v2/apps/g/*/tasks",
    ] {
        assert_eq!(
            cluster.get(uri).await.json()["tasks"]
                .as_array()
                .unwrap()
                .len(),
            2,
            "{uri}"
        );
    }
    assert_eq!(
        cluster.get("/v2/tasks?status[]=staging").await.json(),
        json!({ "tasks": [] })
    );
    for (uri, n) in [
        ("/v2/apps", 1),
        ("/v2/apps?id=WEB", 1),
        ("/v2/apps?id=none", 0),
        ("/v2/apps?cmd=sleep", 1),
        ("/v2/apps?cmd=none", 0),
        ("/v2/apps?label=x", 0),
        ("/service/marathon/v2/apps/", 1),
    ] {
        let seen = cluster.get(uri).await.json();
        assert_eq!(seen["apps"].as_array().unwrap().len(), n, "{uri}");
    }
    assert_eq!(
        cluster.get("/v2/apps/g/*").await.json()["*"][0]["id"],
        "/g/web"
    );
    assert!(
        cluster.get("/v2/apps").await.json()["apps"][0]
            .get("tasks")
            .is_none()
    );
    let with = cluster.get("/v2/apps?embed=apps.tasks").await.json();
    assert_eq!(with["apps"][0]["tasks"].as_array().unwrap().len(), 2);
    let id = tasks[0]["id"].as_str().unwrap();
    assert_eq!(
        cluster
            .get(&format!("/v2/apps/g/web/tasks/{id}"))
            .await
            .json()["task"]["id"],
        id
    );
    let text = axum::extract::Request::builder()
        .uri("/v2/tasks")
        .header("host", "localhost")
        .header("accept", "text/plain")
        .body(axum::body::Body::empty())
        .unwrap();
    let text = cluster.send(text).await.text;
    let fields: Vec<&str> = text.trim_end().split('\t').collect();
    assert_eq!((fields[0], fields.len()), ("g_web", 4), "{text:?}");
    assert!(fields[2].starts_with("10.1.2.3:310"), "{text:?}");
}

/// One task is replaced, one is taken away for good, and all by id.
async fn killing(cluster: &Cluster) {
    let ids = async |uri: &str| -> Vec<String> {
        let seen = cluster.get(uri).await.json();
        let all = seen["tasks"].as_array().unwrap().clone();
        all.iter()
            .map(|task| task["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let before = ids("/v2/apps/g/web/tasks").await;
    let one = format!("/v2/apps/g/web/tasks/{}", before[0]);
    let killed = cluster.call("DELETE", &one, "").await;
    assert_eq!(
        (killed.status.as_u16(), &killed.json()["task"]["id"]),
        (200, &json!(before[0]))
    );
    let replaced = |seen: &Value| {
        let tasks = seen["tasks"].as_array().unwrap();
        let running = tasks.iter().filter(|task| task["state"] == "TASK_RUNNING");
        running.filter(|task| task["id"] != before[0]).count() == 3
    };
    cluster.until("/v2/apps/g/web/tasks", replaced).await;
    let other_host = cluster
        .call("DELETE", "/v2/apps/g/web/tasks?host=elsewhere", "")
        .await;
    assert_eq!(
        (other_host.status.as_u16(), other_host.json()),
        (200, json!({ "tasks": [] }))
    );

    cluster
        .until("/v2/deployments", |seen| *seen == json!([]))
        .await;
    let one = ids("/v2/apps/g/web/tasks").await.remove(0);
    let scaled = cluster
        .call(
            "DELETE",
            &format!("/v2/apps/g/web/tasks/{one}?scale=true"),
            "",
        )
        .await;
    assert!(scaled.json()["deploymentId"].is_string(), "{}", scaled.text);
    let shrunk = |seen: &Value| seen["app"]["instances"] == 2 && seen["app"]["tasksRunning"] == 2;
    cluster.until("/v2/apps/g/web", shrunk).await;

    cluster
        .until("/v2/deployments", |seen| *seen == json!([]))
        .await;
    let all = json!({ "ids": ids("/v2/tasks").await }).to_string();
    let killed = cluster.call("POST", "/v2/tasks/delete", &all).await;
    assert_eq!(
        killed.json()["tasks"].as_array().unwrap().len(),
        2,
        "{}",
        killed.text
    );
    let restarted = cluster
        .call("POST", "/v2/apps/g/web/restart?force=True", "")
        .await;
    assert_eq!(restarted.status, 200, "{}", restarted.text);
    cluster
        .until("/v2/apps/g/web", |seen| seen["app"]["tasksRunning"] == 2)
        .await;
    cluster
        .until("/v2/deployments", |seen| *seen == json!([]))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_locks_and_is_cancelled() {
    let cluster = Cluster::start().await;
    // No agent: the deployment cannot end.
    let made = cluster
        .call("POST", "/v2/apps", r#"{"id":"/a","cmd":"x"}"#)
        .await;
    let id = made.header("marathon-deployment-id").to_owned();
    let running = cluster.get("/v2/deployments").await.json();
    assert_eq!(
        (&running[0]["id"], &running[0]["affectedApps"]),
        (&json!(id), &json!(["/a"]))
    );
    let locked = cluster.call("PUT", "/v2/apps/a", r#"{"cmd":"y"}"#).await;
    assert_eq!(locked.status, 409);
    let want = json!({
        "message": "App is locked by one or more deployments. Override with the option \
                    '?force=true'. View details at '/v2/deployments/<DEPLOYMENT_ID>'.",
        "deployments": [{ "id": id }],
    });
    assert_eq!(locked.json(), want);
    let forced = cluster
        .call("PUT", "/v2/apps/a?force=TRUE", r#"{"cmd":"y"}"#)
        .await;
    assert_eq!(forced.status, 200, "{}", forced.text);
    let id = forced.header("marathon-deployment-id").to_owned();
    let cancelled = cluster
        .call("DELETE", &format!("/v2/deployments/{id}?force=true"), "")
        .await;
    assert_eq!(
        (cancelled.status.as_u16(), cancelled.text.as_str()),
        (202, "")
    );
    assert_eq!(cluster.get("/v2/deployments").await.json(), json!([]));
    let put = cluster
        .call("PUT", "/v2/apps/b", r#"{"cmd":"z","instances":0}"#)
        .await;
    assert_eq!(put.status, 201, "{}", put.text);
    let many = r#"[{"id":"/c","cmd":"c","instances":0},{"id":"/d","cmd":"d","instances":0}]"#;
    assert_eq!(cluster.call("PUT", "/v2/apps", many).await.status, 200);
    let missing = cluster
        .call(
            "PATCH",
            "/v2/apps",
            r#"[{"id":"/c","cmd":"c2"},{"id":"/e"}]"#,
        )
        .await;
    assert_eq!(missing.status, 404, "{}", missing.text);
    let waiting = cluster
        .until("/v2/queue", |seen| seen["queue"][0]["count"] == 1)
        .await;
    assert_eq!(waiting["queue"][0]["app"]["id"], "/a");
    cluster.stop().await;
}
