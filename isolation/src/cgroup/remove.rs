//! Removing a container's groups. Off the start and exit paths, and retried: a group stays busy for
//! a moment after its last process was reaped.

use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;

/// How long one directory is tried.
const PATIENCE: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_micros(200);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
/// Depth of groups that a container made within its own.
pub(super) const MAX_DEPTH: usize = 16;

/// Removes the group at `dir` with everything below; gone already is fine.
///
/// # Errors
/// Still busy after five seconds, or refused.
pub(crate) fn remove_group(dir: &Path) -> std::io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    remove_below(dir, MAX_DEPTH, deadline)
}

fn remove_below(dir: &Path, depth: usize, deadline: Instant) -> std::io::Result<()> {
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match std::fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => error,
        };
        let busy = error.raw_os_error() == Some(Errno::BUSY.raw_os_error());
        if !busy || Instant::now() >= deadline {
            return Err(error);
        }
        if depth > 0 {
            for child in std::fs::read_dir(dir)?.flatten() {
                if child.file_type().is_ok_and(|kind| kind.is_dir()) {
                    remove_below(&child.path(), depth - 1, deadline)?;
                }
            }
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
