//! Marks of finished layers, and getting layers to disk without anybody waiting for it.
//!
//! A mark holds the boot id until the layer was synced, then the word `synced`. It counts only in
//! the boot that it names, so after a power failure an unsynced layer is fetched again. Invariant:
//! `synced` is written only after a syncfs that began after the layer was in place.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::name::LayerName;
use super::{read_bounded, write_whole};

pub(super) const SYNCED: &str = "synced";
/// Where the kernel says which boot this is; it changes with every boot and with nothing else.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const MAX_MARK_BYTES: u64 = 128;

pub(crate) struct Marks {
    dir: PathBuf,
    boot_id: Option<String>,
    /// Finished, but perhaps not on disk yet.
    waiting: Mutex<HashSet<LayerName>>,
    syncing: Mutex<()>,
}

impl Marks {
    pub(super) fn new(dir: PathBuf) -> Self {
        let boot_id = fs::read_to_string(BOOT_ID)
            .ok()
            .map(|id| id.trim().to_owned());
        let boot_id = boot_id.filter(|id| !id.is_empty() && id != SYNCED);
        Self {
            dir,
            boot_id,
            waiting: Mutex::default(),
            syncing: Mutex::default(),
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The mark of a layer if it says that the layer can be used.
    pub(super) fn get(&self, name: &LayerName) -> Option<String> {
        let bytes = read_bounded(&self.dir.join(name.as_str()), MAX_MARK_BYTES).ok()?;
        let mark = String::from_utf8(bytes).ok()?;
        (mark == SYNCED || Some(&mark) == self.boot_id.as_ref()).then_some(mark)
    }

    /// Marks a layer that is in place.
    pub(super) fn set(&self, name: &LayerName) -> io::Result<()> {
        match &self.boot_id {
            Some(boot_id) => {
                write_whole(&self.dir.join(name.as_str()), boot_id.as_bytes())?;
                self.wait_for_sync(name.clone());
                Ok(())
            }
            // Nothing would say that a reboot came in between.
            None => {
                self.wait_for_sync(name.clone());
                self.sync()
            }
        }
    }

    pub(super) fn wait_for_sync(&self, name: LayerName) {
        self.waiting().insert(name);
    }

    /// Writes everything to disk and marks it so, on a thread of its own.
    pub(crate) fn sync_in_background(self: &Arc<Self>) {
        let marks = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = marks.sync() {
                tracing::warn!(%error, "image layers could not be synced to disk");
            }
        });
    }

    fn sync(&self) -> io::Result<()> {
        let _one_at_a_time = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting: Vec<LayerName> = self.waiting().iter().cloned().collect();
        if waiting.is_empty() {
            return Ok(());
        }
        rustix::fs::syncfs(File::open(&self.dir)?)?;
        for name in waiting {
            write_whole(&self.dir.join(name.as_str()), SYNCED.as_bytes())?;
            self.waiting().remove(&name);
        }
        Ok(())
    }

    fn waiting(&self) -> MutexGuard<'_, HashSet<LayerName>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
