//! How a keeper comes to be, seen from its client: where its socket is, and how its program is
//! started.
//!
//! The program runs from a private read-only mount of its own file, so that a container that
//! reaches `/proc/self/exe` of one of our processes (CVE-2019-5736) cannot write to it.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::net::SocketAddrUnix;

use crate::sys::{self, mount_attr};

/// How long a keeper that holds the lock may take until its socket is there.
pub(super) const COME_UP_TIMEOUT: Duration = Duration::from_secs(10);
/// How much of a failed keeper's last words is kept.
const MAX_WORDS_BYTES: u64 = 4096;
/// `sun_path` without its closing NUL.
const MAX_SOCKET_PATH_BYTES: usize = 107;
const SOCKET: &str = "keeper.sock";

/// The socket of the keeper of `dir`.
pub(super) fn socket_path(dir: &Path) -> PathBuf {
    dir.join(SOCKET)
}

/// Removes the socket that a dead keeper of `dir` left, if one did.
pub(crate) fn remove_socket(dir: &Path) -> io::Result<()> {
    match std::fs::remove_file(socket_path(dir)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Calls `then` with the socket's address. A path too long for one goes through an open directory.
pub(super) fn with_address<T>(
    dir: &Path,
    then: impl FnOnce(&SocketAddrUnix) -> Result<T, Errno>,
) -> Result<T, Errno> {
    let path = socket_path(dir);
    if path.as_os_str().len() <= MAX_SOCKET_PATH_BYTES {
        return then(&SocketAddrUnix::new(path)?);
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(dir, flags, Mode::empty())?;
    let short = format!("/proc/self/fd/{}/{SOCKET}", opened.as_raw_fd());
    then(&SocketAddrUnix::new(short)?)
}

/// The foreground process of a keeper that is coming up.
#[derive(Debug)]
pub(super) struct Foreground {
    child: Child,
}

/// Starts the program.
pub(super) fn spawn(
    dir: &Path,
    exe: &Path,
    leading: &[OsString],
    cgroup_parent: &str,
) -> io::Result<Foreground> {
    let protected = read_only_view(exe);
    let program = match &protected {
        Ok(fd) => PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd())),
        // Without the privilege to mount nothing will start anyhow; the keeper says so better.
        Err(_) => exe.to_owned(),
    };
    let child = Command::new(program)
        // It outlives whoever starts it, who may have been given secrets as variables.
        .env_clear()
        .args(leading)
        .arg("--dir")
        .arg(dir)
        .args(["--cgroup-parent", cgroup_parent])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    Ok(Foreground { child })
}

/// A detached read-only mount of one file: whoever opens it by `/proc/<pid>/exe` gets `EROFS` for
/// writing, whatever their user.
fn read_only_view(exe: &Path) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, exe, flags)?;
    sys::mount_setattr(tree.as_fd(), mount_attr::RDONLY, false)?;
    Ok(tree)
}

impl Foreground {
    /// Waits until the foreground process ended; how, and what it wrote to stderr. The daemon moves
    /// its stderr away once it listens, so this ends.
    pub(super) fn wait(mut self) -> io::Result<(ExitStatus, String)> {
        let mut words = Vec::new();
        if let Some(stderr) = self.child.stderr.take() {
            stderr.take(MAX_WORDS_BYTES).read_to_end(&mut words)?;
        }
        let status = self.child.wait()?;
        Ok((status, String::from_utf8_lossy(&words).trim().to_owned()))
    }
}
