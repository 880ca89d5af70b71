//! `kill -9` at any moment leaves nothing that opening and adopting would not remove.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::host::*;

/// Set in the process that is to be killed.
const VICTIM: &str = "GANTRY_NET_TEST_VICTIM";
const ROUNDS: u64 = 25;

/// Not a test by itself: the victim's part, in the namespace of the test below.
#[test]
fn victim() {
    if std::env::var_os(VICTIM).is_none() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let network = open().await;
        let mut tasks = tokio::task::JoinSet::new();
        for lane in 0..4_u16 {
            let network = network.clone();
            tasks.spawn(async move {
                for n in 0_u16.. {
                    let port = 10_000 + lane * 1000 + n % 1000;
                    let id = format!("{lane}.{n}");
                    let ports = [tcp(port, 80), udp(port, 80)];
                    let _held = network.attach(&id, &ports).await.unwrap();
                    if n % 3 != 0 {
                        network.detach(&id).await.unwrap();
                    }
                }
            });
        }
        tasks.join_all().await;
    });
}

#[test]
fn killed_at_any_moment_nothing_leaks() {
    on_fresh_host(|| async {
        let myself = std::env::current_exe().unwrap();
        let mut found = 0;
        for round in 0..ROUNDS {
            let mut victim = Command::new(&myself)
                .args(["crash::victim", "--exact", "--nocapture"])
                .env(VICTIM, "1")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            // The moment differs from round to round; which one it is does not matter.
            std::thread::sleep(Duration::from_millis(3 + round * 7 % 120));
            victim.kill().unwrap();
            victim.wait().unwrap();
            let network = open().await;
            let report = network.adopt(&[]).await.unwrap();
            found += report.removed_links + report.removed_ports;
            assert_eq!(link_names(), [network.bridge()], "round {round}");
            assert_eq!(
                published("gantry-7e57ab1e"),
                Vec::<String>::new(),
                "round {round}"
            );
            let _works = network.attach("after", &[tcp(10_000, 80)]).await.unwrap();
            if round % 5 == 0 {
                network.remove().await.unwrap();
                assert_eq!((link_names().len(), rules().len()), (0, 0), "round {round}");
            }
        }
        assert!(found > 0, "no victim was killed in the middle of anything");
    });
}
