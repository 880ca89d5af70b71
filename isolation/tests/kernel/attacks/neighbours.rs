//! Seeing, tracing or ending what belongs to the host or to another container.

use super::{attackers, container};
use crate::node::Node;

/// A container with something to steal; its process id on the host.
fn neighbour(node: &mut Node) -> i32 {
    let script = "import ctypes, os, time\n\
        libc = ctypes.CDLL(None)\n\
        shm = libc.shmget(0x67616e74, 4096, 0o1666)\n\
        open('/dev/shm/neighbour', 'w').write('secret')\n\
        open('/tmp/neighbour', 'w').write('secret')\n\
        print('ready', flush=True)\n\
        time.sleep(1000)";
    let mut spec = node.native("neighbour", &["python3", "-c", script]);
    spec.env
        .push(("TOKEN".to_owned(), "secret-token".to_owned()));
    node.start(&spec);
    let pid = node.started("neighbour");
    crate::node::until("the neighbour is ready", || {
        (node.output("neighbour", "stdout") == "ready\n").then_some(())
    });
    pid
}

#[test]
fn see_or_end_processes_outside() {
    let mut node = Node::new();
    let pid = neighbour(&mut node);
    for who in attackers() {
        let script = format!(
            r"
mine = [int(p) for p in os.listdir('/proc') if p.isdigit()]
print(len(mine) <= 2, max(mine) < 10)
for pid in [{pid}, {pid} + 1, {own}]:
    for signo in (0, 9):
        try:
            os.kill(pid, signo)
            print('WORKED', pid)
        except ProcessLookupError:
            pass
    try:
        call(101, 16, pid, 0, 0)
        print('WORKED ptrace', pid)
    except OSError:
        pass
try:
    os.kill(-1, 0)
except OSError:
    pass
",
            own = std::process::id()
        );
        let ended = node.run(&container(&node, &who, &script));
        assert_eq!(ended.stdout, "True True\n", "{}: {ended:?}", who.name);
    }
    assert_eq!(node.list().len(), 1, "the neighbour runs on");
}

#[test]
fn read_the_memory_and_files_of_a_neighbour() {
    let mut node = Node::new();
    neighbour(&mut node);
    for who in attackers() {
        let script = r"
print(len(open('/proc/sysvipc/shm').readlines()), os.listdir('/dev/shm'), os.listdir('/dev/mqueue'))
shm = ctypes.CDLL(None).shmget(0x67616e74, 4096, 0o666)
print(shm, os.path.exists('/tmp/neighbour'))
import glob
for path in glob.glob('/proc/[0-9]*/environ'):
    try:
        if b'secret-' + b'token' in open(path, 'rb').read():
            print('STOLEN', path)
    except OSError:
        pass
";
        let ended = node.run(&container(&node, &who, script));
        assert_eq!(
            ended.stdout, "1 [] []\n-1 False\n",
            "{}: {ended:?}",
            who.name
        );
    }
}

#[test]
fn end_or_stop_the_own_init_to_stay_for_ever() {
    // The end of the command ends everything, whatever was done to PID 1 and whoever detached.
    let mut node = Node::new();
    for who in attackers() {
        let script = r"
for signo in (signal.SIGSTOP, signal.SIGKILL, signal.SIGTERM):
    try:
        os.kill(1, signo)
    except OSError:
        pass
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        for n in range(1, 65):
            try: signal.signal(n, signal.SIG_IGN)
            except (OSError, ValueError): pass
        if os.fork() == 0:
            while True: signal.pause()
        os._exit(0)
";
        let ended = node.run(&container(&node, &who, script));
        assert!(!ended.oom_killed, "{}", who.name);
        assert_eq!(
            node.groups()
                .iter()
                .filter(|dir| dir.ends_with(who.name))
                .count(),
            0
        );
    }
}

#[test]
fn find_the_keepers_socket_in_the_abstract_namespace() {
    // CVE-2020-15257: a container on the host's network reaches abstract sockets.
    let mut node = Node::new();
    let inode_names = std::fs::read_to_string("/proc/net/unix").unwrap();
    let own = node.dir.path().to_string_lossy().into_owned();
    assert!(inode_names.contains(&own), "the socket is a file");
    for who in attackers() {
        let script = format!(
            r"
names = [l.split()[7] for l in open('/proc/net/unix') if len(l.split()) > 7]
print([n for n in names if n.startswith('@') and 'gantry' in n.lower()])
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
try:
    s.connect({own:?} + '/keeper.sock')
    print('WORKED')
except OSError as e:
    print(e.errno in (errno.ENOENT, errno.EACCES, errno.ECONNREFUSED))
"
        );
        let ended = node.run(&container(&node, &who, &script));
        assert_eq!(ended.stdout, "[]\nTrue\n", "{}: {ended:?}", who.name);
    }
}

#[test]
fn look_into_the_runtimes_directories() {
    // Wide modes let any user of the host run an image's setuid programs (CVE-2024-25621).
    let mut node = Node::new();
    node.sh("c1", "true");
    let containers = node.path("containers");
    let entries: Vec<_> = std::fs::read_dir(containers).unwrap().flatten().collect();
    assert!(!entries.is_empty(), "a slot is there");
    for entry in entries {
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&entry.metadata().unwrap().permissions());
        assert_eq!(mode & 0o077, 0, "{entry:?}");
    }
}

#[test]
fn exhaust_the_keepers_clients() {
    // Connections that say nothing must not keep the agent out (CVE-2020-7218).
    let mut node = Node::new();
    let path = node.path("keeper.sock");
    let address = rustix::net::SocketAddrUnix::new(&path).unwrap();
    let kept: Vec<_> = (0..300)
        .filter_map(|_| {
            use rustix::net::{AddressFamily, SocketFlags, SocketType};
            let kind = SocketType::SEQPACKET;
            let flags = SocketFlags::CLOEXEC;
            let made = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None);
            let socket = made.ok()?;
            rustix::net::connect(&socket, &address).ok()?;
            Some(socket)
        })
        .collect();
    assert!(kept.len() > 16);
    assert_eq!(node.sh("c1", "echo served"), "served\n");
}
