//! From rules and published ports to nftables messages and back.
//!
//! Decides the layout of the map: the key is protocol and host port, the value address and port,
//! each part in a 32-bit register of its own, as `nft` itself lays out a concatenation. Sends
//! nothing.

use std::net::Ipv4Addr;

use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, DataAttribute, Hook, HookNumber, InetHookNumber, ListAttribute,
    NfTablesMessage, RuleAttribute, RuleMessage, SetAttribute, SetDescription, SetElementAttribute,
    SetElementList, SetElementMessage, SetFlags, SetMessage, TableAttribute, TableMessage,
};
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner};

use super::expression;
use crate::ports::{HostPort, PortMap, Protocol};
use crate::ruleset::{Chain, ChainHook, ChainKind, MAX_PORT_MAPS, PORTS, Term};

/// `NF_ACCEPT`
const ACCEPT: u32 = 1;
/// Datatype numbers of the `nft` program, which it prints the map by; the kernel ignores them. A
/// concatenation has six bits for each part.
const IPV4_ADDRESS: u32 = 7;
const INET_PROTOCOL: u32 = 12;
const INET_SERVICE: u32 = 13;
const KEY_TYPE: u32 = INET_PROTOCOL << 6 | INET_SERVICE;
const DATA_TYPE: u32 = IPV4_ADDRESS << 6 | INET_SERVICE;
/// Two 32-bit registers each.
const KEY_BYTES: u32 = 8;
const DATA_BYTES: u32 = 8;

/// One published port as the map holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Element {
    pub(crate) host: HostPort,
    pub(crate) address: Ipv4Addr,
    pub(crate) container_port: u16,
}

impl Element {
    pub(crate) fn new(map: PortMap, address: Ipv4Addr) -> Self {
        Self {
            host: HostPort::from(map),
            address,
            container_port: map.container_port,
        }
    }

    fn key(&self) -> Vec<u8> {
        let [high, low] = self.host.port.to_be_bytes();
        vec![self.host.protocol.number(), 0, 0, 0, high, low, 0, 0]
    }

    fn value(&self) -> Vec<u8> {
        let mut bytes = self.address.octets().to_vec();
        bytes.extend(self.container_port.to_be_bytes());
        bytes.extend([0, 0]);
        bytes
    }

    fn parse(key: &[u8], value: &[u8]) -> Option<Self> {
        let protocol = Protocol::from_number(*key.first()?)?;
        let port = u16::from_be_bytes(*key.get(4..)?.first_chunk()?);
        let address = Ipv4Addr::from(*value.first_chunk::<4>()?);
        let container_port = u16::from_be_bytes(*value.get(4..)?.first_chunk()?);
        Some(Self {
            host: HostPort { protocol, port },
            address,
            container_port,
        })
    }
}

pub(super) fn new_table(table: &str) -> NfTablesMessage {
    NfTablesMessage::NewTable(TableMessage {
        attributes: vec![TableAttribute::Name(table.to_owned())],
    })
}

pub(super) fn delete_table(table: &str) -> NfTablesMessage {
    NfTablesMessage::DeleteTable(TableMessage {
        attributes: vec![TableAttribute::Name(table.to_owned())],
    })
}

pub(super) fn new_map(table: &str) -> NfTablesMessage {
    NfTablesMessage::NewSet(SetMessage {
        attributes: vec![
            SetAttribute::Table(table.to_owned()),
            SetAttribute::Name(PORTS.to_owned()),
            SetAttribute::Flags(SetFlags::Map),
            SetAttribute::KeyType(KEY_TYPE),
            SetAttribute::KeyLen(KEY_BYTES),
            SetAttribute::DataType(DATA_TYPE),
            SetAttribute::DataLen(DATA_BYTES),
            SetAttribute::Description(vec![SetDescription::Size(MAX_PORT_MAPS)]),
            SetAttribute::Id(1),
        ],
    })
}

pub(super) fn new_chain(table: &str, chain: &Chain) -> NfTablesMessage {
    let kind = match chain.kind {
        ChainKind::Filter => "filter",
        ChainKind::Nat => "nat",
    };
    let hook = match chain.hook {
        ChainHook::Prerouting => InetHookNumber::PreRouting,
        ChainHook::Forward => InetHookNumber::Forward,
        ChainHook::Output => InetHookNumber::LocalOut,
        ChainHook::Postrouting => InetHookNumber::PostRouting,
    };
    NfTablesMessage::NewChain(ChainMessage {
        attributes: vec![
            ChainAttribute::Table(table.to_owned()),
            ChainAttribute::Name(chain.name.to_owned()),
            ChainAttribute::Hook(vec![
                Hook::Number(HookNumber::Inet(hook)),
                Hook::Priority(chain.priority.cast_unsigned()),
            ]),
            ChainAttribute::Policy(ACCEPT),
            ChainAttribute::Type(kind.to_owned()),
        ],
    })
}

pub(super) fn new_rule(table: &str, chain: &str, terms: &[Term]) -> NfTablesMessage {
    let expressions = terms
        .iter()
        .flat_map(expression::of)
        .map(ListAttribute::from)
        .collect();
    NfTablesMessage::NewRule(RuleMessage {
        attributes: vec![
            RuleAttribute::Table(table.to_owned()),
            RuleAttribute::Chain(chain.to_owned()),
            RuleAttribute::Expressions(expressions),
        ],
    })
}

pub(super) fn new_elements(table: &str, elements: &[Element]) -> NfTablesMessage {
    NfTablesMessage::NewSetElement(list(table, elements, true))
}

pub(super) fn delete_elements(table: &str, elements: &[Element]) -> NfTablesMessage {
    NfTablesMessage::DeleteSetElement(list(table, elements, false))
}

pub(super) fn get_elements(table: &str) -> NfTablesMessage {
    NfTablesMessage::GetSetElement(SetElementMessage {
        attributes: vec![
            SetElementList::Table(table.to_owned()),
            SetElementList::Set(PORTS.to_owned()),
        ],
    })
}

fn list(table: &str, elements: &[Element], with_value: bool) -> SetElementMessage {
    let encoded = elements
        .iter()
        .map(|element| {
            let mut attributes = vec![SetElementAttribute::Key(DataAttribute::Value(
                element.key(),
            ))];
            if with_value {
                let value = DataAttribute::Value(element.value());
                attributes.push(SetElementAttribute::Data(value));
            }
            ListAttribute::Element(attributes)
        })
        .collect();
    SetElementMessage {
        attributes: vec![
            SetElementList::Table(table.to_owned()),
            SetElementList::Set(PORTS.to_owned()),
            SetElementList::Elements(encoded),
        ],
    }
}

/// The elements in one message of a dump.
pub(super) fn elements_of(message: &NetfilterMessage) -> Vec<Element> {
    let NetfilterMessageInner::NfTables(NfTablesMessage::NewSetElement(elements)) = &message.inner
    else {
        return Vec::new();
    };
    elements
        .attributes
        .iter()
        .filter_map(|attribute| match attribute {
            SetElementList::Elements(list) => Some(list),
            _ => None,
        })
        .flatten()
        .filter_map(|entry| match entry {
            ListAttribute::Element(attributes) => element_of(attributes),
            _ => None,
        })
        .collect()
}

fn element_of(attributes: &[SetElementAttribute]) -> Option<Element> {
    let mut key = None;
    let mut value = None;
    for attribute in attributes {
        match attribute {
            SetElementAttribute::Key(DataAttribute::Value(bytes)) => key = Some(bytes),
            SetElementAttribute::Data(DataAttribute::Value(bytes)) => value = Some(bytes),
            _ => {}
        }
    }
    Element::parse(key?, value?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_survives_its_encoding() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let map = PortMap {
                host_port: 31_234,
                container_port: 80,
                protocol,
            };
            let element = Element::new(map, Ipv4Addr::new(10, 208, 7, 2));
            assert_eq!(element.key().len(), 8);
            assert_eq!(element.value().len(), 8);
            assert_eq!(
                Element::parse(&element.key(), &element.value()),
                Some(element)
            );
        }
        assert_eq!(Element::parse(&[1, 0, 0, 0, 1, 1, 0, 0], &[0; 8]), None);
        assert_eq!(Element::parse(&[6, 0, 0, 0], &[0; 8]), None);
        assert_eq!(Element::parse(&[6, 0, 0, 0, 1, 1, 0, 0], &[0; 4]), None);
    }
}
