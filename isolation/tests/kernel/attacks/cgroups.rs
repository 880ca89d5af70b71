//! Attacks through what a container sees of its cgroups at `/sys/fs/cgroup`.

use gantry_isolation::spec::Limits;

use super::{Attacker, attackers, container, refused};
use crate::node::{Ended, Node};

/// `FILES` and `DIRS` are all that is seen, `PLACES` the mounts.
const LOOK: &str = r"
FILES, DIRS = [], []
for base, dirs, files in os.walk('/sys/fs/cgroup'):
    FILES += [os.path.join(base, name) for name in files]
    DIRS += [base] + [os.path.join(base, name) for name in dirs]
PLACES = [l.split()[4] for l in open('/proc/self/mountinfo') if ' - cgroup' in l]
assert len(FILES) > 10 and PLACES, 'nothing is seen'
";

/// Runs `script` after [`LOOK`] as everyone, in a container with limits.
fn looked(script: &str, check: impl Fn(&Attacker, &Ended)) {
    let mut node = Node::new();
    for who in attackers() {
        let mut spec = container(&node, &who, &format!("{LOOK}{script}"));
        spec.limits = Limits {
            memory_bytes: Some(128 << 20),
            pids_max: Some(50),
            cpu_quota_us: Some(90_000),
            ..Limits::default()
        };
        check(&who, &node.run(&spec));
    }
}

fn says(script: &str, want: &str) {
    looked(script, |who, ended| {
        assert_eq!(ended.stdout, want, "{}: {ended:?}", who.name);
    });
}

#[test]
fn write_limits_of_ones_own_group() {
    says(
        r"
wrote = []
for path in FILES:
    for text in [b'-1', b'0', b'max', b'1']:
        try:
            os.write(os.open(path, os.O_WRONLY), text)
            wrote.append(path)
        except OSError:
            pass
    for change in [lambda: os.chmod(path, 0o777), lambda: os.chown(path, os.getuid(), -1)]:
        try:
            change()
            wrote.append('changed ' + path)
        except OSError:
            pass
print(wrote)
",
        "[]\n",
    );
}

#[test]
fn make_a_group_below_ones_own() {
    says(
        r"
made = []
for path in DIRS:
    for make in [lambda: os.mkdir(path + '/more'), lambda: os.rmdir(path)]:
        try:
            make()
            made.append(path)
        except OSError:
            pass
print(made)
",
        "[]\n",
    );
}

#[test]
fn use_a_release_agent_of_a_cgroup() {
    // CVE-2022-0492, and a writable tree without user namespace (CVE-2023-25809).
    says(
        r"
found = [path for path in FILES if os.path.basename(path) == 'release_agent']
found += [path for path in FILES + DIRS if os.access(path, os.W_OK)]
for path in FILES:
    if os.path.basename(path) == 'notify_on_release':
        try:
            open(path, 'w').write('1')
            found.append(path)
        except OSError:
            pass
        if open(path).read() != '0\n':
            found.append('set ' + path)
print('found', found)
",
        "found []\n",
    );
}

#[test]
fn remount_the_view_for_writing() {
    // `mount(2)` with MS_REMOUNT | MS_BIND, MS_REMOUNT and a bind of it elsewhere; `mount_setattr(2)`
    // that clears read-only; each on the directory above and on each mount.
    says(
        r"
worked = []
os.makedirs('/tmp/here', exist_ok=True)
clear = struct.pack('QQQQ', 0, 1, 0, 0)
for place in ['/sys/fs/cgroup'] + PLACES:
    at = place.encode()
    for name, way in [
        ('bind', lambda: call(165, b'none', at, None, 32 | 4096, None)),
        ('super', lambda: call(165, b'none', at, None, 32, None)),
        ('elsewhere', lambda: call(165, at, b'/tmp/here', None, 4096, None)),
        ('move', lambda: call(165, at, b'/tmp/here', None, 8192, None)),
        ('unmount', lambda: call(166, at, 2)),
        ('attributes', lambda: call(442, -100, at, 0, clear, 32)),
        ('tree', lambda: call(428, -100, at, 1)),
    ]:
        try:
            way()
            worked.append((place, name))
        except OSError as e:
            if e.errno not in DENIALS:
                worked.append((place, name, e.errno))
print(worked)
",
        "[]\n",
    );
}

#[test]
fn mount_the_trees_anew() {
    // As oneself, and as root of a new user, mount and cgroup namespace.
    refused(
        5,
        r"
os.makedirs('/tmp/here', exist_ok=True)
def mount(kind, data):
    call(165, b'none', b'/tmp/here', kind, 0, data)
tried('memory', lambda: mount(b'cgroup', b'memory'))
tried('named', lambda: mount(b'cgroup', b'none,name=mine'))
tried('v2', lambda: mount(b'cgroup2', None))
tried('fsopen', lambda: call(430, b'cgroup', 0))
def nested():
    call(272, 0x10000000 | 0x00020000 | 0x02000000)
    mount(b'cgroup', b'memory')
tried('nested', nested)
",
    );
}

#[test]
fn climb_out_of_the_view() {
    // `..` of each mount's root, by name and by descriptor, and a handle of the group above.
    says(
        r"
found = []
seen = os.stat('/sys/fs/cgroup')
for place in PLACES:
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    above = os.open('..', os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
    if place != '/sys/fs/cgroup' and os.fstat(above).st_ino != seen.st_ino:
        found.append(place)
    if 'cgroup.procs' in os.listdir(above):
        found.append('listed ' + place)
    inode = os.fstat(fd).st_ino
    for number in list(range(1, 64)) + [inode - 1, inode + 1]:
        # kernfs: 8 bytes of FILEID_KERNFS (0xfe), and 8 of FILEID_INO64_GEN
        handle = struct.pack('iiQ', 8, 0xfe, number)
        try:
            call(304, fd, handle, os.O_RDONLY)
            found.append('handle %s %d' % (place, number))
        except OSError as e:
            if e.errno not in DENIALS:
                found.append('handle %s %d: %d' % (place, number, e.errno))
print(found)
",
        "[]\n",
    );
}

#[test]
fn read_who_else_is_on_the_host() {
    // The view is of a group in a tree with others; neither names nor processes of theirs are in it.
    let mut node = Node::new();
    let mut other = node.shell("neighbour-of-the-attacker", "exec sleep 1000");
    other.limits.cpuset_cpus = Some("0".to_owned());
    node.start(&other);
    node.started("neighbour-of-the-attacker");
    for who in attackers() {
        let script = format!(
            "{LOOK}
found = []
for path in FILES:
    try:
        text = open(path).read()
    except OSError:
        continue
    if 'neighbour' in text or {:?} in text:
        found.append(path)
    if os.path.basename(path) in ('tasks', 'cgroup.procs'):
        mine = set(os.listdir('/proc'))
        for pid in text.split():
            if pid not in mine and not os.path.exists('/proc/self/task/' + pid):
                found.append((path, pid))
found += [path for path in DIRS if 'neighbour' in path]
for name in ['mountinfo', 'cgroup']:
    text = open('/proc/self/' + name).read()
    found += [l for l in text.split('\\n') if 'cgroup' in l and 'gantry' in l]
print(found)
",
            node.parent
        );
        let ended = node.run(&container(&node, &who, &script));
        assert_eq!(ended.stdout, "[]\n", "{}: {ended:?}", who.name);
    }
}
