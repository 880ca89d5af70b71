//! A member with a machine that only remembers: restarts, crashes, full disks.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::*;
use crate::log::faulty::MemoryDisk;
use crate::log::thread::real_disk;
use crate::mint;

/// Remembers every command, in order.
#[derive(Default)]
struct Memo {
    seen: Vec<String>,
    shared: Arc<Mutex<(Vec<String>, bool)>>,
}

impl Machine for Memo {
    type Outcome = usize;

    fn apply(&mut self, index: u64, data: &[u8]) -> Result<usize, MachineError> {
        if data == b"newer" {
            return Err(MachineError::Unreadable {
                index,
                source: "newer".into(),
            });
        }
        self.seen.push(String::from_utf8(data.to_vec()).unwrap());
        Ok(self.seen.len())
    }

    fn publish(&mut self, _index: u64, leads: bool) {
        let mut shared = self.shared.lock().unwrap();
        let known = shared.0.len();
        shared.0.extend(self.seen[known..].iter().cloned());
        shared.1 = leads;
    }

    fn snapshot(&self) -> Box<dyn FnOnce() -> Vec<u8> + Send> {
        let seen = self.seen.clone();
        Box::new(move || seen.join("\n").into_bytes())
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), MachineError> {
        let text = String::from_utf8(snapshot.data.clone()).unwrap();
        self.seen = text.lines().map(ToOwned::to_owned).collect();
        Ok(())
    }
}

type Shared = Arc<Mutex<(Vec<String>, bool)>>;

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn begin(
    directory: &Path,
    log_disk: MakeDisk,
    snapshot_entries: u64,
) -> Result<(Member<usize>, Shared), ConsensusError> {
    let snapshots = directory.join("snapshot");
    std::fs::create_dir_all(&snapshots).unwrap();
    let machine = Memo::default();
    let shared = Arc::clone(&machine.shared);
    let config = Config {
        member: 1,
        log_disk,
        snapshots,
        founded: false,
        fresh_salt: mint::salt(),
        snapshot_entries,
    };
    let member = start(config, machine)?;
    until("leadership", || {
        shared.lock().unwrap().1 || member.failed().borrow().is_some()
    });
    Ok((member, shared))
}

fn begin_real(directory: &Path, every: u64) -> (Member<usize>, Shared) {
    std::fs::create_dir_all(directory.join("log")).unwrap();
    begin(directory, real_disk(&directory.join("log")), every).unwrap()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| format!("command {number}")).collect()
}

async fn propose_all(proposer: &Proposer<usize>, range: std::ops::Range<usize>) {
    let answers: Vec<_> = numbers(range)
        .into_iter()
        .map(|c| proposer.submit(c.into_bytes()).unwrap())
        .collect();
    for answer in answers {
        answer.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_crash_after_a_thousand_commands_loses_none() {
    for snapshot_entries in [1_000_000, 150] {
        let home = tempfile::tempdir().unwrap();
        let first = home.path().join("first");
        let (member, shared) = begin_real(&first, snapshot_entries);
        for part in 0..10 {
            propose_all(&member.proposer(), part * 100..part * 100 + 100).await;
        }
        assert_eq!(shared.lock().unwrap().0, numbers(0..1_000));
        // What a crash at this moment leaves; a snapshot being written is retried.
        let second = home.path().join("second");
        until("snapshot at rest", || {
            let names = std::fs::read_dir(first.join("snapshot")).unwrap();
            names
                .filter(|n| {
                    n.as_ref()
                        .unwrap()
                        .file_name()
                        .to_string_lossy()
                        .ends_with(".new")
                })
                .count()
                == 0
        });
        copy(&first, &second);
        let (again, restored) = begin_real(&second, snapshot_entries);
        assert_eq!(restored.lock().unwrap().0, numbers(0..1_000));
        propose_all(&again.proposer(), 1_000..1_010).await;
        again.stop();
        let (last, restored) = begin_real(&second, snapshot_entries);
        assert_eq!(restored.lock().unwrap().0, numbers(0..1_010));
        last.stop();
        member.stop();
    }
}

#[tokio::test]
async fn a_disk_that_fails_stops_the_answers_and_keeps_what_was_answered() {
    let home = tempfile::tempdir().unwrap();
    let disk = MemoryDisk::default();
    let make = |disk: &MemoryDisk| -> MakeDisk {
        let disk = disk.clone();
        Box::new(move || Ok(Box::new(disk)))
    };
    let (member, shared) = begin(home.path(), make(&disk), 1_000).unwrap();
    let proposer = member.proposer();
    propose_all(&proposer, 0..20).await;
    disk.inside().fail_after = Some(0);
    let lost = proposer.propose(b"command 20".to_vec()).await;
    assert!(matches!(lost, Err(Refusal::Failed(_))), "{lost:?}");
    disk.inside().fail_after = None;
    let later = proposer.propose(b"command 21".to_vec()).await;
    assert!(matches!(later, Err(Refusal::Failed(_))), "{later:?}");
    let reason = member.failed().borrow().clone().unwrap();
    assert!(reason.contains("no storage space"), "{reason}");
    assert_eq!(*shared.lock().unwrap(), (numbers(0..20), false));
    member.stop();
    let (member, shared) = begin(home.path(), make(&disk), 1_000).unwrap();
    assert_eq!(shared.lock().unwrap().0, numbers(0..20));
    propose_all(&member.proposer(), 20..25).await;
    member.stop();
}

#[tokio::test]
async fn a_command_of_a_newer_version_stops_the_member_now_and_at_the_next_start() {
    let home = tempfile::tempdir().unwrap();
    let (member, _) = begin_real(home.path(), 1_000);
    let answer = member.proposer().propose(b"newer".to_vec()).await;
    assert!(matches!(answer, Err(Refusal::Failed(ref why)) if why.contains("version")));
    member.stop();
    let (member, shared) = begin_real(home.path(), 1_000);
    assert!(
        member
            .failed()
            .borrow()
            .as_ref()
            .unwrap()
            .contains("version")
    );
    assert!(!shared.lock().unwrap().1);
    member.stop();
}

#[tokio::test]
async fn commands_that_are_too_large_or_too_many_are_refused_at_once() {
    let home = tempfile::tempdir().unwrap();
    let (member, _) = begin_real(home.path(), 1_000);
    let proposer = member.proposer();
    let large = proposer.submit(vec![b'x'; COMMAND_MAX_BYTES + 1]).err();
    assert!(matches!(large, Some(Refusal::TooLarge { .. })));
    let mut answers = Vec::new();
    let busy = loop {
        match proposer.submit(vec![b'x'; COMMAND_MAX_BYTES]) {
            Ok(answer) => answers.push(answer),
            Err(refusal) => break refusal,
        }
        assert!(answers.len() <= 1_000, "never refused");
    };
    assert_eq!(busy, Refusal::Busy);
    for answer in answers {
        answer.await.unwrap().unwrap();
    }
    member.stop();
}

/// Where the child of [`kill_at_any_moment_loses_nothing_that_was_answered`] works.
const CHILD_DIRECTORY: &str = "GANTRY_TEST_CONSENSUS_CHILD";

/// The child's body: proposes for ever and prints each number once it is answered. Does nothing
/// when run as a test.
#[test]
fn child_that_is_killed() {
    let Some(directory) = std::env::var_os(CHILD_DIRECTORY) else {
        return;
    };
    let (member, shared) = begin_real(Path::new(&directory), 40);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut next = shared.lock().unwrap().0.len();
        loop {
            propose_all(&member.proposer(), next..next + 7).await;
            next += 7;
            println!("\nanswered {next}");
        }
    });
}

#[test]
fn kill_at_any_moment_loses_nothing_that_was_answered() {
    let home = tempfile::tempdir().unwrap();
    let mut random = mint::seed();
    println!("seed {random}");
    let mut total = 0;
    for round in 0..12 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "consensus::tests::child_that_is_killed",
                "--nocapture",
            ])
            .env(CHILD_DIRECTORY, home.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let answers = usize::try_from((random >> 33) % 60).unwrap();
        let mut answered = total;
        let mut killed = false;
        for line in lines {
            let line = line.unwrap();
            let Some(number) = line.strip_prefix("answered ") else {
                continue;
            };
            answered = number.parse().unwrap();
            if !killed && answered >= total + answers * 7 {
                child.kill().unwrap();
                killed = true;
            }
        }
        assert!(killed, "the child ended by itself in round {round}");
        child.wait().unwrap();
        let (member, shared) = begin_real(home.path(), 40);
        let found = shared.lock().unwrap().0.clone();
        assert!(
            found.len() >= answered,
            "round {round}: {answered} answered, {}",
            found.len()
        );
        assert_eq!(found, numbers(0..found.len()), "round {round}");
        total = found.len();
        member.stop();
    }
}
