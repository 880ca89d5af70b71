//! How a keeper comes to be: where its socket is, and how its program is started.
//!
//! The program runs from a private read-only mount of its own file, so that a container that
//! reaches `/proc/self/exe` of one of our processes (CVE-2019-5736) cannot write to it.

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a new keeper may take until its socket is there.
pub(super) const COME_UP_TIMEOUT: Duration = Duration::from_secs(10);
/// How much of a failed keeper's last words is kept.
const MAX_WORDS_BYTES: u64 = 4096;

/// The socket of the keeper of `dir`.
pub(super) fn socket_path(dir: &Path) -> PathBuf {
    dir.join("keeper.sock")
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
    let child = Command::new(exe)
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

impl Foreground {
    /// Waits until the foreground process ended; what it wrote to stderr.
    pub(super) fn wait_until(&mut self, _deadline: Instant) -> io::Result<String> {
        let mut words = String::new();
        if let Some(stderr) = self.child.stderr.take() {
            stderr.take(MAX_WORDS_BYTES).read_to_string(&mut words)?;
        }
        self.child.wait()?;
        Ok(words.trim().to_owned())
    }
}
