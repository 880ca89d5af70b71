//! The same path with an image from a real registry.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use gantry_tests::node::Node;
use gantry_tests::poll::until;
use gantry_tests::registry::{Layout, Registry, install_program};
use serde_json::json;

fn write(root: &Path, path: &str, text: &str) {
    let target = root.join(path);
    std::fs::create_dir_all(target.parent().unwrap()).unwrap();
    std::fs::write(target, text).unwrap();
}

/// Several layers, whiteouts of a file and of a folder, a user by name, entrypoint and command.
fn layered(registry: &Registry) -> String {
    let layout = Layout::new(registry.scratch(), "layered");
    layout.layer(|root| {
        for program in [
            "/bin/sh",
            "/bin/ls",
            "/usr/bin/id",
            "/bin/cat",
            "/bin/sleep",
            "/usr/bin/env",
        ] {
            install_program(root, program);
        }
        write(
            root,
            "etc/passwd",
            "root:x:0:0::/:/bin/sh\napp:x:1234:1234::/srv:/bin/sh\n",
        );
        write(
            root,
            "etc/group",
            "root:x:0:\napp:x:1234:\nextra:x:4321:app\n",
        );
        write(root, "srv/lower", "lower");
        write(root, "srv/deleted", "must not be seen");
        write(root, "srv/dir/inner", "must not be seen");
        std::fs::create_dir_all(root.join("tmp")).unwrap();
        std::fs::set_permissions(root.join("tmp"), PermissionsExt::from_mode(0o1777)).unwrap();
    });
    layout.layer(|root| {
        std::fs::remove_file(root.join("srv/deleted")).unwrap();
        std::fs::remove_dir_all(root.join("srv/dir")).unwrap();
        write(root, "srv/upper", "upper");
        write(root, "entry", "#!/bin/sh\necho entry \"$@\"\nid\npwd\nls\necho color=$COLOR\necho all said\nexec sleep 1000\n");
        std::fs::set_permissions(root.join("entry"), PermissionsExt::from_mode(0o755)).unwrap();
    });
    layout.config(&[
        "--config.entrypoint",
        "/entry",
        "--config.cmd",
        "from-image",
        "--config.env",
        "COLOR=blue",
        "--config.workingdir",
        "/srv",
        "--config.user",
        "app",
    ]);
    registry.push(&layout, "team/layered:v1")
}

#[test]
fn an_image_of_several_layers_runs_as_it_says() {
    let registry = Registry::start();
    let image = layered(&registry);
    let node = Node::start(&[]);
    node.add_app(&json!({
        "id": "/img", "cpus": 0.1, "mem": 32, "instances": 2,
        "container": {"type": "DOCKER", "docker": {"image": image}}
    }));
    node.add_app(&json!({
        "id": "/img-args", "args": ["from", "app"], "cpus": 0.1, "mem": 32, "user": "root",
        "env": {"COLOR": "red"}, "networks": [{"mode": "container/bridge"}],
        "container": {"type": "MESOS", "docker": {"image": image}}
    }));
    for (app, count, lines) in [
        (
            "/img",
            2,
            [
                "entry from-image",
                "uid=1234(app) gid=1234(app)",
                "color=blue",
            ],
        ),
        (
            "/img-args",
            1,
            ["entry from app", "uid=0(root)", "color=red"],
        ),
    ] {
        for task in node.wait_running(app, count) {
            let text = until("the entrypoint's output", || {
                let text = node.output(task["id"].as_str().unwrap());
                if text.contains("all said") {
                    Ok(text)
                } else {
                    Err(text)
                }
            });
            for line in lines.iter().chain(&["/srv", "lower", "upper"]) {
                assert!(
                    text.lines().any(|l| l.starts_with(line)),
                    "no {line:?} in:\n{text}"
                );
            }
            assert!(
                !text.contains("deleted") && !text.contains("dir"),
                "whiteouts:\n{text}"
            );
        }
    }
}

#[test]
fn a_missing_image_and_a_dead_registry_are_told_and_the_node_goes_on() {
    let registry = Registry::start();
    let node = Node::start(&[]);
    let app = |id: &str, image: &str| {
        json!({"id": id, "cmd": "sleep 1000", "cpus": 0.1, "mem": 32,
            "container": {"type": "DOCKER", "docker": {"image": image}}})
    };
    node.add_app(&app("/missing", &format!("{}/no/such:v9", registry.host)));
    node.add_app(&app("/down", "127.0.0.1:1/x:v1"));
    let missing = node.wait_failure("/missing");
    assert!(missing.contains("no/such"), "{missing}");
    let down = node.wait_failure("/down");
    assert!(down.contains("127.0.0.1:1"), "{down}");
    node.add_app(&json!({"id": "/fine", "cmd": "sleep 1000", "cpus": 0.1, "mem": 32}));
    node.wait_running("/fine", 1);
}
