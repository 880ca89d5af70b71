//! `gantry image` on a node that runs: what a task uses stays, over the death of gantry too, and
//! images go out and in by file.

use gantry_tests::kernel::run;
use gantry_tests::node::Node;
use gantry_tests::poll::until;
use gantry_tests::registry::{Layout, Registry, install_program};
use serde_json::{Value, json};

fn small(registry: &Registry) -> String {
    let layout = Layout::new(registry.scratch(), "small");
    layout.layer(|root| install_program(root, "/bin/sleep"));
    registry.push(&layout, "team/small:1")
}

fn images(node: &Node) -> Vec<Value> {
    let text = node.cli_ok(&["image", "list", "--json"]);
    serde_json::from_str(&text).unwrap()
}

#[test]
fn images_of_a_running_node() {
    let registry = Registry::start();
    let image = small(&registry);
    let mut node = Node::start(&[]);
    assert!(node.cli_ok(&["image", "pull", &image]).contains("sha256:"));
    assert_eq!(images(&node).len(), 1);
    assert_eq!(images(&node)[0]["in_use"], false);
    node.add_app(&json!({
        "id": "/small", "args": ["/bin/sleep", "1000"], "cpus": 0.1, "mem": 32,
        "container": {"type": "DOCKER", "docker": {"image": image}}
    }));
    let task = node.wait_running("/small", 1)[0]["id"].clone();
    assert_eq!(images(&node)[0]["in_use"], true);

    let refused = node.cli(&["image", "remove", &image]);
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    node.cli_ok(&["image", "prune", "--all"]);
    assert_eq!(images(&node).len(), 1);
    // A store that an agent has open is nobody else's.
    let dir = node.dir().join("data").display().to_string();
    let refused = node.cli(&["image", "list", "--data-dir", &dir]);
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");

    node.kill_9();
    node.boot();
    assert_eq!(node.wait_running("/small", 1)[0]["id"], task);
    until("the agent is back", || {
        let pruned = node.cli(&["image", "prune", "--all"]);
        let done = pruned.status.success();
        if done {
            Ok(())
        } else {
            Err(format!("{pruned:?}"))
        }
    });
    assert_eq!(
        images(&node)[0]["in_use"],
        true,
        "held for the task that lived on"
    );

    let archive = registry.scratch().join("small.tar").display().to_string();
    node.cli_ok(&[
        "image", "export", &image, "-o", &archive, "--format", "docker",
    ]);
    let inspected = run("skopeo", &["inspect", &format!("docker-archive:{archive}")]);
    assert!(inspected.contains("\"Layers\""), "{inspected}");
    node.cli_ok(&["app", "remove", "/small"]);
    until("the image is let go", || {
        let report = node.cli_ok(&["image", "prune", "--all", "--json"]);
        let left = images(&node);
        if left.is_empty() { Ok(()) } else { Err(report) }
    });
    node.cli_ok(&["image", "import", &archive]);
    let imported = images(&node);
    assert_eq!(imported[0]["names"][0], image.as_str());
    let missing = node.cli(&["image", "inspect", "no/such"]);
    assert_eq!(missing.status.code(), Some(3), "{missing:?}");
    let broken = node.cli(&["image", "import", "/etc/passwd"]);
    assert_eq!(broken.status.code(), Some(1), "{broken:?}");
}
