//! Whole launch messages of a few definitions.

use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::service::scheduler::world::World;

/// The launch of the only task of an app.
fn launch(body: &serde_json::Value) -> Launch {
    let mut world = World::new(1);
    world.put(body, false);
    world.commit_one();
    let task = world.state.tasks().iter_live().next().unwrap().clone();
    message(&world.state, &task).unwrap()
}

#[test]
fn the_environment_is_marathons() {
    let launch = launch(&json!({
        "id": "/g/web", "cmd": "serve", "cpus": 0.1, "mem": 32,
        "env": {"A": "1", "PORT1": "mine"},
        "labels": {"x.y--z": "v", "VIP": "w"},
        "portDefinitions": [{"port": 0, "name": "http-api"}, {"port": 10_500}],
        "taskKillGracePeriodSeconds": 1.5,
    }));
    let host_ports: Vec<u32> = launch.ports.iter().map(|p| p.host_port).collect();
    let [first, second] = [host_ports[0].to_string(), host_ports[1].to_string()];
    let both = format!("{first},{second}");
    let mut want: BTreeMap<String, String> = [
        ("A", "1"),
        ("HOST", "host-of-agent-0"),
        ("MARATHON_APP_ENFORCE_GROUP_ROLE", "false"),
        ("MARATHON_APP_ID", "/g/web"),
        ("MARATHON_APP_LABELS", "VIP X_Y_Z"),
        ("MARATHON_APP_LABEL_VIP", "w"),
        ("MARATHON_APP_LABEL_X_Y_Z", "v"),
        ("MARATHON_APP_RESOURCE_CPUS", "0.1"),
        ("MARATHON_APP_RESOURCE_DISK", "0.0"),
        ("MARATHON_APP_RESOURCE_GPUS", "0"),
        ("MARATHON_APP_RESOURCE_MEM", "32.0"),
        ("MARATHON_APP_VERSION", "1970-01-01T00:16:40.000Z"),
        ("PORT", &first),
        ("PORT0", &first),
        ("PORT1", "mine"),
        ("PORTS", &both),
        ("PORT_10500", &second),
        ("PORT_HTTP_API", &first),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    // The service port that was assigned to the first is its requested number.
    want.insert("PORT_10000".to_owned(), first.clone());
    assert_eq!(launch.env, want);
    assert_eq!(
        (launch.name.as_str(), launch.shell.as_str()),
        ("web.g", "serve")
    );
    assert_eq!(launch.kill_grace_ms, 1_500);
    assert_eq!(launch.framework_id, "c-marathon");
    assert_eq!(launch.network, NetworkMode::Host as i32);
    let resources = launch.resources.unwrap();
    assert_eq!((resources.cpus_milli, resources.mem_bytes), (100, 32 << 20));
    assert_eq!(resources.ports.len(), 4);
}

#[test]
fn images_in_bridge_mode_map_their_ports() {
    let launch = launch(&json!({
        "id": "/redis", "args": ["--port", "6379"], "mem": 32,
        "user": "redis",
        "networks": [{"mode": "container/bridge"}],
        "container": {
            "docker": {"image": "redis:7", "forcePullImage": true},
            "portMappings": [
                {"containerPort": 6379, "hostPort": 31005, "name": "redis"},
                {"containerPort": 0},
            ],
            "volumes": [{"containerPath": "/data", "hostPath": "/srv", "mode": "RO"}],
        },
    }));
    let port = |p: &PortMapping| (p.host_port, p.container_port);
    assert_eq!(port(&launch.ports[0]), (31005, 6379));
    assert_eq!(launch.ports[1].host_port, launch.ports[1].container_port);
    assert_eq!(launch.env["PORT0"], "31005");
    assert_eq!(launch.env["PORT_6379"], "31005");
    assert_eq!(launch.env["PORT_REDIS"], "31005");
    assert_eq!(launch.env["MARATHON_APP_DOCKER_IMAGE"], "redis:7");
    assert_eq!((launch.shell.as_str(), launch.args.len()), ("", 2));
    assert_eq!(
        (launch.image.as_str(), launch.force_pull),
        ("redis:7", true)
    );
    assert_eq!(
        (launch.user.as_str(), launch.volumes[0].read_only),
        ("redis", true)
    );
    assert_eq!(launch.network, NetworkMode::Bridge as i32);
}

#[test]
fn an_empty_list_of_ports_gives_no_port_variables() {
    let launch = launch(&json!({"id": "/a", "cmd": "x", "mem": 1, "portDefinitions": []}));
    assert!(launch.ports.is_empty());
    assert!(launch.env.keys().all(|name| !name.starts_with("PORT")));
}
