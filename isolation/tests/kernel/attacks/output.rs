//! Output files lie in the sandbox, where the container may do what it likes with their names.

use super::{attackers, container, is_empty, victim};
use crate::node::{Node, until};
use gantry_isolation::caps::default_set;
use gantry_isolation::keeper::Request;
use gantry_isolation::seccomp::Seccomp;
use gantry_isolation::spec::{Ids, Output, User};

/// `linux/capability.h`.
const CAP_SYS_PTRACE: u32 = 19;

/// Replaces its own output file as `trick` says, then writes more than fits one file.
fn with_rotation(trick: &str) {
    for who in attackers() {
        let mut node = Node::new();
        let victim = victim(&node);
        let target = victim.join("file");
        let script = format!(
            "VICTIM = {:?}\nos.chdir('/mnt/mesos/sandbox')\n\
             def make(name):\n    {trick}\n\
             for name in ('stdout', 'stdout.1', 'stdout.2', 'stdout.3'):\n    \
             try:\n        os.unlink(name)\n    except OSError:\n        pass\n    \
             try:\n        make(name)\n    except OSError:\n        pass\n\
             for _ in range(64):\n    os.write(1, b'x' * 1024)\n",
            target.to_str().unwrap()
        );
        let mut spec = container(&node, &who, &script);
        let Some(dir) = spec.sandbox.clone() else {
            unreachable!("the container has a sandbox")
        };
        spec.output = Output::files(dir, 8192, 2);
        let ended = node.run(&spec);
        assert!(ended.status.success(), "{}: {ended:?}", who.name);
        assert!(
            is_empty(&victim),
            "{}: the keeper wrote through it",
            who.name
        );
        assert_eq!(node.sh("after", "echo alive"), "alive\n");
    }
}

#[test]
fn lead_the_log_to_a_file_of_the_host() {
    with_rotation("os.symlink(VICTIM, name)");
}

#[test]
fn block_the_log_by_a_fifo() {
    with_rotation("os.mkfifo(name)");
}

#[test]
fn block_the_rotation_by_directories() {
    with_rotation("os.makedirs(name + '/deep')");
}

#[test]
fn grow_the_log_without_end() {
    for who in attackers() {
        let mut node = Node::new();
        let script = "for _ in range(512):\n    os.write(1, b'y' * 65536)";
        let mut spec = container(&node, &who, script);
        let Some(dir) = spec.sandbox.clone() else {
            unreachable!("the container has a sandbox")
        };
        let max_bytes = 1 << 20;
        spec.output = Output::files(dir.clone(), max_bytes, 2);
        node.run(&spec);
        let sizes = std::fs::read_dir(dir).unwrap().flatten();
        let total: u64 = sizes.map(|entry| entry.metadata().unwrap().len()).sum();
        // Three files, each at most one pipe (64 KiB) over.
        assert!(
            total <= 3 * (max_bytes + (64 << 10)),
            "{}: {total}",
            who.name
        );
    }
}

#[test]
fn hold_up_the_keeper_by_writing_to_its_file() {
    // A queue of large writes to one file makes everyone wait who writes to it.
    let mut node = Node::new();
    for who in attackers()
        .into_iter()
        .filter(|who| who.ids == Ids::Private)
    {
        let script = r"
for name in ('stdout', 'stderr'):
    tried(name, lambda: os.open('/mnt/mesos/sandbox/' + name, os.O_WRONLY))
    tried(name + ' cut', lambda: os.truncate('/mnt/mesos/sandbox/' + name, 0))
    tried(name + ' owned', lambda: os.chown('/mnt/mesos/sandbox/' + name, 0, 0), [errno.EOVERFLOW])
";
        let ended = node.run(&container(&node, &who, script));
        super::assert_refused(&who, 6, &ended);
    }
}

/// Whoever reads this memory stands still, with the locks that it holds, for as long as the attacker
/// likes: `userfaultfd(2)` is the surest of the slow sources that there are (a throttled disk, a network
/// file system). `hold(write)` returns once a thread that `write`s from it stands still.
const SLOW_MEMORY: &str = r"
import array, fcntl, mmap, threading
kept = []
def slow_memory(pages):
    fd = libc.syscall(ctypes.c_long(323), 0o2000000)
    assert fd >= 0, os.strerror(ctypes.get_errno())
    fcntl.ioctl(fd, 0xc018aa3f, struct.pack('=QQQ', 0xaa, 0, 0))
    memory = mmap.mmap(-1, (pages + 1) * 4096)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    memory[: pages * 4096] = b'y' * (pages * 4096)
    fcntl.ioctl(fd, 0xc020aa00, struct.pack('=QQQQ', start + pages * 4096, 4096, 1, 0))
    kept.append(memory)
    return fd, start
def hold(fd, pages):
    faults, start = slow_memory(pages)
    libc.write.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]
    threading.Thread(target=lambda: libc.write(fd, start, (pages + 1) * 4096), daemon=True).start()
    assert len(os.read(faults, 32)) == 32
";

/// Runs the attack until it holds what it holds, then whether everyone else is served; the attacker
/// has what no task gets, so that it is the keeper alone that withstands it.
fn held_up(script: &str) {
    let mut node = Node::new();
    let who = attackers().swap_remove(0);
    assert!(who.ids == Ids::Host && who.user == User::Root);
    let script = format!(
        "{SLOW_MEMORY}{script}\nopen('/mnt/mesos/sandbox/held', 'w').close()\nsignal.pause()"
    );
    let mut spec = container(&node, &who, &script);
    spec.seccomp = Seccomp::Unconfined;
    spec.capabilities = default_set().with(CAP_SYS_PTRACE);
    let before = node.shell(
        "before",
        "until test -e gate; do sleep 0.01; done; echo late",
    );
    node.start(&before);
    node.started("before");
    node.start(&spec);
    node.started(who.name);
    let sandbox = node.path(&format!("sandbox-{}", who.name));
    until("the attacker to hold it", || {
        let said = node.output(who.name, "stderr");
        assert!(!said.contains("Error"), "{said}");
        sandbox.join("held").exists().then_some(())
    });
    // Those that came earlier, and those that come now.
    std::fs::write(node.path("sandbox-before/gate"), "").unwrap();
    assert!(node.exited("before").0.success());
    assert_eq!(node.output("before", "stdout"), "late\n");
    for number in 0..8 {
        let words = node.sh(&format!("after-{number}"), "echo alive; echo well >&2");
        assert_eq!(words, "alive\n");
    }
    assert_eq!(node.list().len(), 2);
    node.send(&Request::Signal {
        id: spec.id.clone(),
        signo: 9,
        all: true,
    });
    node.exited(who.name);
    node.forget(who.name);
}

#[test]
fn hold_up_the_keeper_by_a_write_to_its_file_that_never_ends() {
    held_up(
        "hold(os.open('/mnt/mesos/sandbox/stdout', os.O_WRONLY), 1)\n\
         hold(os.open('/mnt/mesos/sandbox/stderr', os.O_WRONLY), 1)\n\
         os.write(1, b'x' * 60000)\nos.write(2, b'x' * 60000)",
    );
}

#[test]
fn hold_up_the_keeper_by_a_write_to_its_pipe_that_never_ends() {
    // The more there is to take from the pipe, the surer somebody is about to when it is held.
    held_up(
        "for fd in (1, 2):\n    fcntl.fcntl(fd, 1031, 1 << 20)\n\
         for fd in (1, 2):\n    hold(fd, 8192)",
    );
}

#[test]
fn hold_up_the_keeper_by_a_lease_on_its_file() {
    // Breaking a lease takes 45 seconds; the file that is opened next has the name of a leased one.
    let mut node = Node::new();
    for who in attackers() {
        let script = r"
import fcntl
os.chdir('/mnt/mesos/sandbox')
signal.signal(signal.SIGIO, signal.SIG_IGN)
for name in ('stdout', 'stdout.1', 'stdout.2'):
    try:
        os.unlink(name)
    except OSError:
        pass
    try:
        fd = os.open(name, os.O_CREAT | os.O_RDWR)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError:
        pass
for _ in range(64):
    os.write(1, b'x' * 1024)
";
        let mut spec = container(&node, &who, script);
        let dir = spec.sandbox.clone().unwrap();
        spec.output = Output::files(dir, 8192, 2);
        let ended = node.run(&spec);
        assert!(ended.status.success(), "{}: {ended:?}", who.name);
    }
}
