//! Limits on directories, on a btrfs of the test's own and on the machine's file system.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use gantry_isolation::disk::{Backend, DiskError, Quotas};
use gantry_isolation::spec::{ContainerSpec, Ids, Mount, MountKind, RootLimit};

use crate::node::Node;

const MIB: u64 = 1 << 20;
const EDQUOT: i32 = nix::errno::Errno::EDQUOT as i32;

/// A file system in a file, mounted while this lives.
pub(crate) struct Btrfs {
    dir: tempfile::TempDir,
}

impl Btrfs {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let (image, mount) = (dir.path().join("image"), dir.path().join("mount"));
        let file = std::fs::File::create(&image).unwrap();
        file.set_len(256 * MIB).unwrap();
        std::fs::create_dir(&mount).unwrap();
        let image = image.to_str().unwrap();
        run("mkfs.btrfs", &["-q", image]);
        run("mount", &["-o", "loop", image, mount.to_str().unwrap()]);
        Self { dir }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("mount")
    }

    fn sync(&self) {
        run(
            "btrfs",
            &["filesystem", "sync", self.path().to_str().unwrap()],
        );
    }

    /// Quota groups but that of the file system's root, and subvolumes.
    pub(crate) fn left(&self) -> Vec<String> {
        self.sync();
        let path = self.path();
        let path = path.to_str().unwrap();
        let groups = run("btrfs", &["qgroup", "show", "--raw", path]);
        let groups = groups.lines().filter_map(|line| line.split(' ').next());
        let groups = groups
            .filter(|group| group.starts_with(|c: char| c.is_ascii_digit()) && *group != "0/5");
        let subvolumes = run("btrfs", &["subvolume", "list", path]);
        groups
            .chain(subvolumes.lines())
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for Btrfs {
    fn drop(&mut self) {
        // What cannot be unmounted stays, and the assertion that failed says more.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {output:?}"
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Writes until it may not; how much went in.
fn fill(path: &Path, most: u64) -> (u64, Option<i32>) {
    let mut file = std::fs::File::create(path).unwrap();
    let mut written = 0;
    while written < most {
        match file.write(&[1; 1 << 16]) {
            Ok(more) => written += more as u64,
            Err(error) => return (written, error.raw_os_error()),
        }
    }
    (
        written,
        file.sync_all().err().and_then(|error| error.raw_os_error()),
    )
}

fn limits_hold(fs: &Btrfs, backend: Backend) {
    assert!(backend.refuses_writes());
    let dir = fs.path().join("sandbox");
    backend.make(&dir, Some(8 * MIB)).unwrap();
    assert!(backend.make(&dir, Some(8 * MIB)).is_err(), "it is there");
    let mode = std::fs::metadata(&dir).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o755);
    let (written, error) = fill(&dir.join("a"), 32 * MIB);
    assert_eq!(error, Some(EDQUOT));
    assert!((6 * MIB..=8 * MIB).contains(&written), "{written}");
    fs.sync();
    let used = backend.usage(&dir).unwrap().bytes;
    assert!((6 * MIB..=8 * MIB).contains(&used), "{used}");
    backend.set_limit(&dir, Some(16 * MIB)).unwrap();
    let (written, error) = fill(&dir.join("b"), 32 * MIB);
    assert_eq!(error, Some(EDQUOT));
    assert!((6 * MIB..=10 * MIB).contains(&written), "{written}");
    backend.set_limit(&dir, None).unwrap();
    assert_eq!(fill(&dir.join("c"), 20 * MIB), (20 * MIB, None));
    // A limit below what is there stops only what comes.
    backend.set_limit(&dir, Some(MIB)).unwrap();
    assert_eq!(std::fs::read(dir.join("c")).unwrap().len() as u64, 20 * MIB);
    backend.remove(&dir).unwrap();
    backend.remove(&dir).unwrap();
    assert!(!dir.exists());
}

/// Everything goes, if not at once (the kernel frees blocks behind our back) then with the next; of
/// the last one the group may stay.
fn nothing_is_left(fs: &Btrfs, backend: Backend) {
    crate::node::until("groups and subvolumes to go", || {
        let last = fs.path().join("last");
        backend.make(&last, Some(MIB)).unwrap();
        backend.remove(&last).unwrap();
        let left = fs.left();
        (left.len() <= 1 && left.iter().all(|line| line.starts_with("71/"))).then_some(())
    });
    assert_eq!(std::fs::read_dir(fs.path()).unwrap().count(), 0);
}

#[test]
fn btrfs_refuses_what_is_past_a_limit() {
    let fs = Btrfs::new();
    assert_eq!(Backend::detect(&fs.path()).unwrap(), Backend::Accounting);
    let backend = Backend::enable(&fs.path()).unwrap();
    assert_eq!(backend, Backend::Btrfs(Quotas::Simple));
    assert!(backend.is_tight());
    limits_hold(&fs, backend);
    nothing_is_left(&fs, backend);
}

#[test]
fn btrfs_with_full_quotas_refuses_it_too() {
    let fs = Btrfs::new();
    run("btrfs", &["quota", "enable", fs.path().to_str().unwrap()]);
    let backend = Backend::enable(&fs.path()).unwrap();
    assert_eq!(backend, Backend::Btrfs(Quotas::Full));
    assert!(!backend.is_tight());
    limits_hold(&fs, backend);
    nothing_is_left(&fs, backend);
}

/// Anybody may make a subvolume where they may write.
#[test]
fn a_subvolume_of_its_own_is_no_way_past_the_limit() {
    let fs = Btrfs::new();
    let backend = Backend::enable(&fs.path()).unwrap();
    let dir = fs.path().join("sandbox");
    backend.make(&dir, Some(8 * MIB)).unwrap();
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o777)).unwrap();
    let script = "btrfs subvolume create n >/dev/null && btrfs subvolume create n/m >/dev/null \
         && head -c 5000000 /dev/zero > n/a && head -c 5000000 /dev/zero > n/m/b; du -sm n";
    let output = Command::new("setpriv")
        .args([
            "--reuid=1000",
            "--regid=1000",
            "--clear-groups",
            "sh",
            "-c",
            script,
        ])
        .current_dir(&dir)
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.contains("Disk quota exceeded"), "{output:?}");
    fs.sync();
    assert!(backend.usage(&dir).unwrap().bytes <= 8 * MIB);
    backend.remove(&dir).unwrap();
    assert!(!dir.exists());
    nothing_is_left(&fs, backend);
}

#[test]
fn a_file_system_without_quotas_counts_and_says_that_it_cannot_limit() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let backend = Backend::detect(dir.path()).unwrap();
    // This kernel keeps no project quotas (see the machine's facts); where one does, it limits.
    assert_eq!(backend, Backend::enable(dir.path()).unwrap());
    let sandbox = dir.path().join("sandbox");
    if backend == Backend::Accounting {
        let error = backend.make(&sandbox, Some(MIB)).unwrap_err();
        assert!(matches!(&error, DiskError::NoLimit(path) if *path == sandbox));
        assert!(!sandbox.exists());
    }
    backend.make(&sandbox, None).unwrap();
    fill(&sandbox.join("f"), MIB);
    let usage = backend.usage(&sandbox).unwrap();
    assert!((MIB..=MIB + 65536).contains(&usage.bytes) && usage.complete);
    backend.remove(&sandbox).unwrap();
    assert!(!sandbox.exists());
}

/// A node whose containers' layers are on `fs`.
fn limited(fs: &Btrfs, node: &Node, name: &str, script: &str) -> ContainerSpec {
    let containers = fs.path().join("containers");
    std::fs::create_dir_all(&containers).unwrap();
    let mut spec = node.shell(name, script);
    spec.dir = containers.join(name);
    spec.root_limit = Some(RootLimit::Bytes(8 * MIB));
    spec
}

#[test]
fn a_root_holds_no_more_than_its_limit_and_goes_with_the_container() {
    let fs = Btrfs::new();
    let backend = Backend::enable(&fs.path()).unwrap();
    let mut node = Node::new();
    let script = "head -c 3000000 /dev/zero > /srv/a && head -c 30000000 /dev/zero > /srv/b; \
         head -c 30000000 /dev/zero > /mnt/mesos/sandbox/c && echo beside; rm /srv/a /srv/b; \
         echo again > /srv/d && cat /srv/d";
    for (number, ids) in [Ids::Host, Ids::Private].into_iter().enumerate() {
        let mut spec = limited(&fs, &node, &format!("c{number}"), script);
        spec.ids = ids;
        let ended = node.run(&spec);
        assert_eq!(ended.stdout, "beside\nagain\n", "{ended:?}");
        let times = ended.stderr.matches("Disk quota exceeded").count();
        assert_eq!(times, 1, "{ended:?}");
    }
    // One without a limit beside them is not held to any.
    let mut spec = limited(
        &fs,
        &node,
        "free",
        "head -c 30000000 /dev/zero > /srv/a && echo ok",
    );
    spec.root_limit = None;
    assert_eq!(node.run(&spec).stdout, "ok\n");
    drop(node);
    let sets = || {
        std::fs::read_dir(fs.path().join("containers"))
            .unwrap()
            .count()
    };
    crate::node::until("slots to go", || (sets() == 0).then_some(()));
    std::fs::remove_dir(fs.path().join("containers")).unwrap();
    nothing_is_left(&fs, backend);
}

/// Both kinds of quotas: a sandbox and a root in one limit, which the sandbox keeps when the
/// container is gone.
#[test]
fn a_root_shares_the_limit_of_a_sandbox() {
    let simple: fn(&Btrfs) -> Backend = |fs| Backend::enable(&fs.path()).unwrap();
    let full: fn(&Btrfs) -> Backend = |fs| {
        run("btrfs", &["quota", "enable", fs.path().to_str().unwrap()]);
        Backend::detect(&fs.path()).unwrap()
    };
    for enable in [simple, full] {
        let fs = Btrfs::new();
        let backend = enable(&fs);
        let mut node = Node::new();
        for (number, ids) in [Ids::Host, Ids::Private].into_iter().enumerate() {
            let sandbox = fs.path().join(format!("sandbox-{number}"));
            backend.make(&sandbox, Some(16 * MIB)).unwrap();
            // Each would fit alone; what is deleted in one makes room in the other.
            let script = "head -c 10000000 /dev/zero > /mnt/mesos/sandbox/a && sync && \
                 head -c 10000000 /dev/zero > /srv/b; rm -f /srv/b; \
                 rm /mnt/mesos/sandbox/a; for _ in $(seq 1000); do sync; \
                 head -c 10000000 /dev/zero 2>/dev/null > /srv/c && break; sleep 0.05; done; \
                 stat -c %s /srv/c";
            let mut spec = limited(&fs, &node, &format!("c{number}"), script);
            spec.ids = ids;
            spec.sandbox = Some(sandbox.clone());
            spec.root_limit = Some(RootLimit::With(sandbox.clone()));
            assert!(backend.spans(&sandbox, spec.dir.parent().unwrap()).unwrap());
            let ended = node.run(&spec);
            assert_eq!(ended.stdout, "10000000\n", "{backend:?}: {ended:?}");
            let times = ended.stderr.matches("Disk quota exceeded").count();
            assert_eq!(times, 1, "{backend:?}: {ended:?}");
            // The limit is still the sandbox's, all of it once the root is gone.
            crate::node::until("room in the sandbox", || {
                fs.sync();
                let (written, error) = fill(&sandbox.join("z"), 32 * MIB);
                assert_eq!(error, Some(EDQUOT));
                (written > 14 * MIB).then_some(())
            });
            backend.remove(&sandbox).unwrap();
        }
        drop(node);
        std::fs::remove_dir(fs.path().join("containers")).unwrap();
        nothing_is_left(&fs, backend);
    }
}

#[test]
fn a_directory_without_limit_has_none_to_share() {
    let fs = Btrfs::new();
    Backend::enable(&fs.path()).unwrap();
    let mut node = Node::new();
    let mut spec = limited(&fs, &node, "c1", "true");
    let plain = fs.path().join("plain");
    std::fs::create_dir(&plain).unwrap();
    spec.root_limit = Some(RootLimit::With(plain.clone()));
    node.start(&spec);
    let words = node.start_failure("c1");
    let wanted = format!("within the limit of {}: ", plain.display());
    assert!(words.contains(&wanted), "{words}");
}

#[test]
fn a_btrfs_whose_quotas_are_off_is_told_of() {
    let fs = Btrfs::new();
    let advice = gantry_isolation::disk::advice(&fs.path()).unwrap();
    let command = format!("`btrfs quota enable {}`", fs.path().display());
    assert!(advice.contains(&command), "{advice}");
    run("btrfs", &["quota", "enable", fs.path().to_str().unwrap()]);
    assert_eq!(gantry_isolation::disk::advice(&fs.path()), None);
    assert_eq!(
        gantry_isolation::disk::advice(std::path::Path::new("/dev/shm")),
        None
    );
}

#[test]
fn a_limited_root_is_refused_where_no_quota_is_kept() {
    let fs = Btrfs::new();
    let mut node = Node::new();
    let spec = limited(&fs, &node, "c1", "true");
    let mut beside = node.shell("c2", "true");
    beside.root_limit = Some(RootLimit::Bytes(MIB));
    let project = Backend::detect(node.dir.path()).unwrap() == Backend::Project;
    for (spec, refused) in [(&spec, true), (&beside, !project)] {
        node.start(spec);
        let name = spec.id.to_string();
        let words = node.start_failure(&name);
        let kept = words.starts_with("make the slot ")
            && words.ends_with(" bytes: Operation not supported");
        assert_eq!(kept, refused, "{words}");
    }
}

/// What is mounted in a directory is not the directory's, nor is what links lead to.
#[test]
fn counting_enters_no_mount_and_follows_no_link() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let (sandbox, outside) = (dir.path().join("sandbox"), dir.path().join("outside"));
    for below in ["memory", "bound"] {
        std::fs::create_dir_all(sandbox.join(below)).unwrap();
    }
    std::fs::create_dir(&outside).unwrap();
    fill(&outside.join("big"), MIB);
    fill(&sandbox.join("own"), 1 << 16);
    std::os::unix::fs::symlink(&outside, sandbox.join("link")).unwrap();
    std::os::unix::fs::symlink(outside.join("big"), sandbox.join("file")).unwrap();
    let count = || Backend::Accounting.usage(&sandbox).unwrap().bytes;
    let before = count();
    assert!((1 << 16..MIB).contains(&before), "{before}");
    let place = |name: &str| sandbox.join(name).to_str().unwrap().to_owned();
    let (memory, bound) = (place("memory"), place("bound"));
    run("mount", &["-t", "tmpfs", "none", &memory]);
    // The same file system, so that device numbers tell nothing.
    run("mount", &["--bind", outside.to_str().unwrap(), &bound]);
    fill(&sandbox.join("memory/big"), MIB);
    let during = count();
    run("umount", &[&memory]);
    run("umount", &[&bound]);
    // Less at most: the two directories are covered.
    assert!(during <= before, "{during} after {before}");
}

/// A volume that the host limits is limited inside, and takes nothing from the sandbox or the root.
#[test]
fn a_volume_holds_no_more_than_its_own_limit() {
    let fs = Btrfs::new();
    let backend = Backend::enable(&fs.path()).unwrap();
    let mut node = Node::new();
    for (number, ids) in [Ids::Host, Ids::Private].into_iter().enumerate() {
        let volume = fs.path().join(format!("volume-{number}"));
        backend.make(&volume, Some(8 * MIB)).unwrap();
        let script = "cd /mnt/mesos/sandbox; head -c 30000000 /dev/zero > disk/a; \
             head -c 30000000 /dev/zero > memory/a; stat -c %s memory/a; \
             head -c 6000000 /dev/zero > /srv/b && head -c 30000000 /dev/zero > c && echo beside";
        let mut spec = limited(&fs, &node, &format!("c{number}"), script);
        spec.ids = ids;
        spec.mounts = vec![
            Mount::bind(&volume, "/mnt/mesos/sandbox/disk", false),
            Mount {
                target: "/mnt/mesos/sandbox/memory".into(),
                read_only: false,
                kind: MountKind::Tmpfs {
                    bytes: 4 * MIB,
                    mode: 0o755,
                },
            },
        ];
        let ended = node.run(&spec);
        let wanted = format!("{}\nbeside\n", 4 * MIB);
        assert_eq!(ended.stdout, wanted, "{ended:?}");
        assert!(ended.stderr.contains("Disk quota exceeded"), "{ended:?}");
        assert!(ended.stderr.contains("No space left"), "{ended:?}");
        fs.sync();
        assert!(backend.usage(&volume).unwrap().bytes <= 8 * MIB);
        backend.remove(&volume).unwrap();
    }
}

/// What is no disk is memory, and that has a limit: bytes as well as files without any.
#[test]
fn every_place_in_memory_counts_against_the_memory_limit() {
    let mut node = Node::new();
    let places = ["/tmp", "/run", "/dev", "/dev/shm"];
    let much = places.map(|place| format!("head -c 100000000 /dev/zero > {place}/file"));
    let many = places.map(|place| format!("cd {place}; seq 200000 | xargs touch"));
    for (number, script) in much.into_iter().chain(many).enumerate() {
        let mut spec = node.shell(&format!("c{number}"), &format!("{script}; exit 3"));
        spec.limits.memory_bytes = Some(32 * MIB);
        spec.shm_bytes = Some(1 << 30);
        let ended = node.run(&spec);
        assert!(ended.oom_killed, "{script}: {ended:?}");
    }
}

#[test]
fn message_queues_are_few() {
    let mut node = Node::new();
    let script = "import os\nmade = 0\ntry:\n    for made in range(100000):\n        \
         os.close(os.open(f'/dev/mqueue/{made}', os.O_CREAT | os.O_RDWR))\n\
         except OSError as e:\n    print(made, e.strerror)";
    let spec = node.native("c1", &["python3", "-c", script]);
    let ended = node.run(&spec);
    let (made, why) = ended.stdout.split_once(' ').unwrap();
    // `fs.mqueue.queues_max` of mq_overview(7), of each namespace, or what the user may have.
    assert!(made.parse::<u32>().unwrap() <= 256, "{ended:?}");
    assert!(
        why.starts_with("No space left") || why.starts_with("Too many"),
        "{ended:?}"
    );
}
