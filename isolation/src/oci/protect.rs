//! Keeping this program out of a container's reach.
//!
//! Whoever reaches `/proc/<pid>/exe` of a process of ours, or makes us execute ourselves, holds our
//! program (CVE-2019-5736). So what enters containers runs from a detached read-only mount of its own
//! file: opening that for writing is refused, whatever the user. A copy in memory, as crun and runc
//! make it, would cost milliseconds for a program of this size. Usually `sys::early` has done so
//! before `main`. Loading a program of this size a second time takes a millisecond, too, so the
//! containers of `super::relay` do without.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{CWD, StatVfsMountFlags};
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::sys::{self, StringArray, mount_attr};

/// Runs this program again from a read-only view of its file, with the same arguments, unless it
/// already does. Returns when that is so, or where the privilege to mount is missing: then no
/// container can be made either.
pub fn protect() {
    let view = std::fs::read_link("/proc/self/exe").ok();
    let flags = rustix::fs::statvfs("/proc/self/exe").map(|fs| fs.f_flag);
    if view.is_none() || flags.is_ok_and(|flags| flags.contains(StatVfsMountFlags::RDONLY)) {
        return;
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let Ok(tree) = open_tree(CWD, "/proc/self/exe", flags) else {
        return;
    };
    if sys::mount_setattr(tree.as_fd(), mount_attr::RDONLY, false).is_err() {
        return;
    }
    let strings = |texts: Vec<std::ffi::OsString>| {
        let texts = texts.iter().map(|text| CString::new(text.as_bytes()));
        texts.collect::<Result<Vec<_>, _>>().map(StringArray::new)
    };
    let variables = std::env::vars_os().map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        name
    });
    let (argv, envp) = (
        strings(std::env::args_os().collect()),
        strings(variables.collect()),
    );
    let path = CString::new(format!("/proc/self/fd/{}", tree.as_raw_fd()));
    if let (Ok(argv), Ok(envp), Ok(path)) = (argv, envp, path) {
        // Returns only when it fails; then the unprotected program is what there is.
        let _ = sys::execve(&path, &argv, &envp);
    }
}

/// Closes every inherited descriptor but stdin, stdout, stderr, those of `LISTEN_FDS`, and
/// `preserved` more. To be called before anything is opened (CVE-2024-21626).
pub fn close_inherited(preserved: u32) {
    let first = 3 + super::create::listen_fds() + preserved;
    // Only a kernel without the call fails; what was inherited then stays closed by exec as it was.
    let _ = sys::close_from(first);
}

/// Ends this process at once; what it wrote is to be flushed before.
pub fn leave(status: u8) -> ! {
    sys::exit_now(i32::from(status))
}
