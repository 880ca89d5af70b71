//! The node's container subnet: the type, and which one a tag gets.
//!
//! Decides by hash of the tag, then the next free one, so that the same node gets the same subnet
//! again and several nodes on one machine get different ones. Does not read routes: the caller says
//! which prefixes are taken.

use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::error::NetError;
use crate::names;

/// Private ranges that /24 subnets are cut from, tried in this order. They avoid what Docker
/// (172.17/16 and up), podman (10.88/16), k3s (10.42/15), flannel (10.244/16) and home routers
/// (192.168.0-127) take by default.
const RANGES: [(Ipv4Addr, u8); 3] = [
    (Ipv4Addr::new(10, 208, 0, 0), 13),
    (Ipv4Addr::new(172, 28, 0, 0), 14),
    (Ipv4Addr::new(192, 168, 128, 0), 17),
];

/// Prefix length of a chosen subnet.
const CHOSEN_PREFIX: u8 = 24;

/// The longest prefix that still has a gateway, one container and a broadcast address.
const LONGEST_PREFIX: u8 = 30;
/// The shortest prefix accepted: 65 534 addresses, more than one bridge carries.
const SHORTEST_PREFIX: u8 = 16;

/// An IPv4 subnet in canonical form (no host bits).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Subnet {
    address: Ipv4Addr,
    prefix: u8,
}

impl Subnet {
    /// A subnet that containers can live in: prefix 16 to 30, no host bits set.
    ///
    /// # Errors
    /// [`NetError::InvalidSubnet`] otherwise.
    pub fn new(address: Ipv4Addr, prefix: u8) -> Result<Self, NetError> {
        let usable = (SHORTEST_PREFIX..=LONGEST_PREFIX).contains(&prefix);
        if !usable || address.to_bits() & !mask(prefix) != 0 {
            return Err(NetError::InvalidSubnet { address, prefix });
        }
        Ok(Self { address, prefix })
    }

    /// The subnet that an interface address lies in.
    pub(crate) fn around(address: Ipv4Addr, prefix: u8) -> Result<Self, NetError> {
        let prefix_bits = mask(prefix.min(32));
        Self::new(Ipv4Addr::from_bits(address.to_bits() & prefix_bits), prefix)
    }

    /// The first address.
    #[must_use]
    pub const fn address(self) -> Ipv4Addr {
        self.address
    }

    /// The prefix length in bits.
    #[must_use]
    pub const fn prefix(self) -> u8 {
        self.prefix
    }

    /// The bridge's own address: the first usable one.
    #[must_use]
    pub const fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits() + 1)
    }

    /// Addresses that containers can have, lowest first: all but network, gateway and broadcast.
    pub(crate) fn container_addresses(self) -> impl Iterator<Item = Ipv4Addr> {
        let first = self.address.to_bits() + 2;
        let broadcast = self.address.to_bits() | !mask(self.prefix);
        (first..broadcast).map(Ipv4Addr::from_bits)
    }

    /// Whether the address is in this subnet.
    #[must_use]
    pub const fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.prefix) == self.address.to_bits()
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// A prefix that the host routes somewhere or has an address in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) address: Ipv4Addr,
    pub(crate) prefix: u8,
}

impl Taken {
    /// Default routes (and the two halves that VPNs use in their place) take nothing.
    fn overlaps(self, subnet: Subnet) -> bool {
        let shared = self.prefix.min(subnet.prefix);
        self.prefix > 1
            && self.address.to_bits() & mask(shared) == subnet.address.to_bits() & mask(shared)
    }
}

pub(crate) const fn mask(prefix: u8) -> u32 {
    match prefix {
        0 => 0,
        1..=31 => u32::MAX << (32 - prefix),
        _ => u32::MAX,
    }
}

/// The subnet for a tag: in each range, from the place that the tag hashes to, the first that
/// nothing overlaps.
pub(crate) fn choose(tag: &str, taken: &[Taken]) -> Result<Subnet, NetError> {
    for (base, range_prefix) in RANGES {
        let count = 1_u64 << (CHOSEN_PREFIX - range_prefix);
        let start = names::digest(tag.as_bytes()) % count;
        for step in 0..count {
            let index = u32::try_from((start + step) % count).unwrap_or(0);
            let address = Ipv4Addr::from_bits(base.to_bits() + (index << (32 - CHOSEN_PREFIX)));
            let subnet = Subnet {
                address,
                prefix: CHOSEN_PREFIX,
            };
            if !taken.iter().any(|prefix| prefix.overlaps(subnet)) {
                return Ok(subnet);
            }
        }
    }
    Err(NetError::NoFreeSubnet)
}

/// Refuses a subnet that the host already uses for something else.
pub(crate) fn check_free(subnet: Subnet, taken: &[Taken]) -> Result<(), NetError> {
    match taken.iter().find(|prefix| prefix.overlaps(subnet)) {
        None => Ok(()),
        Some(Taken { address, prefix }) => Err(NetError::SubnetTaken {
            subnet,
            by: format!("{address}/{prefix}"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(text: &str) -> Taken {
        let (address, prefix) = text.split_once('/').unwrap();
        Taken {
            address: address.parse().unwrap(),
            prefix: prefix.parse().unwrap(),
        }
    }

    #[test]
    fn a_tag_always_gets_the_same_and_moves_on_when_taken() {
        let first = choose("0123abcd", &[]).unwrap();
        assert_eq!(first, choose("0123abcd", &[taken("0.0.0.0/0")]).unwrap());
        assert_ne!(first, choose("0123abce", &[]).unwrap());
        let second = choose("0123abcd", &[taken(&first.to_string())]).unwrap();
        assert_eq!(second.address().to_bits(), first.address().to_bits() + 256);
        let host = Taken {
            address: first.gateway(),
            prefix: 32,
        };
        assert_eq!(second, choose("0123abcd", &[host]).unwrap());
    }

    #[test]
    fn a_range_that_is_taken_whole_leads_to_the_next() {
        let subnet = choose("x", &[taken("10.0.0.0/8")]).unwrap();
        assert!(subnet.to_string().starts_with("172."), "{subnet}");
        let subnet = choose("x", &[taken("10.0.0.0/8"), taken("172.16.0.0/12")]).unwrap();
        assert!(subnet.to_string().starts_with("192.168."), "{subnet}");
        let all = [
            taken("10.0.0.0/8"),
            taken("172.16.0.0/12"),
            taken("192.168.0.0/16"),
        ];
        assert!(matches!(choose("x", &all), Err(NetError::NoFreeSubnet)));
    }

    #[test]
    fn bounds_of_a_subnet() {
        let address = Ipv4Addr::new(10, 1, 2, 0);
        let subnet = Subnet::new(address, 29).unwrap();
        let all: Vec<String> = subnet
            .container_addresses()
            .map(|ip| ip.to_string())
            .collect();
        assert_eq!(
            all,
            ["10.1.2.2", "10.1.2.3", "10.1.2.4", "10.1.2.5", "10.1.2.6"]
        );
        assert_eq!(subnet.gateway(), Ipv4Addr::new(10, 1, 2, 1));
        assert!(subnet.contains(Ipv4Addr::new(10, 1, 2, 7)));
        assert!(!subnet.contains(Ipv4Addr::new(10, 1, 2, 8)));
        assert!(Subnet::new(address, 31).is_err());
        assert!(Subnet::new(address, 8).is_err());
        assert!(Subnet::new(Ipv4Addr::new(10, 1, 2, 1), 24).is_err());
        assert_eq!(
            Subnet::around(Ipv4Addr::new(10, 1, 2, 1), 24)
                .unwrap()
                .address(),
            address
        );
    }
}
