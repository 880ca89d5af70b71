//! Namespaces and numbers that containers of one keeper share.

use gantry_isolation::spec::Network;

use crate::node::{Node, id};

#[test]
fn a_network_is_shared_with_a_running_container() {
    let mut node = Node::new();
    let mut first = node.shell("c1", "readlink /proc/self/ns/net; exec sleep 1000");
    first.network = Network::New;
    node.start(&first);
    node.started("c1");
    let mut second = node.shell("c2", "readlink /proc/self/ns/net; ls /sys/class/net");
    second.network = Network::Of(id("c1"));
    let inside = node.run(&second).stdout;
    assert_eq!(inside, format!("{}lo\n", node.output("c1", "stdout")));
    let mut third = node.shell("c3", "true");
    third.network = Network::Of(id("gone"));
    node.start(&third);
    let words = "share the network of gone: no such container runs";
    assert_eq!(node.start_failure("c3"), words);
}
