//! Namespaces other than the one of mounts: entering those of others and setting up fresh ones.

use std::ffi::CStr;
use std::os::fd::AsFd;

use nix::sched::CloneFlags;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use super::{Fault, IPC_FD, NAMESPACE_FD, Progress, write_proc};
use crate::sys::{self, users};

/// Enters the namespaces of these kinds that the descriptor is or, for a process's, has.
pub(super) fn enter(kinds: CloneFlags) -> Result<(), Fault> {
    Ok(nix::sched::setns(users::borrow_fd(NAMESPACE_FD), kinds)?)
}

/// Enters the IPC namespace of another container.
pub(super) fn enter_ipc() -> Result<(), Fault> {
    Ok(nix::sched::setns(
        users::borrow_fd(IPC_FD),
        CloneFlags::CLONE_NEWIPC,
    )?)
}

/// The PID namespace was set by the keeper before the clone, since it only holds for children.
pub(super) fn enter_container(time: bool, progress: &mut Progress) -> Result<(), Fault> {
    let mut kinds = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWCGROUP;
    if time {
        kinds |= CloneFlags::from_bits_retain(CLONE_NEWTIME);
    }
    enter(kinds)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    progress.root = Some(rustix::fs::openat(CWD, c"/", flags, Mode::empty())?);
    Ok(())
}

/// `linux/sched.h`; libc has it as an unsigned number.
const CLONE_NEWTIME: i32 = 0x80;

/// Makes a time namespace with these offsets. The kernel puts only children in it; entering what
/// is meant for them puts this process there, too (`time_namespaces(7)`).
pub(super) fn time(offsets: &CStr) -> Result<(), Fault> {
    let kind = CloneFlags::from_bits_retain(CLONE_NEWTIME);
    nix::sched::unshare(kind)?;
    write_proc(c"/proc/self/timens_offsets", offsets.to_bytes())?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let made = rustix::fs::open(c"/proc/self/ns/time_for_children", flags, Mode::empty())?;
    Ok(nix::sched::setns(made, kind)?)
}

/// Brings the loopback interface up.
pub(super) fn loopback() -> Result<(), Fault> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    Ok(sys::loopback_up(socket.as_fd())?)
}

/// Echo sockets instead of raw ones (`icmp(7)`), and every port for every user, as Docker has it:
/// the container's root has no capability over the network. Only a convenience: where the kernel
/// has no such knob, or a container around us made it read-only, a program does without.
pub(super) fn open_network() -> Result<(), Fault> {
    let knobs = [
        (c"/proc/sys/net/ipv4/ping_group_range", c"0 2147483647"),
        (c"/proc/sys/net/ipv4/ip_unprivileged_port_start", c"0"),
    ];
    for (knob, value) in knobs {
        match write_proc(knob, value.to_bytes()) {
            Ok(()) | Err(Fault::Errno(Errno::NOENT | Errno::ROFS | Errno::ACCESS)) => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(())
}

/// Keyrings have no namespace: what the host or another container keeps in its session's must not
/// be this one's (keyrings(7)). A kernel without keys has nothing to share.
pub(super) fn own_keyring() -> Result<(), Fault> {
    match sys::join_new_session_keyring() {
        Err(Errno::NOSYS) => Ok(()),
        done => Ok(done?),
    }
}
