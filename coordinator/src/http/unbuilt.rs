//! Parts of Marathon's and Mesos's APIs that clients know and this version does not have yet.
//!
//! It decides only that they answer 501 with their name, so that nobody takes a missing feature
//! for a wrong address. An entry goes when its resource is built.

use super::refusal::Refusal;

/// Paths and what they would be.
pub(super) const PATHS: [(&str, &str); 14] = [
    ("/v2/pods", "Pods"),
    ("/v2/pods/{*rest}", "Pods"),
    ("/v2/groups", "Groups"),
    ("/v2/groups/{*rest}", "Groups"),
    ("/v2/events", "The event stream"),
    ("/v2/plugins", "Plugins"),
    ("/v2/plugins/{*rest}", "Plugins"),
    ("/metrics/prometheus", "Metrics for Prometheus"),
    ("/logging", "Changing log levels"),
    ("/api/v1", "The operator API of Mesos"),
    ("/api/v1/scheduler", "The scheduler API of Mesos"),
    ("/frameworks", "Listing frameworks"),
    ("/tasks", "Listing tasks as Mesos does"),
    ("/roles", "Roles"),
];

/// Any method on one of [`PATHS`].
pub(super) async fn refuse(what: &'static str) -> Refusal {
    Refusal::NotBuilt(what)
}

/// DELETE /v2/leader.
pub(super) async fn abdicate() -> Refusal {
    Refusal::NotBuilt("Giving up leadership")
}
