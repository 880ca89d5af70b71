//! A pull that takes its time says how far it is.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use gantry_tests::node::Node;
use gantry_tests::poll::until;
use gantry_tests::registry::{Layout, Registry, install_program};
use serde_json::json;

/// What the slow line carries in a second, and how much the image's layer has: a few seconds.
const BYTES_PER_S: usize = 2 << 20;
const LAYER_BYTES: usize = 12 << 20;

/// A slow line to `server`: its address.
fn slow_line(server: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect(&server) else {
                continue;
            };
            let both = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || carry(both.0, both.1, usize::MAX));
            std::thread::spawn(move || carry(server, client, BYTES_PER_S));
        }
    });
    address
}

fn carry(mut from: TcpStream, mut to: TcpStream, bytes_per_s: usize) {
    let mut chunk = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut chunk) {
        if to.write_all(&chunk[..length]).is_err() {
            break;
        }
        std::thread::sleep(
            Duration::from_secs(1) * u32::try_from(length).unwrap()
                / u32::try_from(bytes_per_s).unwrap_or(u32::MAX),
        );
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}

#[test]
fn a_slow_pull_is_told_in_the_tasks_status_and_by_the_cli() {
    let registry = Registry::start();
    let layout = Layout::new(registry.scratch(), "large");
    layout.layer(|root| {
        install_program(root, "/bin/sleep");
        let mut noise = vec![0; LAYER_BYTES];
        std::fs::File::open("/dev/urandom")
            .unwrap()
            .read_exact(&mut noise)
            .unwrap();
        std::fs::write(root.join("noise"), noise).unwrap();
    });
    registry.push(&layout, "large:1");
    let image = format!("{}/large:1", slow_line(registry.host.clone()));
    let node = Node::start(&[]);
    node.add_app(&json!({
        "id": "/large", "args": ["/bin/sleep", "1000"], "cpus": 0.1, "mem": 32,
        "container": {"type": "DOCKER", "docker": {"image": image}}
    }));
    let message = until("the pull in the task", || {
        let tasks = node.tasks("/large");
        let message = tasks.first().and_then(|task| task["message"].as_str());
        let message = message.map(str::to_owned);
        message.ok_or_else(|| format!("{tasks:?}"))
    });
    assert!(
        message.starts_with("pulling image: ") && message.ends_with(" MB"),
        "{message}"
    );
    let listed = node.cli_ok(&["task", "list"]);
    assert!(listed.contains("starting: pulling image: "), "{listed}");
    let state = node.get("/state").body;
    let statuses = &state["frameworks"][0]["tasks"][0]["statuses"];
    let latest = statuses.as_array().unwrap().last().unwrap();
    assert_eq!(latest["state"], "TASK_STARTING", "{statuses}");
    assert!(latest["message"].as_str().is_some(), "{statuses}");
    let running = node.wait_running("/large", 1);
    assert_eq!(running[0]["message"], json!(null));
}
