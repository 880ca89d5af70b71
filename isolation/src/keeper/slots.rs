//! Slots: directories with an overlay's `upper` and `work`, each used by one container after the
//! other.
//!
//! Making and deleting these directories anew for each container costs more than all its mounts do:
//! ext4 looks at every inode that was deleted within the last minute before it takes one
//! (`recently_deleted`). Invariant: a slot is in use by at most one container, and is given to the
//! next only after the sweeper found or made its upper directory empty and plain. Slots of a keeper
//! that died are never used again but removed.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::disk::{self, DiskError};
use crate::spec::RootLimit;

/// What the names of sets begin with; container ids never begin with a dot.
const PREFIX: &str = ".slots-";

/// What the names of slots with a limit of their own begin with, and of those within another's.
const LIMITED: &str = "limited-";
const SHARED: &str = "shared-";

/// Where a container's writable layer goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// The directory of `upper` and `work`.
    pub(crate) dir: PathBuf,
    /// Whether it is still to be made.
    pub(crate) fresh: bool,
    /// What bounds it. One with a limit is made for one container and removed with it.
    pub(crate) limit: Option<RootLimit>,
}

#[derive(Debug)]
struct Set {
    dir: PathBuf,
    free: Vec<PathBuf>,
    made: u64,
}

/// All slots, by the directory that the containers' own directories are in.
#[derive(Debug, Default)]
pub(super) struct Slots {
    sets: BTreeMap<PathBuf, Set>,
}

impl Slots {
    /// A slot beside `dir`, and the sets of dead keepers there that should be removed.
    pub(super) fn take(
        &mut self,
        dir: &Path,
        limit: Option<RootLimit>,
    ) -> std::io::Result<(Slot, Vec<PathBuf>)> {
        let parent = dir.parent().unwrap_or(dir).to_owned();
        let mut dead = Vec::new();
        let set = match self.sets.entry(parent) {
            std::collections::btree_map::Entry::Occupied(set) => set.into_mut(),
            std::collections::btree_map::Entry::Vacant(vacant) => {
                dead = sets_in(vacant.key())?;
                let dir = make_set(vacant.key())?;
                vacant.insert(Set {
                    dir,
                    free: Vec::new(),
                    made: 0,
                })
            }
        };
        let free = if limit.is_none() {
            set.free.pop()
        } else {
            None
        };
        let fresh = free.is_none();
        let dir = free.unwrap_or_else(|| {
            set.made += 1;
            let kind = match limit {
                None => "",
                Some(RootLimit::Bytes(_)) => LIMITED,
                Some(RootLimit::With(_)) => SHARED,
            };
            set.dir.join(format!("{kind}{}", set.made))
        });
        let slot = Slot { dir, fresh, limit };
        Ok((slot, dead))
    }

    /// Takes a slot back that the sweeper emptied.
    pub(super) fn give_back(&mut self, slot: PathBuf) {
        let set = slot
            .parent()
            .and_then(|set| self.sets.get_mut(set.parent()?));
        if let Some(set) = set {
            set.free.push(slot);
        }
    }

    /// Forgets all slots; the directories to remove.
    pub(super) fn close(&mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.sets)
            .into_values()
            .map(|set| set.dir)
            .collect()
    }
}

/// Those of earlier keepers: this one holds the lock and has none there yet.
fn sets_in(parent: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(parent)?.flatten();
    let ours = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with(PREFIX);
    Ok(entries.filter(ours).map(|entry| entry.path()).collect())
}

fn make_set(parent: &Path) -> std::io::Result<PathBuf> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_nanos());
    let dir = parent.join(format!("{PREFIX}{}-{now}", std::process::id()));
    std::fs::DirBuilder::new().mode(0o700).create(&dir)?;
    Ok(dir)
}

fn is_named(slot: &Path, prefix: &str) -> bool {
    let name = slot.file_name().map(std::ffi::OsStr::as_encoded_bytes);
    name.is_some_and(|name| name.starts_with(prefix.as_bytes()))
}

/// Whether the slot is of those that are not used again.
pub(super) fn is_limited(slot: &Path) -> bool {
    is_named(slot, LIMITED) || is_named(slot, SHARED)
}

/// Removes one that is not used again; a limit that is another directory's stays.
pub(super) fn remove_limited(slot: &Path) -> Result<(), DiskError> {
    if is_named(slot, SHARED) {
        disk::remove_sharing(slot)
    } else {
        disk::remove(slot)
    }
}

/// Removes every set beside `parent`'s containers. Call when no keeper lives.
pub(crate) fn remove_dead(parent: &Path) -> Vec<DiskError> {
    let sets = sets_in(parent).unwrap_or_default().into_iter();
    sets.filter_map(|set| remove_set(&set).err()).collect()
}

/// Removes a whole set, those with a limit in their own way.
pub(super) fn remove_set(set: &Path) -> Result<(), DiskError> {
    for entry in std::fs::read_dir(set).into_iter().flatten().flatten() {
        if is_limited(&entry.path()) {
            remove_limited(&entry.path())?;
        }
    }
    disk::remove(set)
}

/// Makes the slot as good as new: both directories there, the upper one empty, owned by root, with
/// the usual permissions and no extended attributes. The work directory is overlayfs's own, which
/// cleans it when it mounts.
pub(super) fn empty(slot: &Path) -> std::io::Result<()> {
    let upper = slot.join("upper");
    for dir in [slot, &slot.join("work"), &upper] {
        match std::fs::create_dir(dir) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    crate::tree::empty(std::fs::File::open(&upper)?.as_fd())?;
    chown(&upper, Some(0), Some(0))?;
    std::fs::set_permissions(&upper, std::fs::Permissions::from_mode(0o755))?;
    remove_attributes(&upper)
}

fn remove_attributes(dir: &Path) -> std::io::Result<()> {
    // Usually there is none; XATTR_LIST_MAX of Linux: no list is longer.
    let (mut few, mut all) = ([0_u8; 256], Vec::new());
    let mut names = &mut few[..];
    let length = match rustix::fs::llistxattr(dir, &mut names[..]) {
        Err(rustix::io::Errno::RANGE) => {
            all.resize(64 * 1024, 0);
            names = &mut all[..];
            rustix::fs::llistxattr(dir, &mut names[..])?
        }
        length => length?,
    };
    for name in names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        rustix::fs::lremovexattr(dir, name)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_used_slot_is_as_good_as_new_again() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let mut slots = Slots::default();
        let (slot, dead) = slots.take(&dir.path().join("c1"), None).unwrap();
        assert!(slot.fresh && dead.is_empty());
        let upper = slot.dir.join("upper");
        std::fs::create_dir_all(upper.join("a/b")).unwrap();
        std::fs::write(upper.join("f"), "x").unwrap();
        std::os::unix::fs::symlink("/etc", upper.join("link")).unwrap();
        std::fs::set_permissions(&upper, std::fs::Permissions::from_mode(0o1777)).unwrap();
        chown(&upper, Some(7), Some(8)).unwrap();
        // One short name, and more than a small buffer takes.
        for name in ["x".to_owned(), "y".repeat(200), "z".repeat(200)] {
            let (name, flags) = (format!("user.{name}"), rustix::fs::XattrFlags::empty());
            rustix::fs::lsetxattr(&upper, name, b"y", flags).unwrap();
        }
        empty(&slot.dir).unwrap();
        let found = std::fs::metadata(&upper).unwrap();
        assert_eq!(found.permissions().mode() & 0o7777, 0o755);
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&found), 0);
        assert_eq!(std::fs::read_dir(&upper).unwrap().count(), 0);
        assert_eq!(
            rustix::fs::llistxattr(&upper, &mut [0_u8; 100][..]).unwrap(),
            0
        );
        assert!(Path::new("/etc/passwd").exists());
        slots.give_back(slot.dir.clone());
        let (again, _) = slots.take(&dir.path().join("c2"), None).unwrap();
        assert_eq!(
            again,
            Slot {
                dir: slot.dir,
                fresh: false,
                limit: None,
            }
        );
        assert!(slots.take(&dir.path().join("c3"), None).unwrap().0.fresh);
        slots.give_back(again.dir);
        let (limited, _) = slots
            .take(&dir.path().join("c4"), Some(RootLimit::Bytes(1)))
            .unwrap();
        assert!(limited.fresh && is_limited(&limited.dir));
        // A keeper that comes later removes this one's set.
        let (_, dead) = Slots::default().take(&dir.path().join("c1"), None).unwrap();
        assert_eq!(dead.len(), 1);
        assert_eq!(slots.close(), dead);
    }
}
