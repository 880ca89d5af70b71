//! What a node is told to offer, from lists of `mesos.v1.Resource` as operators write them. Decides
//! which of those a node can have; what is not told is found by `resources`.

use std::collections::BTreeMap;

use gantry_wire::agent::inventory::reserve;
use gantry_wire::mesos::amounts::{AmountsError, from_resources};
use gantry_wire::mesos::resources_text::NO_ROLE;
use gantry_wire::mesos::v1::Resource;
use gantry_wire::mesos::v1::resource::reservation_info;
use gantry_wire::resources::{PortRanges, Resources};
use gantry_wire::units::{Bytes, MilliCpu};

use crate::disks;

/// Why a node cannot offer something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// Another name, or a value that is not of its type.
    #[error(transparent)]
    Amounts(#[from] AmountsError),
    /// Only an operator's reservations can be configured.
    #[error("resource '{0}' is reserved otherwise than once and statically")]
    Reservation(String),
    /// Not a role.
    #[error("'{0}' is no role")]
    Role(String),
    /// Disks without a directory, volumes, revocable and shared resources.
    #[error(
        "resource '{0}' is revocable, shared, a volume, or a disk that is neither PATH nor MOUNT \
         with an absolute root: that is not configured here"
    )]
    Special(String),
}

/// Amounts to offer; None is detected. What is reserved comes on top of what is not.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overrides {
    /// Processors.
    pub cpus: Option<MilliCpu>,
    /// Memory.
    pub mem: Option<Bytes>,
    /// Disk.
    pub disk: Option<Bytes>,
    /// Whole GPUs.
    pub gpus: Option<u64>,
    /// Host ports.
    pub ports: Option<PortRanges>,
    /// By the role that alone may have them.
    pub reserved: BTreeMap<String, Resources>,
    /// Disks with a PATH or MOUNT source.
    pub disks: Vec<Resource>,
}

impl Overrides {
    /// From a list as it was configured. What is named only for a role is not detected any more:
    /// nothing else of it is offered.
    ///
    /// # Errors
    /// See [`OfferError`].
    pub fn of(list: &[Resource]) -> Result<Self, OfferError> {
        let (mut unreserved, mut disks) = (Vec::new(), Vec::new());
        let mut reserved: BTreeMap<String, Vec<Resource>> = BTreeMap::new();
        for resource in list {
            let special = resource.revocable.is_some() || resource.shared.is_some();
            let on_disk = resource.disk.is_some();
            let has_root = disks::root(resource).is_some_and(|root| root.starts_with('/'));
            let plain = resource.disk.as_ref();
            let plain = plain.is_none_or(|d| d.persistence.is_none() && d.volume.is_none());
            if special || !plain || (on_disk && !(has_root && resource.name == "disk")) {
                return Err(OfferError::Special(resource.name.clone()));
            }
            let owner = role(resource)?;
            if on_disk {
                let mut disk = resource.clone();
                (disk.role, disk.reservations) = (None, Vec::new());
                if let Some(role) = owner {
                    reserve(&mut disk, &role);
                }
                disks.push(disk);
                continue;
            }
            match owner {
                None => unreserved.push(resource.clone()),
                Some(role) => reserved.entry(role).or_default().push(resource.clone()),
            }
        }
        let free = from_resources(&unreserved)?;
        let named = |name: &str| {
            let mut root = list.iter().filter(|resource| resource.disk.is_none());
            root.any(|resource| resource.name == name)
        };
        let mut by_role = BTreeMap::new();
        for (role, list) in reserved {
            by_role.insert(role, from_resources(&list)?);
        }
        Ok(Self {
            cpus: named("cpus").then_some(free.cpus),
            mem: named("mem").then_some(free.mem),
            disk: named("disk").then_some(free.disk),
            gpus: named("gpus").then_some(free.gpus),
            ports: named("ports").then_some(free.ports),
            reserved: by_role,
            disks,
        })
    }
}

/// Who alone may have it; both forms of reservations that Mesos knows are read.
fn role(resource: &Resource) -> Result<Option<String>, OfferError> {
    let refused = || OfferError::Reservation(resource.name.clone());
    let role = match resource.reservations.as_slice() {
        [] if resource.reservation.is_some() => return Err(refused()),
        [] => resource.role().to_owned(),
        [one] if one.r#type() == reservation_info::Type::Static => one.role().to_owned(),
        _ => return Err(refused()),
    };
    if role == NO_ROLE {
        return Ok(None);
    }
    if !is_role(&role) {
        return Err(OfferError::Role(role));
    }
    Ok(Some(role))
}

/// By the rules of Mesos's `src/common/roles.cpp`.
fn is_role(role: &str) -> bool {
    role.split('/').all(|part| {
        let reserved = matches!(part, "" | "." | ".." | NO_ROLE);
        let odd = |c: char| c.is_whitespace() || c.is_control() || c == '\\';
        !reserved && !part.starts_with('-') && !part.contains(odd)
    })
}

#[cfg(test)]
mod tests {
    use gantry_wire::mesos::resources_text::parse;

    use super::*;

    #[test]
    fn what_is_named_is_told() {
        let list = parse(
            "cpus:4;cpus(a/b):2;mem(a/b):64;mem(c):1;ports(c):[5-6]",
            "*",
        )
        .unwrap();
        let told = Overrides::of(&list).unwrap();
        assert_eq!(told.cpus, Some(MilliCpu(4_000)));
        assert_eq!(told.mem, Some(Bytes(0)), "all of it is reserved");
        assert_eq!((told.disk, told.gpus), (None, None));
        assert_eq!(told.ports.unwrap().len(), 0);
        assert_eq!(told.reserved["a/b"].cpus, MilliCpu(2_000));
        assert_eq!(told.reserved["a/b"].mem, Bytes(64 << 20));
        assert_eq!(told.reserved["c"].ports.len(), 2);
        let json = r#"[{"name":"disk","type":"SCALAR","scalar":{"value":1},"role":"x",
            "disk":{"source":{"type":"PATH","path":{"root":"/p"}}}}]"#;
        let told = Overrides::of(&parse(json, "*").unwrap()).unwrap();
        assert_eq!(
            (told.disks.len(), told.disk),
            (1, None),
            "the root disk is detected all the same"
        );
        assert_eq!(told.disks[0].reservations[0].role(), "x");
        let json = r#"[{"name":"cpus","type":"SCALAR","scalar":{"value":1},"role":"x"}]"#;
        let told = Overrides::of(&parse(json, "*").unwrap()).unwrap();
        assert_eq!(told.reserved["x"].cpus, MilliCpu(1_000));
        assert_eq!(Overrides::of(&[]).unwrap(), Overrides::default());
    }

    #[test]
    fn what_a_node_cannot_have_is_refused() {
        for text in [
            "names:{a}",
            "cpus:[1-2]",
            "ports:[1-70000]",
            "gpus:0.5",
            "cpus(../x):1",
            "cpus(-a):1",
        ] {
            assert!(Overrides::of(&parse(text, "*").unwrap()).is_err(), "{text}");
        }
        for json in [
            r#"[{"name":"cpus","type":"SCALAR","scalar":{"value":1},"revocable":{}}]"#,
            r#"[{"name":"cpus","type":"SCALAR","scalar":{"value":1},"reservations":[{"type":"DYNAMIC","role":"a"}]}]"#,
            r#"[{"name":"cpus","type":"SCALAR","scalar":{"value":1},"role":"a","reservation":{"principal":"p"}}]"#,
        ] {
            assert!(Overrides::of(&parse(json, "*").unwrap()).is_err(), "{json}");
        }
    }
}
