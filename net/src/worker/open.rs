//! Making or re-asserting the bridge, the kernel settings and the table.
//!
//! Decides the subnet: the bridge's own if it is there (containers may live in it), else what the
//! configuration says, else one that is free. Invariant: opening twice changes nothing.

use std::collections::BTreeMap;

use super::Worker;
use crate::addresses::AddressPool;
use crate::error::NetError;
use crate::links::{Link, Links};
use crate::names;
use crate::network::NetworkConfig;
use crate::nftables::Nftables;
use crate::ports::PortTable;
use crate::reaper::Reaper;
use crate::ruleset::Ruleset;
use crate::subnet::{self, Subnet};
use crate::sysctl;

/// Tries for a subnet when other nodes on this machine choose at the same time.
const ATTEMPTS: usize = 8;

impl Worker {
    pub(super) fn open(config: &NetworkConfig) -> Result<Self, NetError> {
        let mut links = Links::open()?;
        let nftables = Nftables::open()?;
        sysctl::ensure("net/ipv4/ip_forward", "1")?;
        let before = links.by_name(&config.bridge)?;
        let index = links.ensure_bridge(&config.bridge)?;
        Self::furnish(config, links, nftables, index).inspect_err(|_| {
            // A bridge that was there before may carry containers.
            if before.is_none()
                && let Err(error) = remove_bridge(config)
            {
                tracing::warn!(%error, "a network that could not be opened left its bridge");
            }
        })
    }

    fn furnish(
        config: &NetworkConfig,
        mut links: Links,
        mut nftables: Nftables,
        bridge_index: u32,
    ) -> Result<Self, NetError> {
        // Before it is up, and again where it was: a container must not set the host's addresses
        // and routes by router advertisements.
        sysctl::switch_off_ipv6(&config.bridge)?;
        links.set_up_bridge(bridge_index, names::bridge_mac(&config.tag), config.mtu)?;
        let subnet = settle_subnet(&mut links, bridge_index, config)?;
        let elements = nftables.elements(&config.table)?;
        nftables.replace(
            &Ruleset::new(&config.table, &config.bridge, subnet),
            &elements,
        )?;
        // Only now: the rules keep containers from the services that listen on 127.0.0.1.
        sysctl::ensure(
            &format!("net/ipv4/conf/{}/route_localnet", config.bridge),
            "1",
        )?;
        Ok(Self {
            tag: config.tag.clone(),
            bridge: config.bridge.clone(),
            table: config.table.clone(),
            mtu: config.mtu,
            subnet,
            bridge_index,
            links,
            nftables,
            addresses: AddressPool::new(subnet),
            ports: PortTable::default(),
            attached: BTreeMap::new(),
            unclaimed: elements
                .into_iter()
                .map(|element| (element.host, element))
                .collect(),
            reaper: Reaper::default(),
            failures: Vec::new(),
        })
    }
}

fn remove_bridge(config: &NetworkConfig) -> Result<(), NetError> {
    let mut links = Links::open()?;
    let bridge: Vec<Link> = links.by_name(&config.bridge)?.into_iter().collect();
    NetError::collect(links.delete_together(&bridge, names::doomed_group(&config.tag)))
}

fn settle_subnet(
    links: &mut Links,
    bridge: u32,
    config: &NetworkConfig,
) -> Result<Subnet, NetError> {
    let addresses = links.addresses()?;
    let own = addresses.iter().find(|(index, ..)| *index == bridge);
    if let Some((_, address, prefix)) = own {
        let existing = Subnet::around(*address, *prefix)?;
        return match config.subnet {
            Some(subnet) if subnet != existing => Err(NetError::SubnetDiffers { subnet, existing }),
            _ => Ok(existing),
        };
    }
    for _ in 0..ATTEMPTS {
        let taken = links.taken(Some(bridge))?;
        let subnet = match config.subnet {
            Some(subnet) => {
                subnet::check_free(subnet, &taken)?;
                subnet
            }
            None => subnet::choose(&config.tag, &taken)?,
        };
        links.ensure_address(bridge, subnet.gateway(), subnet.prefix())?;
        // Another node may have chosen the same since we looked: the older interface keeps it.
        let rival = links
            .addresses()?
            .into_iter()
            .find(|(index, address, _)| *index < bridge && subnet.contains(*address));
        if rival.is_none() {
            return Ok(subnet);
        }
        links.remove_address(bridge, subnet.gateway(), subnet.prefix())?;
    }
    Err(NetError::NoFreeSubnet)
}
