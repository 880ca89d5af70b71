//! Tables of definitions: what is refused and in which words, what is normalised to what.

use gantry_wire::marathon::{KillSelection, NetworkMode};
use serde_json::json;

use super::*;

fn read(body: &Value) -> Result<App, Invalid> {
    definition(object(body, "/")?, "", None)
}

/// A valid definition with some fields replaced.
fn with(fields: Value) -> Value {
    let mut body = json!({"id": "/a", "cmd": "sleep 1"});
    let Value::Object(fields) = fields else {
        panic!()
    };
    body.as_object_mut().unwrap().extend(fields);
    body
}

#[test]
fn defaults_are_those_of_marathon() {
    let app = read(&with(json!({}))).unwrap();
    let want = include_str!("../../../testdata/minimal_definition.json");
    let want: Value = serde_json::from_str(want).unwrap();
    assert_eq!(serde_json::to_value(&app).unwrap(), want);
    assert_eq!(app.kill_selection, KillSelection::YoungestFirst);
    // What is printed is read again as the same, and is a valid request.
    assert_eq!(serde_json::from_value::<App>(want.clone()).unwrap(), app);
    assert_eq!(read(&want).unwrap(), app);
}

#[test]
fn wrong_shapes_are_named_as_play_json_names_them() {
    for (fields, path, error) in [
        (json!({"id": 3}), "/id", "error.expected.jsstring"),
        (json!({"id": null}), "/id", "error.path.missing"),
        (json!({"cmd": ["a"]}), "/cmd", "error.expected.jsstring"),
        (json!({"args": "a"}), "/args", "error.expected.jsarray"),
        (
            json!({"cmd": null, "args": ["a", 1]}),
            "/args(1)",
            "error.expected.jsstring",
        ),
        (json!({"cpus": "1"}), "/cpus", "error.expected.jsnumber"),
        (
            json!({"instances": 1.5}),
            "/instances",
            "error.expected.int",
        ),
        (
            json!({"env": {"A": 1}}),
            "/env/A",
            "error.expected.jsstring",
        ),
        (json!({"labels": []}), "/labels", "error.expected.jsobject"),
        (
            json!({"killSelection": "x"}),
            "/killSelection",
            "error.unknown.enum.literal",
        ),
        (
            json!({"upgradeStrategy": {"minimumHealthCapacity": 1}}),
            "/upgradeStrategy/maximumOverCapacity",
            "error.path.missing",
        ),
        (
            json!({"container": {"docker": {}}}),
            "/container/docker/image",
            "error.path.missing",
        ),
        (
            json!({"networks": [{"mode": "moon"}]}),
            "/networks(0)/mode",
            "error.unknown.enum.literal",
        ),
        (
            json!({"portDefinitions": [{"protocol": "sctp"}]}),
            "/portDefinitions(0)/protocol",
            "error.unknown.enum.literal",
        ),
    ] {
        let Err(Invalid::Shape(problems)) = read(&with(fields.clone())) else {
            panic!("{fields} is accepted")
        };
        let want = Problem {
            path: path.to_owned(),
            errors: vec![error.to_owned()],
        };
        assert_eq!(problems, [want], "{fields}");
    }
    assert!(matches!(json(b"{\"id\":"), Err(Invalid::NotJson(_))));
    assert!(matches!(read(&json!([])), Err(Invalid::Shape(_))));
}

/// Each set of fields must break exactly one rule, at the path, in these words.
fn breaks(table: &[(Value, &str, &str)]) {
    for (fields, path, error) in table {
        let read = read(&with(fields.clone()));
        let Err(Invalid::Rules(problems)) = &read else {
            panic!("{fields} breaks no rule: {read:?}")
        };
        let found = problems
            .iter()
            .any(|p| p.path == *path && p.errors[0].contains(error));
        assert!(found && problems.len() == 1, "{fields}: {problems:?}");
    }
}

#[test]
fn texts_and_numbers_out_of_bounds_are_refused() {
    let long = "x".repeat(70_000);
    let one_of = "either contain one of 'cmd' or 'args'";
    let upgrade = json!({"minimumHealthCapacity": 1.2, "maximumOverCapacity": 0});
    let unreachable = json!({"inactiveAfterSeconds": 5, "expungeAfterSeconds": 1});
    let single = json!({"MARATHON_SINGLE_INSTANCE_APP": "true"});
    breaks(&[
        (
            json!({"id": "/A"}),
            "/id",
            "must fully match regular expression",
        ),
        (json!({"id": "/a/restart"}), "/id", "reserved keywords"),
        (json!({"cmd": null}), "/", one_of),
        (json!({"args": ["a"]}), "/", one_of),
        (json!({"cmd": ""}), "/cmd", "must not be empty"),
        (json!({"cmd": "a\u{0}"}), "/cmd", "NUL"),
        (json!({"cmd": long}), "/cmd", "too long"),
        (json!({"env": {"A": long}}), "/env", "too many or too long"),
        (json!({"env": {"A=B": "1"}}), "/env/A=B", "without '='"),
        (
            json!({"cpus": 0}),
            "/cpus",
            "got 0.0, expected between 0.001 and",
        ),
        (json!({"mem": -1}), "/mem", "got -1.0"),
        (json!({"mem": 1e300}), "/mem", "expected between"),
        (json!({"gpus": -1}), "/gpus", "got -1"),
        (json!({"gpus": 10_001}), "/gpus", "got 10001"),
        (json!({"instances": -1}), "/instances", "got -1"),
        (json!({"instances": 100_001}), "/instances", "got 100001"),
        (json!({"backoffFactor": 0.5}), "/backoffFactor", "got 0.5"),
        (
            json!({"upgradeStrategy": upgrade}),
            "/upgradeStrategy/minimumHealthCapacity",
            "got 1.2, expected between 0.0 and 1.0",
        ),
        (
            json!({"unreachableStrategy": unreachable}),
            "/unreachableStrategy/inactiveAfterSeconds",
            "must be less",
        ),
        (
            json!({"labels": single, "instances": 2}),
            "/instances",
            "single-instance",
        ),
    ]);
}

#[test]
fn what_is_unknown_or_not_supported_is_said_so() {
    let no = "is not supported yet by this version of Gantry";
    let privileged = json!({"docker": {"image": "a", "privileged": true}});
    let persistent = json!([{"containerPath": "a", "persistent": {"size": 1}, "mode": "RW"}]);
    let named = json!([{"mode": "container", "name": "dcos"}]);
    breaks(&[
        (
            json!({"requirePort": true}),
            "/requirePort",
            "unknown field",
        ),
        (json!({"env": {"A": {"secret": "s"}}}), "/env/A", no),
        (json!({"healthChecks": [{}]}), "/healthChecks", no),
        (
            json!({"constraints": [["a", "UNIQUE"]]}),
            "/constraints",
            no,
        ),
        (json!({"role": "web"}), "/role", no),
        (
            json!({"acceptedResourceRoles": ["web"]}),
            "/acceptedResourceRoles",
            no,
        ),
        (json!({"networks": named}), "/networks(0)/mode", no),
        (
            json!({"container": privileged}),
            "/container/docker/privileged",
            no,
        ),
        (
            json!({"container": {"type": "MESOS", "volumes": persistent}}),
            "/container/volumes(0)/persistent",
            no,
        ),
    ]);
}

#[test]
fn ports_and_volumes_must_make_sense() {
    let bridge = json!([{"mode": "container/bridge"}]);
    let twice = json!({"type": "MESOS", "portMappings": [{"name": "a"}, {"name": "a"}]});
    let relative = json!([{"containerPath": "a", "hostPath": "b", "mode": "RO"}]);
    breaks(&[
        (json!({"container": {}}), "/container/docker", "not defined"),
        (
            json!({"container": {"type": "MESOS", "portMappings": [{}]}}),
            "/container/portMappings",
            "must be empty in host mode",
        ),
        (
            json!({"networks": bridge, "portDefinitions": [{"port": 1}]}),
            "/portDefinitions",
            "must be empty in bridge mode",
        ),
        (
            json!({"portDefinitions": [{"port": 1}, {"port": 1}]}),
            "/portDefinitions",
            "Ports must be unique.",
        ),
        (
            json!({"networks": bridge, "container": twice}),
            "/container/portMappings",
            "Port names must be unique.",
        ),
        (
            json!({"portDefinitions": [{"port": 70000}]}),
            "/portDefinitions(0)/port",
            "got 70000",
        ),
        (
            json!({"portDefinitions": [{"name": "A b"}]}),
            "/portDefinitions(0)/name",
            "regular",
        ),
        (
            json!({"container": {"type": "MESOS", "volumes": relative}}),
            "/container/volumes(0)/hostPath",
            "absolute",
        ),
    ]);
}

#[test]
fn volumes_must_not_cover_what_every_container_has() {
    let with_path = |path: &str| {
        let volume = json!({"containerPath": path, "hostPath": "/srv", "mode": "RO"});
        json!({"container": {"type": "MESOS", "volumes": [volume]}})
    };
    let kernel = "at or below /proc, /sys or /dev";
    let table = [
        ("/", "root directory"),
        ("//./", "root directory"),
        ("/proc", kernel),
        ("/sys/fs/cgroup", kernel),
        ("//dev/./shm/", kernel),
        ("/a/../proc", "'..'"),
        ("../a", "'..'"),
        ("/mnt/mesos/sandbox", "sandbox itself"),
        ("/mnt//mesos/sandbox/.", "sandbox itself"),
        ("./", "sandbox itself"),
    ];
    let table = table.map(|(path, error)| {
        let at = "/container/volumes(0)/containerPath";
        (with_path(path), at, error)
    });
    breaks(&table);
    for fine in [
        "data",
        "a/b",
        "proc",
        "/process",
        "/data",
        "/a..b",
        "/srv/proc",
    ] {
        read(&with(with_path(fine))).unwrap();
    }
}

#[test]
fn users_are_names_or_numbers() {
    let form = "must be a name or a number";
    let range = "between 0 and 4294967294";
    let table = [
        (":", form),
        ("a:", form),
        (":a", form),
        ("a:b:c", form),
        ("a b", form),
        ("-x", form),
        ("a/b", form),
        ("-1", range),
        ("+1", range),
        ("0:-1", range),
        ("4294967295", range),
        ("1:4294967295", range),
        ("99999999999999999999", range),
    ];
    breaks(&table.map(|(user, error)| (json!({"user": user}), "/user", error)));
    for fine in [
        "root",
        "1000",
        "4294967294:0",
        "www-data:33",
        "app:staff",
        "o.neil$",
        "0day",
    ] {
        read(&with(json!({"user": fine}))).unwrap();
    }
}

#[test]
fn a_key_twice_in_one_object_is_refused() {
    let twice = [
        r#"{"id": "/a", "mem": 1, "mem": 2}"#,
        r#"{"env": {"A": "1", "\u0041": "2"}}"#,
        r#"[{"id": "/a"}, {"id": "/b", "id": "/c"}]"#,
    ];
    for body in twice {
        let Err(Invalid::NotJson(why)) = json(body.as_bytes()) else {
            panic!("{body} is accepted")
        };
        assert!(why.contains("occurs twice at line 1"), "{why}");
    }
    let once = r#"{"a": {"a": [{"a": 1}, {"a": -1.5}, null, true, "x", 1e300]}, "b": {}}"#;
    let value: Value = serde_json::from_str(once).unwrap();
    assert_eq!(json(once.as_bytes()), Ok(value));
}

#[test]
fn old_forms_are_normalised() {
    let app = read(&with(json!({"ports": [0, 8080]}))).unwrap();
    let ports = app.port_definitions.unwrap();
    assert_eq!(
        (ports[0].port, ports[1].port, ports[0].name.clone()),
        (0, 8080, None)
    );
    let app = read(&json!({
        "id": "b",
        "container": {"type": "DOCKER", "docker": {
            "image": "redis:7", "network": "BRIDGE", "parameters": [], "privileged": false,
            "portMappings": [{"containerPort": 6379, "protocol": "tcp,udp"}],
        }},
        "constraints": [], "healthChecks": [], "fetch": [], "uris": [], "dependencies": [],
        "gpus": 0, "executor": "", "version": "x", "tasksRunning": 1, "args": null, "tty": true,
    }))
    .unwrap();
    assert_eq!(
        (app.id.as_str(), app.networks[0].mode),
        ("/b", NetworkMode::Bridge)
    );
    assert_eq!(app.tty, Some(true));
    let mapping = &app.port_mappings()[0];
    assert_eq!((mapping.container_port, mapping.host_port), (6379, Some(0)));
    assert_eq!(mapping.protocol, "udp,tcp");
    assert_eq!(
        (app.image(), app.port_definitions.is_none()),
        (Some("redis:7"), true)
    );
    let app = read(&with(json!({"networks": [{"mode": "container/bridge"}]}))).unwrap();
    assert_eq!(app.port_mappings()[0].name.as_deref(), Some("default"));
    let app = read(&with(json!({"portDefinitions": []}))).unwrap();
    assert_eq!(app.port_definitions, Some(Vec::new()));
}

#[test]
fn what_is_fetched() {
    let sha256 = "0".repeat(64);
    let app = read(&with(json!({"fetch": [
        {"uri": "http://a.org/x.tgz"},
        {"uri": "/opt/run", "executable": true, "extract": false, "cache": true,
         "destPath": "bin/run", "sha256": sha256},
    ]})))
    .unwrap();
    let [plain, full] = &app.fetch[..] else {
        panic!("{:?}", app.fetch);
    };
    assert!(plain.extract && !plain.executable && !plain.cache && plain.dest_path.is_none());
    assert!(!full.extract && full.executable && full.cache);
    assert_eq!(full.dest_path.as_deref(), Some("bin/run"));
    let printed = serde_json::to_value(&app).unwrap();
    let first = json!({"uri": "http://a.org/x.tgz", "extract": true, "executable": false,
        "cache": false});
    assert_eq!((&printed["fetch"][0], printed.get("uris")), (&first, None));
    // The old form extracts by the name, and gives way to the modern one and the other way round.
    let old = json!({"uris": ["http://a.org/x.tgz", "http://a.org/x.jar"]});
    let app = read(&with(old.clone())).unwrap();
    assert_eq!((app.fetch[0].extract, app.fetch[1].extract), (true, false));
    let update = |app: &_, fields: Value| super::update(app, fields.as_object().unwrap(), "");
    let app = update(&app, json!({"fetch": [{"uri": "b"}]})).unwrap();
    assert_eq!(app.fetch[0].uri, "b");
    assert_eq!(update(&app, old).unwrap().fetch.len(), 2);
    for (fields, path) in [
        (json!({"fetch": [{"uri": "a"}], "uris": ["b"]}), "/uris"),
        (json!({"fetch": [{}]}), "/fetch(0)/uri"),
        (json!({"fetch": [{"uri": ""}]}), "/fetch(0)/uri"),
        (
            json!({"fetch": [{"uri": "x".repeat(1_025)}]}),
            "/fetch(0)/uri",
        ),
        (
            json!({"fetch": [{"uri": "a", "colour": 1}]}),
            "/fetch(0)/colour",
        ),
        (
            json!({"fetch": [{"uri": "a", "destPath": "../b"}]}),
            "/fetch(0)/destPath",
        ),
        (
            json!({"fetch": [{"uri": "a", "destPath": "/b"}]}),
            "/fetch(0)/destPath",
        ),
        (
            json!({"fetch": [{"uri": "a", "sha256": "0"}]}),
            "/fetch(0)/sha256",
        ),
        (json!({"uris": [1]}), "/uris(0)"),
    ] {
        let problem = format!("{:?}", read(&with(fields.clone())).unwrap_err());
        assert!(problem.contains(path), "{fields}: {problem}");
    }
}

#[test]
fn partial_updates_replace_whole_fields() {
    let stored = read(&with(json!({
        "env": {"A": "1"}, "mem": 64, "portDefinitions": [{"port": 9000}],
    })))
    .unwrap();
    let update = |fields: Value| super::update(&stored, fields.as_object().unwrap(), "");
    let app = update(json!({"instances": 5, "mem": null})).unwrap();
    assert_eq!(
        (app.instances, app.mem, &app.env),
        (5, stored.mem, &stored.env)
    );
    assert_eq!(app.port_definitions, stored.port_definitions);
    assert_eq!(update(json!({"gpus": 2})).unwrap().gpus, 2);
    let app = update(json!({"env": {"B": "2"}})).unwrap();
    assert_eq!(app.env.keys().collect::<Vec<_>>(), ["B"]);
    let app = update(json!({"args": ["/bin/true"]})).unwrap();
    assert_eq!((app.cmd, app.args.len()), (None, 1));
    let app = update(json!({"ports": [7]})).unwrap();
    assert_eq!(app.port_definitions.unwrap()[0].port, 7);
    let bridge = update(json!({"networks": [{"mode": "container/bridge"}]})).unwrap();
    assert_eq!(
        (bridge.port_mappings().len(), &bridge.port_definitions),
        (1, &None)
    );
    let host = json!({"networks": [{"mode": "host"}]});
    let back = super::update(&bridge, host.as_object().unwrap(), "").unwrap();
    assert_eq!(
        (back.container, back.port_definitions.unwrap().len()),
        (None, 1)
    );
    assert!(update(json!({"id": "/other"})).is_err());
    assert!(update(json!({"colour": "red"})).is_err());
}
