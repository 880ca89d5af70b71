//! Host ports as the host's own sockets see them.
//!
//! Decides whether a port can be had, by taking it: a mapped port is held by a socket of ours for
//! as long as the mapping exists, so that no process of the host can take it and wonder why nothing
//! arrives, and no mapping hides a service of the host. Nothing is ever read from these sockets:
//! nftables redirects before they would see a packet. IPv4 only for now, on all addresses.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

use crate::error::{NetError, PortHolder};
use crate::ports::{HostPort, Protocol};

/// A held TCP port listens, or a second holder with `SO_REUSEADDR` could bind it too; nobody ever
/// connects.
const BACKLOG: i32 = 0;
/// The smallest that the kernel allows: what misses the redirection is dropped, not hoarded.
const RECEIVE_BUFFER_BYTES: usize = 1;

/// A host port taken by us; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct HeldPort {
    _socket: OwnedFd,
}

/// Takes the port on all addresses of the calling thread's network namespace.
pub(crate) fn hold(key: HostPort) -> Result<HeldPort, NetError> {
    let HostPort { protocol, port } = key;
    match bind(key) {
        Ok(socket) => Ok(HeldPort { _socket: socket }),
        Err(source) if source.kind() == io::ErrorKind::AddrInUse => Err(NetError::PortInUse {
            port,
            protocol,
            by: PortHolder::HostSocket,
        }),
        Err(source) => Err(NetError::HoldPort {
            port,
            protocol,
            source,
        }),
    }
}

fn bind(key: HostPort) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let address = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, key.port);
    match key.protocol {
        Protocol::Tcp => {
            let socket = net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
            // Connections of a former host service may linger in TIME_WAIT; they do not matter.
            sockopt::set_socket_reuseaddr(&socket, true)?;
            net::bind(&socket, &address)?;
            net::listen(&socket, BACKLOG)?;
            Ok(socket)
        }
        Protocol::Udp => {
            let socket = net::socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
            sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER_BYTES)?;
            net::bind(&socket, &address)?;
            Ok(socket)
        }
    }
}

/// Whether no socket of the host is bound to the port, in the calling thread's network namespace.
///
/// Only a hint, because it can change at once; [`crate::Network::attach`] takes the port for good.
#[must_use]
pub fn host_port_free(port: u16, protocol: Protocol) -> bool {
    bind(HostPort { protocol, port }).is_ok()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn a_held_port_is_nobody_elses() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(!host_port_free(port, Protocol::Tcp));
        drop(listener);
        let key = HostPort {
            protocol: Protocol::Tcp,
            port,
        };
        let held = hold(key).unwrap();
        assert!(TcpListener::bind(("127.0.0.1", port)).is_err());
        let again = hold(key).unwrap_err();
        assert!(
            matches!(
                again,
                NetError::PortInUse {
                    by: PortHolder::HostSocket,
                    ..
                }
            ),
            "{again}"
        );
        drop(held);
        assert!(host_port_free(port, Protocol::Tcp));
    }

    #[test]
    fn udp_too() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        assert!(!host_port_free(port, Protocol::Udp));
        drop(socket);
        let held = hold(HostPort {
            protocol: Protocol::Udp,
            port,
        })
        .unwrap();
        assert!(UdpSocket::bind(("0.0.0.0", port)).is_err());
        drop(held);
    }
}
