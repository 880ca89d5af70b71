//! What this host lacks, and what on it will get in the way.
//!
//! Decides by trying: a whole network is made in a namespace of its own, which ends with the thread
//! that tried. Changes nothing outside it. What works here works in `open`, but for kernel settings
//! of the host's own namespace.

use std::fmt;

use netlink_packet_netfilter::nftables::InetHookNumber;
use tokio::sync::oneshot;

use crate::error::NetError;
use crate::links::{Links, Port};
use crate::names;
use crate::namespace;
use crate::nftables::{DroppingChain, Nftables};
use crate::ruleset::Ruleset;
use crate::subnet::{self, Subnet};
use crate::sysctl;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Container networks cannot work here; host networking can.
    Missing,
    /// They work, but something on the host will disturb them.
    Warning,
}

/// One thing that a node should report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is, for people.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// Tries everything that a network needs and looks for what would disturb one. Empty: all is well.
pub async fn preflight() -> Vec<Finding> {
    let (reply, answer) = oneshot::channel();
    let spawned = std::thread::Builder::new()
        .name("gantry-preflight".into())
        .spawn(move || {
            // In the host's namespace first: the thread cannot come back.
            let mut findings = look();
            findings.extend(trial().err().map(|error| missing(&error)));
            let _gone = reply.send(findings);
        });
    match spawned {
        Ok(_thread) => answer
            .await
            .unwrap_or_else(|_ended| vec![missing(&NetError::Closed)]),
        Err(error) => vec![missing(&NetError::Thread(error))],
    }
}

fn missing(error: &NetError) -> Finding {
    let mut what = format!("container networks are not available: {error}");
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        what.push_str(": ");
        what.push_str(&cause.to_string());
        source = cause.source();
    }
    Finding {
        severity: Severity::Missing,
        what,
    }
}

/// Only reads.
fn look() -> Vec<Finding> {
    let chains = Nftables::open().and_then(|mut nftables| nftables.dropping_chains());
    // Without nftables the trial says so.
    let mut words: Vec<String> = chains.unwrap_or_default().iter().map(describe).collect();
    let free = Links::open().and_then(|mut links| subnet::choose("", &links.taken(None)?));
    words.extend(free.err().map(|error| error.to_string()));
    words
        .into_iter()
        .map(|what| Finding {
            severity: Severity::Warning,
            what,
        })
        .collect()
}

fn describe(chain: &DroppingChain) -> String {
    let name = format!("chain {} of nftables table {}", chain.chain, chain.table);
    match chain.hook {
        InetHookNumber::Forward => {
            let bridged =
                sysctl::read("net/bridge/bridge-nf-call-iptables").as_deref() == Some("1");
            let reach = if bridged {
                "; net.bridge.bridge-nf-call-iptables=1, so even between containers of one node"
            } else {
                ""
            };
            format!(
                "{name} drops forwarded packets by policy: containers will not reach other hosts, \
                 nor be reached from them{reach}; accept packets from and to the bridge there \
                 (Docker: in chain DOCKER-USER)"
            )
        }
        _ => format!(
            "{name} drops incoming packets by policy: containers will not reach services of this \
             host, host-mode tasks among them; accept packets from the bridge there"
        ),
    }
}

/// Makes a network in a namespace of this thread's own.
fn trial() -> Result<(), NetError> {
    const TAG: &str = "preflight";
    const NAME: &str = "gantry-trial";
    namespace::enter()?;
    let (mut links, mut nftables) = (Links::open()?, Nftables::open()?);
    let subnet: Subnet = subnet::choose(TAG, &[])?;
    let bridge = links.ensure_bridge(NAME)?;
    links.set_up_bridge(bridge, names::bridge_mac(TAG), 1500)?;
    links.ensure_address(bridge, subnet.gateway(), subnet.prefix())?;
    nftables.replace(&Ruleset::new(NAME, NAME, subnet), &[])?;
    sysctl::ensure("net/ipv4/ip_forward", "1")?;
    let inside = std::thread::scope(|scope| {
        let nest = scope.spawn(namespace::enter).join();
        nest.unwrap_or(Err(NetError::Closed))
    })?;
    let ip = subnet
        .container_addresses()
        .next()
        .ok_or(NetError::SubnetExhausted { subnet })?;
    let name = names::host_interface(TAG, NAME);
    let port = Port {
        name: &name,
        bridge,
        mtu: 1500,
        ip,
    };
    links.make_pair(port, std::os::fd::AsFd::as_fd(&inside.netns))
}
