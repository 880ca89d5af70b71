//! Port mappings, and who holds which host port in this network.
//!
//! Decides whether two mappings collide. Does not look at host sockets (`host_port` does) nor at
//! the kernel's map. Invariant: a (protocol, host port) pair belongs to at most one container.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{NetError, PortHolder};

/// Mappings of one container; more is refused.
pub(crate) const MAX_PORTS_PER_CONTAINER: usize = 256;

/// The transport that a mapping is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
}

impl Protocol {
    /// The IP protocol number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    pub(crate) const fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl FromStr for Protocol {
    type Err = NetError;

    fn from_str(text: &str) -> Result<Self, NetError> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            _ => Err(NetError::UnknownProtocol {
                protocol: text.to_owned(),
            }),
        }
    }
}

/// A port of the host that leads to a port of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortMap {
    /// Port on the host, on all its addresses; never 0.
    pub host_port: u16,
    /// Port inside the container; never 0.
    pub container_port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

/// What identifies a mapping on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostPort {
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
}

impl From<PortMap> for HostPort {
    fn from(map: PortMap) -> Self {
        Self {
            protocol: map.protocol,
            port: map.host_port,
        }
    }
}

/// Who holds which host port of this network.
#[derive(Debug, Default)]
pub(crate) struct PortTable {
    holders: BTreeMap<HostPort, String>,
}

impl PortTable {
    /// Refuses mappings with a port 0, too many of them, twice the same, or one that another
    /// container holds.
    pub(crate) fn check(&self, ports: &[PortMap]) -> Result<(), NetError> {
        if ports.len() > MAX_PORTS_PER_CONTAINER {
            let (count, limit) = (ports.len(), MAX_PORTS_PER_CONTAINER);
            return Err(NetError::TooManyPorts { count, limit });
        }
        let mut wanted: BTreeMap<HostPort, ()> = BTreeMap::new();
        for map in ports {
            if map.host_port == 0 || map.container_port == 0 {
                return Err(NetError::InvalidPort { map: *map });
            }
            let key = HostPort::from(*map);
            if wanted.insert(key, ()).is_some() {
                return Err(NetError::RepeatedPort {
                    port: key.port,
                    protocol: key.protocol,
                });
            }
            if let Some(holder) = self.holders.get(&key) {
                let by = PortHolder::Container(holder.clone());
                return Err(NetError::PortInUse {
                    port: key.port,
                    protocol: key.protocol,
                    by,
                });
            }
        }
        Ok(())
    }

    /// Notes the holder; `check` must have passed.
    pub(crate) fn hold(&mut self, container_id: &str, ports: &[PortMap]) {
        for map in ports {
            self.holders
                .insert(HostPort::from(*map), container_id.to_owned());
        }
    }

    pub(crate) fn release(&mut self, ports: &[PortMap]) {
        for map in ports {
            self.holders.remove(&HostPort::from(*map));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(host_port: u16, container_port: u16, protocol: Protocol) -> PortMap {
        PortMap {
            host_port,
            container_port,
            protocol,
        }
    }

    #[test]
    fn a_port_is_held_once_a_protocol() {
        let mut table = PortTable::default();
        let web = [map(8080, 80, Protocol::Tcp)];
        table.check(&web).unwrap();
        table.hold("a", &web);
        let error = table.check(&[map(8080, 81, Protocol::Tcp)]).unwrap_err();
        let holder = PortHolder::Container("a".into());
        assert!(matches!(error, NetError::PortInUse { port: 8080, by, .. } if by == holder));
        table.check(&[map(8080, 80, Protocol::Udp)]).unwrap();
        table.release(&web);
        table.check(&web).unwrap();
    }

    #[test]
    fn nonsense_is_refused() {
        let table = PortTable::default();
        for bad in [map(0, 80, Protocol::Tcp), map(80, 0, Protocol::Udp)] {
            assert!(matches!(
                table.check(&[bad]),
                Err(NetError::InvalidPort { .. })
            ));
        }
        let twice = [map(80, 80, Protocol::Tcp), map(80, 81, Protocol::Tcp)];
        assert!(matches!(
            table.check(&twice),
            Err(NetError::RepeatedPort { port: 80, .. })
        ));
        let many: Vec<PortMap> = (1..=257).map(|port| map(port, 1, Protocol::Tcp)).collect();
        assert!(matches!(
            table.check(&many),
            Err(NetError::TooManyPorts { count: 257, .. })
        ));
    }
}
