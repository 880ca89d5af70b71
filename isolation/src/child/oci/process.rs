//! What the process becomes: ids, capabilities, clocks, and whether its program is there.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sched::CloneFlags;
use rustix::fs::{Access, AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::{Errno, FdFlags};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
    set_keep_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

use super::super::Fault;
use super::Relay;
use crate::caps::LAST_CAP;
use crate::plan::{Command, Credentials};
use crate::sys;

/// `CLONE_NEWTIME` of `linux/sched.h`.
const NEWTIME: CloneFlags = CloneFlags::from_bits_retain(0x80);

/// Takes the ids 0 of the user namespace that this process is in.
pub(super) fn become_root() -> Result<(), Fault> {
    match set_thread_groups(&[]) {
        // A namespace that was made by somebody without the right to set groups.
        Ok(()) | Err(Errno::PERM) => {}
        Err(errno) => return Err(errno.into()),
    }
    set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)?;
    Ok(())
}

/// Makes a time namespace with these offsets and enters it: offsets can be written only as long as
/// nobody is inside (time_namespaces(7)). The file is the host's root's as long as this process is
/// not dumpable; where the user namespace is new, nobody is in it who could use the moment.
pub(super) fn time_namespace(offsets: &CStr, own_users: bool) -> Result<(), Fault> {
    nix::sched::unshare(NEWTIME)?;
    if !offsets.is_empty() {
        if own_users {
            set_dumpable_behavior(DumpableBehavior::Dumpable)?;
        }
        let written = super::guards::proc_write(c"self/timens_offsets", offsets);
        set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
        written?;
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(c"/proc/self/ns/time_for_children", flags, Mode::empty())?;
    Ok(nix::sched::setns(file, NEWTIME)?)
}

/// Groups, ids, and the five sets, in the order in which each is still allowed. The working
/// directory is entered as root, or else as the user: either may be the only one who can.
pub(super) fn become_user(who: &Credentials, cwd: BorrowedFd<'_>) -> Result<(), Fault> {
    own_stdio(who.uid);
    let entered = rustix::process::fchdir(cwd);
    for number in (0..=LAST_CAP).filter(|number| who.bounding & (1 << number) == 0) {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)) {
            // A kernel older than the capability does not have it.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    set_keep_capabilities(true)?;
    match set_thread_groups(&who.groups) {
        Err(Errno::PERM) if who.groups.is_empty() => {}
        done => done?,
    }
    let (uid, gid) = (Uid::from_raw(who.uid), Gid::from_raw(who.gid));
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    set_keep_capabilities(false)?;
    if entered.is_err() {
        rustix::process::fchdir(cwd)?;
    }
    set_capabilities(
        None,
        CapabilitySets {
            effective: CapabilitySet::from_bits_retain(who.effective),
            permitted: CapabilitySet::from_bits_retain(who.permitted),
            inheritable: CapabilitySet::from_bits_retain(who.inheritable),
        },
    )?;
    clear_ambient_capability_set()?;
    for number in (0..=LAST_CAP).filter(|number| who.ambient & (1 << number) != 0) {
        let one = CapabilitySet::from_bits_retain(1 << number);
        match configure_capability_in_ambient_set(one, true) {
            // Only what is permitted and inheritable can be; runc passes over the rest.
            Ok(()) | Err(Errno::PERM) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    if who.no_new_privileges {
        set_no_new_privs(true)?;
    }
    rustix::process::umask(Mode::from_raw_mode(who.umask));
    Ok(())
}

/// Gives stdin, stdout and stderr to the user, who may want to open them again by
/// `/proc/self/fd/1`. Not `/dev/null`, which is everybody's. What cannot be given stays as it is.
fn own_stdio(uid: u32) {
    let null = rustix::fs::stat(c"/dev/null").map(|found| found.st_rdev);
    for number in 0..3 {
        let file = crate::sys::oci::borrow(number);
        let Ok(found) = rustix::fs::fstat(file.as_fd()) else {
            continue;
        };
        let is_null = null.is_ok_and(|null| null == found.st_rdev)
            && FileType::from_raw_mode(found.st_mode).is_char_device();
        if found.st_uid != uid && !is_null {
            let _ = rustix::fs::fchown(file, Some(Uid::from_raw(uid)), None);
        }
    }
}

/// A system call filter that is older than faccessat2(2) refuses it with whatever it has for unknown
/// calls; the mode then says nearly as much, and exec the rest.
fn may_run(program: &CStr) -> Result<(), Errno> {
    match rustix::fs::accessat(CWD, program, Access::EXEC_OK, AtFlags::EACCESS) {
        Err(Errno::PERM | Errno::NOSYS) => {
            let runs = rustix::fs::stat(program)?.st_mode & 0o111 != 0;
            if runs { Ok(()) } else { Err(Errno::ACCESS) }
        }
        done => done,
    }
}

/// Which of the candidates is there and may be run.
fn runnable(command: &Command) -> Result<usize, Errno> {
    let mut last = Errno::NOENT;
    for (number, candidate) in command.candidates.iter().enumerate() {
        match may_run(candidate) {
            Ok(()) => {
                let found = rustix::fs::stat(candidate)?;
                if FileType::from_raw_mode(found.st_mode).is_dir() {
                    last = Errno::ISDIR;
                } else {
                    return Ok(number);
                }
            }
            Err(Errno::NOENT | Errno::NOTDIR) if last == Errno::ACCESS => {}
            Err(errno) => last = errno,
        }
    }
    Err(last)
}

/// Refuses a command that cannot be run.
pub(super) fn find_program(command: &Command) -> Result<(), Fault> {
    Ok(runnable(command).map(drop)?)
}

/// Runs the command through the small program, which goes on talking at `sync` until then.
pub(super) fn leap(relay: &Relay<'_>, command: &Command, sync: BorrowedFd<'_>) -> Fault {
    let leapt = runnable(command).and_then(|number| {
        let argv = relay.argvs.get(number).ok_or(Errno::NOENT)?;
        rustix::io::fcntl_setfd(sync, FdFlags::empty())?;
        Err(sys::relay::execute(relay.file, argv, &command.envp))
    });
    leapt.map_or_else(Fault::Errno, |()| Fault::Errno(Errno::CANCELED))
}
