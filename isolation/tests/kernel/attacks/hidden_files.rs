//! Files on the disk that no directory shows: what a task that is limited by counting would keep its
//! data in. Each attack holds some in its sandbox and in its root, and works if a sweep misses them.

use std::path::Path;

use gantry_isolation::cgroup::Groups;
use gantry_isolation::disk::{Held, Place, Scope, Sweep, Sweeping};
use gantry_isolation::seccomp::Seccomp;
use gantry_isolation::spec::{ContainerSpec, Mount};

use super::{attackers, container};
use crate::node::{Node, until};

const MIB: u64 = 1 << 20;
/// What `hold` makes: 2 MiB in the sandbox and 1 MiB in the root, both deleted.
const HIDDEN: u64 = 3 * MIB;

/// `hold()` gives the descriptors of two deleted files; `ready()` says that all is done and waits.
const TOOLS: &str = r"
import array, mmap, threading, time
def make(path, mib):
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(fd, b'x' * (mib << 20))
    os.unlink(path)
    return fd
def hold():
    return [make('/mnt/mesos/sandbox/a', 2), make('/var/tmp/b', 1)]
def ready():
    open('/mnt/mesos/sandbox/ready', 'w').close()
    while True:
        time.sleep(1000)
";

/// What a sweep finds, a few looks at a time.
fn sweep(node: &Node, spec: &ContainerSpec, pid: i32) -> Held {
    let groups = Groups::find(&node.parent).unwrap();
    let place = Place::find(node.dir.path()).unwrap();
    let scope = Scope {
        groups: &groups,
        container: &spec.id,
        first: pid,
        place: &place,
        sandbox: spec.sandbox.as_deref().unwrap(),
        root_only: false,
    };
    let mut sweep = Sweep::new(scope).unwrap();
    loop {
        if let Sweeping::Done(held) = sweep.turn(10).unwrap() {
            assert!(held.complete);
            return held;
        }
    }
}

/// Starts an attacker and waits until it holds what it holds.
fn begun(node: &mut Node, spec: &ContainerSpec) -> i32 {
    node.start(spec);
    let name = spec.id.to_string();
    let pid = node.started(&name);
    let ready = spec.sandbox.as_ref().unwrap().join("ready");
    until("the attacker to be ready", || {
        let said = node.output(&name, "stderr");
        assert_eq!(said, "", "{name}");
        ready.exists().then_some(())
    });
    pid
}

/// Runs the attack as everyone; all that it hides must be found.
fn found(script: &str) {
    found_with(|_| {}, script);
}

fn found_with(change: impl Fn(&mut ContainerSpec), script: &str) {
    let mut node = Node::new();
    for who in attackers() {
        let mut spec = container(&node, &who, &format!("{TOOLS}{script}"));
        change(&mut spec);
        let pid = begun(&mut node, &spec);
        let what = format!("{}: all that is hidden", who.name);
        // A look may come too early or too late for what moves; never each of them.
        let held = until(&what, || {
            Some(sweep(&node, &spec, pid)).filter(|held| held.bytes >= HIDDEN)
        });
        // Nothing counts twice, by however many it is held.
        assert_eq!((held.bytes, held.files), (HIDDEN, 2), "{}", who.name);
    }
}

#[test]
fn keep_deleted_files_open() {
    found("held = hold()\nagain = [os.dup(fd) for fd in held]\nready()");
}

#[test]
fn map_deleted_files() {
    found(
        "maps = []\n\
         for fd in hold():\n    maps.append(mmap.mmap(fd, 4096))\n    os.close(fd)\n\
         for map in maps:\n    map[0] = 1\n\
         ready()",
    );
}

#[test]
fn write_files_that_never_had_a_name() {
    found(
        "for at, mib in (('/mnt/mesos/sandbox', 2), ('/var/tmp', 1)):\n    \
         fd = os.open(at, os.O_TMPFILE | os.O_RDWR)\n    os.write(fd, b'x' * (mib << 20))\n\
         ready()",
    );
}

#[test]
fn hide_deleted_files_in_a_thread() {
    // Its table is its own (unshare(CLONE_FILES), which needs no filter in the way), and the first
    // thread ends: exit(2), not exit_group(2).
    found_with(
        |spec| spec.seccomp = Seccomp::Unconfined,
        "def hide():\n    call(272, 0x400)\n    held = hold()\n    ready()\n\
         threading.Thread(target=hide).start()\n\
         libc.syscall(60, 0)",
    );
}

#[test]
fn hide_maps_behind_a_dead_first_thread() {
    found(
        "def hide():\n    for fd in hold():\n        libc.mmap.restype = ctypes.c_void_p\n        \
         libc.mmap(None, 4096, 1, 1, fd, 0)\n        os.close(fd)\n    ready()\n\
         threading.Thread(target=hide).start()\n\
         libc.syscall(60, 0)",
    );
}

#[test]
fn hide_deleted_files_behind_another_root() {
    // Only root may; the others hold them in the usual way.
    found(
        "held = hold()\nos.mkdir('/mnt/mesos/sandbox/jail')\nopen('/mnt/mesos/sandbox/ready', 'w')\n\
         try:\n    os.chroot('/mnt/mesos/sandbox/jail')\nexcept PermissionError:\n    pass\n\
         time.sleep(1000)",
    );
}

#[test]
fn hand_deleted_files_on_from_child_to_child() {
    found(
        "held = hold()\nopen('/mnt/mesos/sandbox/ready', 'w')\n\
         signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n\
         if os.fork():\n    [os.close(fd) for fd in held]\n    time.sleep(1000)\n\
         while True:\n    if os.fork():\n        os._exit(0)\n    time.sleep(0.002)",
    );
}

#[test]
fn hide_deleted_files_among_many_descriptors() {
    found(
        "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))\n\
         for _ in range(500):\n    os.dup(1)\n\
         held = hold()\n\
         while True:\n    \
         try:\n        os.dup(1)\n    except OSError:\n        break\n\
         [os.close(fd) for fd in range(1000, 1024)]\nready()",
    );
}

#[test]
fn park_deleted_files_in_a_socket() {
    // Which files these are nobody can tell; that there are some, and how many, is seen.
    let script = "ours, theirs = socket.socketpair()\n\
         held = hold()\nsocket.send_fds(ours, [b'x'], held)\n\
         [os.close(fd) for fd in held]\nready()";
    let mut node = Node::new();
    for who in attackers() {
        let spec = container(&node, &who, &format!("{TOOLS}{script}"));
        let pid = begun(&mut node, &spec);
        let held = sweep(&node, &spec, pid);
        let parked: Vec<u64> = held.parked.into_values().collect();
        assert_eq!((held.bytes, parked), (0, vec![2]), "{}", who.name);
    }
}

/// The other side: what is not a task's own is not charged, however deleted it looks.
#[test]
fn nobody_pays_for_memory_volumes_or_what_the_host_removed() {
    let mut node = Node::new();
    let volume = super::victim(&node);
    for who in attackers() {
        let lower = node.path(&format!("lower-{}", who.name));
        std::fs::write(&lower, vec![1; 1 << 20]).unwrap();
        // What came with the sandbox, as exactly as the file system's clock tells, is the task's.
        let born = |path: &Path| std::fs::metadata(path).unwrap().created().unwrap();
        until("the clock to go on", || {
            let later = node.path("later");
            std::fs::write(&later, "").unwrap();
            let is_later = born(&later) > born(&lower);
            std::fs::remove_file(&later).unwrap();
            is_later.then_some(())
        });
        let script = format!(
            "{TOOLS}\n\
             memory = os.memfd_create('x')\nos.write(memory, b'x' * 1000000)\n\
             shared = mmap.mmap(-1, 1 << 20)\nshared[0] = 1\n\
             files = [make(at + '/f', 1) for at in ('/tmp', '/dev/shm', '/volume')]\n\
             lower = open({lower:?}, 'rb')\nmapped = mmap.mmap(lower.fileno(), 4096, \
             prot=mmap.PROT_READ)\nready()"
        );
        let mut spec = container(&node, &who, &script);
        spec.mounts
            .push(Mount::bind(volume.clone(), "/volume", false));
        let pid = begun(&mut node, &spec);
        std::fs::remove_file(&lower).unwrap();
        let held = sweep(&node, &spec, pid);
        assert_eq!((held.bytes, held.files), (0, 0), "{}", who.name);
        assert!(held.parked.is_empty(), "{}: {held:?}", who.name);
    }
}
