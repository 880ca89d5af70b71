//! Names and hardware addresses of everything we create, all derived from the tag, the container id
//! or the address.
//!
//! Decides names only; makes nothing. Invariants: an interface name has at most 15 characters
//! (IFNAMSIZ less the NUL), and the same input gives the same name for ever, because a restarted
//! agent finds its things by name.

use std::net::Ipv4Addr;

use crate::error::NetError;

/// Longest interface name: IFNAMSIZ is 16 with its NUL.
pub(crate) const MAX_INTERFACE_NAME: usize = 15;
/// Name of the interface inside every container.
pub(crate) const CONTAINER_INTERFACE: &str = "eth0";
/// Characters of the tag that fit into an interface name.
pub(crate) const SHORT_TAG: usize = 6;
/// Characters of the container's hash in an interface name: 36^8 is 41 bits.
const HASH_CHARACTERS: usize = 8;
const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

const TAG_LENGTH: std::ops::RangeInclusive<usize> = SHORT_TAG..=32;

/// A character that needs no quoting anywhere.
pub(crate) fn plain(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// Whether names can be made of the tag.
pub(crate) fn check_tag(tag: &str) -> Result<(), NetError> {
    if TAG_LENGTH.contains(&tag.len()) && tag.bytes().all(plain) {
        return Ok(());
    }
    let tag = tag.to_owned();
    Err(NetError::InvalidTag { tag })
}

/// The table that keeps containers from the node's own ports.
pub(crate) fn protection_table(tag: &str) -> String {
    format!("gantry-{tag}-api")
}

/// FNV-1a, 64 bits: small, stable across releases; what it must resist is accident, not attack.
pub(crate) fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The part that all host interfaces of a tag begin with.
pub(crate) fn host_interface_prefix(tag: &str) -> String {
    format!("g{}", short(tag))
}

/// Host end of a container's veth pair.
pub(crate) fn host_interface(tag: &str, container_id: &str) -> String {
    let mut name = host_interface_prefix(tag);
    // The low bits of FNV-1a are its weaker ones: fold the high half in.
    let hash = digest(container_id.as_bytes());
    let mut rest = hash ^ (hash >> 32);
    for _ in 0..HASH_CHARACTERS {
        let digit = usize::try_from(rest % 36).unwrap_or(0);
        name.push(char::from(DIGITS[digit]));
        rest /= 36;
    }
    name
}

pub(crate) fn short(tag: &str) -> &str {
    tag.get(..SHORT_TAG).unwrap_or(tag)
}

/// Link group that links are put into just before they are deleted together; never 0, the default
/// group.
pub(crate) fn doomed_group(tag: &str) -> u32 {
    let [a, b, c, d, ..] = digest(tag.as_bytes()).to_be_bytes();
    u32::from_be_bytes([a, b, c, d]) | 0x4000_0000
}

/// The bridge's address: fixed, because a bridge without one changes it whenever a port joins or
/// leaves, and every container then has the wrong address in its neighbour table.
pub(crate) fn bridge_mac(tag: &str) -> [u8; 6] {
    let [a, b, c, d, ..] = digest(tag.as_bytes()).to_be_bytes();
    [0x02, 0x47, a, b, c, d]
}

/// A container's address, from its IP address: whoever gets the IP next answers to the same
/// hardware address, so no neighbour table can hold a wrong one.
pub(crate) fn container_mac(ip: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = ip.octets();
    [0x02, 0x67, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_fit_and_differ() {
        let names: BTreeSet<String> = (0..20_000)
            .map(|n| host_interface("0a1b2c3d", &format!("task.{n}")))
            .collect();
        assert_eq!(names.len(), 20_000);
        assert!(names.iter().all(|name| name.len() == MAX_INTERFACE_NAME));
        assert!(names.iter().all(|name| name.starts_with("g0a1b2c")));
    }

    #[test]
    fn names_never_change() {
        // A running agent's links are found by these after an upgrade.
        assert_eq!(digest(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(digest(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(
            container_mac(Ipv4Addr::new(10, 1, 2, 3)),
            [2, 0x67, 10, 1, 2, 3]
        );
    }
}
