//! `features`: what this runtime understands, as runtime-spec 1.2 has it.

use serde_json::{Value, json};

use super::config::SPEC_VERSION;
use super::{options, steps};

/// The document.
#[must_use]
pub fn features() -> Value {
    let capabilities: Vec<String> = steps::capability_names().collect();
    let namespaces = [
        "cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts",
    ];
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": SPEC_VERSION,
        "hooks": [
            "prestart", "createRuntime", "createContainer", "startContainer", "poststart",
            "poststop",
        ],
        "mountOptions": options::names(),
        "linux": {
            "namespaces": namespaces,
            "capabilities": capabilities,
            "cgroup": {
                "v1": true,
                "v2": true,
                "systemd": false,
                "systemdUser": false,
                "rdma": false,
            },
            "seccomp": {"enabled": crate::seccomp::Host::running().is_ok()},
            "apparmor": {"enabled": steps::apparmor_enabled()},
            "selinux": {"enabled": steps::selinux_enabled()},
            "intelRdt": {"enabled": false},
            "mountExtensions": {"idmap": {"enabled": true}},
        },
        "annotations": {
            "org.opencontainers.runtime-spec.features": "1",
        },
    })
}
