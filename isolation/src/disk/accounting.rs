//! Counting what a directory holds, a bounded number of entries at a time.
//!
//! The tree may change meanwhile and belong to someone hostile: each name is looked at once, by the
//! descriptor of the directory that it is in; links are never followed, other mounts never entered.
//! One descriptor serves any depth: on the way up, `..` must be the directory that was left, else
//! the count starts again. What was deleted but is still open is not seen; `held` sees it.

use std::collections::BTreeSet;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, SeekFrom, Statx, StatxFlags, openat2,
    statx,
};
use rustix::io::Errno;

use super::{DiskError, Usage, failed, open_dir};

/// Directories within each other; what is deeper is not counted.
const MAX_DEPTH: usize = 8192;
/// Files with several names that are remembered; each name of further ones counts.
const MAX_LINKED: usize = 1 << 18;
/// How often a tree that is moved around while it is counted is counted anew.
const MAX_RESTARTS: u32 = 8;
/// `struct linux_dirent64` of some hundred names.
const BUFFER_BYTES: usize = 16 * 1024;
/// What `st_blocks` counts.
const BLOCK_BYTES: u64 = 512;

/// A directory, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Identity {
    device: (u32, u32),
    inode: u64,
}

impl Identity {
    fn of(found: &Statx) -> Self {
        Self {
            device: (found.stx_dev_major, found.stx_dev_minor),
            inode: found.stx_ino,
        }
    }
}

/// A directory on the way down, and where its listing goes on.
#[derive(Clone, Copy, Debug)]
struct Above {
    identity: Identity,
    position: u64,
}

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// There is more to count than this.
    More(Usage),
    /// Everything was counted.
    Done(Usage),
}

/// A count in progress.
#[derive(Debug)]
pub struct Walk {
    root: OwnedFd,
    mount: u64,
    here: OwnedFd,
    identity: Identity,
    position: u64,
    above: Vec<Above>,
    linked: BTreeSet<Identity>,
    bytes: u64,
    files: u64,
    complete: bool,
    restarts: u32,
}

/// What one look at a directory's listing found.
enum Next {
    Down(OwnedFd, Identity, u64),
    On(u64),
    End,
}

fn look(dir: impl AsFd, name: &std::ffi::CStr) -> Result<Statx, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::EMPTY_PATH;
    statx(
        dir,
        name,
        flags,
        StatxFlags::BASIC_STATS | StatxFlags::MNT_ID,
    )
}

impl Walk {
    /// Begins with a directory. A path that is a symbolic link is refused.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn new(dir: &Path) -> Result<Self, DiskError> {
        let root = open_dir(dir)?;
        let found = look(&root, c"").map_err(failed("look at", dir))?;
        let here = open_dir(dir)?;
        let mut walk = Self {
            root,
            mount: found.stx_mnt_id,
            here,
            identity: Identity::of(&found),
            position: 0,
            above: Vec::new(),
            linked: BTreeSet::new(),
            bytes: 0,
            files: 0,
            complete: true,
            restarts: 0,
        };
        walk.restart().map_err(failed("look at", dir))?;
        Ok(walk)
    }

    fn restart(&mut self) -> Result<(), Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        self.here = rustix::fs::openat(&self.root, c".", flags, Mode::empty())?;
        let found = look(&self.root, c"")?;
        self.identity = Identity::of(&found);
        self.bytes = found.stx_blocks * BLOCK_BYTES;
        (self.files, self.position, self.complete) = (1, 0, true);
        self.above.clear();
        self.linked.clear();
        Ok(())
    }

    /// Counts at most `entries` more.
    ///
    /// # Errors
    /// A directory cannot be read.
    pub fn turn(&mut self, entries: usize) -> Result<Turn, Errno> {
        let mut left = entries;
        while left > 0 {
            match self.list(&mut left)? {
                Next::On(position) => self.position = position,
                Next::Down(dir, identity, position) => {
                    self.above.push(Above {
                        identity: self.identity,
                        position,
                    });
                    (self.here, self.identity, self.position) = (dir, identity, 0);
                }
                Next::End => {
                    // Leaving costs as much as an entry, so that empty directories end a turn too.
                    left = left.saturating_sub(1);
                    if let Some(usage) = self.up()? {
                        return Ok(Turn::Done(usage));
                    }
                }
            }
        }
        Ok(Turn::More(self.usage(false)))
    }

    fn usage(&self, complete: bool) -> Usage {
        Usage {
            bytes: self.bytes,
            files: self.files,
            complete,
        }
    }

    /// Goes to the directory above; what there is when there is none.
    fn up(&mut self) -> Result<Option<Usage>, Errno> {
        let Some(above) = self.above.pop() else {
            return Ok(Some(self.usage(self.complete)));
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(&self.here, c"..", flags, Mode::empty());
        let found = opened.and_then(|dir| Ok((Identity::of(&look(&dir, c"")?), dir)));
        match found {
            Ok((identity, dir)) if identity == above.identity => {
                (self.here, self.identity, self.position) = (dir, identity, above.position);
                Ok(None)
            }
            _ if self.restarts == MAX_RESTARTS => Ok(Some(self.usage(false))),
            _ => {
                self.restarts += 1;
                self.restart().map(|()| None)
            }
        }
    }

    /// Counts entries of the directory until one is a directory.
    fn list(&mut self, left: &mut usize) -> Result<Next, Errno> {
        rustix::fs::seek(&self.here, SeekFrom::Start(self.position))?;
        let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
        let here = self
            .here
            .try_clone()
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        let mut listing = RawDir::new(&here, &mut buffer);
        while let Some(entry) = listing.next() {
            let entry = match entry {
                Ok(entry) => entry,
                // It was removed meanwhile.
                Err(Errno::NOENT) => return Ok(Next::End),
                Err(errno) => return Err(errno),
            };
            let (name, position) = (entry.file_name(), entry.next_entry_cookie());
            if name == c"." || name == c".." {
                continue;
            }
            *left = left.saturating_sub(1);
            if let Some((dir, identity)) = self.count(name)? {
                return Ok(Next::Down(dir, identity, position));
            }
            if *left == 0 {
                return Ok(Next::On(position));
            }
        }
        Ok(Next::End)
    }

    /// Counts one entry; opens it when it is a directory to count as well.
    fn count(&mut self, name: &std::ffi::CStr) -> Result<Option<(OwnedFd, Identity)>, Errno> {
        let found = match look(&self.here, name) {
            Ok(found) => found,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        if found.stx_mnt_id != self.mount {
            return Ok(None);
        }
        let identity = Identity::of(&found);
        let is_dir = FileType::from_raw_mode(found.stx_mode.into()).is_dir();
        if !is_dir && found.stx_nlink > 1 {
            if self.linked.contains(&identity) {
                return Ok(None);
            }
            if self.linked.len() < MAX_LINKED {
                self.linked.insert(identity);
            }
        }
        self.bytes = self.bytes.saturating_add(found.stx_blocks * BLOCK_BYTES);
        self.files += 1;
        if !is_dir {
            return Ok(None);
        }
        if self.above.len() == MAX_DEPTH {
            self.complete = false;
            return Ok(None);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let dir = match openat2(&self.here, name, flags, Mode::empty(), resolve) {
            Ok(dir) => dir,
            // Removed or replaced since; what is there now was not there when it was listed.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::AGAIN) => {
                return Ok(None);
            }
            Err(errno) => return Err(errno),
        };
        let identity = Identity::of(&look(&dir, c"")?);
        Ok(Some((dir, identity)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Everything, with turns of `entries`.
    fn whole(dir: &Path, entries: usize) -> (Usage, usize) {
        let mut walk = Walk::new(dir).unwrap();
        for turns in 1.. {
            if let Turn::Done(usage) = walk.turn(entries).unwrap() {
                return (usage, turns);
            }
        }
        unreachable!()
    }

    fn du(dir: &Path) -> u64 {
        let output = std::process::Command::new("du")
            .args(["-s", "-x", "--block-size=1"])
            .arg(dir)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_whitespace().next().unwrap().parse().unwrap()
    }

    #[test]
    fn it_counts_what_du_counts_in_turns_of_any_size() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let outside = tempfile::tempdir_in("/var/tmp").unwrap();
        fs::write(outside.path().join("big"), vec![1; 1 << 20]).unwrap();
        let root = dir.path();
        for number in 0..40 {
            let below = root.join(format!("d{}/e{number}", number % 4));
            fs::create_dir_all(&below).unwrap();
            fs::write(below.join("f"), vec![1; number * 1000]).unwrap();
        }
        fs::hard_link(root.join("d1/e1/f"), root.join("again")).unwrap();
        fs::hard_link(root.join("d3/e39/f"), root.join("d0/again")).unwrap();
        std::os::unix::fs::symlink(outside.path(), root.join("link")).unwrap();
        std::os::unix::fs::symlink("/", root.join("d0/root")).unwrap();
        let sparse = fs::File::create(root.join("sparse")).unwrap();
        sparse.set_len(1 << 40).unwrap();
        let wanted = du(root);
        for entries in [1, 2, 3, 7, 1000] {
            let (usage, turns) = whole(root, entries);
            assert_eq!((usage.bytes, usage.complete), (wanted, true));
            assert!(turns >= 120 / entries, "{turns} turns of {entries}");
        }
        assert!(Walk::new(&root.join("link")).is_err());
    }

    #[test]
    fn a_deep_tree_needs_no_deep_stack_of_descriptors() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let mut here = open_dir(dir.path()).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&here, "d", Mode::from_raw_mode(0o755)).unwrap();
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            here = rustix::fs::openat(&here, "d", flags, Mode::empty()).unwrap();
        }
        rustix::fs::openat(&here, "f", OFlags::CREATE | OFlags::WRONLY, Mode::RWXU)
            .and_then(|file| rustix::io::write(&file, &[1; 4096]))
            .unwrap();
        let (usage, _) = whole(dir.path(), 100);
        assert_eq!((usage.bytes, usage.complete), (4096, true));
    }

    #[test]
    fn a_directory_that_is_moved_away_starts_the_count_again() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("a/b/c")).unwrap();
        fs::create_dir(root.join("z")).unwrap();
        for name in ["a/b/c/f", "a/b/f", "a/f", "z/f"] {
            fs::write(root.join(name), vec![1; 4096]).unwrap();
        }
        let wanted = du(root);
        for stop in 0..12 {
            let mut walk = Walk::new(root).unwrap();
            for _ in 0..stop {
                walk.turn(1).unwrap();
            }
            fs::rename(root.join("a/b/c"), root.join("z/c")).unwrap();
            let usage = loop {
                if let Turn::Done(usage) = walk.turn(3).unwrap() {
                    break usage;
                }
            };
            assert!(usage.complete);
            // Seen where it was, where it is, or, moved between the two looks, in both or neither.
            let moved = 2 * 4096;
            assert!((wanted - moved..=wanted + moved).contains(&usage.bytes));
            fs::rename(root.join("z/c"), root.join("a/b/c")).unwrap();
        }
    }
}
