//! Limits on what a directory may hold, such as a task's sandbox: by the file system's own quotas
//! where it has them, else by counting.
//!
//! It decides which way a file system offers ([`Backend::detect`]) and makes, measures and removes
//! directories that way; it deliberately kills nobody: where [`Backend::refuses_writes`] is false,
//! whoever owns the task asks [`Walk`] and [`Sweep`] how much there is and acts. Invariant: no symbolic link below
//! a measured directory is ever followed, and no other mount entered.

pub mod accounting;
pub(crate) mod btrfs;
pub mod held;
pub(crate) mod project;

pub use accounting::{Turn, Walk};
pub use btrfs::Quotas;
pub use held::{Held, Place, Scope, Sweep, Sweeping};

use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

use crate::plan::SlotLimit;

/// Entries that [`Backend::usage`] counts before it says that it has not seen everything.
const MAX_COUNTED: usize = 1_000_000;

/// How a file system limits a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// A btrfs subvolume with a quota group.
    Btrfs(Quotas),
    /// A project of XFS or ext4.
    Project,
    /// Not at all: what is there can be counted.
    Accounting,
}

/// What a directory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes on disk. btrfs counts what was committed (by default at most 30 s ago).
    pub bytes: u64,
    /// Files, directories and links; 0 on btrfs, where they are bytes like any other.
    pub files: u64,
    /// Whether everything was seen. If not, it holds more than that.
    pub complete: bool,
}

/// Files that come with a limit in bytes, so that the file system's inodes are shared out as its
/// bytes are: one for each 16 KiB, which is as many as `mkfs.ext4` makes, but enough for small
/// tasks to unpack something. btrfs has no inodes to run out of: there they are bytes.
#[must_use]
pub fn max_files(limit_bytes: u64) -> u64 {
    const BYTES_PER_FILE: u64 = 16 * 1024;
    const LEAST: u64 = 16 * 1024;
    (limit_bytes / BYTES_PER_FILE).max(LEAST)
}

/// Why a directory could not be made, limited, measured or removed.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// A path that is no file's, or has no directory above it.
    #[error("{0:?} cannot name a limited directory")]
    Name(PathBuf),
    /// A call failed.
    #[error("{what} {path:?}")]
    Call {
        /// What was being done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// Why.
        #[source]
        source: Errno,
    },
    /// A limit where the file system keeps none.
    #[error("the file system of {0:?} cannot limit a directory")]
    NoLimit(PathBuf),
    /// Removing files failed.
    #[error("remove {path:?}")]
    Remove {
        /// Which directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// One line on how the file system of `dir` could keep limits that it does not keep now; None where
/// nothing is to be done.
#[must_use]
pub fn advice(dir: &Path) -> Option<String> {
    let opened = open_dir(dir).ok()?;
    let found = rustix::fs::fstatfs(&opened).ok()?;
    (btrfs::is(&found) && btrfs::quotas(&opened).is_none()).then(|| {
        let dir = dir.display();
        format!(
            "the quotas of the btrfs that {dir} is on are off: what tasks write is only counted, and \
             those that write too much are killed after the fact. `btrfs quota enable {dir}` lets the \
             kernel refuse it (faster with --simple, which Linux and btrfs-progs have since 6.7); \
             start this node again afterwards"
        )
    })
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(Errno) -> DiskError {
    let path = path.to_owned();
    move |source| DiskError::Call { what, path, source }
}

fn open_dir(path: &Path) -> Result<OwnedFd, DiskError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(failed("open", path))
}

/// The directory that `path` is in, open, and its name there.
fn split(path: &Path) -> Result<(OwnedFd, CString), DiskError> {
    let wrong = || DiskError::Name(path.to_owned());
    let (parent, name) = path.parent().zip(path.file_name()).ok_or_else(wrong)?;
    let name = CString::new(name.as_bytes()).map_err(|_| wrong())?;
    Ok((open_dir(parent)?, name))
}

impl Backend {
    /// What the file system of `dir` offers now.
    ///
    /// # Errors
    /// `dir` cannot be opened.
    pub fn detect(dir: &Path) -> Result<Self, DiskError> {
        let opened = open_dir(dir)?;
        let found = rustix::fs::fstatfs(&opened).map_err(failed("look at", dir))?;
        if btrfs::is(&found) {
            return Ok(btrfs::quotas(&opened).map_or(Self::Accounting, Self::Btrfs));
        }
        if project::works(&opened) {
            return Ok(Self::Project);
        }
        Ok(Self::Accounting)
    }

    /// Turns btrfs's quotas on where they are off, and detects. It is for whoever owns the file
    /// system to decide: simple quotas (Linux 6.7) keep older kernels from mounting it, full ones,
    /// which are taken where the kernel has no others, cost time on every write.
    ///
    /// # Errors
    /// `dir` cannot be opened, or quotas cannot be turned on.
    pub fn enable(dir: &Path) -> Result<Self, DiskError> {
        let opened = open_dir(dir)?;
        let found = rustix::fs::fstatfs(&opened).map_err(failed("look at", dir))?;
        if btrfs::is(&found) && btrfs::quotas(&opened).is_none() {
            btrfs::enable(&opened).map_err(failed("turn quotas on for", dir))?;
        }
        Self::detect(dir)
    }

    /// Whether the kernel refuses writes past a limit (`EDQUOT`).
    #[must_use]
    pub fn refuses_writes(self) -> bool {
        self != Self::Accounting
    }

    /// Whether what is inside can do nothing to get past a limit. With full quotas of btrfs anybody
    /// may make a subvolume in a directory of their own, which has no limit; with projects the
    /// owner of a file may give it to another project, unless in a user namespace.
    #[must_use]
    pub fn is_tight(self) -> bool {
        self == Self::Btrfs(Quotas::Simple)
    }

    /// Whether one limit can hold for a directory in `one` and another one in `other`, where this is
    /// the backend of `one`.
    ///
    /// # Errors
    /// One of them cannot be looked at.
    pub fn spans(self, one: &Path, other: &Path) -> Result<bool, DiskError> {
        let mount = |dir: &Path| {
            let found = rustix::fs::statx(CWD, dir, AtFlags::empty(), StatxFlags::MNT_ID);
            found
                .map(|found| found.stx_mnt_id)
                .map_err(failed("look at", dir))
        };
        Ok(self.refuses_writes() && mount(one)? == mount(other)?)
    }

    /// Makes a directory that may hold `limit` bytes, and [`max_files`] of them where the file
    /// system counts files; permissions are 0755 and owner root.
    ///
    /// # Errors
    /// It is there already, or the limit cannot be kept; then nothing is left.
    pub fn make(self, dir: &Path, limit: Option<u64>) -> Result<(), DiskError> {
        let (parent, name) = split(dir)?;
        match self {
            Self::Btrfs(_) => {
                btrfs::make(&parent, &name, limit, 0o755).map_err(failed("make", dir))
            }
            Self::Project => {
                project::make(&parent, &name, limit, 0o755).map_err(failed("make", dir))
            }
            Self::Accounting if limit.is_some() => Err(DiskError::NoLimit(dir.to_owned())),
            Self::Accounting => {
                std::fs::DirBuilder::new()
                    .mode(0o755)
                    .create(dir)
                    .map_err(|error| {
                        let source = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                        failed("make", dir)(source)
                    })
            }
        }
    }

    /// Changes the limit of a directory that [`Backend::make`] made; None takes it away. One that is
    /// below what is there already only stops what comes.
    ///
    /// # Errors
    /// It is not there, or was not made this way.
    pub fn set_limit(self, dir: &Path, limit: Option<u64>) -> Result<(), DiskError> {
        let opened = open_dir(dir)?;
        match self {
            Self::Btrfs(_) => btrfs::set_limit(&opened, limit).map_err(failed("limit", dir)),
            Self::Project => project::set_limit(&opened, limit).map_err(failed("limit", dir)),
            Self::Accounting if limit.is_some() => Err(DiskError::NoLimit(dir.to_owned())),
            Self::Accounting => Ok(()),
        }
    }

    /// What a directory holds. Where it has to be counted this takes as long as the directory is
    /// big, up to a bound; [`Walk`] does the same in turns.
    ///
    /// # Errors
    /// It is not there, or was not made this way.
    pub fn usage(self, dir: &Path) -> Result<Usage, DiskError> {
        let opened = open_dir(dir)?;
        let exactly = |(bytes, files)| Usage {
            bytes,
            files,
            complete: true,
        };
        match self {
            Self::Btrfs(_) => btrfs::usage(&opened)
                .map(|bytes| exactly((bytes, 0)))
                .map_err(failed("measure", dir)),
            Self::Project => project::usage(&opened)
                .map(exactly)
                .map_err(failed("measure", dir)),
            Self::Accounting => {
                let mut walk = Walk::new(dir)?;
                match walk.turn(MAX_COUNTED) {
                    Ok(Turn::Done(usage) | Turn::More(usage)) => Ok(usage),
                    Err(source) => Err(failed("measure", dir)(source)),
                }
            }
        }
    }

    /// Removes a directory with all that is in it and its limit. One that is not there is removed.
    ///
    /// # Errors
    /// Something could not be removed.
    pub fn remove(self, dir: &Path) -> Result<(), DiskError> {
        match std::fs::symlink_metadata(dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            _ => {}
        }
        match self {
            Self::Btrfs(_) => btrfs::remove(dir),
            Self::Project => project::remove(dir),
            Self::Accounting => remove_files(dir),
        }
    }
}

/// Makes the directory `name`, which only root may enter, with a limit; allocates nothing.
/// "Operation not supported" where no limit can be kept.
pub(crate) fn make_limited(
    parent: &OwnedFd,
    name: &CStr,
    limit: &SlotLimit,
) -> Result<OwnedFd, Errno> {
    let is_btrfs = btrfs::is(&rustix::fs::fstatfs(parent)?);
    let limited = match limit {
        SlotLimit::Bytes(bytes) if is_btrfs => btrfs::make(parent, name, Some(*bytes), 0o700),
        SlotLimit::Bytes(bytes) => project::make(parent, name, Some(*bytes), 0o700),
        SlotLimit::With(dir) => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let with = rustix::fs::open(dir, flags, Mode::empty())?;
            if is_btrfs {
                btrfs::make_sharing(parent, name, &with, 0o700)
            } else {
                project::make_sharing(parent, name, &with, 0o700)
            }
        }
    };
    match limited {
        // No quotas in this kernel, on this file system, or turned on.
        Err(Errno::NOSYS | Errno::NODEV | Errno::NOTTY | Errno::SRCH | Errno::NOTCONN) => {
            return Err(Errno::OPNOTSUPP);
        }
        done => done?,
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// Removes a directory as its file system needs it, whatever made it.
pub(crate) fn remove(dir: &Path) -> Result<(), DiskError> {
    match dir.parent().map(Backend::detect) {
        Some(Ok(backend)) => backend.remove(dir),
        _ => remove_files(dir),
    }
}

/// Removes a directory that shares the limit of another one, which keeps it.
pub(crate) fn remove_sharing(dir: &Path) -> Result<(), DiskError> {
    match dir.parent().map(Backend::detect) {
        Some(Ok(backend @ Backend::Btrfs(_))) => backend.remove(dir),
        _ => remove_files(dir),
    }
}

fn remove_files(dir: &Path) -> Result<(), DiskError> {
    match crate::tree::remove(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(DiskError::Remove {
            path: dir.to_owned(),
            source: error,
        }),
        _ => Ok(()),
    }
}
