//! What is known of a container between two commands: one directory each below the root directory,
//! named by its id.
//!
//! ```text
//!  create: directory, lock, creating.json (pid 0) ── process ready ──► state.json (pid)
//!  status: created (start.sock is there) ─ start ─► running ◄─ pause, resume ─► paused ─► stopped
//! ```
//! `state.json` is written whole and renamed, once: ext4 writes a file that replaces another one to
//! the disk at once. `creating.json` is there before the first cgroup. `lock` is held by commands that change something; one
//! that finds a directory without a state and without a lock holder finds the rest of a creator that
//! was killed, and takes it over. It deliberately keeps no status: that is looked at each time.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::error::{OciError, call};
use super::groups::Groups;

/// The socket at which a created container waits.
pub(super) const START_SOCKET: &str = "start.sock";
const STATE: &str = "state.json";
/// The state while the container is being made.
const CREATING: &str = "creating.json";
const LOCK: &str = "lock";
/// The configuration as it was at creation.
pub(super) const CONFIG: &str = "config.json";
/// As runc has it.
const MAX_ID_BYTES: usize = 1024;
/// Largest state that is read.
const MAX_STATE_BYTES: u64 = 16 << 20;

/// Whether an id can name a directory, by runc's rule.
///
/// # Errors
/// It cannot.
pub(super) fn check_id(id: &str) -> Result<(), OciError> {
    if id.is_empty() {
        return Err(OciError::NoId);
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'+' | b'-' | b'.');
    let dots = id == "." || id == "..";
    if id.len() > MAX_ID_BYTES || dots || !id.bytes().all(plain) {
        return Err(OciError::Id);
    }
    Ok(())
}

/// What a container is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Its creator is at work, or was killed.
    Creating,
    /// Its process waits for the start.
    Created,
    /// Its process runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// Its process is gone.
    Stopped,
}

impl Status {
    /// As the specification writes it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// What is kept of a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Stored {
    pub(super) oci_version: String,
    pub(super) id: String,
    /// 0 while it is being made.
    pub(super) pid: i32,
    /// Clock ticks after boot, so that a number used again is told from the process.
    pub(super) start_time: u64,
    pub(super) bundle: String,
    pub(super) rootfs: String,
    pub(super) created: String,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) groups: Groups,
}

/// `state` as it is shown and handed to hooks.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Shown<'a> {
    pub(super) oci_version: &'a str,
    pub(super) id: &'a str,
    pub(super) pid: i32,
    pub(super) status: &'static str,
    pub(super) bundle: &'a str,
    pub(super) rootfs: &'a str,
    pub(super) created: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) annotations: &'a BTreeMap<String, String>,
    pub(super) owner: &'a str,
}

impl Stored {
    /// For `state` and hooks.
    pub(super) fn shown(&self, status: Status, owner: &'static str) -> Shown<'_> {
        Shown {
            oci_version: &self.oci_version,
            id: &self.id,
            pid: if status == Status::Stopped {
                0
            } else {
                self.pid
            },
            status: status.word(),
            bundle: &self.bundle,
            rootfs: &self.rootfs,
            created: &self.created,
            annotations: &self.annotations,
            owner,
        }
    }
}

/// State and start time of a process: fields 3 and 22 of proc_pid_stat(5).
pub(super) fn process_stat(pid: i32) -> Option<(char, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// A container's directory.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) dir: PathBuf,
    lock: Option<OwnedFd>,
}

impl Place {
    /// Makes the directory of a new container and locks it.
    pub(super) fn make(root: &Path, id: &str) -> Result<Self, OciError> {
        check_id(id)?;
        let dir = root.join(id);
        let mut builder = std::fs::DirBuilder::new();
        builder.mode(0o700);
        let made = match builder.create(&dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let words = || format!("mkdir {}", root.display());
                std::fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(root)
                    .map_err(call(words()))?;
                builder.create(&dir)
            }
            done => done,
        };
        match made {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Self::take_over(dir);
            }
            Err(error) => return Err(call(format!("mkdir {}", dir.display()))(error)),
        }
        let mut place = Self { dir, lock: None };
        place.lock(FlockOperation::LockExclusive)?;
        Ok(place)
    }

    /// A directory without a state that nobody holds is what a killed creator left.
    fn take_over(dir: PathBuf) -> Result<Self, OciError> {
        let mut place = Self { dir, lock: None };
        if place.begun() {
            return Err(OciError::Exists);
        }
        place
            .lock(FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| OciError::Exists)?;
        if place.begun() {
            return Err(OciError::Exists);
        }
        Ok(place)
    }

    fn begun(&self) -> bool {
        self.dir.join(STATE).exists() || self.dir.join(CREATING).exists()
    }

    /// The directory of a container that is there, unlocked.
    pub(super) fn find(root: &Path, id: &str) -> Result<Self, OciError> {
        check_id(id)?;
        let dir = root.join(id);
        if !dir.is_dir() {
            return Err(OciError::Missing);
        }
        Ok(Self { dir, lock: None })
    }

    /// The same, held against other commands.
    pub(super) fn find_locked(root: &Path, id: &str) -> Result<Self, OciError> {
        let mut place = Self::find(root, id)?;
        place.lock(FlockOperation::LockExclusive)?;
        // Removed by whoever held it.
        if !place.dir.join(LOCK).exists() {
            return Err(OciError::Missing);
        }
        Ok(place)
    }

    fn lock(&mut self, how: FlockOperation) -> Result<(), OciError> {
        let path = self.dir.join(LOCK);
        let words = format!("lock {}", path.display());
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(CWD, &path, flags, Mode::from_raw_mode(0o600))
            .map_err(call(words.clone()))?;
        rustix::fs::flock(&file, how).map_err(call(words))?;
        self.lock = Some(file);
        Ok(())
    }

    /// The lock's descriptor, for a child to close: it would hold the lock as well.
    pub(super) fn lock_number(&self) -> Option<i32> {
        self.lock.as_ref().map(std::os::fd::AsRawFd::as_raw_fd)
    }

    /// Lets other commands at it.
    pub(super) fn unlock(&mut self) {
        self.lock = None;
    }

    /// What is kept.
    pub(super) fn load(&self) -> Result<Stored, OciError> {
        match self.read(STATE) {
            // Half a file is of a creator that was killed before it made anything else.
            Err(OciError::Missing) => self.read(CREATING).map_err(|error| match error {
                OciError::Parse { .. } => OciError::Missing,
                error => error,
            }),
            done => done,
        }
    }

    fn read(&self, name: &str) -> Result<Stored, OciError> {
        let path = self.dir.join(name);
        let text = match read_bounded(&path, MAX_STATE_BYTES) {
            Err(OciError::Call { source, .. }) if source.kind() == ErrorKind::NotFound => {
                return Err(OciError::Missing);
            }
            done => done?,
        };
        serde_json::from_slice(&text).map_err(|source| OciError::Parse { path, source })
    }

    /// Keeps what is known before anything is made.
    pub(super) fn begin(&self, stored: &Stored) -> Result<(), OciError> {
        self.write(CREATING, stored).map(drop)
    }

    /// Keeps it: whole or not at all.
    pub(super) fn store(&self, stored: &Stored) -> Result<(), OciError> {
        let new = self.write(".state.json", stored)?;
        let path = self.dir.join(STATE);
        let words = || format!("write {}", path.display());
        std::fs::rename(&new, &path).map_err(call(words()))?;
        // Nobody reads it any more.
        let _ = std::fs::remove_file(self.dir.join(CREATING));
        Ok(())
    }

    fn write(&self, name: &str, stored: &Stored) -> Result<PathBuf, OciError> {
        let path = self.dir.join(name);
        let words = || format!("write {}", path.display());
        let text = serde_json::to_vec(stored)
            .map_err(|error| OciError::Refused(format!("{}: {error}", words())))?;
        std::fs::write(&path, text).map_err(call(words()))?;
        Ok(path)
    }

    /// What the container is doing.
    pub(super) fn status(&self, stored: &Stored) -> Status {
        if stored.pid == 0 {
            return Status::Creating;
        }
        match process_stat(stored.pid) {
            Some((state, start)) if start == stored.start_time && !matches!(state, 'Z' | 'X') => {
                if stored.groups.frozen() {
                    Status::Paused
                } else if self.dir.join(START_SOCKET).exists() {
                    Status::Created
                } else {
                    Status::Running
                }
            }
            _ => Status::Stopped,
        }
    }

    /// Removes the directory. The lock goes with it.
    pub(super) fn remove(self) -> Result<(), OciError> {
        match crate::tree::remove(&self.dir) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(call(format!("remove {}", self.dir.display()))(error))
            }
            _ => Ok(()),
        }
    }
}

/// Reads a file up to a bound.
pub(super) fn read_bounded(path: &Path, max: u64) -> Result<Vec<u8>, OciError> {
    use std::io::Read;
    let words = || format!("open {}", path.display());
    let file = std::fs::File::open(path).map_err(call(words()))?;
    // Its size saves a dozen small reads; what grows meanwhile is still read.
    let size = file.metadata().map_or(0, |found| found.len()).min(max);
    let mut text = Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 64);
    file.take(max + 1)
        .read_to_end(&mut text)
        .map_err(call(words()))?;
    if text.len() as u64 > max {
        return Err(OciError::Refused(format!(
            "{} is larger than {max} bytes",
            path.display()
        )));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_cannot_leave_the_root_directory() {
        for id in ["a", "A_b+c-d.e", "..a"] {
            assert!(check_id(id).is_ok(), "{id}");
        }
        for id in [".", "..", "a/b", "a b", "ä", "\0"] {
            assert_eq!(
                check_id(id).unwrap_err().to_string(),
                "invalid container id format"
            );
        }
        assert_eq!(
            check_id("").unwrap_err().to_string(),
            "container id cannot be empty"
        );
    }

    #[test]
    fn one_creator_wins_and_a_killed_ones_rest_is_taken_over() {
        let root = tempfile::tempdir().unwrap();
        let first = Place::make(root.path(), "a").unwrap();
        assert!(matches!(
            Place::make(root.path(), "a"),
            Err(OciError::Exists)
        ));
        drop(first);
        assert!(Place::make(root.path(), "a").is_ok());
    }
}
