//! Who reaches whom, and who must not.

use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsFd;

use gantry_net::{Network, NetworkConfig};

use crate::host::*;

const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

#[test]
fn the_host_reaches_a_published_port_by_every_address_of_its_own() {
    on_fresh_host(|| async {
        let _outsider = Outsider::plug_in();
        let network = open().await;
        let web = serving(&network, "web", &[tcp(8080, 80), udp(8080, 80)]).await;
        let gateway = network.gateway();
        assert_eq!(ask_tcp(web.ip, 80).unwrap(), format!("web {gateway}"));
        assert_eq!(ask_tcp(LOCALHOST, 8080).unwrap(), format!("web {gateway}"));
        assert_eq!(ask_tcp(gateway, 8080).unwrap(), format!("web {gateway}"));
        assert!(ask_tcp(Outsider::HOST, 8080).unwrap().starts_with("web "));
        assert_eq!(ask_udp(LOCALHOST, 8080).unwrap(), format!("web {gateway}"));
        assert_eq!(ask_udp(gateway, 8080).unwrap(), format!("web {gateway}"));
        assert!(ask_udp(Outsider::HOST, 8080).unwrap().starts_with("web "));
    });
}

async fn containers_reach_each_other(network: &Network) {
    let one = serving(network, "one", &[tcp(8001, 80), udp(8001, 80)]).await;
    let two = serving(network, "two", &[tcp(8002, 80), udp(8002, 80)]).await;
    let gateway = network.gateway();
    inside(one.netns.as_fd(), || {
        assert_eq!(ask_tcp(two.ip, 80).unwrap(), format!("two {}", one.ip));
        assert_eq!(ask_udp(two.ip, 80).unwrap(), format!("two {}", one.ip));
        assert_eq!(ask_tcp(gateway, 8002).unwrap(), format!("two {gateway}"));
        assert_eq!(ask_udp(gateway, 8002).unwrap(), format!("two {gateway}"));
        // Hairpin: its own published port.
        assert_eq!(ask_tcp(gateway, 8001).unwrap(), format!("one {gateway}"));
        assert_eq!(ask_udp(gateway, 8001).unwrap(), format!("one {gateway}"));
        assert_eq!(ask_tcp(LOCALHOST, 80).unwrap(), format!("one {LOCALHOST}"));
    });
}

/// The default of a new namespace, and what dockerd switches on for everybody: bridged packets pass
/// the IP hooks.
#[test]
fn containers_reach_each_other_and_published_ports_with_bridge_netfilter() {
    on_fresh_host(|| async {
        sysctl("net/bridge/bridge-nf-call-iptables", "1");
        containers_reach_each_other(&open().await).await;
    });
}

#[test]
fn containers_reach_each_other_and_published_ports_without_bridge_netfilter() {
    on_fresh_host(|| async {
        sysctl("net/bridge/bridge-nf-call-iptables", "0");
        containers_reach_each_other(&open().await).await;
    });
}

#[test]
fn a_container_reaches_the_gateways_own_services_but_nothing_on_127() {
    on_fresh_host(|| async {
        let network = open().await;
        let web = network.attach("web", &[]).await.unwrap();
        let private = TcpListener::bind((LOCALHOST, 9000)).unwrap();
        let public = TcpListener::bind(("0.0.0.0", 9001)).unwrap();
        let accept = |listener: TcpListener| {
            std::thread::spawn(move || for _stream in listener.incoming() {});
        };
        accept(private);
        accept(public);
        let gateway = network.gateway();
        let attack = || {
            inside(web.netns.as_fd(), || {
                ask_tcp_within(LOCALHOST, 9000, REFUSAL).is_ok()
            })
        };
        inside(web.netns.as_fd(), || {
            assert!(ask_tcp(gateway, 9001).is_ok());
            assert!(ask_tcp_within(gateway, 9000, REFUSAL).is_err());
            // What an attacker with CAP_NET_ADMIN in its namespace does (CVE-2020-8558).
            sysctl("net/ipv4/conf/all/route_localnet", "1");
            ip("link set lo down");
            ip("addr flush dev lo");
            ip(&format!("route add 127.0.0.1 via {gateway} src {}", web.ip));
        });
        assert!(!attack());
        // The attack is real: without the guard it succeeds.
        nft("flush chain ip gantry-7e57ab1e guard");
        assert!(attack());
        // And opening again puts the guard back.
        drop(network);
        let _network = open().await;
        assert!(!attack());
    });
}

#[test]
fn nobody_speaks_from_an_address_outside_the_subnet() {
    on_fresh_host(|| async {
        let network = open().await;
        let web = network.attach("web", &[]).await.unwrap();
        let listener = TcpListener::bind(("0.0.0.0", 9001)).unwrap();
        std::thread::spawn(move || for _stream in listener.incoming() {});
        let gateway = network.gateway();
        ip(&format!("route add 203.0.113.7 dev {}", network.bridge()));
        inside(web.netns.as_fd(), || {
            assert!(ask_tcp(gateway, 9001).is_ok());
            ip("addr add 203.0.113.7/32 dev eth0");
            ip(&format!(
                "route change default via {gateway} src 203.0.113.7"
            ));
            ip(&format!("route add {gateway}/32 dev eth0 src 203.0.113.7"));
            assert!(ask_tcp_within(gateway, 9001, REFUSAL).is_err());
        });
    });
}

#[test]
fn two_networks_side_by_side_meet_only_at_published_ports() {
    on_fresh_host(|| async {
        let one = open().await;
        let two = Network::open(NetworkConfig::for_tag("0ddba115"))
            .await
            .unwrap();
        assert_ne!(one.subnet(), two.subnet());
        let left = serving(&one, "left", &[tcp(8001, 80)]).await;
        let right = serving(&two, "right", &[tcp(8002, 80)]).await;
        assert_eq!(
            ask_tcp(LOCALHOST, 8001).unwrap(),
            format!("left {}", one.gateway())
        );
        assert_eq!(
            ask_tcp(LOCALHOST, 8002).unwrap(),
            format!("right {}", two.gateway())
        );
        inside(left.netns.as_fd(), || {
            assert!(ask_tcp(one.gateway(), 8002).unwrap().starts_with("right "));
            assert!(ask_tcp_within(right.ip, 80, REFUSAL).is_err());
        });
        // The same host port in both: the kernel's sockets decide.
        let error = two.attach("again", &[tcp(8001, 80)]).await.unwrap_err();
        assert!(
            error.to_string().contains("a socket of the host"),
            "{error}"
        );
        two.remove().await.unwrap();
        assert_eq!(
            ask_tcp(LOCALHOST, 8001).unwrap(),
            format!("left {}", one.gateway())
        );
    });
}

/// A client that keeps its port must reach the new holder of a published port, not the dead one.
#[test]
fn udp_clients_find_the_next_container() {
    on_fresh_host(|| async {
        let network = open().await;
        let client = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        let first = serving(&network, "first", &[udp(5300, 80)]).await;
        let answer = ask_udp_from(&client, LOCALHOST, 5300, PATIENCE).unwrap();
        assert!(answer.starts_with("first"));
        network.detach("first").await.unwrap();
        let second = serving(&network, "second", &[udp(5300, 80)]).await;
        assert_ne!(first.ip, second.ip);
        let answer = ask_udp_from(&client, LOCALHOST, 5300, PATIENCE).unwrap();
        assert!(answer.starts_with("second"), "{answer}");
    });
}
