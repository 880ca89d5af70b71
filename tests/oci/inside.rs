//! What a container sees of the processes that are put into it, or beside it in its PID namespace.

use std::process::Command;

use serde_json::json;

use crate::bundle::Bundle;

/// How many processes are put inside.
const PROCESSES: u32 = 60;
/// How many containers are made beside it.
const CONTAINERS: u32 = 20;

fn with_ptrace(bundle: &mut Bundle) {
    for set in ["bounding", "effective", "permitted"] {
        let names = &mut bundle.config["process"]["capabilities"][set];
        let names = names.as_array_mut().unwrap();
        names.push(json!("CAP_SYS_PTRACE"));
    }
    bundle.write();
}

/// A container with `CAP_SYS_PTRACE` that looks for the host in every process that it sees.
fn watcher(name: &str) -> Bundle {
    let mut bundle = Bundle::new(name, &[]);
    let marker = bundle.path("marker");
    std::fs::write(&marker, "the host's").unwrap();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/oci/inside.c");
    let made = Command::new("gcc")
        .args(["-static", "-O2", "-o", &bundle.path("rootfs/bin/inside")])
        .arg(source)
        .status()
        .unwrap();
    assert!(made.success());
    bundle.config["process"]["args"] = json!(["inside", marker]);
    with_ptrace(&mut bundle);
    bundle.create();
    bundle.ok(&["start", &bundle.id]);
    said(&bundle, "looking");
    bundle
}

fn said(bundle: &Bundle, words: &str) -> String {
    gantry_tests::poll::until(words, || {
        let output = bundle.output();
        if output.contains(words) {
            Ok(output)
        } else {
            Err(output)
        }
    })
}

/// Ends the watcher; it saw more than so many processes, and nothing else.
fn saw_only(bundle: &Bundle, least: u32) {
    std::fs::write(bundle.path("rootfs/stop"), "").unwrap();
    let output = said(bundle, "saw ");
    let seen = output.rsplit("saw ").next().unwrap().trim();
    assert!(seen.parse::<u32>().unwrap() > least, "{output}");
    assert_eq!(output, format!("looking\nsaw {seen}\n"));
}

#[test]
fn a_process_put_inside_shows_nothing_of_the_host() {
    let bundle = watcher("inside");
    for _ in 0..PROCESSES {
        bundle.ok(&["exec", &bundle.id, "true"]);
    }
    // It looked while they were made: most are seen.
    saw_only(&bundle, PROCESSES / 4);
}

#[test]
fn a_container_made_in_its_pid_namespace_shows_nothing_of_the_host() {
    let bundle = watcher("beside");
    let pid = bundle.state()["pid"].as_i64().unwrap();
    let mut other = Bundle::new("joins", &["true"]);
    for namespace in other.config["linux"]["namespaces"].as_array_mut().unwrap() {
        if namespace["type"] == "pid" {
            namespace["path"] = json!(format!("/proc/{pid}/ns/pid"));
        }
    }
    with_ptrace(&mut other);
    for _ in 0..CONTAINERS {
        // It waits for its start for as long as the next command takes to end it.
        other.create();
        other.ok(&["delete", "--force", &other.id]);
    }
    saw_only(&bundle, CONTAINERS / 4);
}
