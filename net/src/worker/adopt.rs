//! Taking over after a restart: what is known stays, what nobody knows goes.
//!
//! Decides from three lists (known containers, links, published ports) what to keep. A known
//! container without its link has lost its namespace: nothing is kept for it. Links are recognised
//! by name and kind, ports by being in our map.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use super::{Attached, Worker};
use crate::error::NetError;
use crate::host_port;
use crate::links::Link;
use crate::names;
use crate::network::{Adoption, Known};
use crate::nftables::Element;
use crate::ports::HostPort;
use crate::sysctl;

impl Worker {
    pub(super) fn adopt(&mut self, known: &[Known]) -> Result<Adoption, NetError> {
        let prefix = names::host_interface_prefix(&self.tag);
        let mut links: BTreeMap<String, Link> = self
            .links
            .with_prefix(&prefix)?
            .into_iter()
            .filter(Link::is_veth)
            .map(|link| (link.name.clone(), link))
            .collect();
        let mut report = Adoption::default();
        for attached in self.attached.values() {
            links.remove(&attached.host_interface);
        }
        for container in known {
            self.adopt_one(container, &mut links, &mut report);
        }
        let mut failures = self.remove_strays(links, &mut report);
        failures.extend(self.settle_ports(&mut report).err());
        NetError::collect(failures)?;
        Ok(report)
    }

    fn adopt_one(
        &mut self,
        known: &Known,
        links: &mut BTreeMap<String, Link>,
        report: &mut Adoption,
    ) {
        let id = &known.container_id;
        if self.attached.contains_key(id) {
            report.adopted.push(id.clone());
            return;
        }
        let name = names::host_interface(&self.tag, id);
        let claimed = match known.ip {
            IpAddr::V4(ip) if links.contains_key(&name) => {
                self.addresses.claim(ip, id).map(|()| ip).and_then(|ip| {
                    match self.ports.check(&known.ports) {
                        Ok(()) => Ok(ip),
                        Err(error) => {
                            self.addresses.free(ip);
                            Err(error.to_string())
                        }
                    }
                })
            }
            IpAddr::V4(_) => Err("its interface is gone".to_owned()),
            IpAddr::V6(ip) => Err(format!("{ip} is no IPv4 address")),
        };
        match claimed {
            Ok(ip) => {
                if let Some(link) = links.remove(&name) {
                    self.take_over(known, ip, &link, report);
                }
            }
            Err(why) => {
                report.warnings.push(format!("{id}: {why}"));
                report.missing.push(id.clone());
            }
        }
    }

    fn take_over(&mut self, known: &Known, ip: Ipv4Addr, link: &Link, report: &mut Adoption) {
        let id = &known.container_id;
        if link.master != Some(self.bridge_index)
            && let Err(error) = self.links.enslave(link, self.bridge_index)
        {
            report.warnings.push(format!("{id}: {error}"));
        }
        if let Err(error) = sysctl::switch_off_ipv6(&link.name) {
            report.warnings.push(format!("{id}: {error}"));
        }
        let mut held = Vec::new();
        for map in &known.ports {
            match host_port::hold(HostPort::from(*map)) {
                Ok(port) => held.push(port),
                // Its packets still go to the container: the map decides before any socket does.
                Err(error) => report.warnings.push(format!("{id}: {error}")),
            }
        }
        self.ports.hold(id, &known.ports);
        let attached = Attached {
            ip,
            ports: known.ports.clone(),
            host_interface: link.name.clone(),
            _held: held,
        };
        self.attached.insert(id.clone(), attached);
        report.adopted.push(id.clone());
    }

    fn remove_strays(
        &mut self,
        mut links: BTreeMap<String, Link>,
        report: &mut Adoption,
    ) -> Vec<NetError> {
        // Those that are leaving anyway are the reaper's.
        links.retain(|name, _| !self.reaper.holds(name));
        let strays: Vec<Link> = links.into_values().collect();
        report.removed_links = strays.len();
        self.links
            .delete_together(&strays, names::doomed_group(&self.tag))
    }

    /// Makes the map hold exactly the attached containers' ports.
    fn settle_ports(&mut self, report: &mut Adoption) -> Result<(), NetError> {
        let present: BTreeSet<Element> = self.nftables.elements(&self.table)?.into_iter().collect();
        let wanted: BTreeSet<Element> = self
            .attached
            .values()
            .flat_map(|at| at.ports.iter().map(|map| Element::new(*map, at.ip)))
            .collect();
        let stray: Vec<Element> = present.difference(&wanted).copied().collect();
        let lacking: Vec<Element> = wanted.difference(&present).copied().collect();
        self.nftables.change(&self.table, &lacking, &stray)?;
        self.unclaimed.clear();
        report.removed_ports = stray.len();
        Ok(())
    }
}
