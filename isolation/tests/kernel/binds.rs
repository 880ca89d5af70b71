//! Ports of the node that no container may take.

use gantry_isolation::cgroup::refuse_binds;
use gantry_isolation::spec::Network;

use crate::node::Node;

/// Tries every port by both families, and says of each what came of it.
fn tries(ports: [u16; 2]) -> String {
    format!(
        "perl -MSocket -e 'for $p ({}, {}) {{ \
         for $w ([AF_INET, pack_sockaddr_in($p, INADDR_LOOPBACK)], [AF_INET, pack_sockaddr_in($p, INADDR_ANY)], \
         [AF_INET6, pack_sockaddr_in6($p, Socket::IN6ADDR_ANY)]) {{ \
         socket($s, $w->[0], SOCK_STREAM, 0) or die; setsockopt($s, SOL_SOCKET, SO_REUSEADDR, 1); \
         print bind($s, $w->[1]) ? \"taken\\n\" : \"$!\\n\"; close $s; }} }}'",
        ports[0], ports[1]
    )
}

#[test]
fn ports_of_the_node_are_not_taken_by_containers() {
    // Below those that the kernel gives out by itself, so that no other test has them.
    let first = 20_000 + u16::try_from(std::process::id() % 5_000).unwrap() * 2;
    let ports = [first, first + 1];
    let mut node = Node::new();
    let (yes, no) = ("taken\n".repeat(3), "Operation not permitted\n".repeat(3));
    assert_eq!(node.sh("before", &tries(ports)), format!("{yes}{yes}"));
    refuse_binds(&node.parent, &ports[..1]).unwrap();
    assert_eq!(node.sh("refused", &tries(ports)), format!("{no}{yes}"));
    // In a network of its own every port is a container's own.
    let mut own = node.shell("own", &tries(ports));
    own.network = Network::New;
    assert_eq!(node.run(&own).stdout, format!("{yes}{yes}"));
    // The last word counts, however often it is said.
    for _ in 0..100 {
        refuse_binds(&node.parent, &ports[1..]).unwrap();
    }
    assert_eq!(node.sh("others", &tries(ports)), format!("{yes}{no}"));
    refuse_binds(&node.parent, &[]).unwrap();
    assert_eq!(node.sh("after", &tries(ports)), format!("{yes}{yes}"));
    refuse_binds("no-such-parent", &ports).unwrap_err();
}
