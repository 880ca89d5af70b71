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
    ways_out(&registry, &node, &image);
}

/// What is wrong, and what to do about it; the exit code for scripts.
fn ways_out(registry: &Registry, node: &Node, image: &str) {
    let other = format!("{}/team/small:none", registry.host);
    let picked = registry.scratch().join("picked.tar").display().to_string();
    node.cli_ok(&["image", "export", image, "-o", &picked]);
    for (args, code, words) in [
        (vec!["pull", &other], 3, "not found at"),
        (vec!["pull", "Not A Name"], 2, "is not a repository name"),
        (vec!["pull", "127.0.0.1:1/x"], 1, "refused the connection"),
        (
            vec!["export", &other, "-o", &picked],
            3,
            "gantry image list",
        ),
        (vec!["remove", &other], 3, "no image"),
        (vec!["import", "/etc/passwd"], 1, "/etc/passwd: it is text"),
        (vec!["import", "/etc"], 2, "without index.json"),
        (vec!["import", &picked, "none:1"], 3, "it has 127.0.0.1:"),
    ] {
        let args = [vec!["image"], args].concat();
        let refused = node.cli(&args);
        assert_eq!(refused.status.code(), Some(code), "{args:?} {refused:?}");
        let text = String::from_utf8(refused.stderr).unwrap();
        assert!(text.contains(words), "{args:?}: {text}");
        assert!(!text.contains("coordinator answered"), "{args:?}: {text}");
        let refused = node.cli(&[args, vec!["--json"]].concat());
        let told: Value = serde_json::from_slice(&refused.stderr).unwrap();
        assert!(told["message"].is_string(), "{told}");
        assert_eq!(refused.status.code(), Some(code));
    }
    let given = ["image", "import", &picked, image, "--name", "given:1"];
    assert!(node.cli_ok(&given).contains("/given:1 sha256:"));
}
