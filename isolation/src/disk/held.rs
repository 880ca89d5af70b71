//! Counting what processes hold of files that have no name any more: deleted but open, or mapped.
//! Their bytes stay on the disk until the last holder is gone, and no directory shows them.
//!
//! ```text
//! each process ─▶ each table of open files (threads may have their own) ─▶ each descriptor ─┐
//!             └─▶ its maps that say "(deleted)", its program ───────────────────────────────┴▶ statx
//! ```
//! A regular file without names is charged when its mount shows the sandbox or is the root's
//! overlay. What else a process sees (volumes, memory) is not. A mount that it does not see is no
//! excuse, since chroot(2) hides any: then the file is charged for lying where the sandbox lies, or
//! on an overlay; so is one that another container passed on. What only looks deleted, a file of
//! the host below a native root that the host itself replaced, is older than the sandbox.
//!
//! One place is not seen: descriptors that wait in a socket (`SCM_RIGHTS`). Nothing but receiving
//! them, or looking into the socket as its owner may, would show which files they are. Their number
//! is told ([`Held::parked`]); whoever owns the task decides.
//!
//! Everything read here is the task's to choose. Invariants: a turn is bounded; nothing that a file
//! system of somebody else would have to answer is asked (`AT_STATX_DONT_SYNC`); a process is
//! charged only while the container has it, so that a number that is used again harms nobody.

mod place;
mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;
use std::fs::File;
use std::io::Read;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, Statx, StatxFlags, statx};
use rustix::io::Errno;

pub use place::Place;
use place::{Kind, Table};
use process::{MAX_TABLES, Process, deleted, look, open, path, tables};

use super::{DiskError, failed};
use crate::cgroup::Groups;
use crate::spec::ContainerId;

/// Files that are remembered, so that each is charged once; what is more is charged each time.
const MAX_FILES: usize = 1 << 18;
/// Sockets with waiting descriptors that are told.
const MAX_SOCKETS: usize = 256;
/// `struct linux_dirent64` of some hundred descriptors.
const LISTING_BYTES: usize = 16 * 1024;
/// Of `/proc/<pid>/maps` at a time; a line is at most a path and a hundred bytes.
const MAPS_BYTES: usize = 16 * 1024;
/// How often it is looked for processes that came meanwhile.
const MAX_LISTINGS: u32 = 4;
/// Longest line that is kept until the rest of it is read.
const MAX_LINE_BYTES: usize = 32 * 1024;
/// Of a socket's `fdinfo`.
const MAX_INFO_BYTES: u64 = 1024;
/// What `st_blocks` counts.
const BLOCK_BYTES: u64 = 512;
/// `OVERLAYFS_SUPER_MAGIC` of `linux/magic.h`.
const OVERLAY: u64 = 0x794c_7630;

/// Files without names that a container holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Bytes on disk.
    pub bytes: u64,
    /// How many.
    pub files: u64,
    /// Whether everything was seen, but for what is in sockets.
    pub complete: bool,
    /// Sockets, by their inodes, in which descriptors wait, and how many.
    pub parked: BTreeMap<u64, u64>,
}

/// What a turn came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sweeping {
    /// There is more to look at than this.
    More(Held),
    /// Everything was looked at.
    Done(Held),
}

/// What is left to do; the last is next.
enum Work {
    Process(i32),
    /// Descriptors of a thread.
    Listing(Arc<Process>, OwnedFd),
    /// Maps as the process of that directory shows them, and what of them was read.
    Maps(Arc<Process>, OwnedFd, File, Vec<u8>),
    /// What was found is charged if the process is still the container's.
    Charge(Arc<Process>),
}

/// Which file, whatever it was called.
type FileId = ((u32, u32), u64);

/// A sweep in progress.
pub struct Sweep {
    groups: Groups,
    container: ContainerId,
    place: Place,
    sandbox: PathBuf,
    counted_here: Option<(u32, u32)>,
    began: Option<(i64, u32)>,
    table: Table,
    /// What the process at hand sees, once that was asked for.
    own: Option<(i32, Table)>,
    left: Vec<Work>,
    seen: BTreeSet<i32>,
    listings: u32,
    /// In the process at hand, not charged yet.
    found: BTreeMap<FileId, u64>,
    charged: BTreeSet<FileId>,
    held: Held,
}

/// A container and where it writes.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// Of the keeper's containers.
    pub groups: &'a Groups,
    /// Which one.
    pub container: &'a ContainerId,
    /// Its first process: of those with a PID 1 of the keeper's, that one, which never changes its
    /// root.
    pub first: i32,
    /// Where all sandboxes are.
    pub place: &'a Place,
    /// Its sandbox.
    pub sandbox: &'a Path,
    /// Whether that is bounded in another way: then only the root is looked at.
    pub root_only: bool,
}

fn birth(found: &Statx) -> Option<(i64, u32)> {
    let known = StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::BTIME);
    known.then_some((found.stx_btime.tv_sec, found.stx_btime.tv_nsec))
}

fn device(found: &Statx) -> (u32, u32) {
    (found.stx_dev_major, found.stx_dev_minor)
}

/// The lack of descriptors or memory is ours; everything else means that a process ended.
fn is_ours(errno: Errno) -> bool {
    matches!(errno, Errno::MFILE | Errno::NFILE | Errno::NOMEM)
}

impl Sweep {
    /// Begins with the processes that a container has now.
    ///
    /// # Errors
    /// It has no processes to look at, or its sandbox is gone.
    pub fn new(scope: Scope<'_>) -> Result<Self, DiskError> {
        let sandbox = scope.sandbox;
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        let found = statx(CWD, sandbox, AtFlags::SYMLINK_NOFOLLOW, wanted);
        let found = found.map_err(failed("look at", sandbox))?;
        let listed = scope.groups.processes(scope.container);
        let listed = listed.map_err(|error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            failed("list the processes of", Path::new(scope.container.as_str()))(errno)
        })?;
        let mut sweep = Self {
            groups: scope.groups.clone(),
            container: scope.container.clone(),
            place: scope.place.clone(),
            sandbox: sandbox.to_owned(),
            counted_here: (!scope.root_only).then(|| device(&found)),
            began: birth(&found),
            table: Table::default(),
            own: None,
            left: listed.iter().map(|pid| Work::Process(*pid)).collect(),
            seen: listed.clone(),
            listings: 1,
            found: BTreeMap::new(),
            charged: BTreeSet::new(),
            held: Held::default(),
        };
        sweep.held.complete = true;
        if listed.contains(&scope.first)
            && let Ok(first) = Process::open(scope.first)
            && let Ok(table) = Table::read(&first.dir, &sweep.place, sandbox)
        {
            sweep.table = table;
        }
        Ok(sweep)
    }

    /// Looks at some `looks` more descriptors and maps.
    ///
    /// # Errors
    /// This process lacks descriptors or memory.
    pub fn turn(&mut self, looks: usize) -> Result<Sweeping, Errno> {
        let mut spent = 0;
        while spent < looks {
            let Some(work) = self.next() else {
                return Ok(Sweeping::Done(self.held.clone()));
            };
            match self.work(work) {
                Ok(cost) => spent += cost,
                Err(errno) if is_ours(errno) => return Err(errno),
                // It ended.
                Err(_) => spent += 1,
            }
        }
        Ok(Sweeping::More(Held {
            complete: false,
            ..self.held.clone()
        }))
    }

    /// What is next. The newest processes come first: one that hands its files on to a child and
    /// ends may be gone soon. For the same reason those that came meanwhile are looked at, too.
    fn next(&mut self) -> Option<Work> {
        if self.left.is_empty() && self.listings < MAX_LISTINGS {
            self.listings += 1;
            let listed = self.groups.processes(&self.container).unwrap_or_default();
            let new = listed.difference(&self.seen).map(|pid| Work::Process(*pid));
            self.left.extend(new);
            self.seen.extend(listed);
        }
        self.left.pop()
    }

    /// One piece of work; how many looks it took.
    fn work(&mut self, work: Work) -> Result<usize, Errno> {
        match work {
            Work::Process(id) => self.process(id),
            Work::Listing(process, dir) => self.listing(process, dir),
            Work::Maps(process, dir, file, begun) => self.maps(process, dir, file, begun),
            Work::Charge(process) => {
                self.charge(&process);
                Ok(1)
            }
        }
    }

    /// What there is to look at in a process.
    fn process(&mut self, id: i32) -> Result<usize, Errno> {
        let process = Arc::new(Process::open(id)?);
        self.left.push(Work::Charge(Arc::clone(&process)));
        if let Ok(program) = look(&process.dir, c"exe") {
            self.file(&process, &program, &process.dir, c"exe");
        }
        let threads = process.threads()?;
        if let Some((dir, file)) = process.maps(&threads)? {
            let work = Work::Maps(Arc::clone(&process), dir, file, Vec::new());
            self.left.push(work);
        }
        let tables = tables(&threads);
        self.held.complete &= tables.len() < MAX_TABLES;
        for thread in tables {
            let name = path(&format!("task/{thread}/fd"));
            match open(&process.dir, &name, OFlags::DIRECTORY) {
                Ok(dir) => self.left.push(Work::Listing(Arc::clone(&process), dir)),
                Err(errno) if is_ours(errno) => return Err(errno),
                Err(_) => {}
            }
        }
        Ok(3 + threads.len())
    }

    /// A part of a table of open files.
    fn listing(&mut self, process: Arc<Process>, dir: OwnedFd) -> Result<usize, Errno> {
        let mut buffer = [MaybeUninit::uninit(); LISTING_BYTES];
        let mut looks = 0;
        let mut listing = RawDir::new(&dir, &mut buffer);
        while let Some(entry) = listing.next() {
            let entry = entry?;
            let name = entry.file_name();
            if name.to_bytes().starts_with(b".") {
                continue;
            }
            looks += 1;
            // One that was closed meanwhile holds nothing.
            if let Ok(found) = look(&dir, name) {
                match FileType::from_raw_mode(found.stx_mode.into()) {
                    FileType::RegularFile => self.file(&process, &found, &dir, name),
                    FileType::Socket => {
                        looks += 1;
                        self.socket(&process, &found, name);
                    }
                    _ => {}
                }
            }
            if listing.is_buffer_empty() {
                break;
            }
        }
        // The end is an empty listing.
        if looks > 0 {
            self.left.push(Work::Listing(process, dir));
        }
        Ok(looks + 1)
    }

    /// A part of a list of maps, after what was `begun`.
    fn maps(
        &mut self,
        process: Arc<Process>,
        dir: OwnedFd,
        mut file: File,
        mut begun: Vec<u8>,
    ) -> Result<usize, Errno> {
        let kept = begun.len();
        begun.resize(kept + MAPS_BYTES, 0);
        let length = file.read(&mut begun[kept..]);
        let length = length.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        begun.truncate(kept + length);
        let mut looks = 1;
        let end = begun.iter().rposition(|byte| *byte == b'\n');
        let whole = end.map_or(0, |end| end + 1);
        for line in begun[..whole].split(|byte| *byte == b'\n') {
            let Some(range) = deleted(line) else {
                continue;
            };
            looks += 1;
            if let Ok(found) = look(&dir, &range) {
                self.file(&process, &found, &dir, &range);
            }
        }
        begun.drain(..whole);
        if begun.len() > MAX_LINE_BYTES {
            self.held.complete = false;
        } else if length > 0 {
            self.left.push(Work::Maps(process, dir, file, begun));
        }
        Ok(looks)
    }

    /// Notes a file that has no name and lies where the task's limit holds.
    fn file(&mut self, process: &Process, found: &Statx, dir: &OwnedFd, name: &CStr) {
        let is_file = FileType::from_raw_mode(found.stx_mode.into()).is_file();
        let identity = (device(found), found.stx_ino);
        if !is_file || found.stx_nlink != 0 || self.charged.contains(&identity) {
            return;
        }
        let kind = self.table.kind(found.stx_mnt_id);
        let kind = kind.or_else(|| self.own_kind(process, found.stx_mnt_id));
        let is_charged = match kind {
            Some(Kind::Sandbox) => self.counted_here.is_some(),
            Some(Kind::Root) => self.is_ours(found),
            Some(Kind::Other) => false,
            None if self.counted_here == Some(device(found)) => true,
            None => is_on_overlay(dir, name) && self.is_ours(found),
        };
        if is_charged && self.found.len() < MAX_FILES {
            self.found.insert(identity, found.stx_blocks * BLOCK_BYTES);
        } else if is_charged {
            self.held.complete = false;
        }
    }

    /// Whether a file of an overlay came while the container was there: else it is one of a lower
    /// layer, which the host removed.
    fn is_ours(&self, found: &Statx) -> bool {
        match (self.began, birth(found)) {
            (Some(began), Some(born)) => born >= began,
            _ => true,
        }
    }

    /// What the process itself sees of a mount.
    fn own_kind(&mut self, process: &Process, mount: u64) -> Option<Kind> {
        if self.own.as_ref().is_none_or(|(id, _)| *id != process.id) {
            let table = Table::read(&process.dir, &self.place, &self.sandbox);
            self.own = Some((process.id, table.unwrap_or_default()));
        }
        self.own.as_ref().and_then(|(_, table)| table.kind(mount))
    }

    /// Notes how many descriptors wait in a socket.
    fn socket(&mut self, process: &Process, found: &Statx, name: &CStr) {
        let known = self.held.parked.contains_key(&found.stx_ino);
        if known || self.held.parked.len() == MAX_SOCKETS {
            return;
        }
        let name = name.to_string_lossy();
        let info = open(
            &process.dir,
            &path(&format!("fdinfo/{name}")),
            OFlags::empty(),
        );
        let mut text = String::new();
        let read = info.map(|info| {
            File::from(info)
                .take(MAX_INFO_BYTES)
                .read_to_string(&mut text)
        });
        if read.is_err() {
            return;
        }
        let waiting = text.lines().find_map(|line| line.strip_prefix("scm_fds:"));
        let waiting = waiting.and_then(|number| number.trim().parse().ok());
        if let Some(waiting @ 1..) = waiting {
            self.held.parked.insert(found.stx_ino, waiting);
        }
    }

    /// Charges what was found, if the container still has the process.
    fn charge(&mut self, process: &Process) {
        let found = std::mem::take(&mut self.found);
        if found.is_empty() {
            return;
        }
        let members = self.groups.processes(&self.container).unwrap_or_default();
        // With its directory still answering, the number is still this process's.
        if process.threads().is_err() || !members.contains(&process.id) {
            return;
        }
        for (identity, bytes) in found {
            if self.charged.contains(&identity) {
                continue;
            }
            if self.charged.len() < MAX_FILES {
                self.charged.insert(identity);
            }
            self.held.bytes = self.held.bytes.saturating_add(bytes);
            self.held.files += 1;
        }
    }
}

/// Asked only of mounts that nobody sees, since a file system that hangs would hang this.
fn is_on_overlay(dir: &OwnedFd, name: &CStr) -> bool {
    let opened = rustix::fs::openat(dir, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let found = opened.and_then(rustix::fs::fstatfs);
    found.is_ok_and(|found| u64::try_from(found.f_type) == Ok(OVERLAY))
}

#[cfg(test)]
mod tests;
