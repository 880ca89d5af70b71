//! The keeper's connections: who is connected, and what still has to be sent to whom.
//!
//! Invariants: only this user's processes are taken; the number of connections and of events that
//! wait for one are bounded, and a client that lets its queue run full is dropped: it connects again
//! and hears of every exit once more.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::SocketFlags;

use super::packet::{self, Encoded, PacketError};
use super::protocol::{Event, Request};
use super::server::{Poll, Token};

/// Connections at once.
const MAX_CLIENTS: usize = 16;
/// Events that wait for one client.
const MAX_QUEUED: usize = 8192;

#[derive(Debug)]
struct Connection {
    socket: OwnedFd,
    queue: VecDeque<Rc<Encoded>>,
}

/// All connections.
#[derive(Debug, Default)]
pub(super) struct Clients {
    connections: BTreeMap<u64, Connection>,
}

impl Clients {
    /// Accepts one connection; its number, or None when nobody came or was let in.
    pub(super) fn accept(&mut self, listener: &OwnedFd, poll: &mut Poll) -> Option<u64> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::accept_with(listener, flags).ok()?;
        let peer = rustix::net::sockopt::socket_peercred(&socket).ok()?;
        let same_user = peer.uid == rustix::process::geteuid();
        if !same_user || self.connections.len() >= MAX_CLIENTS {
            return None;
        }
        let serial = poll.serial();
        poll.add(socket.as_fd(), Token::Client(serial), EventFlags::IN)
            .ok()?;
        self.connections.insert(
            serial,
            Connection {
                socket,
                queue: VecDeque::new(),
            },
        );
        Some(serial)
    }

    /// Takes one request; None when there is none (any more). A client that breaks the protocol is
    /// dropped.
    pub(super) fn receive(&mut self, client: u64) -> Option<(Request, Vec<OwnedFd>)> {
        let connection = self.connections.get(&client)?;
        match packet::receive::<Request>(connection.socket.as_fd()) {
            Ok(Some(request)) => Some(request),
            Err(PacketError::Socket {
                source: Errno::AGAIN,
                ..
            }) => None,
            Ok(None) => {
                self.connections.remove(&client);
                None
            }
            Err(error @ PacketError::Json(_)) => {
                // The framing is intact: this one message is refused. The parser's words say where.
                let why = std::error::Error::source(&error).map(ToString::to_string);
                let refusal = Event::Refused {
                    request: "unreadable".to_owned(),
                    id: None,
                    error: why.unwrap_or_default(),
                };
                self.send(client, &refusal);
                None
            }
            Err(PacketError::Start { id, source }) => {
                // Whoever waits for this container hears that it does not come.
                let failed = Event::StartFailed {
                    id,
                    step: "read what is to be started (this keeper is of an earlier gantry)"
                        .to_owned(),
                    error: source.to_string(),
                };
                self.send(client, &failed);
                None
            }
            Err(error) => {
                eprintln!("drop client {client}: {error}");
                self.connections.remove(&client);
                None
            }
        }
    }

    /// Sends to one client, if it is still there.
    pub(super) fn send(&mut self, client: u64, event: &Event) {
        if let Some(encoded) = encode(event) {
            self.deliver(client, encoded);
        }
    }

    /// Sends to every client.
    pub(super) fn broadcast(&mut self, event: &Event) {
        if self.connections.is_empty() {
            return;
        }
        if let Some(encoded) = encode(event) {
            let clients: Vec<u64> = self.connections.keys().copied().collect();
            for client in clients {
                self.deliver(client, Rc::clone(&encoded));
            }
        }
    }

    fn deliver(&mut self, client: u64, encoded: Rc<Encoded>) {
        let Some(connection) = self.connections.get_mut(&client) else {
            return;
        };
        if connection.queue.len() >= MAX_QUEUED {
            eprintln!("drop client {client}: it does not read its events");
            self.connections.remove(&client);
            return;
        }
        connection.queue.push_back(encoded);
        if connection.queue.len() == 1 {
            self.flush(client);
        }
    }

    /// Sends what waits, as far as the socket takes it.
    fn flush(&mut self, client: u64) {
        let Some(connection) = self.connections.get_mut(&client) else {
            return;
        };
        while let Some(event) = connection.queue.front() {
            match packet::send_encoded(connection.socket.as_fd(), event, &[]) {
                Ok(true) => drop(connection.queue.pop_front()),
                Ok(false) => return,
                Err(_) => {
                    self.connections.remove(&client);
                    return;
                }
            }
        }
    }

    /// Sends what waits for every client that has room again, and sets what to wait for.
    pub(super) fn settle(&mut self, poll: &Poll) {
        let waiting: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, connection)| !connection.queue.is_empty())
            .map(|(client, _)| *client)
            .collect();
        for client in waiting {
            self.flush(client);
            if let Some(connection) = self.connections.get(&client) {
                let more = if connection.queue.is_empty() {
                    EventFlags::IN
                } else {
                    EventFlags::IN | EventFlags::OUT
                };
                poll.modify(connection.socket.as_fd(), Token::Client(client), more);
            }
        }
    }
}

fn encode(event: &Event) -> Option<Rc<Encoded>> {
    match packet::encode(event) {
        Ok(encoded) => Some(Rc::new(encoded)),
        Err(error) => {
            eprintln!("an event cannot be sent: {error}");
            None
        }
    }
}
