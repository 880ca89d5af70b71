//! One process as /proc shows it: its threads, their tables of open files, what it maps.
//!
//! It decides nothing about files. Everything is found by the process's directory, which answers for
//! no other process that gets the same number later.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Mode, OFlags, RawDir, Statx, StatxFlags, statx};
use rustix::io::Errno;

use super::is_ours;
use crate::sys;

/// Tables of open files of one process. Threads without one of their own have one in common; there
/// is hardly a program with two.
pub(super) const MAX_TABLES: usize = 16;
/// `struct linux_dirent64` of some hundred threads.
const LISTING_BYTES: usize = 16 * 1024;
/// A single-threaded process's `task` has `.`, `..` and one more name.
const ALONE: u32 = 3;

/// A process, by its directory in /proc: with it gone, nothing is found there.
pub(super) struct Process {
    pub(super) id: i32,
    pub(super) dir: OwnedFd,
}

impl Process {
    pub(super) fn open(id: i32) -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(format!("/proc/{id}"), flags, Mode::empty())?;
        Ok(Self { id, dir })
    }

    /// Its threads; the first may have ended before the others.
    pub(super) fn threads(&self) -> Result<Vec<i32>, Errno> {
        let found = statx(&self.dir, c"task", flags(), StatxFlags::NLINK)?;
        if found.stx_nlink == ALONE {
            return Ok(vec![self.id]);
        }
        let dir = open(&self.dir, c"task", OFlags::DIRECTORY)?;
        let mut threads = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); LISTING_BYTES];
        let mut listing = RawDir::new(&dir, &mut buffer);
        while let Some(entry) = listing.next() {
            let name = entry?.file_name().to_string_lossy().parse::<i32>();
            threads.extend(name.ok());
        }
        Ok(threads)
    }

    /// What it maps, and the directory in /proc that has these maps: of the first of its threads
    /// that has not ended.
    pub(super) fn maps(&self, threads: &[i32]) -> Result<Option<(OwnedFd, File)>, Errno> {
        for thread in threads {
            // A thread has a directory like a process, which is not listed.
            let found = Self::open(*thread).and_then(|thread| {
                let file = open(&thread.dir, c"maps", OFlags::empty())?;
                // Of one that has ended there is nothing to read.
                let lives = rustix::io::pread(&file, &mut [0; 1], 0)? > 0;
                Ok(lives.then(|| (thread.dir, File::from(file))))
            });
            match found {
                Ok(None) => {}
                Err(errno) if !is_ours(errno) => {}
                found => return found,
            }
        }
        Ok(None)
    }
}

fn flags() -> AtFlags {
    AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC
}

/// What is known of a file without asking whoever keeps it.
pub(super) fn look(dir: &OwnedFd, name: &CStr) -> Result<Statx, Errno> {
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID | StatxFlags::BTIME;
    statx(dir, name, flags(), wanted)
}

/// A file of /proc: none of these names is a link.
pub(super) fn open(dir: &OwnedFd, name: &CStr, more: OFlags) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | more;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

/// Ours have no NUL.
pub(super) fn path(name: &str) -> CString {
    CString::new(name).unwrap_or_default()
}

/// One thread for each table of open files; without kcmp(2), every thread.
pub(super) fn tables(threads: &[i32]) -> Vec<i32> {
    let mut tables: Vec<i32> = Vec::new();
    for thread in threads {
        let shared = |other: &i32| sys::share_files(*thread, *other).unwrap_or(false);
        if tables.len() == MAX_TABLES {
            break;
        }
        if !tables.iter().any(shared) {
            tables.push(*thread);
        }
    }
    tables
}

/// The name in /proc/<pid> of what a line of `maps` maps, if that has no name any more.
pub(super) fn deleted(line: &[u8]) -> Option<CString> {
    let range = line.strip_suffix(b" (deleted)")?;
    let range = range.split(|byte| *byte == b' ').next()?;
    let (from, to) = std::str::from_utf8(range).ok()?.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    let (from, to) = (number(from)?, number(to)?);
    Some(path(&format!("map_files/{from:x}-{to:x}")))
}
