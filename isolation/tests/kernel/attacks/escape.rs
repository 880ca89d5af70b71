//! Ways out of the root and back to the host's files, devices and knobs.

use super::{PRELUDE, attackers, container, is_empty, refused, victim};
use crate::node::Node;

/// Runs `script`, in which `VICTIM` is a directory of the host, as everyone; the directory must
/// stay empty, whatever the script believes to have done.
fn must_stay_empty(script: &str) {
    for who in attackers() {
        let mut node = Node::new();
        let victim = victim(&node);
        let script = format!(
            "VICTIM = {:?}\n{script}\nprint('tried')",
            victim.to_str().unwrap()
        );
        let ended = node.run(&container(&node, &who, &script));
        assert!(ended.stdout.ends_with("tried\n"), "{}: {ended:?}", who.name);
        assert!(is_empty(&victim), "{}: it wrote to the host", who.name);
    }
}

#[test]
fn climb_out_of_a_second_chroot() {
    must_stay_empty(
        r"
def out():
    os.chdir('/')
    os.makedirs('/tmp/jail', exist_ok=True)
    outside = os.open('/', os.O_RDONLY)
    os.chroot('/tmp/jail')
    os.fchdir(outside)
    for _ in range(64):
        os.chdir('..')
    os.chroot('.')
tried('chroot', out)
try:
    open(VICTIM + '/owned', 'w')
except OSError:
    pass
",
    );
}

#[test]
fn walk_through_the_root_of_every_process() {
    must_stay_empty(
        r"
for pid in os.listdir('/proc'):
    for way in ['root', 'cwd'] + ['fd/%d' % n for n in range(64)] + ['map_files']:
        base = '/proc/%s/%s' % (pid, way)
        if not os.path.isdir(base):
            continue
        # Only what is not our own root: ours shows the victim as a copy.
        for path in (base + VICTIM, base + '/../../../../../../../..' + VICTIM):
            try:
                open(path + '/owned-by-' + pid, 'w').close()
            except OSError:
                pass
",
    );
}

#[test]
fn open_the_hosts_files_by_handle() {
    // "Shocker": handles of the host's inodes can be guessed; inode 2 is the root of ext4.
    refused(
        1,
        r"
handle = struct.pack('iiii', 8, 1, 2, 0)
fd = os.open('/', os.O_RDONLY)
tried('open_by_handle_at', lambda: call(304, fd, handle, 0))
",
    );
}

#[test]
fn reach_a_disk_by_a_node_of_ones_own() {
    let mut node = Node::new();
    for who in attackers() {
        let script = r"
disk = os.stat(sys.prefix).st_dev
disks = [os.makedev(*map(int, l.split()[2].split(':'))) for l in open('/proc/self/mountinfo')]
for line in open('/proc/partitions').read().split('\n')[2:]:
    if line:
        disks.append(os.makedev(*map(int, line.split()[:2])))
opened = 0
for at in ['/tmp/disk', '/dev/disk', '/dev/shm/disk', '/mnt/mesos/sandbox/disk']:
    for number in set(disks):
        for kind in (stat.S_IFBLK, stat.S_IFCHR):
            try:
                os.mknod(at, kind | 0o666, number)
                os.read(os.open(at, os.O_RDONLY), 1)
                opened += 1
            except OSError:
                pass
            try:
                os.unlink(at)
            except OSError:
                pass
print(opened, 'opened of', len(disks) > 2)
";
        let ended = node.run(&container(&node, &who, script));
        assert_eq!(
            ended.stdout, "0 opened of True\n",
            "{}: {ended:?}",
            who.name
        );
    }
}

#[test]
fn have_the_host_run_a_program() {
    // Each of these files names or starts something that runs as the host's root.
    refused(
        6,
        r"
def write(path, text=b'|/bin/true'):
    fd = os.open(path, os.O_WRONLY)
    os.write(fd, text)
tried('core_pattern', lambda: write('/proc/sys/kernel/core_pattern'))
tried('modprobe', lambda: write('/proc/sys/kernel/modprobe'), [errno.ENOENT])
tried('uevent_helper', lambda: write('/sys/kernel/uevent_helper'), [errno.ENOENT])
tried('binfmt_misc', lambda: write('/proc/sys/fs/binfmt_misc/register'), [errno.ENOENT])
tried('sysrq', lambda: write('/proc/sysrq-trigger', b'h'), [errno.ENOENT])
tried('hotplug', lambda: write('/proc/sys/kernel/hotplug'), [errno.ENOENT])
",
    );
}

#[test]
fn leave_the_container_by_its_namespaces() {
    refused(
        7,
        r"
for kind in ['mnt', 'pid', 'ipc', 'uts', 'net', 'cgroup', 'user']:
    fd = os.open('/proc/1/ns/' + kind, os.O_RDONLY) if os.access('/proc/1/ns/' + kind, os.R_OK) \
        else os.open('/proc/self/ns/' + kind, os.O_RDONLY)
    tried('setns ' + kind, lambda: call(308, fd, 0), [errno.EINVAL])
",
    );
}

#[test]
fn inherit_a_descriptor_of_the_runtime() {
    // CVE-2024-21626: nothing but the three streams, in the command and in PID 1.
    let mut node = Node::new();
    for who in attackers() {
        let script = r"
import glob
print(sorted(int(n) for n in os.listdir('/proc/self/fd'))[:3], len(os.listdir('/proc/self/fd')))
for link in glob.glob('/proc/[0-9]*/fd/*') + glob.glob('/proc/[0-9]*/cwd'):
    try:
        to = os.readlink(link)
    except OSError:
        continue
    if to.startswith('/') and not os.path.lexists(to) and not to.startswith('/proc/'):
        print('LEAKED', link, to)
";
        let ended = node.run(&container(&node, &who, script));
        // The directory that is being listed is the fourth.
        assert_eq!(ended.stdout, "[0, 1, 2] 4\n", "{}", who.name);
    }
}

#[test]
fn change_the_runtimes_program() {
    // CVE-2019-5736, from PID 1 and from every process that can be seen.
    refused(
        3,
        r"
tried('exe of 1', lambda: os.open('/proc/1/exe', os.O_WRONLY), [errno.ETXTBSY])
tried('read exe of 1', lambda: os.open('/proc/1/exe', os.O_RDONLY))
tried('memory of 1', lambda: os.open('/proc/1/mem', os.O_RDWR))
",
    );
    assert!(PRELUDE.contains("def tried"));
}
