//! Links, addresses and routes by rtnetlink: the bridge, and one veth pair for each container.
//!
//! Decides how a link is made and unmade, not which ones there should be (`worker` does). The far
//! end of a pair is born inside the container's namespace under its final name, because moving a
//! link costs an RCU grace period (20 ms here); for the same reason links are deleted by group and
//! never one by one.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute,
    LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{
    AddressMessageBuilder, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth,
    RouteMessageBuilder,
};
use rustix::io::Errno;

use crate::error::{KernelError, NetError};
use crate::names::{self, CONTAINER_INTERFACE};
use crate::namespace::{Nest, ROUTE};
use crate::netlink::Netlink;
use crate::subnet::{Subnet, Taken};

/// The loopback interface is the first of every namespace.
const LOOPBACK_INDEX: u32 = 1;
/// `RT_TABLE_LOCAL`, whose entries repeat the addresses.
const LOCAL_TABLE: u8 = 255;

/// A link of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) master: Option<u32>,
    pub(crate) kind: Option<InfoKind>,
}

impl Link {
    pub(crate) fn is_veth(&self) -> bool {
        self.kind == Some(InfoKind::Veth)
    }
}

/// What a container's end of a pair is to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Port<'a> {
    pub(crate) name: &'a str,
    pub(crate) bridge: u32,
    pub(crate) mtu: u32,
    pub(crate) ip: Ipv4Addr,
}

/// The route socket of the host's namespace.
#[derive(Debug)]
pub(crate) struct Links {
    netlink: Netlink,
}

impl Links {
    /// Opens the socket in the calling thread's namespace.
    pub(crate) fn open() -> Result<Self, NetError> {
        let netlink = Netlink::open(ROUTE).map_err(|source| NetError::Unsupported {
            what: "rtnetlink",
            source: KernelError::Socket(source),
        })?;
        Ok(Self { netlink })
    }

    /// Every link whose name begins so.
    pub(crate) fn with_prefix(&mut self, prefix: &str) -> Result<Vec<Link>, NetError> {
        let mut links = all(&mut self.netlink)?;
        links.retain(|link| link.name.starts_with(prefix));
        Ok(links)
    }

    /// The link of that name, if there is one.
    pub(crate) fn by_name(&mut self, name: &str) -> Result<Option<Link>, NetError> {
        find(&mut self.netlink, name)
    }

    /// IPv4 prefixes that are routed or assigned, but for those of one interface.
    pub(crate) fn taken(&mut self, but_for: Option<u32>) -> Result<Vec<Taken>, NetError> {
        let list = |what| move |source| NetError::List { what, source };
        let mut wanted = RouteMessage::default();
        wanted.header.address_family = AddressFamily::Inet;
        let routes = self
            .netlink
            .dump(RouteNetlinkMessage::GetRoute(wanted), NLM_F_DUMP)
            .map_err(list("routes"))?;
        let mut taken: Vec<Taken> = routes
            .iter()
            .filter_map(|message| match message {
                RouteNetlinkMessage::NewRoute(route) => routed(route, but_for),
                _ => None,
            })
            .collect();
        let addresses = self.addresses()?;
        taken.extend(
            addresses
                .iter()
                .filter(|(index, ..)| Some(*index) != but_for)
                .map(|(_, address, prefix)| Taken {
                    address: *address,
                    prefix: *prefix,
                }),
        );
        Ok(taken)
    }

    /// (interface index, address, prefix length) of every IPv4 address.
    pub(crate) fn addresses(&mut self) -> Result<Vec<(u32, Ipv4Addr, u8)>, NetError> {
        let mut wanted = AddressMessage::default();
        wanted.header.family = AddressFamily::Inet;
        let found = self
            .netlink
            .dump(RouteNetlinkMessage::GetAddress(wanted), NLM_F_DUMP)
            .map_err(|source| NetError::List {
                what: "addresses",
                source,
            })?;
        Ok(found
            .iter()
            .filter_map(|message| match message {
                RouteNetlinkMessage::NewAddress(address) => {
                    let ip = address
                        .attributes
                        .iter()
                        .find_map(|attribute| match attribute {
                            AddressAttribute::Local(std::net::IpAddr::V4(ip)) => Some(*ip),
                            _ => None,
                        })?;
                    Some((address.header.index, ip, address.header.prefix_len))
                }
                _ => None,
            })
            .collect())
    }

    /// Makes the bridge, or leaves the one that is there, and gives its index.
    pub(crate) fn ensure_bridge(&mut self, name: &str) -> Result<u32, NetError> {
        let failed = |operation| move |source| link_error(operation, name, source);
        let message = LinkBridge::new(name).build();
        let made = self.netlink.request(vec![(
            RouteNetlinkMessage::NewLink(message),
            NLM_F_CREATE | NLM_F_EXCL,
        )]);
        match made {
            Err(source) if !source.is(Errno::EXIST) => return Err(failed("make bridge")(source)),
            _ => {}
        }
        let link = find(&mut self.netlink, name)?.ok_or_else(|| missing(name))?;
        if link.kind != Some(InfoKind::Bridge) {
            return Err(NetError::WrongKind {
                link: name.to_owned(),
                kind: "bridge",
            });
        }
        Ok(link.index)
    }

    /// Gives the bridge its fixed hardware address, its MTU and no IPv6 address, and switches it
    /// on.
    pub(crate) fn set_up_bridge(
        &mut self,
        index: u32,
        mac: [u8; 6],
        mtu: u32,
    ) -> Result<(), NetError> {
        let by_index = || LinkUnspec::new_with_index(index);
        let set = vec![
            (
                set_link(by_index().append_extra_attribute(no_ipv6_address()).build()),
                0,
            ),
            (set_link(by_index().address(mac.to_vec()).build()), 0),
            (set_link(by_index().mtu(mtu).build()), 0),
            (set_link(by_index().up().build()), 0),
        ];
        self.netlink
            .request(set)
            .map_err(|source| link_error("set up bridge", &format!("#{index}"), source))
    }

    /// Adds an address; one that is there already is fine.
    pub(crate) fn ensure_address(
        &mut self,
        index: u32,
        address: Ipv4Addr,
        prefix: u8,
    ) -> Result<(), NetError> {
        match self.netlink.request(vec![(
            new_address(index, address, prefix),
            NLM_F_CREATE | NLM_F_EXCL,
        )]) {
            Err(source) if !source.is(Errno::EXIST) => Err(link_error(
                "add the gateway address to",
                &format!("#{index}"),
                source,
            )),
            _ => Ok(()),
        }
    }

    /// Takes an address away again.
    pub(crate) fn remove_address(
        &mut self,
        index: u32,
        address: Ipv4Addr,
        prefix: u8,
    ) -> Result<(), NetError> {
        let builder = AddressMessageBuilder::<Ipv4Addr>::new().index(index);
        let message = builder.address(address, prefix).build();
        self.netlink
            .request(vec![(RouteNetlinkMessage::DelAddress(message), 0)])
            .map_err(|source| {
                link_error(
                    "remove the gateway address from",
                    &format!("#{index}"),
                    source,
                )
            })
    }

    /// Makes the pair: the near end on the bridge and up, the far end inside the namespace and
    /// still down, because a far end cannot be switched on before the near one exists (ENOTCONN).
    pub(crate) fn make_pair(
        &mut self,
        port: Port<'_>,
        netns: BorrowedFd<'_>,
    ) -> Result<(), NetError> {
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(CONTAINER_INTERFACE)
            .setns_by_fd(netns.as_raw_fd())
            .address(names::container_mac(port.ip).to_vec())
            .mtu(port.mtu)
            .build();
        let message = LinkVeth::new(port.name, CONTAINER_INTERFACE)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .mtu(port.mtu)
            .controller(port.bridge)
            .up()
            .build();
        let made = (
            RouteNetlinkMessage::NewLink(message),
            NLM_F_CREATE | NLM_F_EXCL,
        );
        self.netlink
            .request(vec![made, (hairpin(port.name), 0)])
            .map_err(|source| link_error("make veth", port.name, source))
    }

    /// Puts a link (back) onto the bridge.
    pub(crate) fn enslave(&mut self, link: &Link, bridge: u32) -> Result<(), NetError> {
        let message = LinkUnspec::new_with_index(link.index)
            .controller(bridge)
            .up()
            .build();
        self.netlink
            .request(vec![(set_link(message), 0), (hairpin(&link.name), 0)])
            .map_err(|source| link_error("put onto the bridge", &link.name, source))
    }

    /// Deletes links together. Those that go away meanwhile are fine.
    pub(crate) fn delete_together(&mut self, links: &[Link], group: u32) -> Vec<NetError> {
        let mut failures = Vec::new();
        let mut doomed = false;
        for link in links {
            let message = LinkUnspec::new_with_index(link.index)
                .link_group(group)
                .build();
            match self.netlink.request(vec![(set_link(message), 0)]) {
                Ok(()) => doomed = true,
                Err(source) if source.is(Errno::NODEV) => {}
                Err(source) => failures.push(link_error("mark for deletion", &link.name, source)),
            }
        }
        if doomed {
            let mut message = LinkMessage::default();
            message.attributes.push(LinkAttribute::Group(group));
            match self
                .netlink
                .request(vec![(RouteNetlinkMessage::DelLink(message), 0)])
            {
                Err(source) if !source.is(Errno::NODEV) => {
                    let names: Vec<&str> = links.iter().map(|link| link.name.as_str()).collect();
                    failures.push(link_error("delete", &names.join(", "), source));
                }
                _ => {}
            }
        }
        failures
    }
}

/// Inside a container's namespace: both interfaces up, the address, the way out.
pub(crate) fn furnish(nest: &mut Nest, ip: Ipv4Addr, subnet: Subnet) -> Result<(), NetError> {
    let inside =
        find(&mut nest.route, CONTAINER_INTERFACE)?.ok_or_else(|| missing(CONTAINER_INTERFACE))?;
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .gateway(subnet.gateway())
        .build();
    let new = NLM_F_CREATE | NLM_F_EXCL;
    let messages = vec![
        (up(LOOPBACK_INDEX), 0),
        (up(inside.index), 0),
        (new_address(inside.index, ip, subnet.prefix()), new),
        (RouteNetlinkMessage::NewRoute(route), new),
    ];
    nest.route
        .request(messages)
        .map_err(|source| link_error("furnish the container's", CONTAINER_INTERFACE, source))
}

/// Lets the bridge send a frame back where it came from. Where bridged packets pass the IP hooks
/// (`bridge-nf-call-iptables`, the default of a new namespace), a container that calls its own
/// published port gets its frame translated and turned round inside the bridge, never seeing the
/// host's routing.
fn hairpin(name: &str) -> RouteNetlinkMessage {
    RouteNetlinkMessage::NewLink(LinkBridgePort::new(0).name(name).hairpin(true).build())
}

fn up(index: u32) -> RouteNetlinkMessage {
    set_link(LinkUnspec::new_with_index(index).up().build())
}

fn set_link(message: LinkMessage) -> RouteNetlinkMessage {
    RouteNetlinkMessage::SetLink(message)
}

fn new_address(index: u32, address: Ipv4Addr, prefix: u8) -> RouteNetlinkMessage {
    let builder = AddressMessageBuilder::<Ipv4Addr>::new().index(index);
    RouteNetlinkMessage::NewAddress(builder.address(address, prefix).build())
}

fn no_ipv6_address() -> LinkAttribute {
    let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])])
}

fn link_error(operation: &'static str, link: &str, source: KernelError) -> NetError {
    NetError::Link {
        operation,
        link: link.to_owned(),
        source,
    }
}

fn missing(name: &str) -> NetError {
    let source = std::io::Error::from_raw_os_error(Errno::NODEV.raw_os_error());
    link_error(
        "find",
        name,
        KernelError::Refused {
            source,
            hint: String::new(),
        },
    )
}

fn find(netlink: &mut Netlink, name: &str) -> Result<Option<Link>, NetError> {
    let message = LinkUnspec::new_with_name(name).build();
    match netlink.dump(RouteNetlinkMessage::GetLink(message), 0) {
        Ok(found) => Ok(found.iter().find_map(link_of)),
        Err(source) if source.is(Errno::NODEV) => Ok(None),
        Err(source) => Err(link_error("find", name, source)),
    }
}

fn all(netlink: &mut Netlink) -> Result<Vec<Link>, NetError> {
    let found = netlink
        .dump(
            RouteNetlinkMessage::GetLink(LinkMessage::default()),
            NLM_F_DUMP,
        )
        .map_err(|source| NetError::List {
            what: "links",
            source,
        })?;
    Ok(found.iter().filter_map(link_of).collect())
}

fn link_of(message: &RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(link) = message else {
        return None;
    };
    let (mut name, mut master, mut kind) = (None, None, None);
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text.clone()),
            LinkAttribute::Controller(index) => master = Some(*index),
            LinkAttribute::LinkInfo(infos) => {
                kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.clone()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Some(Link {
        index: link.header.index,
        name: name?,
        master,
        kind,
    })
}

fn routed(route: &RouteMessage, but_for: Option<u32>) -> Option<Taken> {
    if route.header.table == LOCAL_TABLE {
        return None;
    }
    let mut address = None;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => address = Some(*ip),
            RouteAttribute::Oif(index) if Some(*index) == but_for => return None,
            _ => {}
        }
    }
    Some(Taken {
        address: address?,
        prefix: route.header.destination_prefix_length,
    })
}
