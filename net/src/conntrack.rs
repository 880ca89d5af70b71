//! Connections that the kernel remembers.
//!
//! Decides nothing but the request: forget the flows that were translated to an address. Needed for
//! UDP only, where a client that goes on sending from one port would otherwise be sent to a dead
//! container for ever. Kernels before 6.8 refuse the filter; nothing else is forgotten then.

use std::net::Ipv4Addr;

use netlink_packet_core::{DefaultNla, Emitable, NLA_F_NESTED};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    NetfilterSubsystem,
};

use crate::error::KernelError;
use crate::netlink::Netlink;

/// `IPCTNL_MSG_CT_DELETE`
const DELETE: u8 = 2;
/// `CTA_TUPLE_REPLY`, `CTA_TUPLE_IP`, `CTA_IP_V4_SRC`
const REPLY_TUPLE: u16 = 2;
const TUPLE_ADDRESSES: u16 = 1;
const SOURCE: u16 = 1;
/// `CTA_FILTER`, `CTA_FILTER_ORIG_FLAGS`, `CTA_FILTER_REPLY_FLAGS`, `CTA_FILTER_FLAG_CTA_IP_SRC`
const FILTER: u16 = 25;
const ORIGINAL_FLAGS: u16 = 1;
const REPLY_FLAGS: u16 = 2;
const BY_SOURCE: u32 = 1;
/// The family in the header counts only from this version on.
const VERSION: u8 = 1;

/// Forgets every IPv4 flow whose answers come from the address.
pub(crate) fn forget_answers_from(
    netlink: &mut Netlink,
    address: Ipv4Addr,
) -> Result<(), KernelError> {
    let header = NetfilterHeader::new(NetfilterProtoFamily::IPv4, VERSION, 0);
    let source = DefaultNla::new(SOURCE, address.octets().to_vec());
    let attributes = vec![
        nested(REPLY_TUPLE, &[nested(TUPLE_ADDRESSES, &[source])]),
        nested(
            FILTER,
            &[
                DefaultNla::new(ORIGINAL_FLAGS, 0_u32.to_ne_bytes().to_vec()),
                DefaultNla::new(REPLY_FLAGS, BY_SOURCE.to_ne_bytes().to_vec()),
            ],
        ),
    ];
    let message = NetfilterMessage::new(
        header,
        NetfilterMessageInner::Other {
            subsys: NetfilterSubsystem::Conntrack,
            message_type: DELETE,
            attributes,
        },
    );
    netlink.request(vec![(message, 0)])
}

fn nested(kind: u16, inside: &[DefaultNla]) -> DefaultNla {
    let mut bytes = vec![0; inside.buffer_len()];
    inside.emit(&mut bytes);
    DefaultNla::new(kind | NLA_F_NESTED, bytes)
}
