//! From one term of a rule to the kernel's register machine.
//!
//! Every term loads into register 1, compares, and leaves nothing for the next to rely on.
//! Constants are those of linux/netfilter/nf_tables.h; what the packet crate has no types for (fib,
//! ct, nat, masq, socket, reject) is written as raw attributes.

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, Expressions, Immediate, Lookup, Meta, MetaKey, Operator, Payload,
    Register, Verdict, VerdictAttribute,
};

use crate::ruleset::{PORTS, Prefix, Term};

/// `NF_DROP`, `NF_ACCEPT`
const DROP: u32 = 0;
const ACCEPT: u32 = 1;
/// IFNAMSIZ
const INTERFACE_BYTES: usize = 16;
/// `NFT_PAYLOAD_NETWORK_HEADER`, `NFT_PAYLOAD_TRANSPORT_HEADER`
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;
/// Offsets in the IPv4 header.
const SOURCE: u32 = 12;
const DESTINATION: u32 = 16;
/// `NF_CT_STATE_BIT(IP_CT_ESTABLISHED) | NF_CT_STATE_BIT(IP_CT_RELATED)`
const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
/// `IPS_DST_NAT`
const DESTINATION_TRANSLATED: u32 = 1 << 5;
/// `NFT_CT_STATE`, `NFT_CT_STATUS`
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
/// Offset and length of the destination port, the same in TCP and UDP.
const PORT: (u32, u32) = (2, 2);
/// `IPPROTO_TCP`
const TCP: u8 = 6;
/// `RTN_LOCAL`
const LOCAL: u32 = 2;
/// `NFTA_REJECT_TYPE`, `NFT_REJECT_TCP_RST`
const REJECT_TYPE: u16 = 1;
const TCP_RESET: u32 = 1;

/// The expressions of a term, in order.
pub(super) fn of(term: &Term) -> Vec<Expressions> {
    match term {
        Term::InputIs(name) => interface(MetaKey::Iifname, name, Operator::Equal),
        Term::OutputIs(name) => interface(MetaKey::Oifname, name, Operator::Equal),
        Term::OutputIsNot(name) => interface(MetaKey::Oifname, name, Operator::NotEqual),
        Term::SourceIn(prefix) => address(SOURCE, *prefix, Operator::Equal),
        Term::SourceNotIn(prefix) => address(SOURCE, *prefix, Operator::NotEqual),
        Term::DestinationIn(prefix) => address(DESTINATION, *prefix, Operator::Equal),
        Term::DestinationLocal => destination_is_local(),
        Term::Established => connection(CT_STATE, ESTABLISHED_OR_RELATED),
        Term::Translated => connection(CT_STATUS, DESTINATION_TRANSLATED),
        Term::TcpPortIs(port) => tcp_port(*port),
        Term::SenderInCgroup(id) => sender_in_cgroup(*id),
        Term::ToPublished => to_published(),
        Term::Masquerade => vec![other("masq", &[])],
        Term::Accept => vec![verdict(ACCEPT)],
        Term::Drop => vec![verdict(DROP)],
        Term::ResetTcp => vec![other("reject", &[(REJECT_TYPE, TCP_RESET)])],
    }
}

fn interface(key: MetaKey, name: &str, operator: Operator) -> Vec<Expressions> {
    let mut padded = name.as_bytes().to_vec();
    padded.resize(INTERFACE_BYTES, 0);
    vec![
        Expressions::Meta(vec![
            Meta::DestinationRegister(Register::Reg1),
            Meta::Key(key),
        ]),
        compare(operator, padded),
    ]
}

fn address(offset: u32, prefix: Prefix, operator: Operator) -> Vec<Expressions> {
    let bits = crate::subnet::mask(prefix.prefix);
    let wanted = prefix.address.to_bits() & bits;
    vec![
        payload(NETWORK, offset, 4, Register::Reg1),
        mask(bits.to_be_bytes()),
        compare(operator, wanted.to_be_bytes().to_vec()),
    ]
}

fn destination_is_local() -> Vec<Expressions> {
    /// `NFTA_FIB_DREG`, `NFTA_FIB_RESULT`, `NFTA_FIB_FLAGS`
    const ATTRIBUTES: [u16; 3] = [1, 2, 3];
    /// `NFT_FIB_RESULT_ADDRTYPE`, `NFTA_FIB_F_DADDR`
    const ADDRESS_TYPE: u32 = 3;
    const OF_DESTINATION: u32 = 1 << 1;
    let [register, result, flags] = ATTRIBUTES;
    vec![
        other(
            "fib",
            &[
                (register, Register::Reg1.into()),
                (result, ADDRESS_TYPE),
                (flags, OF_DESTINATION),
            ],
        ),
        compare(Operator::Equal, LOCAL.to_ne_bytes().to_vec()),
    ]
}

fn connection(key: u32, any_of: u32) -> Vec<Expressions> {
    /// `NFTA_CT_DREG`, `NFTA_CT_KEY`
    const REGISTER: u16 = 1;
    const KEY: u16 = 2;
    vec![
        other("ct", &[(KEY, key), (REGISTER, Register::Reg1.into())]),
        mask(any_of.to_ne_bytes()),
        compare(Operator::NotEqual, vec![0; 4]),
    ]
}

fn tcp_port(port: u16) -> Vec<Expressions> {
    vec![
        protocol(),
        compare(Operator::Equal, vec![TCP]),
        payload(TRANSPORT, PORT.0, PORT.1, Register::Reg1),
        compare(Operator::Equal, port.to_be_bytes().to_vec()),
    ]
}

fn sender_in_cgroup(id: u64) -> Vec<Expressions> {
    /// `NFTA_SOCKET_KEY`, `NFTA_SOCKET_DREG`, `NFTA_SOCKET_LEVEL`
    const ATTRIBUTES: [u16; 3] = [1, 2, 3];
    /// `NFT_SOCKET_CGROUPV2`
    const CGROUP: u32 = 3;
    /// The ancestor to compare: the root's child.
    const BELOW_ROOT: u32 = 1;
    let [key, register, level] = ATTRIBUTES;
    vec![
        other(
            "socket",
            &[
                (key, CGROUP),
                (register, Register::Reg1.into()),
                (level, BELOW_ROOT),
            ],
        ),
        compare(Operator::Equal, id.to_ne_bytes().to_vec()),
    ]
}

/// Registers 0 and 1 of 32 bits are the first half of register 1: key and value lie side by side in
/// it.
fn to_published() -> Vec<Expressions> {
    /// `NFTA_NAT_TYPE`, `_FAMILY`, `_REG_ADDR_MIN`, `_REG_PROTO_MIN`
    const KIND: u16 = 1;
    const FAMILY: u16 = 2;
    const ADDRESS_REGISTER: u16 = 3;
    const PORT_REGISTER: u16 = 5;
    /// `NFT_NAT_DNAT`, `NFPROTO_IPV4`
    const TO_DESTINATION: u32 = 1;
    const IPV4: u32 = 2;
    vec![
        protocol(),
        payload(TRANSPORT, PORT.0, PORT.1, Register::Reg32_01),
        Expressions::Lookup(vec![
            Lookup::Set(PORTS.to_owned()),
            Lookup::SourceRegister(Register::Reg1),
            Lookup::DestinationRegister(Register::Reg1),
        ]),
        other(
            "nat",
            &[
                (KIND, TO_DESTINATION),
                (FAMILY, IPV4),
                (ADDRESS_REGISTER, Register::Reg1.into()),
                (PORT_REGISTER, Register::Reg32_01.into()),
            ],
        ),
    ]
}

fn protocol() -> Expressions {
    Expressions::Meta(vec![
        Meta::DestinationRegister(Register::Reg1),
        Meta::Key(MetaKey::L4Proto),
    ])
}

fn payload(base: u32, offset: u32, length: u32, register: Register) -> Expressions {
    Expressions::Payload(vec![
        Payload::DestinationRegister(register),
        Payload::Base(base),
        Payload::Offset(offset),
        Payload::Len(length),
    ])
}

fn mask(bits: [u8; 4]) -> Expressions {
    Expressions::Bitwise(vec![
        Bitwise::SourceRegister(Register::Reg1),
        Bitwise::DestinationRegister(Register::Reg1),
        Bitwise::Length(4),
        Bitwise::Mask(DataAttribute::Value(bits.to_vec())),
        Bitwise::Xor(DataAttribute::Value(vec![0; 4])),
    ])
}

fn compare(operator: Operator, with: Vec<u8>) -> Expressions {
    Expressions::Cmp(vec![
        Cmp::SourceRegister(Register::Reg1),
        Cmp::Op(operator),
        Cmp::Data(DataAttribute::Value(with)),
    ])
}

fn verdict(code: u32) -> Expressions {
    let attributes = vec![VerdictAttribute::Code(Verdict::Other(code))];
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(DataAttribute::Verdict(attributes)),
    ])
}

/// An expression without types: its attributes are big-endian numbers.
fn other(name: &str, attributes: &[(u16, u32)]) -> Expressions {
    let attributes = attributes
        .iter()
        .map(|(kind, value)| DefaultNla::new(*kind, value.to_be_bytes().to_vec()))
        .collect();
    Expressions::Other {
        expression_type: name.to_owned(),
        attributes,
    }
}
