//! Our table in the kernel: written whole, changed by map element, read back.
//!
//! Every change is one batch, which the kernel takes whole or not at all. Decides no rule
//! (`ruleset` does) and touches no other table; other tables' forward chains are only looked at, to
//! warn about them.

mod encode;
mod expression;

use std::net::Ipv4Addr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, GenMessage, Hook, HookNumber, InetHookNumber, NfTablesMessage,
};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use rustix::io::Errno;

use crate::conntrack;
use crate::error::{KernelError, NetError};
use crate::netlink::Netlink;
use crate::ruleset::Ruleset;

pub(crate) use encode::Element;

/// `NETLINK_NETFILTER`
pub(crate) const NETFILTER: isize = 12;
/// `NFNL_SUBSYS_NFTABLES`, which a batch names in its header.
const SUBSYSTEM: u16 = 10;
/// Elements in one message: an attribute is at most 64 KiB and an element takes 52 bytes.
const ELEMENTS_A_MESSAGE: usize = 512;

/// A base chain of somebody else that drops what it does not accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DroppingChain {
    pub(crate) table: String,
    pub(crate) chain: String,
    /// Forward or input.
    pub(crate) hook: InetHookNumber,
}

/// The nftables socket.
#[derive(Debug)]
pub(crate) struct Nftables {
    netlink: Netlink,
}

impl Nftables {
    /// Opens the socket in the calling thread's namespace and asks whether the kernel has nftables.
    pub(crate) fn open() -> Result<Self, NetError> {
        let unsupported = |source| NetError::Unsupported {
            what: "nftables",
            source,
        };
        let netlink = Netlink::open(NETFILTER)
            .map_err(KernelError::Socket)
            .map_err(unsupported)?;
        let mut this = Self { netlink };
        let message = NfTablesMessage::GetGen(GenMessage { attributes: vec![] });
        this.netlink
            .dump(ip_message(message), 0)
            .map_err(unsupported)?;
        Ok(this)
    }

    /// Makes the table hold exactly these rules and elements, in one step for the packets passing
    /// through.
    pub(crate) fn replace(
        &mut self,
        ruleset: &Ruleset,
        elements: &[Element],
    ) -> Result<(), NetError> {
        let table = ruleset.table();
        let mut messages = vec![
            // Made first so that the deletion cannot fail.
            (encode::new_table(table), NLM_F_CREATE),
            (encode::delete_table(table), 0),
            (encode::new_table(table), NLM_F_CREATE | NLM_F_EXCL),
        ];
        if ruleset.publishes() {
            messages.push((encode::new_map(table), NLM_F_CREATE | NLM_F_EXCL));
        }
        for chain in ruleset.chains() {
            messages.push((encode::new_chain(table, chain), NLM_F_CREATE));
            for rule in &chain.rules {
                let message = encode::new_rule(table, chain.name, rule);
                messages.push((message, NLM_F_CREATE | netlink_packet_core::NLM_F_APPEND));
            }
        }
        for chunk in elements.chunks(ELEMENTS_A_MESSAGE) {
            messages.push((encode::new_elements(table, chunk), NLM_F_CREATE));
        }
        self.batch("write the rules", table, messages)
    }

    /// Adds and removes elements of the map in one step. Removing one that is not there fails.
    pub(crate) fn change(
        &mut self,
        table: &str,
        add: &[Element],
        remove: &[Element],
    ) -> Result<(), NetError> {
        let mut messages = Vec::new();
        for chunk in remove.chunks(ELEMENTS_A_MESSAGE) {
            messages.push((encode::delete_elements(table, chunk), 0));
        }
        for chunk in add.chunks(ELEMENTS_A_MESSAGE) {
            let message = encode::new_elements(table, chunk);
            messages.push((message, NLM_F_CREATE | NLM_F_EXCL));
        }
        self.batch("change published ports", table, messages)
    }

    /// Removes elements one batch each, those that are already gone too; says what else failed.
    pub(crate) fn remove_leniently(&mut self, table: &str, remove: &[Element]) -> Vec<NetError> {
        if remove.is_empty() || self.change(table, &[], remove).is_ok() {
            return Vec::new();
        }
        remove
            .iter()
            .filter_map(|element| match self.change(table, &[], &[*element]) {
                Err(NetError::Nftables { source, .. }) if source.is(Errno::NOENT) => None,
                other => other.err(),
            })
            .collect()
    }

    /// The elements of the map; none if the table is not there.
    pub(crate) fn elements(&mut self, table: &str) -> Result<Vec<Element>, NetError> {
        match self
            .netlink
            .dump(ip_message(encode::get_elements(table)), NLM_F_DUMP)
        {
            Ok(found) => Ok(found.iter().flat_map(encode::elements_of).collect()),
            Err(source) if source.is(Errno::NOENT) => Ok(Vec::new()),
            Err(source) => {
                let table = table.to_owned();
                Err(NetError::Nftables {
                    operation: "read published ports",
                    table,
                    source,
                })
            }
        }
    }

    /// Deletes the table with all that is in it; `Ok` if it is not there.
    pub(crate) fn delete(&mut self, table: &str) -> Result<(), NetError> {
        match self.batch("delete", table, vec![(encode::delete_table(table), 0)]) {
            Err(NetError::Nftables { source, .. }) if source.is(Errno::NOENT) => Ok(()),
            other => other,
        }
    }

    /// Chains that drop forwarded or incoming IPv4 packets by policy; ours never do.
    pub(crate) fn dropping_chains(&mut self) -> Result<Vec<DroppingChain>, NetError> {
        let mut found = Vec::new();
        for family in [NetfilterProtoFamily::IPv4, NetfilterProtoFamily::Inet] {
            let get = NfTablesMessage::GetChain(ChainMessage { attributes: vec![] });
            let chains = self
                .netlink
                .dump(message(family, get), NLM_F_DUMP)
                .map_err(|source| NetError::List {
                    what: "nftables chains",
                    source,
                })?;
            found.extend(chains.iter().filter_map(dropping));
        }
        Ok(found)
    }

    /// Forgets the flows that were translated to a container, so that its ports' next holder gets
    /// the packets.
    pub(crate) fn forget_flows(&mut self, address: Ipv4Addr) -> Result<(), KernelError> {
        conntrack::forget_answers_from(&mut self.netlink, address)
    }

    fn batch(
        &mut self,
        operation: &'static str,
        table: &str,
        messages: Vec<(NfTablesMessage, u16)>,
    ) -> Result<(), NetError> {
        if messages.is_empty() {
            return Ok(());
        }
        let mut framed = vec![(mark(ControlMessage::BatchBegin), 0, false)];
        framed.extend(
            messages
                .into_iter()
                .map(|(message, flags)| (ip_message(message), flags, true)),
        );
        framed.push((mark(ControlMessage::BatchEnd), 0, false));
        self.netlink
            .transact(framed)
            .map_err(|source| NetError::Nftables {
                operation,
                table: table.to_owned(),
                source,
            })
    }
}

fn mark(message: ControlMessage) -> NetfilterMessage {
    NetfilterMessage::new(
        NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, SUBSYSTEM),
        message,
    )
}

fn ip_message(inner: NfTablesMessage) -> NetfilterMessage {
    message(NetfilterProtoFamily::IPv4, inner)
}

fn message(family: NetfilterProtoFamily, inner: NfTablesMessage) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), inner)
}

fn dropping(message: &NetfilterMessage) -> Option<DroppingChain> {
    /// `NF_DROP`
    const DROP: u32 = 0;
    let NetfilterMessageInner::NfTables(NfTablesMessage::NewChain(chain)) = &message.inner else {
        return None;
    };
    let (mut table, mut name, mut drops, mut hook) = (None, None, false, None);
    for attribute in &chain.attributes {
        match attribute {
            ChainAttribute::Table(text) => table = Some(text.clone()),
            ChainAttribute::Name(text) => name = Some(text.clone()),
            ChainAttribute::Policy(policy) => drops = *policy == DROP,
            ChainAttribute::Hook(hooks) => {
                let watched = [InetHookNumber::Forward, InetHookNumber::LocalIn];
                hook = watched
                    .into_iter()
                    .find(|number| hooks.contains(&Hook::Number(HookNumber::Inet(*number))));
            }
            _ => {}
        }
    }
    let (true, Some(hook)) = (drops, hook) else {
        return None;
    };
    Some(DroppingChain {
        table: table?,
        chain: name?,
        hook,
    })
}
