//! The device filter of cgroup v2: a bundle run in a view of the machine where nothing but the v2
//! tree is mounted.

use serde_json::json;

use crate::bundle::Bundle;

/// Opens a harmless device and one that only a rule can allow.
const OPEN: &str = ": < /dev/zero && echo zero; : < /dev/control";

fn output(bundle: &Bundle) -> (String, String) {
    let out = bundle.run(&["run", &bundle.id]);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&out.stdout), text(&out.stderr))
}

#[test]
fn a_v2_host_denies_devices_that_no_rule_allows() {
    let mut bundle = Bundle::new("devices", &["sh", "-c", OPEN]);
    bundle.in_v2_view = true;
    // loop-control: there on every kernel with loop devices, and open to any root.
    let node = json!({"path": "/dev/control", "type": "c", "major": 10, "minor": 237});
    bundle.config["linux"]["devices"] = json!([node]);
    bundle.config["linux"]["resources"]["devices"] = json!([{"allow": false, "access": "rwm"}]);
    bundle.write();
    let (stdout, stderr) = output(&bundle);
    assert_eq!(stdout, "zero\n", "{stderr}");
    assert!(stderr.contains("Operation not permitted"), "{stderr}");

    bundle.config["linux"]["resources"]["devices"] = json!([
        {"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 10, "minor": 237, "access": "rw"},
    ]);
    bundle.write();
    let (stdout, stderr) = output(&bundle);
    assert_eq!((stdout.as_str(), stderr.as_str()), ("zero\n", ""));
}
