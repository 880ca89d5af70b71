//! Unpacked layers: when one counts as present, how a new one gets in, and when it is on disk.
//!
//! It does not decide what is in a layer. Invariant: a layer's directory appears by one rename, after
//! its content was verified, and counts from the moment that its mark is written.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::locks::Locks;
use super::{OpenError, io_error, private_dir, read_bounded, write_whole};
use crate::Digest;

const SYNCED: &str = "synced";
/// Where the kernel says which boot this is; it changes with every boot and with nothing else.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const MAX_MARK_BYTES: u64 = 128;

pub(crate) struct Layers {
    dir: PathBuf,
    complete: PathBuf,
    tmp: PathBuf,
    boot_id: Option<String>,
    next_tmp: AtomicU64,
    locks: Locks<Digest>,
    sync: Arc<Sync>,
}

/// Layers that are unpacked but may not be on disk yet.
struct Sync {
    complete: PathBuf,
    waiting: Mutex<HashSet<Digest>>,
    running: Mutex<()>,
}

/// A directory below `tmp/` that is removed unless it becomes a layer.
pub(crate) struct Unfinished {
    path: PathBuf,
    layer: PathBuf,
    mark: PathBuf,
    mark_text: String,
    digest: Digest,
    sync: Arc<Sync>,
    finished: bool,
}

impl Layers {
    pub(super) fn open(dir: &Path) -> Result<Self, OpenError> {
        let [layers, complete, tmp] = ["layers", "complete", "tmp"].map(|name| dir.join(name));
        for path in [&layers, &complete] {
            private_dir(path)?;
        }
        remove_tree(&tmp).map_err(io_error("remove", &tmp))?;
        private_dir(&tmp)?;
        let boot_id = fs::read_to_string(BOOT_ID)
            .ok()
            .map(|id| id.trim().to_owned());
        let boot_id = boot_id.filter(|id| !id.is_empty() && id != SYNCED);
        let sync = Sync {
            complete: complete.clone(),
            waiting: Mutex::default(),
            running: Mutex::default(),
        };
        let (next_tmp, locks) = (AtomicU64::new(0), Locks::default());
        let opened = Self {
            dir: layers,
            complete,
            tmp,
            boot_id,
            next_tmp,
            locks,
            sync: Arc::new(sync),
        };
        opened.remove_incomplete()?;
        Ok(opened)
    }

    fn remove_incomplete(&self) -> Result<(), OpenError> {
        let mut good = HashSet::new();
        for name in names(&self.dir)? {
            let digest = Digest::from_file_name(&name);
            match digest.and_then(|digest| Some((digest, self.mark(digest)?))) {
                Some((digest, mark)) => {
                    good.insert(name);
                    if mark != SYNCED {
                        self.sync.waiting().insert(digest);
                    }
                }
                None => {
                    let path = self.dir.join(name);
                    tracing::info!(path = %path.display(), "removing an unfinished image layer");
                    remove_tree(&path).map_err(io_error("remove", &path))?;
                }
            }
        }
        for name in names(&self.complete)?
            .into_iter()
            .filter(|name| !good.contains(name))
        {
            let path = self.complete.join(name);
            fs::remove_file(&path).map_err(io_error("remove", &path))?;
        }
        Ok(())
    }

    /// The mark of a layer if it says that the layer can be used.
    fn mark(&self, digest: Digest) -> Option<String> {
        let bytes = read_bounded(&self.complete.join(digest.file_name()), MAX_MARK_BYTES).ok()?;
        let mark = String::from_utf8(bytes).ok()?;
        (mark == SYNCED || Some(&mark) == self.boot_id.as_ref()).then_some(mark)
    }

    /// Whether the layer is here, whole.
    pub(crate) fn has(&self, diff_id: Digest) -> bool {
        self.mark(diff_id).is_some() && self.dir.join(diff_id.file_name()).is_dir()
    }

    /// One task at a time works on a layer.
    pub(crate) async fn lock(&self, diff_id: Digest) -> tokio::sync::OwnedMutexGuard<()> {
        self.locks.lock(&diff_id).await
    }

    /// Directories of the layers (given bottom first), topmost first. A layer that occurs twice is
    /// needed only at the top: what it says below is said again above. What is below a layer whose
    /// root is opaque is not seen at all.
    pub(super) fn stack(&self, diff_ids: &[Digest]) -> Vec<PathBuf> {
        let mut seen = HashSet::new();
        let mut stack = Vec::new();
        for digest in diff_ids.iter().rev().filter(|digest| seen.insert(**digest)) {
            let path = self.dir.join(digest.file_name());
            let mut value = [0_u8; 1];
            let opaque = rustix::fs::getxattr(&path, "trusted.overlay.opaque", &mut value[..]);
            stack.push(path);
            if opaque == Ok(1) && value == *b"y" {
                break;
            }
        }
        stack
    }

    /// A fresh directory to unpack into. Blocks.
    pub(crate) fn begin(&self, diff_id: Digest) -> io::Result<Unfinished> {
        let number = self.next_tmp.fetch_add(1, Ordering::Relaxed);
        let name = diff_id.file_name();
        let path = self.tmp.join(format!("{number}-{name}"));
        fs::DirBuilder::new().mode(0o755).create(&path)?;
        let unfinished = Unfinished {
            path,
            layer: self.dir.join(&name),
            mark: self.complete.join(&name),
            // Without a boot id nothing may be trusted before it is synced.
            mark_text: self.boot_id.clone().unwrap_or_default(),
            digest: diff_id,
            sync: Arc::clone(&self.sync),
            finished: false,
        };
        rustix::fs::chmod(&unfinished.path, rustix::fs::Mode::from_raw_mode(0o755))?;
        Ok(unfinished)
    }

    /// Writes what was unpacked to the disk and marks it so, on a thread of its own.
    pub(crate) fn sync_in_background(&self) {
        let sync = Arc::clone(&self.sync);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = sync.run() {
                tracing::warn!(%error, "image layers could not be synced to disk");
            }
        });
    }

    /// Whether layers count only after [`Layers::sync_now`].
    pub(crate) fn must_sync(&self) -> bool {
        self.boot_id.is_none()
    }

    /// As [`Layers::sync_in_background`], and waits. Blocks.
    pub(crate) fn sync_now(&self) -> io::Result<()> {
        self.sync.run()
    }
}

impl Sync {
    fn waiting(&self) -> std::sync::MutexGuard<'_, HashSet<Digest>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) -> io::Result<()> {
        let _one_at_a_time = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting: Vec<Digest> = self.waiting().iter().copied().collect();
        if waiting.is_empty() {
            return Ok(());
        }
        rustix::fs::syncfs(File::open(&self.complete)?)?;
        for digest in waiting {
            write_whole(&self.complete.join(digest.file_name()), SYNCED.as_bytes())?;
            self.waiting().remove(&digest);
        }
        Ok(())
    }
}

impl Unfinished {
    pub(crate) fn root(&self) -> io::Result<OwnedFd> {
        let flags = rustix::fs::OFlags::RDONLY
            | rustix::fs::OFlags::DIRECTORY
            | rustix::fs::OFlags::NOFOLLOW
            | rustix::fs::OFlags::CLOEXEC;
        Ok(rustix::fs::open(
            &self.path,
            flags,
            rustix::fs::Mode::empty(),
        )?)
    }

    /// Makes it a layer. The caller holds the layer's lock and has verified the content. Blocks.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        // Left from a mark that was lost or a boot that is over.
        remove_tree(&self.layer)?;
        fs::rename(&self.path, &self.layer)?;
        self.finished = true;
        write_whole(&self.mark, self.mark_text.as_bytes())?;
        self.sync.waiting().insert(self.digest);
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.finished
            && let Err(error) = remove_tree(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "cannot remove an unfinished layer");
        }
    }
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
