//! Which address each container has.
//!
//! Decides: the lowest free one, from the second of the subnet on. An address that is given back
//! stays out of use until `free` is called, which happens when its link is gone. Does not know
//! links.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::error::NetError;
use crate::subnet::Subnet;

/// The addresses of one subnet and who has them.
#[derive(Debug)]
pub(crate) struct AddressPool {
    subnet: Subnet,
    holders: BTreeMap<Ipv4Addr, String>,
}

impl AddressPool {
    pub(crate) fn new(subnet: Subnet) -> Self {
        Self {
            subnet,
            holders: BTreeMap::new(),
        }
    }

    /// Hands out the lowest free address.
    pub(crate) fn take(&mut self, container_id: &str) -> Result<Ipv4Addr, NetError> {
        let mut held = self.holders.keys().copied().peekable();
        for address in self.subnet.container_addresses() {
            while held.next_if(|taken| *taken < address).is_some() {}
            if held.peek() != Some(&address) {
                self.holders.insert(address, container_id.to_owned());
                return Ok(address);
            }
        }
        Err(NetError::SubnetExhausted {
            subnet: self.subnet,
        })
    }

    /// Notes an address that a container already has.
    pub(crate) fn claim(&mut self, address: Ipv4Addr, container_id: &str) -> Result<(), String> {
        let usable = self.subnet.contains(address)
            && self
                .subnet
                .container_addresses()
                .any(|candidate| candidate == address);
        if !usable {
            return Err(format!(
                "{address} is no container address of {}",
                self.subnet
            ));
        }
        match self.holders.get(&address) {
            Some(holder) if holder != container_id => {
                Err(format!("{address} already belongs to {holder}"))
            }
            _ => {
                self.holders.insert(address, container_id.to_owned());
                Ok(())
            }
        }
    }

    pub(crate) fn free(&mut self, address: Ipv4Addr) {
        self.holders.remove(&address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lowest_free_and_no_more_than_there_are() {
        let subnet = Subnet::new(Ipv4Addr::new(10, 0, 0, 0), 29).unwrap();
        let mut pool = AddressPool::new(subnet);
        let given: Vec<u8> = (0..5)
            .map(|n| pool.take(&n.to_string()).unwrap().octets()[3])
            .collect();
        assert_eq!(given, [2, 3, 4, 5, 6]);
        assert!(matches!(
            pool.take("x"),
            Err(NetError::SubnetExhausted { .. })
        ));
        pool.free(Ipv4Addr::new(10, 0, 0, 4));
        assert_eq!(pool.take("x").unwrap(), Ipv4Addr::new(10, 0, 0, 4));
    }

    #[test]
    fn claims() {
        let subnet = Subnet::new(Ipv4Addr::new(10, 0, 0, 0), 29).unwrap();
        let mut pool = AddressPool::new(subnet);
        pool.claim(Ipv4Addr::new(10, 0, 0, 2), "a").unwrap();
        pool.claim(Ipv4Addr::new(10, 0, 0, 2), "a").unwrap();
        assert!(pool.claim(Ipv4Addr::new(10, 0, 0, 2), "b").is_err());
        assert!(pool.claim(Ipv4Addr::new(10, 0, 0, 1), "c").is_err());
        assert!(pool.claim(Ipv4Addr::new(10, 0, 0, 7), "c").is_err());
        assert!(pool.claim(Ipv4Addr::new(10, 0, 1, 2), "c").is_err());
        assert_eq!(pool.take("b").unwrap(), Ipv4Addr::new(10, 0, 0, 3));
    }
}
