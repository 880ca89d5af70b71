//! Stopping every process of a container where it is, and letting it go on.
//!
//! On v2, and on hybrid hosts in the unified tree, by `cgroup.freeze` (Linux 5.2), which cgroups-rs
//! cannot reach there. Elsewhere by the v1 `freezer` controller: so that no start pays for a group in
//! its tree, the group is made when it is first needed and the processes are moved into it.
//! These calls wait for the kernel: they run in an errand, never in the keeper's own process.

use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::gather;

/// How long processes may take to stop: one that waits for a disk does not before it was served.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(1);

/// How one container is frozen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Freezer {
    /// Its group in the v2 tree.
    V2(PathBuf),
    /// Its group in the `freezer` tree, and one that lists its processes.
    V1 {
        /// Made when it is first needed.
        dir: PathBuf,
        /// Any other group of the container.
        tracking: PathBuf,
    },
}

impl Freezer {
    /// Returns when every process stands still.
    ///
    /// # Errors
    /// Not within ten seconds (everything goes on again then), or a file cannot be written.
    pub(crate) fn freeze(&self) -> std::io::Result<()> {
        let frozen = match self {
            Self::V2(dir) => {
                std::fs::write(dir.join("cgroup.freeze"), "1")?;
                wait(|| Ok(is_frozen(&read(dir, "cgroup.events")?)))
            }
            Self::V1 { dir, tracking } => freeze_v1(dir, tracking),
        };
        if frozen.is_err() {
            // A container that half stands still helps nobody; the first failure is the news.
            let _ = self.thaw();
        }
        frozen
    }

    /// Returns when the processes go on.
    ///
    /// # Errors
    /// A file cannot be written.
    pub(crate) fn thaw(&self) -> std::io::Result<()> {
        match self {
            Self::V2(dir) => std::fs::write(dir.join("cgroup.freeze"), "0"),
            Self::V1 { dir, .. } => match std::fs::write(dir.join("freezer.state"), "THAWED") {
                // It was never frozen.
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                done => done,
            },
        }
    }

    /// Whether the processes were told to stand still.
    pub(crate) fn is_frozen(&self) -> bool {
        let text = match self {
            Self::V2(dir) => read(dir, "cgroup.freeze"),
            Self::V1 { dir, .. } => read(dir, "freezer.state"),
        };
        let text = text.unwrap_or_default();
        matches!(text.trim(), "1" | "FROZEN" | "FREEZING")
    }

    /// The directory that only freezing makes.
    pub(crate) fn dir(&self) -> Option<&Path> {
        match self {
            Self::V2(_) => None,
            Self::V1 { dir, .. } => Some(dir),
        }
    }
}

fn freeze_v1(dir: &Path, tracking: &Path) -> std::io::Result<()> {
    // Nothing is made for a container that is gone.
    std::fs::metadata(tracking)?;
    match std::fs::create_dir(dir) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // What is moved into a frozen group stops there.
    std::fs::write(dir.join("freezer.state"), "FROZEN")?;
    gather(tracking, dir)?;
    wait(|| {
        let state = read(dir, "freezer.state")?;
        if state.trim() != "FROZEN" {
            // FREEZING: a process that was being woken, or forked, escaped the first attempt.
            std::fs::write(dir.join("freezer.state"), "FROZEN")?;
        }
        Ok(state.trim() == "FROZEN")
    })
}

fn read(dir: &Path, file: &str) -> std::io::Result<String> {
    std::fs::read_to_string(dir.join(file))
}

fn wait(mut done: impl FnMut() -> std::io::Result<bool>) -> std::io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !done()? {
        if Instant::now() >= deadline {
            return Err(Error::from(ErrorKind::TimedOut));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Whether `cgroup.events` says that everything stands still.
pub(super) fn is_frozen(events: &str) -> bool {
    events.lines().any(|line| line == "frozen 1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_line_says_frozen() {
        assert!(is_frozen("populated 1\nfrozen 1\n"));
        assert!(!is_frozen("populated 1\nfrozen 0\n"));
        assert!(!is_frozen("frozen 10\n"));
        assert!(!is_frozen(""));
    }

    #[test]
    fn thawing_what_was_never_frozen_is_nothing() {
        let none = PathBuf::from("/nowhere/at/all");
        let freezer = Freezer::V1 {
            dir: none.clone(),
            tracking: none,
        };
        assert!(freezer.thaw().is_ok());
        assert!(!freezer.is_frozen());
    }
}
