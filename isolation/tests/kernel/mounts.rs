//! Kinds of mounts, as root and as uid 1000: memory, secrets, images, `/dev/shm`, the read-only
//! root, masked and protected paths.

use std::os::unix::fs::{PermissionsExt, symlink};

use gantry_isolation::spec::{ContainerSpec, Ids, Mount, MountKind, Root, Secret, User};

use crate::node::{Node, id};

const WEB: User = User::Ids {
    uid: 1000,
    gid: 1000,
};

fn mount(target: &str, read_only: bool, kind: MountKind) -> Mount {
    Mount {
        target: target.into(),
        read_only,
        kind,
    }
}

fn tmpfs(target: &str, bytes: u64, mode: u32) -> Mount {
    mount(target, false, MountKind::Tmpfs { bytes, mode })
}

fn secret(target: &str, content: &[u8]) -> Mount {
    let content = Secret::new(content.to_vec());
    mount(target, false, MountKind::Secret { content })
}

/// Runs it as root and as uid 1000, each with the host's ids and with ids of its own.
fn as_both(node: &mut Node, spec: &ContainerSpec, check: impl Fn(&str, &str)) {
    let ways = [
        ("root", User::Root, Ids::Host),
        ("web", WEB, Ids::Host),
        ("root", User::Root, Ids::Private),
        ("web", WEB, Ids::Private),
    ];
    for (number, (name, user, ids)) in ways.into_iter().enumerate() {
        let mut spec = spec.clone();
        let container = format!("{}-{number}", spec.id);
        let sandbox = node.path(&format!("sandbox-{container}"));
        std::fs::create_dir_all(&sandbox).unwrap();
        std::fs::set_permissions(&sandbox, std::fs::Permissions::from_mode(0o777)).unwrap();
        spec.id = id(&container);
        spec.sandbox = Some(sandbox.clone());
        spec.output = gantry_isolation::spec::Output::files(sandbox, 0, 0);
        (spec.user, spec.ids) = (user, ids.clone());
        let ended = node.run(&spec);
        check(name, &ended.stdout);
        assert!(ended.status.success(), "as {name}, {ids:?}: {ended:?}");
    }
}

#[test]
fn a_tmpfs_holds_what_it_may_and_no_more() {
    let mut node = Node::new();
    let script = "cd /made/for/it && stat -c '%a %u' . && \
         head -c 200000 /dev/zero > ok && head -c 2000000 /dev/zero > big; stat -c %s big; \
         grep ' /made/for/it ' /proc/self/mounts | grep -o 'nosuid,nodev'; \
         mknod n c 1 3 && cat n; touch /ro/x; exit 0";
    let mut spec = node.shell("c", script);
    spec.mounts = vec![
        tmpfs("/made/for/it", 1 << 20, 0o1777),
        mount(
            "/ro",
            true,
            MountKind::Tmpfs {
                bytes: 4096,
                mode: 0o777,
            },
        ),
    ];
    as_both(&mut node, &spec, |user, stdout| {
        let wanted = "1777 0\n847872\nnosuid,nodev\n";
        assert_eq!(stdout, wanted, "{user}");
    });
    let ended = node.run(&spec);
    for words in [
        "No space left",
        "n: Permission denied",
        "Read-only file system",
    ] {
        assert!(ended.stderr.contains(words), "{words}: {ended:?}");
    }
}

#[test]
fn a_secret_is_the_users_own_and_cannot_be_changed() {
    let mut node = Node::new();
    let script = "cat /run/secrets/key /etc/second; stat -c '%a %u %g %s' /run/secrets/key; \
         (echo x > /etc/second) 2>/dev/null && echo wrote; \
         chmod 777 /run/secrets/key 2>/dev/null && echo changed; \
         rm -f /etc/second 2>/dev/null && echo removed; \
         grep ' /run/secrets/key ' /proc/self/mounts | grep -o 'ro,nosuid,nodev,noexec'; \
         grep ' /run/secrets/key ' /proc/self/mounts | grep -o noswap; exit 0";
    let mut spec = node.shell("c", script);
    spec.mounts = vec![
        secret("/run/secrets/key", b"hunter2\n"),
        secret("/etc/second", &[b'x'; 5000]),
    ];
    as_both(&mut node, &spec, |user, stdout| {
        let uid = if user == "web" { 1000 } else { 0 };
        let long = "x".repeat(5000);
        let rest = format!("400 {uid} {uid} 8\nro,nosuid,nodev,noexec\nnoswap\n");
        assert_eq!(stdout, format!("hunter2\n{long}{rest}"), "{user}");
    });
    // Nothing on disk holds it, and a second user inside cannot read it.
    spec.user = WEB;
    spec.argv = ["sh", "-c", "sleep 1000"].map(str::to_owned).to_vec();
    node.start(&spec);
    let pid = node.started("c");
    let path = format!("/proc/{pid}/{}/run/secrets/key", "root");
    assert_eq!(std::fs::read(&path).unwrap(), b"hunter2\n");
    let denied = std::process::Command::new("setpriv")
        .args(["--reuid=1001", "--regid=1001", "--clear-groups", "cat"])
        .arg(&path)
        .output()
        .unwrap();
    assert!(!denied.status.success() && denied.stdout.is_empty());
}

/// What the keeper and our PID 1 still hold of a secret once the container runs.
#[test]
fn a_secret_leaves_the_keepers_memory() {
    let mut node = Node::new();
    let mut spec = node.shell("c", "sleep 1000");
    // Not in one piece in this test's own data either, since the keeper is a copy of nothing of it.
    let marker = ["correct", "horse", "battery", "staple"].join("-");
    let hex: String = marker.bytes().map(|byte| format!("{byte:02x}")).collect();
    spec.mounts = vec![secret("/run/key", marker.as_bytes())];
    node.start(&spec);
    let pid = node.started("c");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let keeper = status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))
        .unwrap()
        .trim()
        .to_owned();
    for process in [keeper, pid.to_string()] {
        for (what, text) in [("bytes", &marker), ("hexadecimal", &hex)] {
            let found = count_in_memory(&process, text.as_bytes());
            assert_eq!(found, 0, "{what} in process {process}");
        }
        // The search itself reads what is there.
        assert!(count_in_memory(&process, &[0; 8]) > 0, "{process}");
    }
}

fn count_in_memory(process: &str, text: &[u8]) -> usize {
    use std::os::unix::fs::FileExt;
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let memory = std::fs::File::open(format!("/proc/{process}/mem")).unwrap();
    let mut found = 0;
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let range = line.split(' ').next().unwrap();
        let (from, to) = range.split_once('-').unwrap();
        let number = |text: &str| u64::from_str_radix(text, 16).unwrap();
        let (from, to) = (number(from), number(to));
        let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
        if memory.read_exact_at(&mut bytes, from).is_ok() {
            found += bytes.windows(text.len()).filter(|at| *at == text).count();
        }
    }
    found
}

#[test]
fn an_image_is_read_only_whether_of_one_layer_or_of_several() {
    let mut node = Node::new();
    let (low, high) = (node.layer("low"), node.layer("high"));
    std::fs::write(low.join("both"), "low\n").unwrap();
    std::fs::write(low.join("only"), "only low\n").unwrap();
    std::fs::write(high.join("both"), "high\n").unwrap();
    let script = "cat /i/one/both /i/two/both /i/two/only; stat -c %u /i/one/both /i/two/both; \
         for d in one two; do (echo x > /i/$d/new) 2>/dev/null && echo wrote; \
         grep \" /i/$d \" /proc/self/mounts | grep -o 'ro,nosuid,nodev'; done; exit 0";
    let mut spec = node.shell("c", script);
    let image = |layers: Vec<_>| MountKind::Image { layers };
    spec.mounts = vec![
        mount("/i/one", false, image(vec![low.clone()])),
        mount("/i/two", false, image(vec![high, low.clone()])),
    ];
    as_both(&mut node, &spec, |user, stdout| {
        let wanted = "low\nhigh\nonly low\n0\n0\nro,nosuid,nodev\nro,nosuid,nodev\n";
        assert_eq!(stdout, wanted, "{user}");
    });
    assert!(!low.join("new").exists());
}

#[test]
fn shared_memory_has_the_size_that_was_asked_for() {
    let mut node = Node::new();
    let script = "stat -f -c '%b %S' /dev/shm; stat -c %a /dev/shm; echo x > /dev/shm/f";
    let mut spec = node.shell("c", script);
    spec.shm_bytes = Some(1 << 20);
    as_both(&mut node, &spec, |user, stdout| {
        assert_eq!(stdout, "256 4096\n1777\n", "{user}");
    });
    spec.shm_bytes = None;
    assert!(node.run(&spec).stdout.starts_with("16384 4096\n"));
}

#[test]
fn a_read_only_root_leaves_volumes_and_memory_writable() {
    let mut node = Node::new();
    let script = "for f in /x /etc/hosts /usr/x /srv/x /new/x /v/ro/x; do \
         (echo x > $f) 2>/dev/null && echo wrote $f; done; mkdir /d 2>/dev/null && echo made; \
         for f in /tmp/x /dev/shm/x /mnt/mesos/sandbox/x /v/mem/x /v/rw/x; do \
         rm -f $f; echo x > $f || echo denied $f; done; rm /v/rw/x; pwd; \
         mount -o remount,rw / 2>/dev/null && echo remounted; exit 0";
    let mut spec = node.shell("c", script);
    let data = node.path("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o777)).unwrap();
    spec.read_only_root = true;
    spec.cwd = Some("/new".into());
    spec.files.hosts = Some("1.2.3.4 here\n".to_owned());
    spec.mounts = vec![
        tmpfs("/v/mem", 1 << 20, 0o1777),
        Mount::bind(&data, "/v/rw", false),
        Mount::bind(&data, "/v/ro", true),
    ];
    as_both(&mut node, &spec, |user, stdout| {
        assert_eq!(stdout, "/new\n", "{user}");
    });
}

#[test]
fn paths_are_masked_and_protected_wherever_they_lie() {
    let mut node = Node::new();
    let data = node.path("data");
    std::fs::create_dir_all(data.join("dir/below")).unwrap();
    std::fs::write(data.join("dir/secret"), "s").unwrap();
    std::fs::write(data.join("file"), "s").unwrap();
    std::fs::write(data.join("keep"), "k\n").unwrap();
    symlink("dir/secret", data.join("link")).unwrap();
    let script = "cat /v/file /v/link /v/dir/secret 2>/dev/null; ls -A /v/dir; cat /v/keep; \
         for f in /v/file /v/dir/new /v/keep /v/below/x /proc/sys/kernel/domainname; do \
         (echo x > $f) 2>/dev/null && echo wrote $f; done; \
         cat /proc/uptime; grep -q Linux /proc/version && echo version; exit 0";
    let mut spec = node.shell("c", script);
    let below = node.path("below");
    std::fs::create_dir(&below).unwrap();
    spec.mounts = vec![
        Mount::bind(&data, "/v", false),
        Mount::bind(&below, "/v/below", false),
    ];
    let paths = |list: &[&str]| Some(list.iter().map(Into::into).collect());
    spec.masked_paths = paths(&["/v/file", "/v/dir", "/v/gone", "/v/file/x", "/proc/uptime"]);
    spec.read_only_paths = paths(&["/v", "/nowhere", "/proc/sys"]);
    as_both(&mut node, &spec, |user, stdout| {
        // What is written to a masked file is gone.
        assert_eq!(stdout, "k\nwrote /v/file\nversion\n", "{user}");
    });
    assert_eq!(std::fs::read_to_string(data.join("file")).unwrap(), "s");
    assert!(!below.join("x").exists());
}

#[test]
fn a_mask_of_a_link_covers_what_it_leads_to_and_never_the_hosts() {
    let mut node = Node::new();
    let layer = node.layer("layer");
    let victim = node.path("victim");
    std::fs::write(&victim, "host\n").unwrap();
    std::fs::write(layer.join("real"), "inside\n").unwrap();
    std::fs::create_dir(layer.join("d")).unwrap();
    std::fs::write(layer.join("d/f"), "inside\n").unwrap();
    symlink("/real", layer.join("a")).unwrap();
    symlink("../../../../../../d", layer.join("b")).unwrap();
    symlink(&victim, layer.join("c")).unwrap();
    let root = Root::Layers(vec![layer, "/".into()]);
    let mut spec = node.spec(
        "c",
        root,
        &["sh", "-c", "cat /real /d/f 2>/dev/null; exit 0"],
    );
    let paths = ["/a", "/b", "/c"];
    spec.masked_paths = Some(paths.iter().map(Into::into).collect());
    spec.read_only_paths = spec.masked_paths.clone();
    as_both(&mut node, &spec, |user, stdout| {
        assert_eq!(stdout, "", "{user}");
    });
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "host\n");
    // The magic links of procfs, which lead anywhere, are not followed.
    for path in ["/proc/self/cwd/etc", "/proc/self/exe", "/proc/1/cwd"] {
        spec.masked_paths = Some(vec![path.into()]);
        spec.read_only_paths = None;
        node.start(&spec);
        let words = format!("mask {path}: Too many levels of symbolic links");
        assert_eq!(node.start_failure("c"), words);
    }
}

#[test]
fn a_directory_and_a_file_are_not_mounted_on_each_other() {
    let mut node = Node::new();
    let layer = node.layer("layer");
    std::fs::write(layer.join("file"), "").unwrap();
    std::fs::create_dir(layer.join("dir")).unwrap();
    let root = Root::Layers(vec![layer.clone(), "/".into()]);
    let mut spec = node.spec("c", root, &["true"]);
    let data = node.path("data");
    std::fs::write(&data, "").unwrap();
    let image = MountKind::Image {
        layers: vec![layer],
    };
    for (mount, what) in [
        (
            Mount::bind(&data, "/dir", false),
            " at /dir: Is a directory",
        ),
        (
            Mount::bind(node.dir.path(), "/file", false),
            " at /file: Not a directory",
        ),
        (tmpfs("/file", 4096, 0o777), " at /file: Not a directory"),
        (
            secret("/dir", b"x"),
            "mount a secret at /dir: Is a directory",
        ),
        (
            mount("/file", true, image),
            " at /file, read-only: Not a directory",
        ),
    ] {
        spec.mounts = vec![mount];
        node.start(&spec);
        let words = node.start_failure("c");
        assert!(words.ends_with(what), "{words}");
    }
}

/// Content of volumes belongs to tasks: one that ran before may have left links there.
#[test]
fn a_target_within_a_volume_cannot_lead_out_of_the_root() {
    let mut node = Node::new();
    let (shared, victim) = (node.path("shared"), node.path("victim"));
    std::fs::create_dir(&shared).unwrap();
    std::fs::create_dir(&victim).unwrap();
    symlink("/proc", shared.join("proc")).unwrap();
    symlink("/proc/self/root", shared.join("magic")).unwrap();
    symlink("/dev", shared.join("dev")).unwrap();
    symlink("../../../../../../../../..", shared.join("up")).unwrap();
    symlink(&victim, shared.join("out")).unwrap();
    let kinds: [(&str, MountKind); 3] = [
        (
            "tmpfs",
            MountKind::Tmpfs {
                bytes: 4096,
                mode: 0o777,
            },
        ),
        (
            "secret",
            MountKind::Secret {
                content: Secret::new(b"evil".to_vec()),
            },
        ),
        (
            "image",
            MountKind::Image {
                layers: vec![node.layer("layer")],
            },
        ),
    ];
    let script = "cat /proc/sys/kernel/ostype; test -c /dev/null && echo null; \
         (echo x > /proc/sys/kernel/domainname) 2>/dev/null && echo wrote; exit 0";
    let up = format!("up{}", victim.display());
    for (name, kind) in kinds {
        for way in [
            "proc/sys",
            "dev",
            "dev/null",
            "out",
            "out/deep",
            &up,
            "magic/etc",
        ] {
            let container = format!("{name}-{}", way.replace('/', "-").replace(".", ""));
            let container = &container[..container.len().min(60)];
            let mut spec = node.shell(container, script);
            let target = format!("/v/{way}");
            spec.mounts = vec![
                Mount::bind(&shared, "/v", false),
                mount(&target, false, kind.clone()),
            ];
            // It starts with the kernel's file systems on top, or not at all.
            node.start(&spec);
            let started = node.wait("an outcome", |event| match event {
                gantry_isolation::keeper::Event::Exited { .. } => Some(true),
                gantry_isolation::keeper::Event::StartFailed { .. } => Some(false),
                _ => None,
            });
            if started {
                let stdout = node.output(container, "stdout");
                assert_eq!(stdout, "Linux\nnull\n", "{name} at {way}");
            }
            assert!(victim.read_dir().unwrap().next().is_none());
        }
    }
}

/// CVE-2021-30465 and its kin: whoever shares a volume swaps what a mount's way goes through while
/// containers start.
#[test]
fn a_way_that_is_swapped_during_the_start_never_leads_to_the_host() {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use std::sync::atomic::{AtomicBool, Ordering};
    let mut node = Node::new();
    let (shared, victim) = (node.path("shared"), node.path("victim"));
    std::fs::create_dir_all(shared.join("way")).unwrap();
    std::fs::create_dir(&victim).unwrap();
    let up = "../".repeat(20);
    let out = format!("{up}{}", victim.strip_prefix("/").unwrap().display());
    symlink(out, shared.join("swap")).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let (way, swap) = (shared.join("way"), shared.join("swap"));
                renameat_with(CWD, &way, CWD, &swap, RenameFlags::EXCHANGE).unwrap();
            }
        });
        let kinds = [
            tmpfs("/v/way/a", 4096, 0o777),
            secret("/v/way/b", b"evil"),
            Mount::bind(&shared, "/v/way/c/d", false),
        ];
        for number in 0..60 {
            let name = format!("c{number}");
            let mut spec = node.shell(&name, "true");
            spec.mounts = vec![
                Mount::bind(&shared, "/v", false),
                kinds[number % kinds.len()].clone(),
            ];
            spec.masked_paths = Some(vec!["/v/way/a".into(), "/v/way".into()]);
            node.start(&spec);
            node.wait("an outcome", |event| match event {
                gantry_isolation::keeper::Event::Exited { .. }
                | gantry_isolation::keeper::Event::StartFailed { .. } => Some(()),
                _ => None,
            });
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(victim.read_dir().unwrap().next().is_none());
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(victim.to_str().unwrap()), "{mounts}");
}

/// CVE-2025-31133: an image's `/dev/null` is no part of what masks.
#[test]
fn what_masks_a_file_is_the_null_device_whatever_the_image_has() {
    let mut node = Node::new();
    let layer = node.layer("layer");
    std::fs::create_dir_all(layer.join("dev")).unwrap();
    symlink("/etc/evil", layer.join("dev/null")).unwrap();
    std::fs::create_dir_all(layer.join("etc")).unwrap();
    std::fs::write(layer.join("etc/evil"), "evil").unwrap();
    std::fs::write(layer.join("etc/key"), "key").unwrap();
    let root = Root::Layers(vec![layer, "/".into()]);
    let script = "cat /etc/key; stat -c '%F %t:%T' /etc/key; (echo x > /etc/key) && cat /etc/key";
    let mut spec = node.spec("c", root, &["sh", "-c", script]);
    spec.masked_paths = Some(vec!["/etc/key".into()]);
    as_both(&mut node, &spec, |user, stdout| {
        assert_eq!(stdout, "character special file 1:3\n", "{user}");
    });
}
