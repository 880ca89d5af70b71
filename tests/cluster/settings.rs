//! Settings of the real binary: what counts, who said so, and what is refused.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use gantry_tests::node::gantry_binary;
use serde_json::{Value, json};

fn agent(args: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(gantry_binary());
    command.arg("agent").args(args).env_clear();
    command.envs(variables.iter().copied()).output().unwrap()
}

/// Exit code 2, and what stands on stderr.
fn refused(args: &[&str], variables: &[(&str, &str)]) -> String {
    let out = agent(args, variables);
    assert_eq!(out.status.code(), Some(2), "{out:?}");
    String::from_utf8_lossy(&out.stderr).into_owned()
}

#[test]
fn what_counts_is_shown_with_its_source() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("gantry.toml");
    let text = "[agent]\ncoordinator = 'unix:/run/gantry.sock'\nport = 7\nfetch-cache = 1\n\
                cluster-secret = 'Zq7Wc5Rb3Hd6Jf4Gam2Zl0Qn9vY8sK1xT'\n[agent.attributes]\nrack = 'r1'\n";
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let path = file.to_str().unwrap();
    let args = [
        "--config",
        path,
        "--print-config",
        "--json",
        "--fetch-cache",
        "3",
    ];
    let variables = [("GANTRY_AGENT_PORT", "8"), ("MESOS_WORK_DIR", "/w")];
    let out = agent(&args, &variables);
    assert!(out.status.success(), "{out:?}");
    let shown: Value = serde_json::from_slice(&out.stdout).unwrap();
    for (key, value, source) in [
        ("fetch-cache", "3", "flag --fetch-cache"),
        ("port", "8", "variable GANTRY_AGENT_PORT"),
        ("data-dir", "/w", "variable MESOS_WORK_DIR"),
        ("attributes", "rack:r1", &format!("{path}:6")),
        ("coordinator", "unix:/run/gantry.sock", &format!("{path}:2")),
        ("cluster-secret", "(set, not shown)", &format!("{path}:5")),
        ("end-tasks", "false", "default"),
        ("ip", "127.0.0.1", "default"),
    ] {
        assert_eq!(
            shown[key],
            json!({"value": value, "source": source}),
            "{key}"
        );
    }
    assert!(!String::from_utf8_lossy(&out.stdout).contains("Zq7Wc5"));
}

#[test]
fn wrong_values_are_named_before_anything_starts() {
    let socket = ["--coordinator", "unix:/x"];
    for (args, variables, want) in [
        (vec![], vec![], "coordinator is not set"),
        (
            vec!["--coordinator", "zk://a:1/x"],
            vec![],
            "coordinator (flag --coordinator): 'zk://a:1/x' is not right",
        ),
        (
            vec!["--coordinator", "10.0.0.1:5052"],
            vec![],
            "cluster-secret-file is not set",
        ),
        (
            socket.to_vec(),
            vec![("GANTRY_AGENT_PORT", "x")],
            "port (variable GANTRY_AGENT_PORT): 'x' is not right",
        ),
        (
            socket.to_vec(),
            vec![("GANTRY_AGENT_PROT", "1")],
            "did you mean 'port'?",
        ),
        (
            socket.to_vec(),
            vec![("MESOS_RESOURCES", "cpus:many")],
            "resources (variable MESOS_RESOURCES)",
        ),
        (
            socket.to_vec(),
            vec![("MESOS_ATTRIBUTES", "rack")],
            "attributes (variable MESOS_ATTRIBUTES)",
        ),
        (
            socket.to_vec(),
            vec![("GANTRY_AGENT_CLUSTER_SECRET", "tooshort")],
            "the secret can be guessed",
        ),
        (
            socket.to_vec(),
            vec![("GANTRY_AGENT_IP", "10.0.0.1")],
            "a cluster-secret-file is needed",
        ),
        (
            socket.to_vec(),
            vec![("GANTRY_AGENT_REGISTRY_AUTH", "/nowhere")],
            "registry-auth (variable",
        ),
    ] {
        let said = refused(&args, &variables);
        assert!(said.contains(want), "{args:?} {variables:?}: {said}");
        assert!(!said.contains("tooshort"), "{said}");
    }
}
