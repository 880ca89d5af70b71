//! A process that ends and one that takes over.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsFd;

use gantry_net::{Adoption, Attachment, Known, PortMap};

use crate::host::*;

const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;
const TABLE: &str = "gantry-7e57ab1e";

fn known(id: &str, attachment: &Attachment, ports: &[PortMap]) -> Known {
    Known {
        container_id: id.to_owned(),
        ip: attachment.ip,
        ports: ports.to_vec(),
    }
}

/// A connection into a container that stays open over the restart.
struct Echo(TcpStream);

impl Echo {
    fn open(container: &Attachment) -> Self {
        let listener = inside(container.netns.as_fd(), || {
            TcpListener::bind("0.0.0.0:81").unwrap()
        });
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut byte = [0];
            while stream.read_exact(&mut byte).is_ok() {
                stream.write_all(&byte).unwrap();
            }
        });
        let stream = TcpStream::connect((container.ip, 81)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    fn echoes(&mut self, byte: u8) {
        self.0.write_all(&[byte]).unwrap();
        let mut answer = [0];
        self.0.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [byte]);
    }
}

#[test]
fn what_is_known_stays_and_the_rest_goes() {
    on_fresh_host(|| async {
        let network = open().await;
        let subnet = network.subnet();
        let web_ports = [tcp(8080, 80), udp(8080, 80)];
        let web = serving(&network, "web", &web_ports).await;
        let ended = network.attach("ended", &[tcp(8081, 80)]).await.unwrap();
        let ended_known = known("ended", &ended, &[tcp(8081, 80)]);
        let _stray = network.attach("stray", &[tcp(8082, 80)]).await.unwrap();
        let mut connection = Echo::open(&web);
        connection.echoes(1);

        forsake(network, 8080);
        drop(ended);
        eventually("its interface ends with the namespace", || {
            link_names().len() == 3
        });
        let network = open().await;
        assert_eq!(network.subnet(), subnet);
        // Published ports work before the adoption, too.
        assert!(ask_tcp(LOCALHOST, 8080).unwrap().starts_with("web"));
        let report = network
            .adopt(&[known("web", &web, &web_ports), ended_known])
            .await
            .unwrap();
        let expected = Adoption {
            adopted: vec!["web".into()],
            missing: vec!["ended".into()],
            removed_links: 1,
            removed_ports: 2,
            warnings: vec!["ended: its interface is gone".into()],
        };
        assert_eq!(report, expected);
        connection.echoes(2);
        assert!(ask_tcp(LOCALHOST, 8080).unwrap().starts_with("web"));
        assert!(ask_udp(LOCALHOST, 8080).unwrap().starts_with("web"));
        assert_eq!(
            link_names(),
            [web.host_interface.clone(), network.bridge().to_owned()]
        );
        let ports = [
            format!("tcp 8080 {} 80", web.ip),
            format!("udp 8080 {} 80", web.ip),
        ];
        assert_eq!(published(TABLE), ports);
        // Its address and ports are not given away, those of the others are.
        let next = network
            .attach("next", &[tcp(8081, 80), tcp(8082, 80)])
            .await
            .unwrap();
        assert_ne!(next.ip, web.ip);
        assert!(network.attach("thief", &[tcp(8080, 80)]).await.is_err());
        assert!(TcpListener::bind("127.0.0.1:8080").is_err());
        // Adopting again changes nothing.
        let report = network
            .adopt(&[known("web", &web, &web_ports)])
            .await
            .unwrap();
        assert_eq!((report.removed_links, report.removed_ports), (0, 0));
        connection.echoes(3);
        network.detach("web").await.unwrap();
        network.detach("next").await.unwrap();
        network.settle().await.unwrap();
        assert_eq!(link_names(), [network.bridge()]);
        network.remove().await.unwrap();
        assert_eq!((link_names().len(), rules().len()), (0, 0));
    });
}

#[test]
fn a_flushed_ruleset_and_a_lost_bridge_are_made_again() {
    on_fresh_host(|| async {
        let network = open().await;
        let ports = [tcp(8080, 80)];
        let web = serving(&network, "web", &ports).await;
        forsake(network, 8080);
        nft("flush ruleset");
        ip("link del gantry-7e57ab");
        let network = open().await;
        let report = network.adopt(&[known("web", &web, &ports)]).await.unwrap();
        assert_eq!(report.adopted, ["web"]);
        assert_eq!(report.warnings, Vec::<String>::new());
        assert!(ask_tcp(LOCALHOST, 8080).unwrap().starts_with("web"));
    });
}

#[test]
fn attaching_without_adopting_replaces_ports_of_a_former_life() {
    on_fresh_host(|| async {
        let network = open().await;
        let old = network.attach("old", &[tcp(8080, 80)]).await.unwrap();
        forsake(network, 8080);
        let network = open().await;
        drop(old);
        let web = serving(&network, "new", &[tcp(8080, 80)]).await;
        assert_eq!(published(TABLE), [format!("tcp 8080 {} 80", web.ip)]);
        assert!(ask_tcp(LOCALHOST, 8080).unwrap().starts_with("new"));
    });
}

#[test]
fn nonsense_is_not_adopted() {
    on_fresh_host(|| async {
        let network = open().await;
        let one = network.attach("one", &[]).await.unwrap();
        let two = network.attach("two", &[]).await.unwrap();
        drop(network);
        let network = open().await;
        let mut wrong = known("two", &two, &[]);
        wrong.ip = one.ip;
        let report = network
            .adopt(&[known("one", &one, &[]), wrong])
            .await
            .unwrap();
        assert_eq!(report.adopted, ["one"]);
        assert_eq!(report.missing, ["two"]);
        assert_eq!(report.removed_links, 1);
        assert_eq!(link_names().len(), 2);
    });
}
