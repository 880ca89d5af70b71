//! What a container can tell the host: nothing by IPv6; and what it may do without capabilities.

use std::os::fd::AsFd;

use crate::host::*;

fn setting(key: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/sys/net/{key}")).unwrap();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn is_deaf(interface: &str) {
    for (key, value) in [("disable_ipv6", "1"), ("accept_ra", "0")] {
        let key = format!("ipv6/conf/{interface}/{key}");
        assert_eq!(setting(&key), value, "{key}");
    }
    let addresses = ip(&format!("-6 addr show dev {interface}"));
    assert_eq!(addresses, "", "{interface}");
}

#[test]
fn the_host_has_no_ipv6_on_the_bridge_and_a_container_only_its_loopback() {
    on_fresh_host(|| async {
        let network = open().await;
        let web = network.attach("web", &[tcp(8080, 80)]).await.unwrap();
        is_deaf(network.bridge());
        is_deaf(&web.host_interface);
        inside(web.netns.as_fd(), || {
            is_deaf("eth0");
            assert!(std::net::TcpListener::bind("[::1]:0").is_ok());
            assert!(std::net::TcpListener::bind("[::]:0").is_ok());
        });
        // Switched on behind our back, off again at the next start.
        forsake(network, 8080);
        for interface in ["gantry-7e57ab", &web.host_interface] {
            sysctl(&format!("net/ipv6/conf/{interface}/disable_ipv6"), "0");
            sysctl(&format!("net/ipv6/conf/{interface}/accept_ra"), "2");
        }
        let network = open().await;
        let known = gantry_net::Known {
            container_id: "web".to_owned(),
            ip: web.ip,
            ports: vec![tcp(8080, 80)],
        };
        let adoption = network.adopt(&[known]).await.unwrap();
        assert_eq!(adoption.warnings, Vec::<String>::new());
        is_deaf(network.bridge());
        is_deaf(&web.host_interface);
    });
}

/// ICMP echo sockets are for the groups of the namespace's `ping_group_range`: 65534, nobody's, is
/// one of them.
#[test]
fn a_container_pings_without_capabilities() {
    on_fresh_host(|| async {
        let network = open().await;
        let web = network.attach("web", &[]).await.unwrap();
        inside(web.netns.as_fd(), || {
            assert_eq!(setting("ipv4/ping_group_range"), "0 2147483647");
            assert_eq!(setting("ipv4/ip_unprivileged_port_start"), "0");
            let script = "import socket; s = socket.socket(2, socket.SOCK_DGRAM, 1); \
                s.settimeout(5); s.sendto(bytes([8, 0, 0, 0, 0, 0, 0, 1]), ('%s', 0)); s.recv(99)";
            let script = script.replace("%s", &network.gateway().to_string());
            let status = std::os::unix::process::CommandExt::uid(
                std::os::unix::process::CommandExt::gid(
                    std::process::Command::new("/usr/bin/python3").args(["-c", &script]),
                    65_534,
                ),
                65_534,
            )
            .status()
            .unwrap();
            assert!(status.success());
        });
    });
}
