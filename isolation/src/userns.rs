//! Making user namespaces: a descriptor that holds one, with its maps written.
//!
//! It decides how, not which numbers. The namespace is born with a child that does nothing and is
//! killed again; the descriptor keeps the namespace. Invariant: that child does nothing that
//! another thread of its parent could have left half done.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use crate::sys::{self, Cloned, clone_flags, users};

/// One line of `/proc/<pid>/uid_map` (`user_namespaces(7)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IdRange {
    /// First number inside.
    pub(crate) inside: u32,
    /// First number in the namespace of whoever makes this one.
    pub(crate) outside: u32,
    /// How many.
    pub(crate) count: u32,
}

impl fmt::Display for IdRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {} {}", self.inside, self.outside, self.count)
    }
}

/// Why there is no user namespace.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UsernsError {
    /// The kernel has none, or as many as it may (`/proc/sys/user/max_user_namespaces`).
    #[error("make a user namespace")]
    Clone(#[source] Errno),
    /// The map is not one that the kernel takes.
    #[error("write {path}")]
    Map {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Errno,
    },
    /// The namespace cannot be held.
    #[error("open {path}")]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Errno,
    },
}

/// Makes a user namespace below the caller's with these maps.
///
/// # Errors
/// What the kernel refused.
pub(crate) fn make(uids: &[IdRange], gids: &[IdRange]) -> Result<OwnedFd, UsernsError> {
    let flags = clone_flags::PIDFD | clone_flags::NEWUSER;
    let parent = rustix::process::getpid();
    match sys::clone3(flags, None).map_err(UsernsError::Clone)? {
        Cloned::Child => linger(parent),
        Cloned::Parent(pid, pidfd) => {
            let made = write_map(pid, "uid_map", uids)
                .and_then(|()| write_map(pid, "gid_map", gids))
                .and_then(|()| open(pid));
            if let Some(pidfd) = pidfd {
                // It cannot have ended before, and nobody else reaps it.
                let _ = sys::pidfd_send_signal(std::os::fd::AsFd::as_fd(&pidfd), libc::SIGKILL);
                let pidfd = std::os::fd::AsFd::as_fd(&pidfd);
                while matches!(
                    waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED),
                    Err(Errno::INTR)
                ) {}
            }
            made
        }
    }
}

/// The child: it ends by a signal, or with its parent. It holds none of the parent's descriptors: a
/// lock among them would outlive its owner.
fn linger(parent: rustix::process::Pid) -> ! {
    let kill = rustix::process::Signal::KILL;
    let bound = rustix::process::set_parent_process_death_signal(Some(kill)).is_ok();
    // A parent that died before that sends nothing.
    let lives = rustix::process::getppid() == Some(parent);
    if bound && lives && sys::close_from(0).is_ok() {
        nix::unistd::pause();
    }
    sys::exit_now(0)
}

fn write_map(pid: i32, name: &str, ranges: &[IdRange]) -> Result<(), UsernsError> {
    let path = PathBuf::from(format!("/proc/{pid}/{name}"));
    let text: String = ranges.iter().map(ToString::to_string).collect();
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let written = rustix::fs::open(&path, flags, Mode::empty())
        .and_then(|file| rustix::io::write(&file, text.as_bytes()));
    match written {
        Ok(_) => Ok(()),
        Err(source) => Err(UsernsError::Map { path, source }),
    }
}

fn open(pid: i32) -> Result<OwnedFd, UsernsError> {
    let path = PathBuf::from(format!("/proc/{pid}/ns/user"));
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::open(&path, flags, Mode::empty())
        .map_err(|source| UsernsError::Open { path, source })
}

/// Every number, one step up: what a probe maps by.
const SHIFTED: IdRange = IdRange {
    inside: 0,
    outside: 1 << 20,
    count: 1 << 16,
};

/// Tells which directories of the host can be shown to a container with users of its own.
#[derive(Debug)]
pub struct Probe {
    users: OwnedFd,
}

impl Probe {
    /// Finds out whether this host makes user namespaces at all.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn new() -> std::io::Result<Self> {
        // The child neither allocates nor takes a lock, so that other threads do no harm.
        match make(&[SHIFTED], &[SHIFTED]) {
            Ok(users) => Ok(Self { users }),
            Err(UsernsError::Clone(source)) => Err(source.into()),
            Err(UsernsError::Map { source, .. } | UsernsError::Open { source, .. }) => {
                Err(source.into())
            }
        }
    }

    /// Whether `path` can be mounted with mapped ids (`mount_setattr(2)`), with all that is mounted
    /// below when `recursive`. Blocks as long as the file system does.
    pub fn can_map(&self, path: &Path, recursive: bool) -> bool {
        let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        if recursive {
            flags |= OpenTreeFlags::AT_RECURSIVE;
        }
        open_tree(CWD, path, flags)
            .and_then(|view| users::map_mount_ids(view.as_fd(), self.users.as_fd(), recursive))
            .is_ok()
    }
}
