//! Service ports: a port of 0 in a definition becomes a free one of 10000–20000, and stays the
//! same when the app changes (`core/group/impl/AssignDynamicServiceLogic.scala`).

use std::collections::BTreeSet;

use gantry_wire::marathon::App;

use crate::outcome::Rejection;
use crate::state::apps::{SERVICE_PORT_MAX, SERVICE_PORT_MIN};
use crate::state::{AppRecord, Apps};

/// Fills in the ports of 0. `taken` holds what this transaction has given out already and grows.
pub(super) fn assign(
    spec: &mut App,
    old: Option<&AppRecord>,
    apps: &Apps,
    taken: &mut BTreeSet<u16>,
) -> Result<(), Rejection> {
    let fixed: BTreeSet<u16> = spec
        .service_ports()
        .into_iter()
        .filter(|p| *p != 0)
        .collect();
    let before = old
        .map(|record| record.spec.service_ports())
        .unwrap_or_default();
    let mut reusable = before.into_iter().filter(|p| *p != 0 && !fixed.contains(p));
    taken.extend(&fixed);
    for slot in slots(spec).into_iter().filter(|slot| **slot == 0) {
        let free = reusable.next().or_else(|| apps.free_service_port(taken));
        *slot = free.ok_or(Rejection::ServicePortsExhausted(
            SERVICE_PORT_MIN,
            SERVICE_PORT_MAX,
        ))?;
        taken.insert(*slot);
    }
    Ok(())
}

fn slots(spec: &mut App) -> Vec<&mut u16> {
    if let Some(ports) = &mut spec.port_definitions {
        return ports.iter_mut().map(|p| &mut p.port).collect();
    }
    let mappings = spec
        .container
        .as_mut()
        .and_then(|c| c.port_mappings.as_mut());
    mappings
        .into_iter()
        .flatten()
        .map(|p| &mut p.service_port)
        .collect()
}
