//! The router from outside, in process: real state, consensus and log in a temporary directory,
//! and an agent that speaks the real protocol over the real socket but runs nothing.

mod bad_input;
mod node;
mod reads;
mod services;

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use serde_json::Value;
use tempfile::TempDir;
use tower::ServiceExt;

use crate::handle::Handle;
use crate::{Config, Running};

/// How long a condition may take to come true.
const DEADLINE: Duration = Duration::from_secs(20);

/// A coordinator with its router.
struct Cluster {
    router: Router,
    running: Running,
    dir: TempDir,
}

/// What came back.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {}", self.text))
    }

    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

impl Cluster {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            data_dir: dir.path().join("coordinator"),
            listen: "127.0.0.1:0".parse().unwrap(),
            agent_socket: dir.path().join("agent.sock"),
            agents: None,
            cluster_name: "test".to_owned(),
            hostname: "127.0.0.1".to_owned(),
        };
        let running = crate::start(config).await.unwrap();
        let router = super::router(running.handle().clone(), None);
        Self {
            router,
            running,
            dir,
        }
    }

    fn handle(&self) -> &Handle {
        self.running.handle()
    }

    async fn send(&self, request: Request) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 64 << 20).await.unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Answer {
            status: parts.status,
            headers: parts.headers,
            text,
        }
    }

    async fn call(&self, method: &str, uri: &str, body: &str) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header("host", "localhost:5050");
        self.send(request.body(Body::from(body.to_owned())).unwrap())
            .await
    }

    async fn get(&self, uri: &str) -> Answer {
        self.call("GET", uri, "").await
    }

    /// Repeats a read until it satisfies the condition; fails with the last answer.
    async fn until(&self, uri: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut changes = self.handle().changes();
        let end = tokio::time::Instant::now() + DEADLINE;
        loop {
            let seen = self.get(uri).await.json();
            if wanted(&seen) {
                return seen;
            }
            assert!(tokio::time::Instant::now() < end, "{uri} stays {seen}");
            // Some of what is read is no part of the replicated state, so look again anyway.
            let _ = tokio::time::timeout(Duration::from_millis(50), changes.changed()).await;
        }
    }

    async fn stop(self) {
        self.running.shutdown().await;
        drop(self.dir);
    }
}
