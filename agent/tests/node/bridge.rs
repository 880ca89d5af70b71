//! Tasks with an address of their own.

use std::io::Read as _;
use std::net::TcpStream;

use gantry_wire::agent::{Launch, NetworkMode, PortMapping};
use gantry_wire::task::{Reason, TaskState};
use rustix::process::Signal;

use crate::agent::{Node, run};
use crate::coordinator::{shell, state};

pub(crate) fn bridged(task: &str, command: &str, host_port: u32) -> Launch {
    Launch {
        network: NetworkMode::Bridge as i32,
        ports: vec![PortMapping {
            host_port,
            container_port: 8_080,
            protocol: "tcp".into(),
            name: String::new(),
        }],
        ..shell(task, command)
    }
}

/// Says its name to whoever connects. Perl is part of every Debian.
pub(crate) fn server(name: &str) -> String {
    format!(
        "exec perl -MIO::Socket::INET -e '$s=IO::Socket::INET->new(LocalPort=>8080,Listen=>5,\
         ReuseAddr=>1) or die; while($c=$s->accept){{print $c \"{name}\"; close $c}}'"
    )
}

pub(crate) async fn says(node: &Node, host: &str, port: u16) -> String {
    node.coordinator
        .until("an answer", |_| {
            let mut text = String::new();
            TcpStream::connect((host, port))
                .ok()?
                .read_to_string(&mut text)
                .ok()?;
            (!text.is_empty()).then_some(text)
        })
        .await
}

pub(crate) fn own_address_and_ports() {
    run(async {
        let mut node = Node::start().await;
        node.coordinator
            .launch(bridged("web", &server("hello"), 31_871));
        let web = node.coordinator.update("web", TaskState::TaskRunning).await;
        assert!(!web.ip_address.is_empty());
        assert_eq!(says(&node, &web.ip_address, 8_080).await, "hello");
        assert_eq!(says(&node, "127.0.0.1", 31_871).await, "hello");

        // From another container, by address and by the node's mapped port.
        let gateway = node.coordinator.heard.lock().unwrap().registers[0]
            .hostname
            .clone();
        let ask = |host: &str, port: u16| {
            format!(
                "perl -MIO::Socket::INET -e '$s=IO::Socket::INET->new(PeerAddr=>\"{host}:{port}\",\
                 Timeout=>5) or die $!; print <$s>, \"\\n\"'"
            )
        };
        let line = format!("{}; {}", ask(&web.ip_address, 8_080), ask(&gateway, 31_871));
        let asker = Launch {
            ports: Vec::new(),
            ..bridged("asker", &line, 0)
        };
        node.coordinator.launch(asker);
        let end = node.coordinator.terminal("asker").await;
        let seen = node.read(&format!("{}/stdout", end.sandbox)).await;
        assert_eq!(seen, "hello\nhello\n");

        node.coordinator.launch(bridged("rival", "true", 31_871));
        let end = node.coordinator.terminal("rival").await;
        assert_eq!(end.reason, Some(Reason::ReasonContainerLaunchFailed as i32));
        assert!(end.message.contains("31871"), "{}", end.message);

        // The address and the port survive the agent; after the end the port is free.
        node.kill_9();
        assert_eq!(says(&node, "127.0.0.1", 31_871).await, "hello");
        node.start_agent().await;
        assert_eq!(says(&node, "127.0.0.1", 31_871).await, "hello");
        node.coordinator.kill("web", 1_000);
        assert_eq!(
            state(&node.coordinator.terminal("web").await),
            TaskState::TaskKilled
        );
        node.coordinator
            .launch(bridged("again", &server("again"), 31_871));
        node.coordinator
            .update("again", TaskState::TaskRunning)
            .await;
        assert_eq!(says(&node, "127.0.0.1", 31_871).await, "again");
        assert!(node.end(Signal::TERM));
        assert_eq!(node.links(), Vec::<String>::new());
    });
}
