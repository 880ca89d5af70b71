//! Removing images: those that somebody names, those that nobody needs, and the least recently used
//! ones when the disk runs full.
//!
//! It decides what may go: an image that nothing holds (see [`super::uses`]), and a layer that no
//! image left in the index has and nothing holds. It does not decide when to look; whoever owns the
//! store calls [`Store::collect`] from time to time.
//!
//! Invariants: names go from the index before anything else, so that a crash leaves layers of no
//! image, never an image without layers; a layer is renamed away before it is deleted; what no image
//! has is worked out with the index locked, so a pull that finishes meanwhile counts.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::layers::{Discarded, Layers};
use super::name::LayerName;
use super::{Inner, Store};
use crate::{Digest, Image, Reference, Trouble};

/// How much of the disk shall be free, and what is too young to go.
#[derive(Debug, Clone, Copy)]
pub struct Headroom {
    /// Bytes free for ordinary users.
    pub free_bytes: u64,
    /// The same in percent of the file system; the larger of the two counts.
    pub free_percent: u8,
    /// What was used or came within this time stays.
    pub min_age: Duration,
}

impl Default for Headroom {
    /// A tenth of the disk and 2 GiB; a task that was just refused may be tried again soon.
    fn default() -> Self {
        Self {
            free_bytes: 2 << 30,
            free_percent: 10,
            min_age: Duration::from_secs(600),
        }
    }
}

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Names of images, sorted.
    pub images: Vec<String>,
    /// Layers, with what was put on top of stacks of them.
    pub layers: u64,
    /// Bytes of these layers on disk.
    pub bytes: u64,
}

/// What of the unused goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prune {
    /// Images that no tag names any more, and layers of no image.
    Untagged,
    /// Everything that nothing holds.
    Unused,
}

/// Why something in the store could not be done.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No image has this name.
    #[error("no image {0} on this node")]
    Unknown(String),
    /// Something runs from it.
    #[error("image {0} is in use")]
    InUse(String),
    /// The store's own files.
    #[error("cannot {operation} in the image store")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// Its error.
        #[source]
        source: io::Error,
    },
}

impl StoreError {
    /// What sort of trouble it is.
    #[must_use]
    pub fn trouble(&self) -> Trouble {
        match self {
            Self::Unknown(_) => Trouble::NotHere,
            Self::InUse(_) => Trouble::InUse,
            Self::Io { .. } => Trouble::of_causes(self),
        }
    }
}

pub(super) fn io_failed(operation: &'static str) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::Io { operation, source }
}

/// Which of the layers that no image has go.
#[derive(Clone, Copy)]
enum Orphans<'a> {
    /// All of them.
    All,
    /// Those that came before this.
    Before(SystemTime),
    /// Those of images that just went.
    Of(&'a HashSet<LayerName>),
}

impl Store {
    /// Keeps an image's layers for `id` (letters, digits, `-_.`, at most 200), over restarts, until
    /// [`Store::release`]. Blocks for one small file.
    ///
    /// # Errors
    /// If the id is not one, or the file cannot be written.
    pub fn hold(&self, id: &str, image: &Image) -> io::Result<()> {
        self.0.layers.uses.name(id, &image.hold)
    }

    /// Lets go what `id` holds; nothing is fine. Blocks for one small file.
    ///
    /// # Errors
    /// If the file cannot be removed: then the next start holds it again.
    pub fn release(&self, id: &str) -> io::Result<()> {
        self.0.layers.uses.release(id)
    }

    /// Who holds something, of this life and the former ones.
    #[must_use]
    pub fn holders(&self) -> std::collections::BTreeSet<String> {
        self.0.layers.uses.names()
    }

    /// Removes unused images, the least recently used first, until there is as much room as `policy`
    /// says. Removes nothing if there is. Safe beside pulls and mounts.
    ///
    /// # Errors
    /// If files of the store cannot be read or removed; what went before is gone.
    pub async fn collect(&self, policy: Headroom) -> Result<Report, StoreError> {
        self.blocking(move |inner| inner.collect(policy)).await
    }

    /// Removes one name. With the last name of an image goes the image.
    ///
    /// # Errors
    /// If there is no such image, or it is in use and not `force`; with `force` the name goes at
    /// once, and the layers by a later collection.
    pub async fn remove(&self, reference: &Reference, force: bool) -> Result<Report, StoreError> {
        let reference = reference.clone();
        self.blocking(move |inner| inner.remove(&reference, force))
            .await
    }

    /// Removes what is not in use, however much room there is.
    ///
    /// # Errors
    /// As [`Store::collect`].
    pub async fn prune(&self, what: Prune) -> Result<Report, StoreError> {
        self.blocking(move |inner| inner.prune(what)).await
    }

    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.0);
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(result) => result,
            Err(error) => Err(io_failed("run a file operation")(io::Error::other(error))),
        }
    }
}

impl Inner {
    fn collect(&self, policy: Headroom) -> Result<Report, StoreError> {
        let _one_at_a_time = self.collecting.lock();
        let mut report = Report::default();
        if self.has_room(policy)? {
            return Ok(report);
        }
        let now = SystemTime::now();
        let oldest = now.checked_sub(policy.min_age);
        let oldest = oldest.unwrap_or(SystemTime::UNIX_EPOCH);
        self.take(&HashSet::new(), Orphans::Before(oldest), &mut report)?;
        let mut candidates: Vec<(SystemTime, Digest)> = self
            .index()
            .all()
            .into_keys()
            .map(|digest| (self.last_used(digest), digest))
            .filter(|(used, digest)| *used <= oldest && self.layers.uses.is_image_free(*digest))
            .collect();
        candidates.sort_unstable();
        for (used, digest) in candidates {
            if self.has_room(policy)? {
                break;
            }
            // It may have been used while others were removed.
            if self.last_used(digest) <= used {
                self.take_image(digest, &mut report)?;
            }
        }
        Ok(report)
    }

    fn has_room(&self, policy: Headroom) -> Result<bool, StoreError> {
        let stat = rustix::fs::statvfs(&self.blobs)
            .map_err(|error| io_failed("look at the free space")(error.into()))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let total = stat.f_blocks.saturating_mul(stat.f_frsize);
        let wanted = total / 100 * u64::from(policy.free_percent.min(100));
        Ok(free >= wanted.max(policy.free_bytes))
    }

    fn remove(&self, reference: &Reference, force: bool) -> Result<Report, StoreError> {
        let _one_at_a_time = self.collecting.lock();
        let name = reference.to_string();
        let mut index = self.index();
        let digest = index
            .get(reference)
            .ok_or_else(|| StoreError::Unknown(name.clone()))?;
        // The name by digest came with the tag, and goes with it unless another tag needs it.
        let pinned = reference.pinned(digest).to_string();
        let names = index.all().remove(&digest).unwrap_or_default();
        let stays = |other: &String| *other != name && *other != pinned;
        let is_last = !names.iter().any(stays);
        if !is_last {
            let forgotten = index.forget(|other, _| other == name);
            forgotten.map_err(io_failed("write the index of images"))?;
            let images = vec![name];
            return Ok(Report {
                images,
                ..Report::default()
            });
        }
        drop(index);
        if !force && !self.layers.uses.is_image_free(digest) {
            return Err(StoreError::InUse(name));
        }
        let mut report = Report::default();
        self.take_image(digest, &mut report)?;
        Ok(report)
    }

    fn prune(&self, what: Prune) -> Result<Report, StoreError> {
        let _one_at_a_time = self.collecting.lock();
        let goes = |digest: &Digest, names: &[String]| {
            let untagged = names.iter().all(|name| name.contains('@'));
            (what == Prune::Unused || untagged) && self.layers.uses.is_image_free(*digest)
        };
        let mut images = self.index().all();
        images.retain(|digest, names| goes(digest, names));
        let mut report = Report::default();
        let digests = images.into_keys().collect();
        self.take(&digests, Orphans::All, &mut report)?;
        Ok(report)
    }

    /// Takes an image out, with what no other image has.
    fn take_image(&self, digest: Digest, report: &mut Report) -> Result<(), StoreError> {
        let loaded = self.load(digest);
        let layers = loaded.map(|(_, config)| Layers::parts(&config.diff_ids));
        let layers: HashSet<LayerName> = layers.unwrap_or_default().into_iter().collect();
        self.take(&HashSet::from([digest]), Orphans::Of(&layers), report)
    }

    /// Takes images out of the index, then layers and documents that no image has any more.
    fn take(
        &self,
        images: &HashSet<Digest>,
        orphans: Orphans<'_>,
        report: &mut Report,
    ) -> Result<(), StoreError> {
        let discarded = {
            let mut index = self.index();
            for (digest, names) in index.all() {
                if images.contains(&digest) {
                    report.images.extend(names);
                }
            }
            report.images.sort();
            let forgotten = index.forget(|_, digest| images.contains(&digest));
            forgotten.map_err(io_failed("write the index of images"))?;
            let left = self.left(index.all());
            self.take_documents(&left.documents)
                .map_err(io_failed("remove manifests"))?;
            self.take_layers(&left.layers, orphans)
                .map_err(io_failed("remove a layer"))?
        };
        // The others can go on while files are deleted.
        for layer in discarded {
            report.layers += 1;
            report.bytes += layer.delete().map_err(io_failed("delete a layer"))?;
        }
        Ok(())
    }

    /// What the images that are left consist of.
    fn left(&self, images: BTreeMap<Digest, Vec<String>>) -> Left {
        let mut left = Left::default();
        for digest in images.into_keys() {
            left.documents.insert(digest);
            if let Some((manifest, config)) = self.load(digest) {
                left.documents.insert(manifest.config.digest);
                left.layers.extend(Layers::parts(&config.diff_ids));
            }
        }
        left
    }

    fn take_documents(&self, needed: &HashSet<Digest>) -> io::Result<()> {
        for entry in fs::read_dir(&self.blobs)? {
            let entry = entry?;
            let digest = entry.file_name().to_str().and_then(Digest::from_file_name);
            // With the index locked, nobody is writing one: what has another name is left over.
            if digest.is_none_or(|digest| !needed.contains(&digest)) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    fn take_layers(
        &self,
        needed: &HashSet<LayerName>,
        orphans: Orphans<'_>,
    ) -> io::Result<Vec<Discarded>> {
        let mut discarded = Vec::new();
        for name in self.layers.all()? {
            let goes = match orphans {
                Orphans::All => true,
                Orphans::Before(time) => self.layers.since(&name).is_ok_and(|came| came <= time),
                Orphans::Of(layers) => layers.contains(&name),
            };
            if goes && !needed.contains(&name) {
                discarded.extend(self.layers.discard(&name)?);
            }
        }
        Ok(discarded)
    }

    /// How many images have each layer.
    pub(super) fn sharing(&self) -> HashMap<LayerName, u32> {
        let mut sharing = HashMap::new();
        for digest in self.index().all().into_keys() {
            let parts = self.load(digest);
            for name in parts
                .map(|(_, config)| Layers::parts(&config.diff_ids))
                .into_iter()
                .flatten()
            {
                *sharing.entry(name).or_default() += 1;
            }
        }
        sharing
    }
}

#[derive(Default)]
struct Left {
    documents: HashSet<Digest>,
    layers: HashSet<LayerName>,
}
