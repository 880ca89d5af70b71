//! What a node has beside the amounts that every task may use: static reservations, attributes of
//! every type, its fault domain, disks of their own. And how the endpoints print all of it.
//!
//! It decides nothing about who gets what: unreserved amounts and those of a role are never mixed.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::ResourcesMessage;
use crate::mesos::amounts::to_resources;
use crate::mesos::attributes::print_value;
use crate::mesos::v1::domain_info::FaultDomain;
use crate::mesos::v1::domain_info::fault_domain::{RegionInfo, ZoneInfo};
use crate::mesos::v1::resource::{ReservationInfo, reservation_info};
use crate::mesos::v1::value::Type;
use crate::mesos::v1::{Attribute, DomainInfo, Resource};
use crate::mesos::{Encoding, encode};
use crate::resources::Resources;

/// See the module.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Inventory {
    /// By the role that alone may have them; on top of what is unreserved.
    #[prost(btree_map = "string, message", tag = "1")]
    pub reserved: BTreeMap<String, ResourcesMessage>,
    /// Attributes with their types.
    #[prost(message, repeated, tag = "2")]
    pub attributes: Vec<Attribute>,
    /// Fault domain: the region; empty when none is told.
    #[prost(string, tag = "3")]
    pub region: String,
    /// Fault domain: the zone.
    #[prost(string, tag = "4")]
    pub zone: String,
    /// Disks with a source of their own (PATH, MOUNT), each a resource `disk`.
    #[prost(message, repeated, tag = "5")]
    pub disks: Vec<Resource>,
}

impl Inventory {
    /// Attributes as Mesos prints their values.
    #[must_use]
    pub fn attributes_as_text(&self) -> BTreeMap<String, String> {
        let pair = |a: &Attribute| (a.name.clone(), print_value(a));
        self.attributes.iter().map(pair).collect()
    }

    /// Everything, reserved or not.
    #[must_use]
    pub fn total(&self, unreserved: &Resources) -> Resources {
        let mut total = unreserved.clone();
        for amounts in self.reserved.values() {
            total.add(&amounts.into());
        }
        total
    }

    /// Everything as Mesos lists it: each amount by who may have it, then the disks.
    #[must_use]
    pub fn all(&self, unreserved: &Resources) -> Vec<Resource> {
        let mut list = to_resources(unreserved);
        for (role, amounts) in &self.reserved {
            let mut of_role = to_resources(&amounts.into());
            of_role.iter_mut().for_each(|it| reserve(it, role));
            list.extend(of_role);
        }
        list.extend(self.disks.iter().cloned());
        list
    }

    /// None: none was told.
    #[must_use]
    pub fn domain(&self) -> Option<DomainInfo> {
        let fault_domain = FaultDomain {
            region: RegionInfo {
                name: self.region.clone(),
            },
            zone: ZoneInfo {
                name: self.zone.clone(),
            },
        };
        (!self.region.is_empty()).then_some(DomainInfo {
            fault_domain: Some(fault_domain),
        })
    }

    /// The fields that `/state` and `/slaves` of Mesos have about it.
    #[must_use]
    pub fn shown(&self, unreserved: &Resources) -> Map<String, Value> {
        let disks_of = |role: Option<&str>| {
            let disks = self.disks.iter();
            disks
                .filter(move |disk| role_of(disk) == role)
                .cloned()
                .collect::<Vec<_>>()
        };
        let with_disks = |amounts: &Resources, disks: &[Resource]| {
            let scalars = disks.iter().filter_map(|disk| disk.scalar.as_ref());
            let mib: f64 = scalars.map(|scalar| scalar.value).sum();
            let mut shown = amounts_shown(amounts);
            shown["disk"] = json!(amounts.disk.mib() + mib);
            shown
        };
        let mut roles: Vec<&str> = self.reserved.keys().map(String::as_str).collect();
        roles.extend(self.disks.iter().filter_map(role_of));
        roles.sort_unstable();
        roles.dedup();
        let (mut reserved, mut reserved_full) = (Map::new(), Map::new());
        for role in roles {
            let amounts = self
                .reserved
                .get(role)
                .map(Resources::from)
                .unwrap_or_default();
            let disks = disks_of(Some(role));
            reserved.insert(role.to_owned(), with_disks(&amounts, &disks));
            let mut list = to_resources(&amounts);
            list.iter_mut().for_each(|resource| reserve(resource, role));
            list.extend(disks);
            reserved_full.insert(role.to_owned(), printed(&list));
        }
        let free = disks_of(None);
        let mut list = to_resources(unreserved);
        list.extend(free.iter().cloned());
        let mut shown = Map::new();
        let all = with_disks(&self.total(unreserved), &self.disks);
        shown.insert("resources".to_owned(), all);
        shown.insert(
            "unreserved_resources".to_owned(),
            with_disks(unreserved, &free),
        );
        shown.insert("unreserved_resources_full".to_owned(), printed(&list));
        shown.insert("reserved_resources".to_owned(), reserved.into());
        shown.insert("reserved_resources_full".to_owned(), reserved_full.into());
        let attributes = self
            .attributes
            .iter()
            .map(|a| (a.name.clone(), attribute_shown(a)));
        shown.insert("attributes".to_owned(), Value::Object(attributes.collect()));
        if !self.region.is_empty() {
            let domain = json!({"fault_domain": {
                "region": {"name": self.region}, "zone": {"name": self.zone},
            }});
            shown.insert("domain".to_owned(), domain);
        }
        shown
    }
}

/// Makes a resource a role's own, as an operator does.
pub fn reserve(resource: &mut Resource, role: &str) {
    resource.reservations = vec![ReservationInfo {
        r#type: Some(reservation_info::Type::Static as i32),
        role: Some(role.to_owned()),
        ..ReservationInfo::default()
    }];
}

fn role_of(resource: &Resource) -> Option<&str> {
    let reservation = resource.reservations.first();
    reservation.map(ReservationInfo::role)
}

fn printed(list: &[Resource]) -> Value {
    let one = |resource: &Resource| {
        let text = encode(Encoding::Json, resource);
        serde_json::from_slice(&text).unwrap_or(Value::Null)
    };
    list.iter().map(one).collect()
}

/// Scalars are numbers, all else is text.
fn attribute_shown(attribute: &Attribute) -> Value {
    match (attribute.r#type(), &attribute.scalar) {
        (Type::Scalar, Some(scalar)) => json!(scalar.value),
        _ => print_value(attribute).into(),
    }
}

/// Scalars as numbers, ranges as text; no ports, no entry.
#[must_use]
pub fn amounts_shown(amounts: &Resources) -> Value {
    let mut shown = json!({
        "cpus": amounts.cpus.cpus(),
        "mem": amounts.mem.mib(),
        "disk": amounts.disk.mib(),
        "gpus": amounts.gpus as f64,
    });
    if !amounts.ports.is_empty() {
        shown["ports"] = amounts.ports.to_string().into();
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesos::resources_text::parse;
    use crate::units::{Bytes, MilliCpu};

    #[test]
    fn everything_is_shown_once() {
        let unreserved = Resources {
            cpus: MilliCpu(1_500),
            mem: Bytes(64 << 20),
            ..Resources::default()
        };
        let reserved = Resources {
            cpus: MilliCpu(500),
            ..Resources::default()
        };
        let disks = r#"[{"name":"disk","type":"SCALAR","scalar":{"value":10},
            "disk":{"source":{"type":"MOUNT","mount":{"root":"/d"}}}}]"#;
        let mut disks = parse(disks, "*").unwrap();
        disks.push(disks[0].clone());
        reserve(&mut disks[1], "web");
        let inventory = Inventory {
            reserved: [("web".to_owned(), (&reserved).into())].into(),
            attributes: crate::mesos::attributes::parse("rack:r;level:2;p:[1-2];s:{a,b}").unwrap(),
            region: "eu".to_owned(),
            zone: "a".to_owned(),
            disks,
        };
        let shown = Value::Object(inventory.shown(&unreserved));
        assert_eq!(shown["resources"]["cpus"], 2.0);
        assert_eq!(shown["resources"]["disk"], 20.0);
        assert_eq!(shown["unreserved_resources"]["cpus"], 1.5);
        assert_eq!(shown["unreserved_resources"]["disk"], 10.0);
        assert_eq!(shown["reserved_resources"]["web"]["cpus"], 0.5);
        assert_eq!(shown["reserved_resources"]["web"]["disk"], 10.0);
        let web = shown["reserved_resources_full"]["web"].as_array().unwrap();
        assert_eq!(
            web[0]["reservations"][0],
            json!({"type": "STATIC", "role": "web"})
        );
        assert_eq!(web[1]["disk"]["source"]["mount"]["root"], "/d");
        assert_eq!(
            shown["unreserved_resources_full"].as_array().unwrap().len(),
            3
        );
        let attributes = json!({"rack": "r", "level": 2.0, "p": "[1-2]", "s": "{a, b}"});
        assert_eq!(shown["attributes"], attributes);
        assert_eq!(shown["domain"]["fault_domain"]["zone"]["name"], "a");
    }
}
