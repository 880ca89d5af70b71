//! Bridge networking: an address of its own, a host port that reaches it from the host and from
//! another container.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use gantry_tests::kernel::namespace;
use gantry_tests::node::Node;
use gantry_tests::poll::until;
use serde_json::{Value, json};

fn fetch(address: &str) -> Result<String, String> {
    let mut stream = TcpStream::connect_timeout(
        &address.parse().map_err(|e| format!("{address}: {e}"))?,
        Duration::from_secs(2),
    )
    .map_err(|e| format!("{address}: {e}"))?;
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .map_err(|e| e.to_string())?;
    stream
        .write_all(b"GET /name HTTP/1.0\r\n\r\n")
        .map_err(|e| e.to_string())?;
    let mut text = String::new();
    stream
        .read_to_string(&mut text)
        .map_err(|e| e.to_string())?;
    Ok(text)
}

fn server(id: &str) -> Value {
    json!({
        "id": id,
        "cmd": "echo $MARATHON_APP_ID > name; exec python3 -m http.server 8080",
        "cpus": 0.2, "mem": 64, "networks": [{"mode": "container/bridge"}],
        "container": {"type": "MESOS", "portMappings": [
            {"containerPort": 8080, "hostPort": 0, "name": "http"}
        ]}
    })
}

#[test]
fn a_mapped_port_reaches_the_container_from_host_and_container() {
    let node = Node::start(&[]);
    node.add_app(&server("/web"));
    let web = node.wait_running("/web", 1).remove(0);
    let port = web["ports"][0].as_u64().unwrap();
    let host = web["host"].as_str().unwrap();
    let ip = web["ipAddresses"][0]["ipAddress"]
        .as_str()
        .unwrap()
        .to_owned();
    let pid = node.task_pid(web["id"].as_str().unwrap());
    assert_ne!(namespace(&pid.to_string(), "net"), namespace("self", "net"));

    for address in [
        format!("127.0.0.1:{port}"),
        format!("{host}:{port}"),
        format!("{ip}:8080"),
    ] {
        until(&format!("{address} answers"), || {
            let text = fetch(&address)?;
            if text.contains("/web") {
                Ok(())
            } else {
                Err(text)
            }
        });
    }

    let script = format!(
        "import urllib.request as u\n\
         for a in ['{host}:{port}', '{ip}:8080']:\n    \
         print(a, u.urlopen('http://' + a + '/name', timeout=5).read().decode().strip())\n\
         print('done', flush=True)\nimport time; time.sleep(1000)"
    );
    for (id, networks) in [
        ("/peer", json!([{"mode": "container/bridge"}])),
        ("/host", json!([{"mode": "host"}])),
    ] {
        let app = json!({
            "id": id, "args": ["python3", "-c", script], "cpus": 0.2, "mem": 64,
            "networks": networks
        });
        node.add_app(&app);
        let task = node.wait_running(id, 1).remove(0);
        until(&format!("{id} read both"), || {
            let text = node.output(task["id"].as_str().unwrap());
            let good = text.matches("/web").count() == 2 && text.contains("done");
            if good { Ok(()) } else { Err(text) }
        });
    }
}

#[test]
fn services_of_the_host_on_loopback_stay_out_of_reach_of_a_bridged_task() {
    let node = Node::start(&[]);
    let script = format!(
        "import socket\nfor a in ['127.0.0.1']:\n  s = socket.socket(); s.settimeout(2)\n  \
         print('result', s.connect_ex((a, {})), flush=True)\nimport time; time.sleep(1000)",
        node.port
    );
    node.add_app(&json!({
        "id": "/in", "args": ["python3", "-c", script], "cpus": 0.2, "mem": 64,
        "networks": [{"mode": "container/bridge"}]
    }));
    let task = node.wait_running("/in", 1).remove(0);
    let text = until("a result", || {
        let text = node.output(task["id"].as_str().unwrap());
        if text.contains("result") {
            Ok(text)
        } else {
            Err(text)
        }
    });
    assert!(!text.contains("result 0"), "the API was reached: {text}");
}
