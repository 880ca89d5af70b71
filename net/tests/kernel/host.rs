//! A host to test on: a fresh network namespace with loopback up, and ways to do things in it and
//! in containers.

use std::future::Future;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

use gantry_net::{Attachment, Network, NetworkConfig, PortMap, Protocol, host_port_free};
use nix::sched::{CloneFlags, setns, unshare};

pub(crate) const TAG: &str = "7e57ab1e";
/// Long enough for a busy machine; short for what must not arrive.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
pub(crate) const REFUSAL: Duration = Duration::from_millis(700);

/// Runs the test on a thread of its own in a fresh network namespace.
pub(crate) fn on_fresh_host<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)
                .expect("these tests need root and network namespaces");
            ip("link set lo up");
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(test());
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

pub(crate) async fn open() -> Network {
    Network::open(NetworkConfig::for_tag(TAG)).await.unwrap()
}

/// Ends a network as the end of its process would: nothing is removed, and its port sockets are
/// closed.
pub(crate) fn forsake(network: Network, port: u16) {
    drop(network);
    eventually("its thread ends", || host_port_free(port, Protocol::Tcp));
}

pub(crate) fn tcp(host_port: u16, container_port: u16) -> PortMap {
    PortMap {
        host_port,
        container_port,
        protocol: Protocol::Tcp,
    }
}

pub(crate) fn udp(host_port: u16, container_port: u16) -> PortMap {
    PortMap {
        host_port,
        container_port,
        protocol: Protocol::Udp,
    }
}

fn run(program: &str, arguments: &str) -> std::process::Output {
    Command::new(program)
        .args(arguments.split_whitespace())
        .output()
        .unwrap()
}

fn succeed(program: &str, arguments: &str) -> String {
    let output = run(program, arguments);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn ip(arguments: &str) -> String {
    succeed("ip", arguments)
}

pub(crate) fn nft(arguments: &str) -> String {
    succeed("nft", arguments)
}

pub(crate) fn sysctl(key: &str, value: &str) {
    std::fs::write(format!("/proc/sys/{key}"), value).unwrap();
}

/// Interfaces of the calling thread's namespace, but for loopback and those that the kernel puts
/// into every namespace.
pub(crate) fn link_names() -> Vec<String> {
    let links: serde_json::Value = serde_json::from_str(&ip("-j link")).unwrap();
    let mut names: Vec<String> = links
        .as_array()
        .unwrap()
        .iter()
        .map(|link| link["ifname"].as_str().unwrap().to_owned())
        .filter(|name| name.starts_with('g'))
        .collect();
    names.sort();
    names
}

/// Everything that nftables holds, but for its version.
pub(crate) fn rules() -> Vec<serde_json::Value> {
    let rules: serde_json::Value = serde_json::from_str(&nft("-j list ruleset")).unwrap();
    let all = rules["nftables"].as_array().unwrap();
    all.iter()
        .filter(|entry| entry.get("metainfo").is_none())
        .cloned()
        .collect()
}

/// Published ports as `nft` prints them: "tcp 8080 10.0.0.2 80".
pub(crate) fn published(table: &str) -> Vec<String> {
    let text = nft(&format!("-j list map ip {table} ports"));
    let map: serde_json::Value = serde_json::from_str(&text).unwrap();
    let map = map["nftables"]
        .as_array()
        .unwrap()
        .iter()
        .find_map(|entry| entry.get("map"))
        .unwrap();
    let mut found: Vec<String> = map
        .get("elem")
        .and_then(serde_json::Value::as_array)
        .into_iter()
        .flatten()
        .map(|pair| {
            let part = |side: usize, at: usize| {
                let value = &pair[side]["concat"][at];
                value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned)
            };
            format!(
                "{} {} {} {}",
                part(0, 0),
                part(0, 1),
                part(1, 0),
                part(1, 1)
            )
        })
        .collect();
    found.sort();
    found
}

/// Does something in a namespace, on a thread that ends then.
pub(crate) fn inside<T: Send>(netns: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(netns, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        });
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A TCP server that answers each connection with its name and the peer's address, until the test
/// ends.
pub(crate) fn serve_tcp(netns: BorrowedFd<'_>, port: u16, name: &'static str) {
    let listener = inside(netns, || TcpListener::bind(("0.0.0.0", port)).unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let peer = stream.peer_addr().unwrap().ip();
            let _gone = stream.write_all(format!("{name} {peer}").as_bytes());
        }
    });
}

/// A UDP server that answers each datagram likewise.
pub(crate) fn serve_udp(netns: BorrowedFd<'_>, port: u16, name: &'static str) {
    let socket = inside(netns, || UdpSocket::bind(("0.0.0.0", port)).unwrap());
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            let _gone = socket.send_to(format!("{name} {}", peer.ip()).as_bytes(), peer);
        }
    });
}

/// What the server says, from the calling thread's namespace.
pub(crate) fn ask_tcp(address: impl Into<IpAddr>, port: u16) -> std::io::Result<String> {
    ask_tcp_within(address, port, PATIENCE)
}

pub(crate) fn ask_tcp_within(
    address: impl Into<IpAddr>,
    port: u16,
    limit: Duration,
) -> std::io::Result<String> {
    let address = SocketAddr::new(address.into(), port);
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

pub(crate) fn ask_udp(address: impl Into<IpAddr>, port: u16) -> std::io::Result<String> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    ask_udp_from(&socket, address, port, PATIENCE)
}

pub(crate) fn ask_udp_from(
    socket: &UdpSocket,
    address: impl Into<IpAddr>,
    port: u16,
    limit: Duration,
) -> std::io::Result<String> {
    let address = SocketAddr::new(address.into(), port);
    let end = Instant::now() + limit;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let mut buffer = [0; 64];
    loop {
        socket.send_to(b"?", address)?;
        match socket.recv_from(&mut buffer) {
            Ok((length, _)) => return Ok(String::from_utf8_lossy(&buffer[..length]).into_owned()),
            Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < end => {}
            Err(error) => return Err(error),
        }
    }
}

/// Polls until the condition holds.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Another machine, joined to the host by a cable: 198.51.100.1 here, 198.51.100.2 there.
pub(crate) struct Outsider {
    pub(crate) netns: OwnedFd,
}

impl Outsider {
    pub(crate) const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1));
    pub(crate) const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 2));

    pub(crate) fn plug_in() -> Self {
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let netns: OwnedFd = std::fs::File::open("/proc/thread-self/ns/net")
                .unwrap()
                .into();
            tell.send((netns, nix::unistd::gettid())).unwrap();
            // Alive until the cable is in: `ip` finds the namespace by the thread's id.
            let _done = wait.recv();
        });
        let (netns, thread) = told.recv().unwrap();
        ip(&format!(
            "link add cable type veth peer name cable netns {thread}"
        ));
        drop(done);
        ip("addr add 198.51.100.1/24 dev cable");
        ip("link set cable up");
        inside(netns.as_fd(), || {
            ip("addr add 198.51.100.2/24 dev cable");
            ip("link set cable up");
            ip("link set lo up");
        });
        Self { netns }
    }
}

/// A container with a TCP and a UDP server on port 80 that know its name.
pub(crate) async fn serving(
    network: &Network,
    name: &'static str,
    ports: &[PortMap],
) -> Attachment {
    let attachment = network.attach(name, ports).await.unwrap();
    serve_tcp(attachment.netns.as_fd(), 80, name);
    serve_udp(attachment.netns.as_fd(), 80, name);
    attachment
}
