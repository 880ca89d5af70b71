//! What one instance of an app needs of a node, from its definition alone.

use gantry_wire::marathon::App;

use crate::alloc::Demand;
use crate::state::Amounts;

/// From SIGTERM to SIGKILL when the definition says nothing (Mesos: `executor_shutdown_grace…`,
/// 3 s in its command executor).
const KILL_GRACE_DEFAULT_MS: u64 = 3_000;

/// Scalar amounts.
#[must_use]
pub fn amounts(app: &App) -> Amounts {
    Amounts {
        cpus_milli: app.cpus.0,
        mem_bytes: app.mem.0,
        disk_bytes: app.disk.0,
        gpus: app.gpus,
    }
}

/// A host port that an instance needs: `Some` is that one, `None` is any. In the order of the
/// definition's ports; ports that need none on the node are left out.
#[must_use]
pub fn host_ports(app: &App) -> Vec<Option<u16>> {
    if let Some(definitions) = &app.port_definitions {
        let fixed = |port| (app.require_ports && port != 0).then_some(port);
        return definitions.iter().map(|p| fixed(p.port)).collect();
    }
    let wanted = app.port_mappings().iter().filter_map(|m| m.host_port);
    wanted.map(|port| (port != 0).then_some(port)).collect()
}

/// Whether host ports are an answer to [`host_ports`].
#[must_use]
pub fn ports_match(app: &App, ports: &[u16]) -> bool {
    let wanted = host_ports(app);
    wanted.len() == ports.len()
        && wanted
            .iter()
            .zip(ports)
            .all(|(want, got)| want.is_none_or(|want| want == *got))
}

/// From SIGTERM to SIGKILL.
#[must_use]
pub fn kill_grace_ms(app: &App) -> u64 {
    let seconds = app.task_kill_grace_period_seconds;
    seconds.map_or(KILL_GRACE_DEFAULT_MS, |s| (s * 1000.0).round() as u64)
}

/// What the allocator is asked for.
#[must_use]
pub fn demand(app: &App) -> Demand {
    Demand {
        role: app.role.clone(),
        each: amounts(app),
        ports: host_ports(app),
    }
}
