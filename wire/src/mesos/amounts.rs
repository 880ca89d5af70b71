//! Between wire's own [`Resources`] and the lists of `mesos.v1.Resource`. Scalars have three
//! decimals on the wire of Mesos and are integers here, so nothing is gained or lost by going
//! there and back. Reservations, disks and sharing are no business of this module.

use super::v1::value::{Range, Ranges, Scalar, Type};
use super::v1::{Resource, value};
use super::value_text::{scalar, thousandths};
use crate::resources::{PortRange, PortRanges, Resources};
use crate::units::{Bytes, MilliCpu};

/// Why a list of resources has no form of our own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AmountsError {
    /// Not cpus, mem, disk, gpus or ports.
    #[error("resource '{0}' is not known")]
    Unknown(String),
    /// The value is not of the type that the name asks for, or out of range.
    #[error("resource '{0}' has a value that cannot be")]
    Value(String),
}

/// The amounts of a list of resources, those of the same name added up, whoever they are reserved
/// for. Errors: see [`AmountsError`].
pub fn from_resources(list: &[Resource]) -> Result<Resources, AmountsError> {
    let mut sum = Resources::default();
    for resource in list {
        let amount = amount(resource)?;
        let amount = amount.ok_or_else(|| AmountsError::Value(resource.name.clone()))?;
        sum.add(&amount);
    }
    Ok(sum)
}

fn amount(resource: &Resource) -> Result<Option<Resources>, AmountsError> {
    let zero = Resources::default();
    let is_scalar = resource.r#type() == Type::Scalar;
    let fixed = || {
        let value = resource.scalar.as_ref().filter(|_| is_scalar)?.value;
        thousandths(value)
    };
    let bytes = || Bytes::from_mib(scalar(fixed()?));
    Ok(match resource.name.as_str() {
        "cpus" => fixed().map(|cpus| Resources {
            cpus: MilliCpu(cpus),
            ..zero
        }),
        "mem" => bytes().map(|mem| Resources { mem, ..zero }),
        "disk" => bytes().map(|disk| Resources { disk, ..zero }),
        "gpus" => fixed()
            .filter(|gpus| gpus.is_multiple_of(1000))
            .map(|gpus| Resources {
                gpus: gpus / 1000,
                ..zero
            }),
        "ports" => ports(resource).map(|ports| Resources { ports, ..zero }),
        other => return Err(AmountsError::Unknown(other.to_owned())),
    })
}

fn ports(resource: &Resource) -> Option<PortRanges> {
    let ranges = resource.ranges.as_ref();
    let ranges = ranges.filter(|_| resource.r#type() == Type::Ranges)?;
    let port = |range: &Range| {
        Some(PortRange {
            begin: u16::try_from(range.begin).ok()?,
            end: u16::try_from(range.end)
                .ok()
                .filter(|end| u64::from(*end) >= range.begin)?,
        })
    };
    let ranges: Option<Vec<PortRange>> = ranges.range.iter().map(port).collect();
    ranges.map(PortRanges::new)
}

/// The list of some amounts; what is zero is left out.
#[must_use]
pub fn to_resources(amounts: &Resources) -> Vec<Resource> {
    let mib = |bytes: Bytes| thousandths(bytes.mib()).unwrap_or(u64::MAX);
    let scalars = [
        ("cpus", amounts.cpus.0),
        ("mem", mib(amounts.mem)),
        ("disk", mib(amounts.disk)),
        ("gpus", amounts.gpus.saturating_mul(1000)),
    ];
    let scalars = scalars.into_iter().filter(|(_, fixed)| *fixed > 0);
    let mut list: Vec<Resource> = scalars
        .map(|(name, fixed)| scalar_resource(name, scalar(fixed)))
        .collect();
    if !amounts.ports.is_empty() {
        list.push(ports_resource(&amounts.ports));
    }
    list
}

/// A resource with one number.
#[must_use]
pub fn scalar_resource(name: &str, value: f64) -> Resource {
    Resource {
        name: name.to_owned(),
        r#type: Type::Scalar as i32,
        scalar: Some(Scalar { value }),
        ..Resource::default()
    }
}

fn ports_resource(ports: &PortRanges) -> Resource {
    let range = ports.ranges().iter().map(|range| value::Range {
        begin: u64::from(range.begin),
        end: u64::from(range.end),
    });
    Resource {
        name: "ports".to_owned(),
        r#type: Type::Ranges as i32,
        ranges: Some(Ranges {
            range: range.collect(),
        }),
        ..Resource::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesos::resources_text;

    #[test]
    fn amounts_there_and_back() {
        let text = "cpus:0.1;cpus(a):1.9;mem:1024.5;disk:0.001;gpus:2;ports:[1-2,5-5]";
        let amounts = from_resources(&resources_text::parse(text, "*").unwrap()).unwrap();
        assert_eq!(amounts.cpus, MilliCpu(2000));
        assert_eq!(amounts.mem, Bytes(1024 * 1_048_576 + 524_288));
        assert_eq!(amounts.disk, Bytes(1049));
        assert_eq!((amounts.gpus, amounts.ports.len()), (2, 3));
        let back = from_resources(&to_resources(&amounts)).unwrap();
        assert_eq!(back, amounts);
        assert!(to_resources(&Resources::default()).is_empty());
    }

    #[test]
    fn thousandths_survive() {
        for fixed in (0..5000).chain(999_999_000..1_000_000_000) {
            assert_eq!(thousandths(scalar(fixed)), Some(fixed));
            let bytes = Bytes::from_mib(scalar(fixed)).unwrap();
            assert_eq!(thousandths(bytes.mib()), Some(fixed));
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (text, known) in [
            ("bandwidth:1", false),
            ("cpus:[1-2]", true),
            ("gpus:0.5", true),
            ("ports:5", true),
            ("ports:[1-65536]", true),
            ("mem:2e9", true),
        ] {
            let found = from_resources(&resources_text::parse(text, "*").unwrap());
            let unknown = matches!(found, Err(AmountsError::Unknown(_)));
            assert!(found.is_err() && unknown != known, "{text}");
        }
    }
}
