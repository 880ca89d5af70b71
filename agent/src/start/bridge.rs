//! The bridge network at the start: whose addresses and ports are in use, by the checkpoints.
//!
//! It makes nothing for a container; that is `provision`'s.

use std::net::IpAddr;

use gantry_agent_core::{Checkpoint, ExecutorCheckpoint, Saved, Stage};
use gantry_net::{Known, Network, NetworkConfig, PortMap, Severity};
use gantry_wire::agent::{NetworkMode, PortMapping};
use gantry_wire::ids::ContainerId;

use crate::layout::Layout;
use crate::provision::port_maps;

/// The bridge network, told which containers may still be on it; or why there is none.
pub(super) async fn open(
    layout: &Layout,
    saved: &Saved,
    lacks: &mut Vec<String>,
) -> Result<Network, String> {
    let findings = gantry_net::preflight().await;
    lacks.extend(findings.iter().map(ToString::to_string));
    if let Some(missing) = findings.iter().find(|f| f.severity == Severity::Missing) {
        return Err(missing.to_string());
    }
    let opened = async {
        let network = Network::open(NetworkConfig::for_tag(&layout.tag())).await?;
        let tasks = saved.tasks.iter().filter_map(known);
        let executors = saved.executors.iter().filter_map(known_executor);
        let customs = saved
            .customs
            .iter()
            .filter_map(|saved| known(&saved.process));
        let known: Vec<Known> = tasks.chain(executors).chain(customs).collect();
        let adoption = network.adopt(&known).await?;
        for warning in adoption.warnings {
            tracing::warn!("taking up the network again: {warning}");
        }
        Ok::<_, gantry_net::NetError>(network)
    };
    opened.await.map_err(|error| {
        let why = crate::chain(&error);
        lacks.push(format!("no bridge network: {why}"));
        why
    })
}

/// A container that the keeper may have been given with an address.
fn known(saved: &Checkpoint) -> Option<Known> {
    let (launch, container) = (&saved.launch, &saved.container);
    on_bridge(
        launch.network,
        saved.stage,
        &saved.ip,
        &launch.ports,
        container,
    )
}

fn known_executor(saved: &ExecutorCheckpoint) -> Option<Known> {
    let (network, container) = (saved.info.network, &saved.container);
    on_bridge(network, saved.stage, &saved.ip, &saved.ports, container)
}

fn on_bridge(
    network: i32,
    stage: Stage,
    ip: &str,
    ports: &[PortMapping],
    container: &ContainerId,
) -> Option<Known> {
    let bridged = network == NetworkMode::Bridge as i32;
    let given = matches!(stage, Stage::Starting | Stage::Running);
    let ip: IpAddr = ip.parse().ok().filter(|_| bridged && given)?;
    let ports: Vec<PortMap> = port_maps(ports).ok()?;
    Some(Known {
        container_id: container.to_string(),
        ip,
        ports,
    })
}
