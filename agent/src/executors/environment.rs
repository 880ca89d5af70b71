//! The environment of an executor of a framework's own (Mesos: `executorEnvironment` in
//! `src/slave/slave.cpp`). Decides names and values; the scheduler's win, nothing of the agent's own
//! gets in.

use std::net::SocketAddr;

use gantry_agent_core::CustomView;

/// Where the executor finds the socket of the agent.
pub(crate) const DOOR_TARGET: &str = "/mnt/mesos/agent";
pub(crate) const DOOR_SOCKET: &str = "executor.sock";

/// What the agent says to all of them.
#[derive(Debug, Clone)]
pub(crate) struct OfNode {
    pub(crate) endpoint: SocketAddr,
    pub(crate) recovery_ms: u64,
    pub(crate) reregister_ms: u64,
}

/// From the environment that a task would have to that of an executor.
pub(crate) fn of(
    env: Vec<(String, String)>,
    custom: &CustomView<'_>,
    of_node: &OfNode,
    token: String,
) -> Vec<(String, String)> {
    let own = |name: &str| custom.process.launch.env.contains_key(name);
    let checkpoint = custom.framework.checkpoint();
    let endpoint = of_node.endpoint;
    let executor = custom.key.executor.to_string();
    let mut said = vec![
        ("MESOS_EXECUTOR_ID", executor),
        ("MESOS_DIRECTORY", custom.process.sandbox.to_owned()),
        ("MESOS_SLAVE_PID", format!("slave(1)@{endpoint}")),
        ("MESOS_AGENT_ENDPOINT", endpoint.to_string()),
        ("MESOS_CHECKPOINT", u8::from(checkpoint).to_string()),
        ("MESOS_HTTP_COMMAND_EXECUTOR", "0".to_owned()),
        (
            "MESOS_DOMAIN_SOCKET",
            format!("{DOOR_TARGET}/{DOOR_SOCKET}"),
        ),
        (
            "MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD",
            duration(custom.grace_ms),
        ),
        ("MESOS_EXECUTOR_AUTHENTICATION_TOKEN", token),
        ("LIBPROCESS_PORT", "0".to_owned()),
    ];
    if checkpoint {
        said.push(("MESOS_RECOVERY_TIMEOUT", duration(of_node.recovery_ms)));
        let backoff = duration(of_node.reregister_ms);
        said.push(("MESOS_SUBSCRIPTION_BACKOFF_MAX", backoff));
    }
    if !custom.process.ip.is_empty() {
        said.push(("LIBPROCESS_IP", custom.process.ip.to_owned()));
    }
    let replaced = |name: &str| name == "MESOS_TASK_ID" || said.iter().any(|(it, _)| *it == name);
    let mut env = env;
    env.retain(|(name, _)| own(name) || !replaced(name));
    let said = said.into_iter().filter(|(name, _)| !own(name));
    env.extend(said.map(|(name, value)| (name.to_owned(), value)));
    env
}

/// As stout writes one (`stout/duration.hpp`): the largest unit that leaves a whole number.
fn duration(ms: u64) -> String {
    let units = [
        ("hrs", 3_600_000),
        ("mins", 60_000),
        ("secs", 1_000),
        ("ms", 1),
    ];
    let whole = |(_, unit): &&(&str, u64)| ms >= *unit && ms.is_multiple_of(*unit);
    let (name, unit) = units.iter().find(whole).copied().unwrap_or(("secs", 1_000));
    format!("{}{name}", ms / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_stout_reads_them() {
        for (ms, want) in [
            (0, "0secs"),
            (1, "1ms"),
            (5_000, "5secs"),
            (1_500, "1500ms"),
            (900_000, "15mins"),
            (7_200_000, "2hrs"),
        ] {
            assert_eq!(duration(ms), want);
        }
    }
}
