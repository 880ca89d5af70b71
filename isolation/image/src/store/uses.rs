//! What is in use, so that nothing of it is removed.
//!
//! Two kinds of use: a [`Hold`] lives as long as some value in this process (a pull under way, an
//! [`super::Image`] that somebody has); a named hold is a file in `held/` that lives until it is
//! released, over restarts, so that the layers of containers that outlive this process stay.
//!
//! It does not look at whether what is held exists. Invariant: a layer is taken away only with the
//! counts locked and its count at zero, so whoever holds first and looks then is never surprised.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::name::LayerName;
use super::{read_bounded, write_whole};
use crate::Digest;

/// Largest file of a named hold that is read, in bytes, and longest name.
const MAX_HELD_BYTES: u64 = 64 << 10;
const MAX_ID_BYTES: usize = 200;
/// What [`write_whole`] leaves if it is interrupted.
const PARTIAL: &str = ".new";

/// As long as one of its clones exists, an image and its layers stay on the disk.
#[derive(Clone, Default)]
pub struct Hold(Option<Arc<Held>>);

struct Held {
    content: Content,
    uses: Arc<Uses>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Content {
    image: Digest,
    layers: Vec<LayerName>,
}

#[derive(Default)]
struct Counts {
    layers: HashMap<LayerName, usize>,
    images: HashMap<Digest, usize>,
    named: BTreeMap<String, Hold>,
}

pub(crate) struct Uses {
    dir: PathBuf,
    counts: Mutex<Counts>,
}

/// The counts while nobody else can change them.
pub(super) struct Locked<'a>(MutexGuard<'a, Counts>);

impl Locked<'_> {
    pub(super) fn is_free(&self, layer: &LayerName) -> bool {
        !self.0.layers.contains_key(layer)
    }
}

impl Uses {
    /// Takes the named holds of a former life up again.
    pub(super) fn open(dir: PathBuf) -> io::Result<Arc<Self>> {
        let uses = Arc::new(Self {
            dir,
            counts: Mutex::default(),
        });
        for entry in fs::read_dir(&uses.dir)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let bytes = read_bounded(&entry.path(), MAX_HELD_BYTES)?;
            let content: Option<Content> = serde_json::from_slice(&bytes).ok();
            match content.filter(|_| is_id(&name)) {
                Some(content) => {
                    let hold = uses.hold(content.image, content.layers);
                    uses.lock().named.insert(name, hold);
                }
                None => {
                    if !name.ends_with(PARTIAL) {
                        tracing::warn!(name, "a hold on an image cannot be read, it is dropped");
                    }
                    fs::remove_file(entry.path())?;
                }
            }
        }
        Ok(uses)
    }

    pub(crate) fn hold(self: &Arc<Self>, image: Digest, layers: Vec<LayerName>) -> Hold {
        let mut counts = self.lock();
        *counts.images.entry(image).or_default() += 1;
        for layer in &layers {
            *counts.layers.entry(layer.clone()).or_default() += 1;
        }
        drop(counts);
        let content = Content { image, layers };
        Hold(Some(Arc::new(Held {
            content,
            uses: Arc::clone(self),
        })))
    }

    /// Keeps what `hold` holds until [`Uses::release`], over restarts. Blocks for one small file.
    pub(super) fn name(&self, id: &str, hold: &Hold) -> io::Result<()> {
        let Some(held) = hold.0.as_ref().filter(|_| is_id(id)) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let bytes = serde_json::to_vec(&held.content).map_err(io::Error::other)?;
        write_whole(&self.dir.join(id), &bytes)?;
        let former = self.lock().named.insert(id.to_owned(), hold.clone());
        // Only now, as dropping it locks the counts.
        drop(former);
        Ok(())
    }

    pub(super) fn release(&self, id: &str) -> io::Result<()> {
        let former = self.lock().named.remove(id);
        let Some(former) = former else {
            return Ok(());
        };
        let removed = match fs::remove_file(self.dir.join(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        drop(former);
        removed
    }

    pub(super) fn names(&self) -> BTreeSet<String> {
        self.lock().named.keys().cloned().collect()
    }

    pub(super) fn is_image_free(&self, image: Digest) -> bool {
        !self.lock().images.contains_key(&image)
    }

    /// Until the guard is gone, nobody can begin to hold anything.
    pub(super) fn locked(&self) -> Locked<'_> {
        Locked(self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut counts = self.uses.lock();
        lower(&mut counts.images, &self.content.image);
        for layer in &self.content.layers {
            lower(&mut counts.layers, layer);
        }
    }
}

fn lower<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// One plain file name that is never a partial one.
fn is_id(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=MAX_ID_BYTES).contains(&id.len())
        && !id.starts_with('.')
        && !id.ends_with(PARTIAL)
        && id.bytes().all(plain)
}

impl std::fmt::Debug for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() {
            "Hold"
        } else {
            "Hold(none)"
        })
    }
}

/// Holding is not a property of what is held: two values of one image are equal.
impl PartialEq for Hold {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Hold {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_holds_live_until_released_over_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let (image, layer) = (Digest::of(b"i"), LayerName::layer(Digest::of(b"l")));
        let free = |uses: &Uses| (uses.is_image_free(image), uses.locked().is_free(&layer));
        {
            let uses = Uses::open(dir.path().to_owned()).unwrap();
            let hold = uses.hold(image, vec![layer.clone()]);
            uses.name("task.1", &hold).unwrap();
            uses.name("task.1", &hold.clone()).unwrap();
            for bad in ["", ".", "..", "a/b", ".x", "a.new", "ä"] {
                assert!(uses.name(bad, &hold).is_err(), "{bad}");
            }
            drop(hold);
            assert_eq!(free(&uses), (false, false));
        }
        fs::write(dir.path().join("task.2.new"), "{").unwrap();
        fs::write(dir.path().join("junk"), "{").unwrap();
        let uses = Uses::open(dir.path().to_owned()).unwrap();
        assert_eq!(uses.names(), BTreeSet::from(["task.1".to_owned()]));
        assert_eq!(free(&uses), (false, false));
        uses.release("task.1").unwrap();
        uses.release("task.1").unwrap();
        assert_eq!(free(&uses), (true, true));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
