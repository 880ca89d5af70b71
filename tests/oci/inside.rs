//! What a container sees of the processes that are put into it.

use std::process::Command;

use serde_json::json;

use crate::bundle::Bundle;

/// How many processes are put inside.
const PROCESSES: u32 = 60;

#[test]
fn a_process_put_inside_shows_nothing_of_the_host() {
    let mut bundle = Bundle::new("inside", &[]);
    let marker = bundle.path("marker");
    std::fs::write(&marker, "the host's").unwrap();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/oci/inside.c");
    let made = Command::new("gcc")
        .args(["-static", "-O2", "-o", &bundle.path("rootfs/bin/inside")])
        .arg(source)
        .status()
        .unwrap();
    assert!(made.success());
    let process = &mut bundle.config["process"];
    process["args"] = json!(["inside", marker]);
    for set in ["bounding", "effective", "permitted"] {
        let names = process["capabilities"][set].as_array_mut().unwrap();
        names.push(json!("CAP_SYS_PTRACE"));
    }
    bundle.write();
    bundle.create();
    bundle.ok(&["start", &bundle.id]);
    let said = |words: &str| {
        gantry_tests::poll::until(words, || {
            let output = bundle.output();
            if output.contains(words) {
                Ok(output)
            } else {
                Err(output)
            }
        })
    };
    said("looking");
    for _ in 0..PROCESSES {
        bundle.ok(&["exec", &bundle.id, "true"]);
    }
    std::fs::write(bundle.path("rootfs/stop"), "").unwrap();
    let output = said("saw ");
    let seen = output.rsplit("saw ").next().unwrap().trim();
    // It looked while they were made: most are seen, and nothing else was.
    assert!(seen.parse::<u32>().unwrap() > PROCESSES / 4, "{output}");
    assert_eq!(output, format!("looking\nsaw {seen}\n"));
}
