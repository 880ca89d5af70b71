//! Processes of a cgroup that must not reach a port of their own host, and all the others that must.

use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use gantry_net::{NetError, Ruleset, protect, unprotect};

use crate::host::*;

const TABLE: &str = "gantry-7e57ab1e-api";

/// A child of the version 2 root with one child of its own, as a container's cgroup lies.
struct Cgroup {
    parent: PathBuf,
}

impl Cgroup {
    fn make(name: &str) -> Self {
        let hybrid = Path::new("/sys/fs/cgroup/unified");
        let root = if hybrid.exists() {
            hybrid
        } else {
            Path::new("/sys/fs/cgroup")
        };
        let parent = root.join(format!("gantry-net-test-{name}-{}", std::process::id()));
        std::fs::create_dir_all(parent.join("container")).unwrap();
        Self { parent }
    }

    fn id(&self) -> u64 {
        self.parent.metadata().unwrap().ino()
    }

    /// Whether a process that begins in it connects, by the calling thread's namespace.
    fn reaches(&self, address: impl std::fmt::Display, port: u16) -> bool {
        let procs = self.parent.join("container/cgroup.procs");
        let script = format!(
            "echo $$ > {} && exec 3<>/dev/tcp/{address}/{port} || exit 7; exit 0",
            procs.display()
        );
        let output = Command::new("bash").args(["-c", &script]).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        match output.status.code() {
            Some(0) => true,
            Some(_) if errors.contains("Connection refused") => false,
            other => panic!("{address}:{port}: {other:?} {errors}"),
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A process that ended leaves its cgroup a moment later.
        eventually("the cgroup is empty", || {
            std::fs::remove_dir(self.parent.join("container")).is_ok()
        });
        std::fs::remove_dir(&self.parent).unwrap();
    }
}

fn here() -> std::os::fd::OwnedFd {
    std::fs::File::open("/proc/thread-self/ns/net")
        .unwrap()
        .into()
}

fn serve(netns: BorrowedFd<'_>, ports: [u16; 3]) {
    for port in ports {
        serve_tcp(netns, port, "api");
    }
}

#[test]
fn a_cgroup_is_kept_from_ports_of_this_host_by_every_address_and_others_are_not() {
    on_fresh_host(|| async {
        let outsider = Outsider::plug_in();
        serve(here().as_fd(), [5050, 5051, 5052]);
        serve_tcp(outsider.netns.as_fd(), 5050, "elsewhere");
        let (inside, other) = (Cgroup::make("a"), Cgroup::make("b"));
        assert!(inside.reaches("127.0.0.1", 5050));
        protect(TAG, &[5050, 5051], inside.id()).unwrap();
        for address in ["127.0.0.1", "127.9.9.9", "198.51.100.1"] {
            assert!(!inside.reaches(address, 5050), "{address}");
            assert!(!inside.reaches(address, 5051), "{address}");
            assert!(inside.reaches(address, 5052), "{address}");
            assert!(other.reaches(address, 5050), "{address}");
        }
        // Mapped into IPv6 it is IPv4 all the same.
        assert!(!inside.reaches("::ffff:127.0.0.1", 5050));
        assert!(inside.reaches(Outsider::ADDRESS, 5050));
        assert!(ask_tcp(Ipv4Addr::LOCALHOST, 5050).is_ok());

        // A detour by somebody's translation.
        nft("add table ip detour");
        nft("add chain ip detour out { type nat hook output priority -100 ; }");
        nft("add rule ip detour out tcp dport 9999 redirect to :5050");
        assert!(ask_tcp(Ipv4Addr::LOCALHOST, 9999).is_ok());
        assert!(!inside.reaches("127.0.0.1", 9999));
        nft("delete table ip detour");

        // Asked again it changes nothing; with something else, only that holds.
        let before = nft(&format!("list table ip {TABLE}"));
        protect(TAG, &[5050, 5051], inside.id()).unwrap();
        assert_eq!(nft(&format!("list table ip {TABLE}")), before);
        protect(TAG, &[5052], other.id()).unwrap();
        assert!(inside.reaches("127.0.0.1", 5052) && other.reaches("127.0.0.1", 5050));
        assert!(!other.reaches("127.0.0.1", 5052));
        unprotect(TAG).unwrap();
        assert!(other.reaches("127.0.0.1", 5052));
        assert_eq!(rules().len(), 0);
        unprotect(TAG).unwrap();
    });
}

#[test]
fn protection_outlives_networks_and_goes_when_one_is_removed() {
    on_fresh_host(|| async {
        serve(here().as_fd(), [5050, 5051, 5052]);
        let cgroup = Cgroup::make("c");
        let network = open().await;
        protect(TAG, &[5050], cgroup.id()).unwrap();
        let _web = network.attach("web", &[tcp(8080, 80)]).await.unwrap();
        forsake(network, 8080);
        assert!(!cgroup.reaches("127.0.0.1", 5050));
        let network = open().await;
        assert!(!cgroup.reaches("127.0.0.1", 5050));
        network.adopt(&[]).await.unwrap();
        assert!(!cgroup.reaches("127.0.0.1", 5050));
        let gateway = network.gateway();
        assert!(!cgroup.reaches(gateway, 5050));
        assert!(cgroup.reaches(gateway, 5051));
        network.remove().await.unwrap();
        assert!(cgroup.reaches("127.0.0.1", 5050));
        assert_eq!(rules().len(), 0);
    });
}

#[test]
fn a_connection_made_before_is_cut() {
    on_fresh_host(|| async {
        let listener = TcpListener::bind("127.0.0.1:5050").unwrap();
        let cgroup = Cgroup::make("d");
        let procs = cgroup.parent.join("container/cgroup.procs");
        let script = format!(
            "echo $$ > {} && exec 3<>/dev/tcp/127.0.0.1/5050 && read -u 0 && echo late >&3",
            procs.display()
        );
        let mut early = Command::new("bash")
            .args(["-c", &script])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        protect(TAG, &[5050], cgroup.id()).unwrap();
        std::io::Write::write_all(&mut early.stdin.take().unwrap(), b"go\n").unwrap();
        let mut heard = Vec::new();
        stream.set_read_timeout(Some(REFUSAL)).unwrap();
        let _cut = std::io::Read::read_to_end(&mut stream, &mut heard);
        assert_eq!(heard, b"");
        early.wait().unwrap();
    });
}

#[test]
fn the_kernel_holds_the_protection_as_planned() {
    on_fresh_host(|| async {
        let cgroup = Cgroup::make("e");
        protect(TAG, &[5050, 5051], cgroup.id()).unwrap();
        let planned = Ruleset::protecting(TABLE, &[5050, 5051], cgroup.id()).to_string();
        let name = cgroup.parent.strip_prefix("/sys/fs/cgroup").unwrap();
        let listed = nft(&format!("-y list table ip {TABLE}"));
        let by_name = format!("\"{}\"", name.display());
        assert!(listed.contains(&by_name), "{listed}");
        let listed = listed.replace(&by_name, &cgroup.id().to_string());
        let squeeze = |text: &str| text.replace("{\n\n", "{\n");
        assert_eq!(squeeze(&listed), squeeze(&planned));
    });
}

#[test]
fn what_cannot_be_protected_is_refused() {
    let many: Vec<u16> = (1..=17).collect();
    let refused = protect(TAG, &many, 1);
    assert!(matches!(refused, Err(NetError::TooManyProtected { .. })));
    let refused = protect("A/../b", &[1], 1);
    assert!(matches!(refused, Err(NetError::InvalidTag { .. })));
}
