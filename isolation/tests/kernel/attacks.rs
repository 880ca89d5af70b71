//! Attacks that runtimes of this kind have fallen to (spec: anchors.md 7.3), each a test named after
//! what it tries. Unless it says otherwise, each is tried as root and as uid 1000, with the host's
//! ids and with a user namespace: it fails if one of them gets through.
//!
//! An attack is a Python program in a native container, since that has every tool of the host; it
//! says for each thing that it tries whether it was refused. What it says is believed only when it
//! tried everything; where the host can show the damage, the host is looked at instead.

mod cgroups;
mod escape;
mod hidden_files;
mod neighbours;
mod output;
mod paths;
mod privileges;
mod races;
mod system_calls;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use gantry_isolation::spec::{ContainerSpec, Ids, User};

use crate::node::{Ended, Node};

/// What every attack begins with. `tried(what, f)` says `refused`, or `WORKED` when `f` raises
/// nothing, or `REACHED` when the kernel got further than asking for permission.
const PRELUDE: &str = r"
import ctypes, errno, os, signal, socket, stat, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(number, *args):
    if libc.syscall(ctypes.c_long(number), *args) < 0:
        raise OSError(ctypes.get_errno(), 'call')
DENIALS = {errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EROFS}
def tried(what, f, also=()):
    try:
        f()
    except OSError as e:
        said = 'refused' if e.errno in DENIALS or e.errno in also else 'REACHED'
        print(what, said, errno.errorcode.get(e.errno, e.errno), flush=True)
    else:
        print(what, 'WORKED', flush=True)
";

/// Who attacks.
#[derive(Clone)]
struct Attacker {
    name: &'static str,
    user: User,
    ids: Ids,
}

fn attackers() -> Vec<Attacker> {
    let other = || User::Ids {
        uid: 1000,
        gid: 1000,
    };
    let attacker = |name, user, ids| Attacker { name, user, ids };
    vec![
        attacker("root", User::Root, Ids::Host),
        attacker("uid-1000", other(), Ids::Host),
        attacker("mapped-root", User::Root, Ids::Private),
        attacker("mapped-1000", other(), Ids::Private),
    ]
}

/// The attacker's container, with a sandbox that it may write to.
fn container(node: &Node, who: &Attacker, script: &str) -> ContainerSpec {
    let script = format!("{PRELUDE}{script}");
    let mut spec = node.native(who.name, &["python3", "-c", &script]);
    let sandbox = node.path(&format!("sandbox-{}", who.name));
    std::fs::set_permissions(sandbox, PermissionsExt::from_mode(0o1777)).unwrap();
    spec.user = who.user.clone();
    spec.ids = who.ids.clone();
    spec.env = vec![(
        "PATH".to_owned(),
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
    )];
    spec
}

/// Runs the attack as everyone; none of `count` things may have worked.
fn refused(count: usize, script: &str) {
    let mut node = Node::new();
    for who in attackers() {
        let ended = node.run(&container(&node, &who, script));
        assert_refused(&who, count, &ended);
    }
}

fn assert_refused(who: &Attacker, count: usize, ended: &Ended) {
    let (text, name) = (&ended.stdout, who.name);
    let refusals = text
        .lines()
        .filter(|line| line.contains(" refused "))
        .count();
    assert!(ended.status.success(), "{name}: {ended:?}");
    assert_eq!(
        (refusals, text.lines().count()),
        (count, count),
        "{name}: {text}"
    );
}

/// A directory of the host that anyone may write to and that no attack may reach.
fn victim(node: &Node) -> PathBuf {
    let victim = node.path("victim");
    std::fs::create_dir(&victim).unwrap();
    std::fs::set_permissions(&victim, PermissionsExt::from_mode(0o1777)).unwrap();
    victim
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).unwrap().next().is_none()
}
