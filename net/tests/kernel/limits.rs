//! Many at once, no more than there is room for, and nothing left behind.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::AsFd;

use gantry_net::{NetError, Network, NetworkConfig, PortHolder, Subnet};

use crate::host::*;

#[test]
fn fifty_at_once_get_fifty_addresses() {
    on_fresh_host(|| async {
        let network = open().await;
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..50_u16 {
            let network = network.clone();
            tasks.spawn(async move {
                let ports = [tcp(10_000 + n, 80), udp(10_000 + n, 80)];
                network.attach(&format!("task.{n}"), &ports).await.unwrap()
            });
        }
        let attachments = tasks.join_all().await;
        let addresses: BTreeSet<_> = attachments.iter().map(|at| at.ip).collect();
        let names: BTreeSet<_> = attachments
            .iter()
            .map(|at| at.host_interface.clone())
            .collect();
        assert_eq!((addresses.len(), names.len()), (50, 50));
        assert_eq!(link_names().len(), 51);
        assert_eq!(published("gantry-7e57ab1e").len(), 100);
        for attachment in attachments.iter().step_by(7) {
            serve_tcp(attachment.netns.as_fd(), 80, "x");
            assert!(ask_tcp(attachment.ip, 80).is_ok());
        }
        for n in 0..50 {
            network.detach(&format!("task.{n}")).await.unwrap();
        }
        network.settle().await.unwrap();
        assert_eq!(link_names(), [network.bridge()]);
        assert_eq!(published("gantry-7e57ab1e"), Vec::<String>::new());
    });
}

#[test]
fn an_interface_goes_with_its_namespace_or_after_a_moment_without() {
    on_fresh_host(|| async {
        let network = open().await;
        let kept = network.attach("kept", &[]).await.unwrap();
        let ended = network.attach("ended", &[]).await.unwrap();
        drop(ended);
        eventually("gone with its namespace", || link_names().len() == 2);
        network.detach("ended").await.unwrap();
        network.detach("kept").await.unwrap();
        eventually("deleted though its namespace lives", || {
            link_names().len() == 1
        });
        let lowest = network.attach("next", &[]).await.unwrap();
        assert_eq!(lowest.ip, kept.ip);
        // The same id again at once, while the old interface still lives.
        network.detach("next").await.unwrap();
        let again = network.attach("next", &[]).await.unwrap();
        serve_tcp(again.netns.as_fd(), 80, "again");
        assert!(ask_tcp(again.ip, 80).unwrap().starts_with("again"));
        network.detach("next").await.unwrap();
        network.detach("next").await.unwrap();
        network.detach("never heard of").await.unwrap();
    });
}

#[test]
fn a_full_subnet_says_so_and_has_room_again() {
    on_fresh_host(|| async {
        let subnet = Subnet::new(Ipv4Addr::new(10, 9, 8, 0), 29).unwrap();
        let config = NetworkConfig {
            subnet: Some(subnet),
            ..NetworkConfig::for_tag(TAG)
        };
        let network = Network::open(config.clone()).await.unwrap();
        let mut held = Vec::new();
        for n in 2..=6 {
            let attachment = network.attach(&n.to_string(), &[]).await.unwrap();
            assert_eq!(attachment.ip.to_string(), format!("10.9.8.{n}"));
            held.push(attachment);
        }
        let error = network.attach("7", &[tcp(8080, 80)]).await.unwrap_err();
        assert!(matches!(error, NetError::SubnetExhausted { .. }), "{error}");
        assert!(error.is_transient());
        network.detach("4").await.unwrap();
        let attachment = network.attach("7", &[tcp(8080, 80)]).await.unwrap();
        assert_eq!(attachment.ip.to_string(), "10.9.8.4");
        drop(network);
        let other = Subnet::new(Ipv4Addr::new(10, 9, 9, 0), 24).unwrap();
        let error = Network::open(NetworkConfig {
            subnet: Some(other),
            ..config
        })
        .await;
        assert!(matches!(error, Err(NetError::SubnetDiffers { .. })));
    });
}

#[test]
fn a_network_that_cannot_be_opened_leaves_nothing() {
    on_fresh_host(|| async {
        for prefix in ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"] {
            ip(&format!("route add unreachable {prefix}"));
        }
        let error = Network::open(NetworkConfig::for_tag(TAG))
            .await
            .unwrap_err();
        assert!(matches!(error, NetError::NoFreeSubnet), "{error}");
        assert_eq!((link_names().len(), rules().len()), (0, 0));
        let error = Network::open(NetworkConfig::for_tag("no!"))
            .await
            .unwrap_err();
        assert!(matches!(error, NetError::InvalidTag { .. }), "{error}");
    });
}

#[test]
fn a_subnet_that_the_host_routes_is_refused_or_avoided() {
    on_fresh_host(|| async {
        let first = open().await.subnet();
        ip("link del gantry-7e57ab");
        ip(&format!("route add unreachable {first}"));
        let second = open().await.subnet();
        assert_ne!(first, second);
        ip("link del gantry-7e57ab");
        let config = NetworkConfig {
            subnet: Some(first),
            ..NetworkConfig::for_tag(TAG)
        };
        let error = Network::open(config).await.unwrap_err();
        assert!(matches!(error, NetError::SubnetTaken { .. }), "{error}");
    });
}

#[test]
fn a_port_has_one_holder() {
    on_fresh_host(|| async {
        let network = open().await;
        let _web = network.attach("web", &[tcp(8080, 80)]).await.unwrap();
        let error = network.attach("other", &[tcp(8080, 81)]).await.unwrap_err();
        let holder = PortHolder::Container("web".into());
        assert!(matches!(&error, NetError::PortInUse { port: 8080, by, .. } if *by == holder));
        assert_eq!(
            error.to_string(),
            "host port 8080/tcp is in use by container web"
        );
        // Nobody on the host can take it either.
        assert!(TcpListener::bind("127.0.0.1:8080").is_err());
        let host = TcpListener::bind("127.0.0.1:9090").unwrap();
        let socket = UdpSocket::bind("127.0.0.1:9091").unwrap();
        for port in [tcp(9090, 80), udp(9091, 80)] {
            let error = network
                .attach("other", &[tcp(9000, 1), port])
                .await
                .unwrap_err();
            let from_host = matches!(
                error,
                NetError::PortInUse {
                    by: PortHolder::HostSocket,
                    ..
                }
            );
            assert!(from_host, "{error}");
        }
        drop((host, socket));
        let _other = network
            .attach("other", &[tcp(9090, 80), udp(9091, 80)])
            .await
            .unwrap();
        let error = network.attach("web", &[]).await.unwrap_err();
        assert!(matches!(error, NetError::AlreadyAttached { .. }), "{error}");
        network.detach("web").await.unwrap();
        let _next = network.attach("next", &[tcp(8080, 80)]).await.unwrap();
        for bad in ["", &"x".repeat(600)] {
            let error = network.attach(bad, &[]).await.unwrap_err();
            assert!(
                matches!(error, NetError::InvalidContainerId { .. }),
                "{error}"
            );
        }
    });
}

#[test]
fn removal_leaves_nothing_and_touches_nothing_else() {
    on_fresh_host(|| async {
        nft("add table ip somebody-elses");
        ip("link add gother type veth peer name gother2");
        let (links, before) = (link_names(), rules());
        let network = open().await;
        let _one = network
            .attach("one", &[tcp(8001, 80), udp(8001, 80)])
            .await
            .unwrap();
        let two = network.attach("two", &[tcp(8002, 80)]).await.unwrap();
        drop(two);
        network.detach("two").await.unwrap();
        assert_ne!(rules(), before);
        network.remove().await.unwrap();
        assert_eq!((link_names(), rules()), (links, before));
        let error = network.attach("three", &[]).await.unwrap_err();
        assert!(matches!(error, NetError::Closed), "{error}");
        assert!(TcpListener::bind("127.0.0.1:8001").is_ok());
    });
}
