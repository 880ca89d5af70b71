//! The rules that a network needs, as data. Printed, they read like `nft list table`.
//!
//! Decides what packets may do; does not talk to the kernel (`nftables` encodes it). Published
//! ports are not rules but elements of one map, so that the cost of a packet and of a change does
//! not grow with their number. What keeps tasks from the node's own API is a table of its own, so
//! that neither it nor the network is ever without rules while the other is written.
//!
//! Invariants: nothing of the host's own 127.0.0.0/8 is reachable from the bridge
//! (`route_localnet`, which the way from 127.0.0.1 to a container needs, would open it:
//! CVE-2020-8558), nobody on the bridge speaks from an address outside the subnet, and a container
//! is reachable from elsewhere only through a published port.

use std::fmt;
use std::net::Ipv4Addr;

use crate::subnet::Subnet;

/// Name of the map of published ports.
pub(crate) const PORTS: &str = "ports";
/// Most elements of that map.
pub(crate) const MAX_PORT_MAPS: u32 = 65_536;

const LOOPBACK: Prefix = Prefix {
    address: Ipv4Addr::LOCALHOST,
    prefix: 8,
};

/// An address prefix in a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Prefix {
    pub(crate) address: Ipv4Addr,
    pub(crate) prefix: u8,
}

/// What a rule asks of a packet or does with it, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Term {
    InputIs(String),
    OutputIs(String),
    OutputIsNot(String),
    SourceIn(Prefix),
    SourceNotIn(Prefix),
    DestinationIn(Prefix),
    /// The destination is an address of this host.
    DestinationLocal,
    /// Belongs to a connection already seen.
    Established,
    /// Its destination was translated.
    Translated,
    /// TCP to this port.
    TcpPortIs(u16),
    /// Sent by a socket that was made in this cgroup (version 2, directly below the root) or below
    /// it. The number is the cgroup's id: the inode number of its directory.
    SenderInCgroup(u64),
    /// To where the map of published ports says, if it says so.
    ToPublished,
    Masquerade,
    Accept,
    Drop,
    /// Answered as if nobody listened.
    ResetTcp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChainKind {
    Filter,
    Nat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChainHook {
    Prerouting,
    Forward,
    Output,
    Postrouting,
}

/// A base chain with policy accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) name: &'static str,
    pub(crate) kind: ChainKind,
    pub(crate) hook: ChainHook,
    pub(crate) priority: i32,
    pub(crate) rules: Vec<Vec<Term>>,
}

/// Everything in a table but the elements of its map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    table: String,
    /// Whether it has the map of published ports.
    publishes: bool,
    chains: Vec<Chain>,
}

/// Priorities of linux/netfilter_ipv4.h.
const RAW: i32 = -300;
const DESTINATION_NAT: i32 = -100;
const FILTER: i32 = 0;
const SOURCE_NAT: i32 = 100;

impl Ruleset {
    /// The rules for a bridge that carries a subnet.
    #[must_use]
    pub fn new(table: &str, bridge: &str, subnet: Subnet) -> Self {
        let own = Prefix {
            address: subnet.address(),
            prefix: subnet.prefix(),
        };
        let publish = |name, hook| Chain {
            name,
            kind: ChainKind::Nat,
            hook,
            priority: DESTINATION_NAT,
            rules: vec![vec![Term::DestinationLocal, Term::ToPublished]],
        };
        let chains = vec![
            guard(bridge, own),
            publish("inbound", ChainHook::Prerouting),
            publish("local", ChainHook::Output),
            between(bridge),
            outbound(bridge, own),
        ];
        Self {
            table: table.to_owned(),
            publishes: true,
            chains,
        }
    }

    /// The rules that refuse connections of a cgroup's processes to these ports of this host. On
    /// the output hook after all translation, so that no detour hides the port; by socket, so that
    /// a connection made before is cut as well.
    #[must_use]
    pub fn protecting(table: &str, ports: &[u16], cgroup: u64) -> Self {
        let rule = |port: &u16| {
            vec![
                Term::TcpPortIs(*port),
                Term::DestinationLocal,
                Term::SenderInCgroup(cgroup),
                Term::ResetTcp,
            ]
        };
        let chain = Chain {
            name: "api",
            kind: ChainKind::Filter,
            hook: ChainHook::Output,
            priority: FILTER,
            rules: ports.iter().map(rule).collect(),
        };
        Self {
            table: table.to_owned(),
            publishes: false,
            chains: vec![chain],
        }
    }

    pub(crate) fn table(&self) -> &str {
        &self.table
    }

    pub(crate) fn publishes(&self) -> bool {
        self.publishes
    }

    pub(crate) fn chains(&self) -> &[Chain] {
        &self.chains
    }
}

fn from(bridge: &str) -> Term {
    Term::InputIs(bridge.to_owned())
}

fn to(bridge: &str) -> Term {
    Term::OutputIs(bridge.to_owned())
}

/// What may come off the bridge at all.
fn guard(bridge: &str, own: Prefix) -> Chain {
    let rules = vec![
        vec![from(bridge), Term::DestinationIn(LOOPBACK), Term::Drop],
        vec![from(bridge), Term::SourceNotIn(own), Term::Drop],
    ];
    let (kind, hook) = (ChainKind::Filter, ChainHook::Prerouting);
    Chain {
        name: "guard",
        kind,
        hook,
        priority: RAW,
        rules,
    }
}

/// What may be forwarded onto the bridge.
fn between(bridge: &str) -> Chain {
    let rules = vec![
        vec![to(bridge), Term::Established, Term::Accept],
        vec![from(bridge), to(bridge), Term::Accept],
        vec![to(bridge), Term::Translated, Term::Accept],
        vec![to(bridge), Term::Drop],
    ];
    let (kind, hook) = (ChainKind::Filter, ChainHook::Forward);
    Chain {
        name: "between",
        kind,
        hook,
        priority: FILTER,
        rules,
    }
}

/// What must leave with an address of the host, so that the answer comes back through it.
fn outbound(bridge: &str, own: Prefix) -> Chain {
    let elsewhere = Term::OutputIsNot(bridge.to_owned());
    let rules = vec![
        vec![Term::SourceIn(own), elsewhere, Term::Masquerade],
        // A container that calls a published port, its own or another's.
        vec![
            Term::SourceIn(own),
            to(bridge),
            Term::Translated,
            Term::Masquerade,
        ],
        // The host that calls a published port on 127.0.0.1.
        vec![Term::SourceIn(LOOPBACK), to(bridge), Term::Masquerade],
    ];
    let (kind, hook) = (ChainKind::Nat, ChainHook::Postrouting);
    Chain {
        name: "outbound",
        kind,
        hook,
        priority: SOURCE_NAT,
        rules,
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.address.to_bits() & crate::subnet::mask(self.prefix);
        write!(f, "{}/{}", Ipv4Addr::from_bits(bits), self.prefix)
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InputIs(name) => write!(f, "iifname \"{name}\""),
            Self::OutputIs(name) => write!(f, "oifname \"{name}\""),
            Self::OutputIsNot(name) => write!(f, "oifname != \"{name}\""),
            Self::SourceIn(prefix) => write!(f, "ip saddr {prefix}"),
            Self::SourceNotIn(prefix) => write!(f, "ip saddr != {prefix}"),
            Self::DestinationIn(prefix) => write!(f, "ip daddr {prefix}"),
            Self::DestinationLocal => f.write_str("fib daddr type local"),
            Self::Established => f.write_str("ct state established,related"),
            Self::Translated => f.write_str("ct status dnat"),
            Self::TcpPortIs(port) => write!(f, "tcp dport {port}"),
            Self::SenderInCgroup(id) => write!(f, "socket cgroupv2 level 1 {id}"),
            Self::ToPublished => write!(f, "dnat ip to meta l4proto . th dport map @{PORTS}"),
            Self::Masquerade => f.write_str("masquerade"),
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::ResetTcp => f.write_str("reject with tcp reset"),
        }
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ChainKind::Filter => "filter",
            ChainKind::Nat => "nat",
        };
        let hook = match self.hook {
            ChainHook::Prerouting => "prerouting",
            ChainHook::Forward => "forward",
            ChainHook::Output => "output",
            ChainHook::Postrouting => "postrouting",
        };
        writeln!(f, "\tchain {} {{", self.name)?;
        writeln!(
            f,
            "\t\ttype {kind} hook {hook} priority {}; policy accept;",
            self.priority
        )?;
        for rule in &self.rules {
            let terms: Vec<String> = rule.iter().map(ToString::to_string).collect();
            writeln!(f, "\t\t{}", terms.join(" "))?;
        }
        f.write_str("\t}\n")
    }
}

impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table ip {} {{", self.table)?;
        if self.publishes {
            writeln!(f, "\tmap {PORTS} {{")?;
            writeln!(
                f,
                "\t\ttype inet_proto . inet_service : ipv4_addr . inet_service"
            )?;
            writeln!(f, "\t\tsize {MAX_PORT_MAPS}\n\t}}")?;
        }
        for chain in &self.chains {
            write!(f, "\n{chain}")?;
        }
        f.write_str("}\n")
    }
}
