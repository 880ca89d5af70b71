//! An app with `fetch`: from its definition to the script that runs.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;

use gantry_tests::node::Node;
use gantry_tests::poll::until;
use serde_json::json;

/// Serves one script for every path; its `host:port`.
fn serve(script: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|length| length > 2) {}
            let length = script.len();
            let head =
                format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
            // Who asked may be gone.
            let _ = stream.write_all((head + script).as_bytes());
        }
    });
    host
}

#[test]
fn an_app_runs_the_script_that_it_has_fetched() {
    let host = serve("#!/bin/sh\necho fetched and run by $(id -u)\nexec sleep 1000\n");
    let node = Node::start(&["--fetch-from", &host]);
    let uri = format!("http://{host}/start.sh");
    node.add_app(&json!({
        "id": "/fetching", "cmd": "exec bin/start", "cpus": 0.1, "mem": 32,
        "fetch": [{"uri": uri, "executable": true, "destPath": "bin/start", "cache": true}]
    }));
    node.add_app(&json!({
        "id": "/old", "cmd": "exec sh start.sh", "cpus": 0.1, "mem": 32, "user": "1234:1234",
        "uris": [uri]
    }));
    for (app, id) in [("/fetching", 0), ("/old", 1234)] {
        let task = &node.wait_running(app, 1)[0];
        until("the script's output", || {
            let text = node.output(task["id"].as_str().unwrap());
            let ran = text.contains(&format!("fetched and run by {id}"));
            ran.then_some(()).ok_or(text)
        });
    }
    let app = node.get("/v2/apps/old").body;
    assert_eq!(app["app"]["fetch"][0]["uri"], uri.as_str());
}

#[test]
fn what_an_author_may_not_have_fetched_is_said() {
    let node = Node::start(&[]);
    let api = node.url("/v2/apps");
    node.add_app(&json!({
        "id": "/spy", "cmd": "sleep 1000", "cpus": 0.1, "mem": 32,
        "fetch": [{"uri": api.replace("http://", "http://me:secret@")}]
    }));
    let failure = node.wait_failure("/spy");
    assert!(failure.contains(&format!("fetching '{api}'")), "{failure}");
    assert!(failure.contains("this machine itself"), "{failure}");
}
