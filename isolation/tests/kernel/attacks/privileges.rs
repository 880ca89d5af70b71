//! Gaining what was taken away.

use std::os::unix::fs::PermissionsExt;

use gantry_isolation::spec::{Root, User};

use super::{attackers, container, refused};
use crate::node::Node;

#[test]
fn raise_capabilities() {
    refused(
        4,
        r"
class Header(ctypes.Structure):
    _fields_ = [('version', ctypes.c_uint32), ('pid', ctypes.c_int)]
header = Header(0x20080522, 0)
every = struct.pack('6I', *[0xffffffff] * 6)
tried('capset', lambda: call(126, ctypes.byref(header), every))
def inheritable():
    now = ctypes.create_string_buffer(24)
    call(125, ctypes.byref(header), now)
    e, p, i, e2, p2, i2 = struct.unpack('6I', now.raw)
    call(126, ctypes.byref(header), struct.pack('6I', e, p, 1 << 21, e2, p2, i2))
tried('inheritable SYS_ADMIN', inheritable)
tried('ambient SYS_ADMIN', lambda: call(157, 47, 2, 21, 0, 0))
tried('no_new_privs off', lambda: call(157, 38, 0, 0, 0, 0), [errno.EINVAL])
",
    );
}

#[test]
fn inherit_capabilities() {
    // CVE-2022-29162: an inheritable set that is not empty comes back with a file's capabilities.
    let mut node = Node::new();
    for who in attackers() {
        let script = "for line in open('/proc/self/status'):\n    \
                      if line[:6] in ('CapInh', 'CapAmb'): print(int(line.split()[1], 16))";
        let ended = node.run(&container(&node, &who, script));
        assert_eq!(ended.stdout, "0\n0\n", "{}", who.name);
    }
}

#[test]
fn become_root_by_a_setuid_program() {
    // In the image, and made by the container's root in a place that others use.
    let mut node = Node::new();
    let layer = node.layer("setuid");
    let program = layer.join("setuid-id");
    std::fs::copy("/usr/bin/id", &program).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o6755)).unwrap();
    for who in attackers().into_iter().filter(|who| who.user != User::Root) {
        let mut spec = container(&node, &who, "");
        spec.root = Root::Layers(vec![layer.clone(), "/".into()]);
        spec.argv = vec!["/setuid-id".to_owned(), "-u".to_owned()];
        assert_eq!(node.run(&spec).stdout, "1000\n", "{}", who.name);
    }
}

#[test]
fn become_root_by_a_programs_capabilities() {
    // cap_setuid+ep in the form of `linux/capability.h`, revision 2.
    let mut node = Node::new();
    let layer = node.layer("filecaps");
    let program = layer.join("python");
    std::fs::copy("/usr/bin/python3", &program).unwrap();
    let value: Vec<u8> = [0x0200_0001_u32, 1 << 7, 0, 0, 0]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(&program, "security.capability", &value, flags).unwrap();
    for who in attackers().into_iter().filter(|who| who.user != User::Root) {
        let mut spec = container(&node, &who, "tried('setuid', lambda: os.setuid(0))");
        spec.root = Root::Layers(vec![layer.clone(), "/".into()]);
        spec.argv[0] = "/python".to_owned();
        let ended = node.run(&spec);
        assert_eq!(
            ended.stdout, "setuid refused EPERM\n",
            "{}: {ended:?}",
            who.name
        );
    }
}

#[test]
fn become_another_user_or_join_its_groups() {
    let mut node = Node::new();
    for who in attackers().into_iter().filter(|who| who.user != User::Root) {
        let script = r"
tried('setuid', lambda: os.setuid(0))
tried('setresuid', lambda: os.setresuid(0, 0, 0))
tried('setgid', lambda: os.setgid(0))
tried('setgroups', lambda: os.setgroups([0]))
tried('shadow', lambda: open('/etc/shadow'))
tried('kill 1', lambda: os.kill(1, 9))
";
        let ended = node.run(&container(&node, &who, script));
        super::assert_refused(&who, 6, &ended);
    }
}

#[test]
fn overflow_a_user_number_into_root() {
    // CVE-2024-40635, CVE-2026-30892: 2^32 is 0 to a careless parser, 2^32 - 1 is "unchanged".
    let mut node = Node::new();
    for (index, text) in ["4294967296", "4294967295", "-1", "0x0", "1:4294967296"]
        .into_iter()
        .enumerate()
    {
        let name = format!("c{index}");
        let mut spec = node.native(&name, &["id", "-u"]);
        spec.user = User::Name(text.to_owned());
        node.start(&spec);
        let words = node.start_failure(&name);
        let honest = words.starts_with("check the spec: ") || words.contains("no such user");
        assert!(honest, "{text}: {words}");
    }
}

#[test]
fn raise_ones_own_priority_over_the_hosts() {
    refused(
        4,
        r"
tried('nice', lambda: os.setpriority(os.PRIO_PROCESS, 0, -10))
tried('realtime', lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50)))
def oom():
    fd = os.open('/proc/self/oom_score_adj', os.O_WRONLY)
    os.write(fd, b'-1000')
tried('oom', oom)
import resource
def files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard + 1))
    except ValueError:
        raise OSError(errno.EPERM, 'not allowed')
tried('files', files)
",
    );
}
