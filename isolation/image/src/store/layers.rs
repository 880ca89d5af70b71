//! Unpacked layers: when one counts as present, how a new one gets in, and when it is on disk.
//!
//! It does not decide what is in a layer. Invariant: a layer's directory appears by one rename, after
//! its content was verified, and counts from the moment that its mark is written.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use rustix::fs::{Gid, Mode, OFlags, Timespec, Timestamps, Uid};

use super::inherit::{self, Patch, View};
use super::locks::Locks;
use super::name::LayerName;
use super::sync::{Mark, Marks};
use super::uses::{Hold, Uses};
use super::{OpenError, io_error, private_dir, read_bounded, write_whole};
use crate::Digest;

/// Largest list of implied directories that is read, in bytes; the unpacker writes no larger one.
const MAX_IMPLIED_BYTES: u64 = crate::unpack::MAX_IMPLIED_BYTES as u64;

/// What a directory takes on disk, about.
const DIRECTORY_BYTES: u64 = 4096;

pub(crate) struct Layers {
    dir: PathBuf,
    implied: PathBuf,
    tmp: PathBuf,
    next_tmp: AtomicU64,
    recipes: PathBuf,
    locks: Locks<LayerName>,
    pub(crate) marks: Arc<Marks>,
    pub(super) uses: Arc<Uses>,
}

/// A directory below `tmp/` that is removed unless it becomes a layer.
pub(crate) struct Unfinished {
    path: PathBuf,
    layer: PathBuf,
    implied: PathBuf,
    recipe: PathBuf,
    name: LayerName,
    marks: Arc<Marks>,
    finished: bool,
}

/// A layer taken out of the store, still to be deleted.
pub(super) struct Discarded {
    path: PathBuf,
    size_bytes: Option<u64>,
}

impl Layers {
    pub(super) fn open(dir: &Path) -> Result<Self, OpenError> {
        let [layers, complete, implied, recipes, held, tmp] =
            ["layers", "complete", "implied", "recipes", "held", "tmp"].map(|name| dir.join(name));
        for path in [&layers, &complete, &implied, &recipes, &held] {
            private_dir(path)?;
        }
        let uses = Uses::open(held.clone()).map_err(io_error("read", &held))?;
        remove_tree(&tmp).map_err(io_error("remove", &tmp))?;
        private_dir(&tmp)?;
        let opened = Self {
            dir: layers,
            implied,
            tmp,
            next_tmp: AtomicU64::new(0),
            recipes,
            uses,
            locks: Locks::default(),
            marks: Arc::new(Marks::new(complete)),
        };
        opened.remove_incomplete()?;
        Ok(opened)
    }

    fn remove_incomplete(&self) -> Result<(), OpenError> {
        let mut good = HashSet::new();
        for name in names(&self.dir)? {
            let layer = LayerName::parse(&name);
            match layer.and_then(|layer| Some((self.marks.get(&layer)?, layer))) {
                Some((mark, layer)) => {
                    good.insert(name);
                    if !mark.is_synced {
                        self.marks.wait_for_sync(layer, mark.size_bytes);
                    }
                }
                None => {
                    let path = self.dir.join(name);
                    tracing::info!(path = %path.display(), "removing an unfinished image layer");
                    remove_tree(&path).map_err(io_error("remove", &path))?;
                }
            }
        }
        for dir in [self.marks.dir(), &self.implied, &self.recipes] {
            for name in names(dir)?.into_iter().filter(|name| !good.contains(name)) {
                let path = dir.join(name);
                remove_tree(&path).map_err(io_error("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Whether the layer is here, whole.
    pub(crate) fn has(&self, name: &LayerName) -> bool {
        self.marks.get(name).is_some() && self.dir.join(name.as_str()).is_dir()
    }

    /// What is known of a layer that is here.
    pub(super) fn mark(&self, name: &LayerName) -> Option<Mark> {
        self.marks.get(name)
    }

    /// When it came.
    pub(super) fn since(&self, name: &LayerName) -> io::Result<SystemTime> {
        fs::metadata(self.marks.dir().join(name.as_str()))?.modified()
    }

    /// Everything that is here.
    pub(super) fn all(&self) -> io::Result<Vec<LayerName>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            found.extend(LayerName::parse(&entry?.file_name().to_string_lossy()));
        }
        Ok(found)
    }

    /// The directory of a layer that is here.
    pub(crate) fn path(&self, name: &LayerName) -> PathBuf {
        self.dir.join(name.as_str())
    }

    /// Where the recipe for the layer's archive is, if there is one.
    pub(crate) fn recipe(&self, name: &LayerName) -> PathBuf {
        self.recipes.join(name.as_str())
    }

    /// Makes sure that a whole image stays, whether it is here already or not.
    pub(crate) fn hold(&self, image: Digest, diff_ids: &[Digest]) -> Hold {
        self.uses.hold(image, Self::parts(diff_ids))
    }

    /// Every layer of an image, and what may go on top of them.
    pub(super) fn parts(diff_ids: &[Digest]) -> Vec<LayerName> {
        let mut seen = HashSet::new();
        let once = diff_ids.iter().filter(|id| seen.insert(**id));
        let layers = once.map(|id| LayerName::layer(*id));
        layers.chain([LayerName::patch(diff_ids)]).collect()
    }

    /// Takes a layer out unless someone holds it; what is left to do is [`Discarded::delete`].
    pub(super) fn discard(&self, name: &LayerName) -> io::Result<Option<Discarded>> {
        let locked = self.uses.locked();
        if !locked.is_free(name) {
            return Ok(None);
        }
        let size_bytes = self.mark(name).and_then(|mark| mark.size_bytes);
        self.marks.forget(name)?;
        let path = self.temporary(name);
        match fs::rename(self.path(name), &path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        }
        drop(locked);
        remove_tree(&self.implied.join(name.as_str()))?;
        remove_tree(&self.recipe(name))?;
        Ok(Some(Discarded { path, size_bytes }))
    }

    /// A name in `tmp/` that nothing has.
    pub(crate) fn temporary(&self, name: &LayerName) -> PathBuf {
        let number = self.next_tmp.fetch_add(1, Ordering::Relaxed);
        self.tmp.join(format!("{number}-{}", name.as_str()))
    }

    /// A new file without a name, on the disk of the layers. Blocks.
    pub(crate) fn spool(&self) -> io::Result<fs::File> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        Ok(fs::File::from(rustix::fs::open(&self.tmp, flags, mode)?))
    }

    /// Whether a whole image is here: every layer, and what goes on top of them.
    pub(super) fn has_image(&self, diff_ids: &[Digest]) -> bool {
        diff_ids.iter().all(|id| self.has(&LayerName::layer(*id)))
            && (!self.needs_patch(diff_ids) || self.has(&LayerName::patch(diff_ids)))
    }

    /// One task at a time works on a layer.
    pub(crate) async fn lock(&self, name: &LayerName) -> tokio::sync::OwnedMutexGuard<()> {
        self.locks.lock(name).await
    }

    /// Directories of an image's layers (given bottom first) as overlayfs takes them, topmost first.
    pub(super) fn stack(&self, diff_ids: &[Digest]) -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> = self
            .visible(diff_ids)
            .iter()
            .map(|name| self.dir.join(name.as_str()))
            .collect();
        if self.needs_patch(diff_ids) {
            let patch = self.dir.join(LayerName::patch(diff_ids).as_str());
            let is_empty =
                fs::read_dir(&patch).map_or(true, |mut entries| entries.next().is_none());
            if !is_empty {
                paths.insert(0, patch);
            }
        }
        paths
    }

    /// Layers that matter, topmost first. One that occurs twice is needed only at the top: what it
    /// says below is said again above. What is below an opaque root is not seen at all.
    fn visible(&self, diff_ids: &[Digest]) -> Vec<LayerName> {
        let mut seen = HashSet::new();
        let mut visible = Vec::new();
        for digest in diff_ids.iter().rev().filter(|digest| seen.insert(**digest)) {
            let name = LayerName::layer(*digest);
            let root = open_dir(&self.dir.join(name.as_str()));
            visible.push(name);
            if root.is_ok_and(|root| inherit::is_opaque(&root)) {
                break;
            }
        }
        visible
    }

    /// Whether a layer above the bottom uses directories that it does not list.
    fn needs_patch(&self, diff_ids: &[Digest]) -> bool {
        let mut above = diff_ids.iter().skip(1);
        above.any(|id| self.implied.join(LayerName::layer(*id).as_str()).exists())
    }

    /// Makes the directory that goes on top of a stack, if one is needed and not there. The caller
    /// holds its lock. Blocks.
    pub(crate) fn make_patch(&self, diff_ids: &[Digest]) -> io::Result<()> {
        let name = LayerName::patch(diff_ids);
        if !self.needs_patch(diff_ids) || self.has(&name) {
            return Ok(());
        }
        let views = self.visible(diff_ids).into_iter().map(|layer| {
            let implied = self.read_implied(&layer)?;
            View::open(&self.dir.join(layer.as_str()), implied)
        });
        let patch = inherit::patch(&views.collect::<io::Result<Vec<View>>>()?)?;
        let unfinished = self.begin(name)?;
        write_patch(&unfinished.root()?, &patch)?;
        unfinished.finish(&[], patch.len() as u64 * DIRECTORY_BYTES)
    }

    fn read_implied(&self, layer: &LayerName) -> io::Result<HashSet<Vec<u8>>> {
        match read_bounded(&self.implied.join(layer.as_str()), MAX_IMPLIED_BYTES) {
            Ok(list) => Ok(list.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(HashSet::new()),
            Err(error) => Err(error),
        }
    }

    /// A fresh directory to fill. Blocks.
    pub(crate) fn begin(&self, name: LayerName) -> io::Result<Unfinished> {
        let path = self.temporary(&name);
        fs::DirBuilder::new().mode(0o755).create(&path)?;
        let unfinished = Unfinished {
            path,
            layer: self.path(&name),
            implied: self.implied.join(name.as_str()),
            recipe: self.recipe(&name),
            name,
            marks: Arc::clone(&self.marks),
            finished: false,
        };
        rustix::fs::chmod(&unfinished.path, Mode::from_raw_mode(0o755))?;
        Ok(unfinished)
    }
}

impl Unfinished {
    pub(crate) fn root(&self) -> io::Result<OwnedFd> {
        open_dir(&self.path)
    }

    /// Where the recipe for its archive is written meanwhile.
    pub(crate) fn recipe(&self) -> PathBuf {
        self.path.with_added_extension("recipe")
    }

    /// Makes it a layer, which takes so much of the disk. The caller holds the layer's lock and has
    /// verified the content. Blocks.
    pub(crate) fn finish(mut self, implied: &[Vec<u8>], size_bytes: u64) -> io::Result<()> {
        // Left from a mark that was lost.
        remove_tree(&self.layer)?;
        remove_tree(&self.implied)?;
        remove_tree(&self.recipe)?;
        match fs::rename(self.recipe(), &self.recipe) {
            // There is none: the archive cannot be made again from the files.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
        fs::rename(&self.path, &self.layer)?;
        self.finished = true;
        if !implied.is_empty() {
            write_whole(&self.implied, &implied.join(&0))?;
        }
        self.marks.set(&self.name, size_bytes)
    }
}

impl Discarded {
    /// Deletes the files; says how many bytes they took. Blocks.
    pub(super) fn delete(self) -> io::Result<u64> {
        let size_bytes = match self.size_bytes {
            Some(bytes) => bytes,
            None => tree_bytes(&self.path)?,
        };
        remove_tree(&self.path)?;
        Ok(size_bytes)
    }
}

/// What a tree takes on disk; a file with several names counts once for each.
pub(super) fn tree_bytes(path: &Path) -> io::Result<u64> {
    let mut bytes = 0_u64;
    let mut waiting = vec![path.to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            bytes = bytes.saturating_add(metadata.blocks().saturating_mul(512));
            if metadata.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    Ok(bytes)
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let files = (!self.finished).then_some(&self.path);
        for path in files.into_iter().chain([&self.recipe()]) {
            if let Err(error) = remove_tree(path) {
                tracing::warn!(%error, path = %path.display(), "cannot remove an unfinished layer");
            }
        }
    }
}

/// Creates the directories, parents first, then sets their attributes, children first: creating a
/// child changes its parent's time.
fn write_patch(root: &OwnedFd, patch: &Patch) -> io::Result<()> {
    for path in patch.keys() {
        rustix::fs::mkdirat(root, path.as_slice(), Mode::RWXU)?;
    }
    for (path, stat) in patch.iter().rev() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(root, path.as_slice(), flags, Mode::empty())?;
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        rustix::fs::fchown(&directory, Some(uid), Some(gid))?;
        rustix::fs::fchmod(&directory, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
        let nanos = i64::try_from(stat.st_mtime_nsec).unwrap_or_default();
        let time = Timespec {
            tv_sec: stat.st_mtime,
            tv_nsec: nanos,
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        rustix::fs::futimens(&directory, &times)?;
    }
    Ok(())
}

fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

fn names(dir: &Path) -> Result<Vec<String>, OpenError> {
    let entries = fs::read_dir(dir).map_err(io_error("read", dir))?;
    // A name that is not UTF-8 is none of ours; removing it by a lossy name removes nothing.
    let name = |entry: io::Result<fs::DirEntry>| {
        entry.map(|entry| entry.file_name().to_string_lossy().into_owned())
    };
    entries
        .map(name)
        .collect::<Result<_, _>>()
        .map_err(io_error("read", dir))
}

/// Removes a directory with all that is in it, or a file; nothing there is fine. std resolves
/// nothing through symlinks here.
fn remove_tree(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
