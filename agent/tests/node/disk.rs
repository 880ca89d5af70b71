//! Limits on sandboxes: counted where the file system keeps none, kept by the kernel on a btrfs of
//! the test's own.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gantry_isolation::disk::Backend;
use gantry_wire::agent::Launch;
use gantry_wire::task::{Reason, TaskState};
use serde_json::Value;

use crate::agent::{Node, run};
use crate::coordinator::{shell, state};
use crate::small_fs::{SmallFs, command};

const MIB: u64 = 1 << 20;
/// What a task says in Mesos's words when it is over.
const OVER: Option<i32> = Some(Reason::ReasonContainerLimitationDisk as i32);

fn with_disk(task: &str, command: &str, disk_bytes: u64) -> Launch {
    let mut launch = shell(task, command);
    launch.resources.as_mut().unwrap().disk_bytes = disk_bytes;
    launch
}

/// The `statistics` of a task in the agent's `/state`.
async fn statistics(node: &Node, task: &str) -> Value {
    let answer = reqwest::get(node.url("/state")).await.unwrap();
    let state: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    let executors = state["frameworks"][0]["executors"].as_array().unwrap();
    let found = executors.iter().find(|executor| executor["id"] == task);
    found.unwrap()["tasks"][0]["statistics"].clone()
}

pub(crate) fn what_is_over_is_ended_by_counting() {
    run(async {
        let mut node = Node::start().await;
        let c = node.coordinator.clone();
        let write = "head -c 12582912 /dev/zero > file; sleep 1000";
        c.launch(with_disk("greedy", write, 10 * MIB));
        c.launch(with_disk("modest", write, 20 * MIB));
        c.launch(with_disk("free", write, 0));
        let wait = "while [ ! -e go ]; do sleep 0.1; done; ";
        c.launch(with_disk("later", &format!("{wait}{write}"), 10 * MIB));
        // The root counts like the sandbox, together with it; so do files.
        let root = "head -c 12582912 /dev/zero > /var/tmp/file; sleep 1000";
        c.launch(with_disk("root", root, 10 * MIB));
        let half = "head -c 6291456 /dev/zero | tee file > /srv/file; sleep 1000";
        c.launch(with_disk("halves", half, 10 * MIB));
        let files = "mkdir /srv/a; cd /srv/a; seq 20000 | xargs touch; sleep 1000";
        c.launch(with_disk("files", files, 20 * MIB));
        // What is deleted counts as long as anybody has it, whoever the task is.
        let deleted = "exec 5<>file 6<>/var/tmp/file; rm file /var/tmp/file; \
                       head -c 6291456 /dev/zero >&5; head -c 6291456 /dev/zero >&6; sleep 1000";
        c.launch(with_disk("deleted", deleted, 10 * MIB));
        let nobody = Launch {
            user: "nobody".into(),
            ..with_disk("deleted-1000", deleted, 10 * MIB)
        };
        c.launch(nobody);
        for task in ["root", "halves", "files", "deleted", "deleted-1000"] {
            let end = c.terminal(task).await;
            let how = (state(&end), end.reason);
            assert_eq!(
                how,
                (TaskState::TaskFailed, OVER),
                "{task}: {}",
                end.message
            );
            let words = match task {
                "files" => {
                    "files and directories; the 20 MiB of disk that it may use come with 16384"
                }
                _ => "MiB of the 10 MiB of disk that it may use",
            };
            assert!(end.message.contains(words), "{}", end.message);
        }
        let end = c.terminal("greedy").await;
        assert_eq!((state(&end), end.reason), (TaskState::TaskFailed, OVER));
        let words = "of the 10 MiB of disk that it may use. Command terminated with signal SIGKILL";
        assert!(end.message.contains(words), "{}", end.message);

        let later = c.update("later", TaskState::TaskRunning).await;
        node.kill_9();
        node.start_agent().await;
        std::fs::write(Path::new(&later.sandbox).join("go"), "").unwrap();
        let end = c.terminal("later").await;
        assert_eq!((state(&end), end.reason), (TaskState::TaskFailed, OVER));

        // Those that are not over were looked at, too.
        let mut used = Value::Null;
        while used.is_null() {
            let statistics = statistics(&node, "modest").await;
            assert_eq!(statistics["disk_limit_bytes"], 20 * MIB);
            used = statistics["disk_used_bytes"].clone();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let used = used.as_u64().unwrap();
        assert!((12 * MIB..13 * MIB).contains(&used), "{used}");
        assert_eq!(statistics(&node, "free").await, Value::Null);
        for task in ["modest", "free"] {
            let states = c.states(task);
            assert_eq!(states.last(), Some(&TaskState::TaskRunning), "{task}");
        }
    });
}

/// Files of less than the limit, one after the other, each parked before the next is written.
const PARK: &str = r"
import os, socket, time
ours, theirs = socket.socketpair()
parked = 0
while True:
    free = os.statvfs('.')
    if free.f_bavail * free.f_frsize < 30 << 20:
        break
    fd = os.open('file', os.O_RDWR | os.O_CREAT)
    os.unlink('file')
    os.write(fd, b'x' * (20 << 20))
    socket.send_fds(ours, [b'x'], [fd])
    os.close(fd)
    parked += 1
fill = os.open('fill', os.O_RDWR | os.O_CREAT)
os.posix_fallocate(fill, 0, 21 << 20)
print(parked, flush=True)
time.sleep(1000)
";

pub(crate) fn who_parks_files_in_sockets_does_not_fill_the_disk() {
    run(async {
        let small = SmallFs::new("mkfs.ext4", &["-q", "-m", "0"], 256);
        let node = Node::start_on(small.path().join("agent")).await;
        let c = node.coordinator.clone();
        let args = ["python3", "-c", PARK].map(str::to_owned).to_vec();
        let parks = Launch {
            shell: String::new(),
            args,
            ..with_disk("parks", "", 32 * MIB)
        };
        c.launch(parks);
        c.launch(with_disk("modest", "echo x > file; sleep 1000", 32 * MIB));
        // It has half a minute to show that nobody receives them, on a machine that may be busy.
        let deadline = Instant::now() + Duration::from_secs(180);
        while !c.states("parks").iter().any(|state| state.is_terminal()) {
            assert!(Instant::now() < deadline, "the disk stays full");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let end = c.terminal("parks").await;
        assert_eq!((state(&end), end.reason), (TaskState::TaskFailed, OVER));
        let words = "open files in sockets, where what they hold of the disk cannot be counted";
        assert!(end.message.contains(words), "{}", end.message);
        assert_eq!(c.states("modest").last(), Some(&TaskState::TaskRunning));
    });
}

/// A btrfs with quotas.
struct Btrfs {
    small: SmallFs,
}

impl Btrfs {
    fn new() -> Self {
        let small = SmallFs::new("mkfs.btrfs", &["-q"], 512);
        Backend::enable(&small.path()).unwrap();
        Self { small }
    }

    fn path(&self) -> PathBuf {
        self.small.path()
    }

    /// Quota groups but that of the file system's root, and subvolumes.
    fn left(&self) -> Vec<String> {
        let path = self.path();
        let path = path.to_str().unwrap();
        command("btrfs", &["filesystem", "sync", path]);
        let groups = command("btrfs", &["qgroup", "show", "--raw", path]);
        let groups = groups.lines().filter_map(|line| line.split(' ').next());
        let groups = groups
            .filter(|group| group.starts_with(|c: char| c.is_ascii_digit()) && *group != "0/5");
        let subvolumes = command("btrfs", &["subvolume", "list", path]);
        let all = groups.chain(subvolumes.lines());
        all.map(str::to_owned).collect()
    }
}

pub(crate) fn the_kernel_refuses_what_is_too_much() {
    run(async {
        let btrfs = Btrfs::new();
        let mut node = Node::start_on(btrfs.path().join("agent")).await;
        let c = node.coordinator.clone();
        // Its own output could not be written while the sandbox is full; deleting makes room once
        // the file system has committed.
        let script = "why=$(head -c 67108864 /dev/zero 2>&1 >big); rm big; sync\n\
                      until echo \"$why\" >note; do sync; sleep 0.1; done 2>/dev/null\n\
                      sleep 1000";
        c.launch(with_disk("full", script, 32 * MIB));
        c.launch(with_disk(
            "free",
            "head -c 67108864 /dev/zero >big; exit 0",
            0,
        ));
        let end = c.terminal("free").await;
        assert_eq!(state(&end), TaskState::TaskFinished, "{}", end.message);
        // Each half fits alone; together they do not, and nobody is killed for it.
        let halves = "head -c 20971520 /dev/zero >/srv/a; sync; head -c 20971520 /dev/zero >b; \
                      test $(stat -c %s b) -lt 13000000 && exit 7";
        c.launch(with_disk("halves", halves, 32 * MIB));
        let both = c.terminal("halves").await;
        assert_eq!(both.exit_code, Some(7), "{}", both.message);
        let full = c.update("full", TaskState::TaskRunning).await;
        let sandbox = PathBuf::from(&full.sandbox);
        let note = c.until("the task's note", |_| {
            let text = std::fs::read_to_string(sandbox.join("note")).ok()?;
            Some(text).filter(|text| !text.is_empty())
        });
        let note = note.await;
        assert!(note.contains("Disk quota exceeded"), "{note}");
        assert!(!btrfs.left().is_empty());
        assert_eq!(c.states("full").last(), Some(&TaskState::TaskRunning));
        c.kill("full", 0);
        assert_eq!(state(&c.terminal("full").await), TaskState::TaskKilled);
        let checkpoints = node.data().join("tasks");
        c.until("the checkpoints to go", |_| {
            let left = std::fs::read_dir(&checkpoints).ok()?.count();
            (left == 0).then_some(())
        })
        .await;

        // Old ones are removed by the next life, by what they are on disk.
        node.kill_9();
        let above = |sandbox: &str| Path::new(sandbox).parent().unwrap().display().to_string();
        let sandboxes = [&full.sandbox, &end.sandbox, &both.sandbox];
        for sandbox in sandboxes {
            command("touch", &["-d", "10 days ago", &above(sandbox)]);
        }
        node.start_agent().await;
        c.until("the sandboxes to go", |_| {
            let gone = |path: &&String| !Path::new(path).exists();
            sandboxes.iter().all(gone).then_some(())
        })
        .await;
        c.until("nothing to be left", |_| {
            // The kernel is busy for a while with what was deleted; then the next one that is
            // removed takes its group along, but the last one's may stay.
            let last = btrfs.path().join("last");
            let backend = Backend::detect(&btrfs.path()).unwrap();
            backend.make(&last, Some(MIB)).unwrap();
            backend.remove(&last).unwrap();
            let left = btrfs.left();
            (left.len() <= 1 && left.iter().all(|line| line.starts_with("71/"))).then_some(())
        })
        .await;
    });
}
