//! Marks of finished layers, and getting layers to disk without anybody waiting for it.
//!
//! A mark holds the boot id until the layer was synced, then the word `synced`; its second line is
//! the layer's size on disk. It counts only in the boot that it names, so after a power failure an
//! unsynced layer is fetched again. Invariants: `synced` is written only after a syncfs that began
//! after the layer was in place, and never for a layer that was removed meanwhile.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::name::LayerName;
use super::{read_bounded, write_whole};

const SYNCED: &str = "synced";
/// Where the kernel says which boot this is; it changes with every boot and with nothing else.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const MAX_MARK_BYTES: u64 = 128;

/// What is known of a layer that is whole.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    pub(super) is_synced: bool,
    /// On disk; of layers unpacked by an older version not known.
    pub(super) size_bytes: Option<u64>,
}

pub(crate) struct Marks {
    dir: PathBuf,
    boot_id: Option<String>,
    /// Finished, but perhaps not on disk yet.
    waiting: Mutex<HashMap<LayerName, Option<u64>>>,
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
    pub(super) fn get(&self, name: &LayerName) -> Option<Mark> {
        let bytes = read_bounded(&self.dir.join(name.as_str()), MAX_MARK_BYTES).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let (state, size) = text.split_once('\n').unwrap_or((&text, ""));
        let is_synced = state == SYNCED;
        (is_synced || Some(state) == self.boot_id.as_deref()).then(|| Mark {
            is_synced,
            size_bytes: size.trim_end().parse().ok(),
        })
    }

    /// Marks a layer that is in place and takes so much of the disk.
    pub(super) fn set(&self, name: &LayerName, size_bytes: u64) -> io::Result<()> {
        match &self.boot_id {
            Some(boot_id) => {
                self.write(name, boot_id, Some(size_bytes))?;
                self.wait_for_sync(name.clone(), Some(size_bytes));
                Ok(())
            }
            // Nothing would say that a reboot came in between.
            None => {
                self.wait_for_sync(name.clone(), Some(size_bytes));
                self.sync()
            }
        }
    }

    fn write(&self, name: &LayerName, state: &str, size_bytes: Option<u64>) -> io::Result<()> {
        let size = size_bytes.map_or_else(String::new, |bytes| format!("\n{bytes}\n"));
        write_whole(
            &self.dir.join(name.as_str()),
            format!("{state}{size}").as_bytes(),
        )
    }

    pub(super) fn wait_for_sync(&self, name: LayerName, size_bytes: Option<u64>) {
        self.waiting().insert(name, size_bytes);
    }

    /// The layer does not count any more; nothing brings its mark back.
    pub(super) fn forget(&self, name: &LayerName) -> io::Result<()> {
        let mut waiting = self.waiting();
        waiting.remove(name);
        match fs::remove_file(self.dir.join(name.as_str())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
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
        let finished: Vec<LayerName> = self.waiting().keys().cloned().collect();
        if finished.is_empty() {
            return Ok(());
        }
        rustix::fs::syncfs(File::open(&self.dir)?)?;
        for name in finished {
            let mut waiting = self.waiting();
            if let Some(size_bytes) = waiting.get(&name).copied() {
                self.write(&name, SYNCED, size_bytes)?;
                waiting.remove(&name);
            }
        }
        Ok(())
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<LayerName, Option<u64>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
