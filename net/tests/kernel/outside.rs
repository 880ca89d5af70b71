//! Another machine and a container; and what the rules look like.

use std::os::fd::AsFd;

use gantry_net::{Ruleset, Severity, preflight};

use crate::host::*;

#[test]
fn out_is_masqueraded_in_is_by_published_port_only() {
    on_fresh_host(|| async {
        let outsider = Outsider::plug_in();
        serve_tcp(outsider.netns.as_fd(), 80, "outsider");
        let network = open().await;
        let web = serving(&network, "web", &[tcp(8080, 80), udp(8080, 80)]).await;
        inside(web.netns.as_fd(), || {
            let answer = ask_tcp(Outsider::ADDRESS, 80).unwrap();
            assert_eq!(answer, format!("outsider {}", Outsider::HOST));
        });
        inside(outsider.netns.as_fd(), || {
            let answer = ask_tcp(Outsider::HOST, 8080).unwrap();
            assert_eq!(answer, format!("web {}", Outsider::ADDRESS));
            let answer = ask_udp(Outsider::HOST, 8080).unwrap();
            assert_eq!(answer, format!("web {}", Outsider::ADDRESS));
            // A neighbour that uses the host as a router gets nowhere.
            ip(&format!(
                "route add {} via {}",
                network.subnet(),
                Outsider::HOST
            ));
            assert!(ask_tcp_within(web.ip, 80, REFUSAL).is_err());
        });
    });
}

#[test]
fn the_kernel_holds_the_rules_as_planned() {
    on_fresh_host(|| async {
        let network = open().await;
        let planned = Ruleset::new("gantry-7e57ab1e", network.bridge(), network.subnet());
        let listed = nft("-y list table ip gantry-7e57ab1e");
        assert_eq!(listed, planned.to_string());
    });
}

#[test]
fn preflight_finds_nothing_on_a_clean_host_and_docker_on_another() {
    on_fresh_host(|| async {
        let before = (ip("-j link"), nft("-j list ruleset"));
        assert_eq!(preflight().await, vec![]);
        assert_eq!(before, (ip("-j link"), nft("-j list ruleset")));
        nft("add table ip filter");
        nft("add chain ip filter FORWARD { type filter hook forward priority 0 ; policy drop ; }");
        nft("add chain ip filter INPUT { type filter hook input priority 0 ; policy drop ; }");
        let findings = preflight().await;
        assert_eq!(findings.len(), 2, "{findings:?}");
        assert!(
            findings
                .iter()
                .all(|finding| finding.severity == Severity::Warning)
        );
        assert!(
            findings[0]
                .what
                .contains("FORWARD of nftables table filter"),
            "{findings:?}"
        );
    });
}
