//! A container whose program is the runtime's own, by `/proc/self/exe`, with a dynamic linker that
//! takes it over there (CVE-2019-5736).

use std::process::Command;

use serde_json::json;

use crate::bundle::Bundle;

/// Where the runtime's own file says that its dynamic linker is.
const LINKER: &str = "lib64/ld-linux-x86-64.so.2";
/// `EROFS`: the file is the runtime's, and cannot be written there.
const READ_ONLY: i32 = 30;
/// `ETXTBSY`: the file is the runtime's, and can be written once nobody runs it.
const BUSY: i32 = 26;

fn attacker(name: &str, args: &[&str]) -> Bundle {
    let bundle = Bundle::new(name, args);
    let linker = bundle.path(&format!("rootfs/{LINKER}"));
    std::fs::create_dir(bundle.path("rootfs/lib64")).unwrap();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/oci/interpreter.c");
    let made = Command::new("gcc")
        .args(["-static", "-nostdlib", "-fno-stack-protector", "-O2", "-o"])
        .args([&linker, source])
        .status()
        .unwrap();
    assert!(made.success());
    bundle
}

fn ends_with(bundle: &Bundle) -> i32 {
    let out = bundle.run(&["run", &bundle.id]);
    out.status.code().unwrap()
}

#[test]
fn a_container_that_runs_at_once_does_not_find_the_runtimes_program() {
    // What is found there instead runs the rest of the arguments.
    let program = "/proc/self/exe";
    let bundle = attacker(
        "relay",
        &[program, program, "/bin/busybox", "sh", "-c", "exit 7"],
    );
    let status = ends_with(&bundle);
    assert!(![READ_ONLY, BUSY, 100].contains(&status), "{status}");
    // The linker is where a program that needs one finds it.
    let mut bundle = attacker("linker", &["/bin/dynamic"]);
    std::fs::copy("/bin/true", bundle.path("rootfs/bin/dynamic")).unwrap();
    bundle.config["root"]["readonly"] = json!(false);
    bundle.write();
    assert_eq!(ends_with(&bundle), BUSY);
}

#[test]
fn a_container_that_is_made_with_hooks_or_a_filter_cannot_write_the_runtimes_program() {
    let filter = json!({"defaultAction": "SCMP_ACT_ALLOW"});
    let hook = json!([{"path": "/bin/true"}]);
    for (name, section, key, value) in [
        ("filtered", "linux", "seccomp", filter),
        ("hooked", "hooks", "startContainer", hook),
    ] {
        let mut bundle = attacker(name, &["/proc/self/exe"]);
        bundle.config[section][key] = value;
        bundle.write();
        assert_eq!(ends_with(&bundle), READ_ONLY, "{name}");
    }
}
