//! The TCP address at which executors reach the agent. It is in their environment, so it has to be
//! the same after a restart: a port that was once taken is kept in a file.
//!
//! Decides the address, and what is there at the start. On a node without bridge it is on the
//! loopback.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use gantry_agent_core::{Checkpoint, Saved, Stage};
use gantry_net::Network;
use gantry_wire::ids::ContainerId;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::Executors;
use super::environment::OfNode;
use super::token::Tokens;
use crate::config::Config;
use crate::durable;
use crate::http::executor::Beside;
use crate::inbox::Event;
use crate::layout::Layout;

/// Digits of a port.
const FILE_MAX_BYTES: u64 = 16;

/// The port of a former life; 0 when there is none.
pub(crate) fn kept_port(layout: &Layout) -> u16 {
    let text = durable::read_bounded(&layout.executor_port(), FILE_MAX_BYTES).ok();
    let text = text.and_then(|text| String::from_utf8(text).ok());
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// Listens at the configured port, or at the one of before, or at any.
pub(crate) async fn listen(
    layout: &Layout,
    network: Option<&Network>,
    configured: u16,
) -> io::Result<(TcpListener, Beside)> {
    let ip = network.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), Network::gateway);
    let beside = Beside {
        bridge: network.map(Network::subnet),
    };
    let kept = kept_port(layout);
    let wanted = if configured == 0 { kept } else { configured };
    let listener = match TcpListener::bind(SocketAddr::new(ip, wanted)).await {
        Err(error) if configured == 0 && wanted != 0 => {
            tracing::error!(
                port = wanted,
                "executors that know this port do not find the agent any more: {error}"
            );
            TcpListener::bind(SocketAddr::new(ip, 0)).await?
        }
        other => other?,
    };
    let port = listener.local_addr()?.port();
    if port != kept {
        durable::replace(&layout.executor_port(), port.to_string().as_bytes(), true)?;
        durable::sync_dir(layout.root())?;
    }
    Ok((listener, beside))
}

/// The executors of frameworks' own, with the doors of those that may be there open again.
pub(crate) fn open(
    config: &Config,
    (layout, saved): (&Layout, &Saved),
    events: &mpsc::Sender<Event>,
    endpoint: SocketAddr,
) -> io::Result<Executors> {
    let of_node = OfNode {
        endpoint,
        recovery_ms: config.executor_recovery_ms,
        reregister_ms: config.executor_times.reregister_ms,
    };
    let tokens = Arc::new(Tokens::open(&layout.executor_key())?);
    let known: Vec<&Checkpoint> = saved.customs.iter().map(|it| &it.process).collect();
    let names: Vec<&ContainerId> = known.iter().map(|process| &process.container).collect();
    let mut executors = Executors::new(layout.doors(), (tokens, of_node), events.clone(), &names);
    for process in known.iter().filter(|process| process.stage != Stage::Ended) {
        let container = &process.container;
        if let Err(error) = executors.open(container, Path::new(&process.sandbox)) {
            // It still has the address, and else its time to come back runs out.
            tracing::error!(%container, "opening the socket of an executor: {error}");
        }
    }
    Ok(executors)
}
