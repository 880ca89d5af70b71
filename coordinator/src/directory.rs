//! The coordinator's data directory: created, private, and locked for as long as the process
//! lives, so that two processes never write one log.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

const LOCK: &str = "lock";

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// No mkdir or chmod.
    #[error("cannot make the private directory {}", path.display())]
    Make {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The lock file cannot be used.
    #[error("cannot lock {}", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody else has it.
    #[error("{} is in use by another coordinator, process {pid}", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Who, as that process wrote it down.
        pid: String,
    },
}

/// The locked directory. The lock (flock(2)) goes with the process, however it ends.
#[derive(Debug)]
pub(crate) struct DataDirectory {
    path: PathBuf,
    _lock: File,
}

fn make(path: &Path) -> Result<(), DirectoryError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .and_then(|()| std::fs::set_permissions(path, Permissions::from_mode(0o700)))
        .map_err(|source| DirectoryError::Make {
            path: path.to_owned(),
            source,
        })
}

impl DataDirectory {
    /// Makes what is missing and takes the lock.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub(crate) fn open(path: &Path) -> Result<Self, DirectoryError> {
        make(path)?;
        let lock_path = path.join(LOCK);
        let failed = |source| DirectoryError::Lock {
            path: lock_path.clone(),
            source,
        };
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // Only for the message.
                let _ = lock.read_to_string(&mut pid);
                let pid = if pid.trim().is_empty() {
                    "unknown"
                } else {
                    pid.trim()
                }
                .to_owned();
                return Err(DirectoryError::InUse {
                    path: path.to_owned(),
                    pid,
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(failed)?;
        let directory = Self {
            path: path.to_owned(),
            _lock: lock,
        };
        make(&directory.log())?;
        make(&directory.snapshots())?;
        Ok(directory)
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    pub(crate) fn snapshots(&self) -> PathBuf {
        self.path.join("snapshot")
    }
}

#[cfg(test)]
mod tests {
    use super::{DataDirectory, DirectoryError};

    #[test]
    fn a_directory_is_used_by_one_at_a_time() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let first = DataDirectory::open(&path).unwrap();
        match DataDirectory::open(&path) {
            Err(DirectoryError::InUse { pid, .. }) => {
                assert_eq!(pid, std::process::id().to_string());
            }
            other => panic!("{other:?}"),
        }
        drop(first);
        DataDirectory::open(&path).unwrap();
    }
}
