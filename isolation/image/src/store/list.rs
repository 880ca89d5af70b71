//! What is in the store, for people and for the node's API. Reads only, and is no use of an image.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::Value;

use super::collect::StoreError;
use super::layers::Layers;
use super::name::LayerName;
use super::{Inner, Store};
use crate::config::ParsedConfig;
use crate::manifest::{MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES};
use crate::{Digest, Platform, Reference};

/// One image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Of the manifest for this platform.
    pub digest: Digest,
    /// Full references, sorted; those with `@` are by digest.
    pub names: Vec<String>,
    /// Bytes of its layers on disk, also of those that other images have too; of layers that an
    /// older version unpacked none.
    pub size_bytes: u64,
    /// The part of `size_bytes` that no other image has.
    pub own_bytes: u64,
    /// Layers.
    pub layers: usize,
    /// Seconds since 1970.
    pub last_used_s: u64,
    /// Whether something holds it: a container or a pull.
    pub in_use: bool,
    /// Whether all of it is here.
    pub complete: bool,
    /// For which machine: `linux/amd64`; empty if its documents are not here.
    pub platform: String,
    /// Whether this node can run it.
    pub runs_here: bool,
}

/// One image with its parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Details {
    /// What the list says.
    #[serde(flatten)]
    pub summary: Summary,
    /// Bottom first.
    pub parts: Vec<Part>,
    /// The manifest as the registry has it.
    pub manifest: Value,
    /// The config as the registry has it. It is the image maker's word, to be shown and not obeyed.
    pub config: Value,
}

/// One layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Part {
    /// Of the archive.
    pub diff_id: Digest,
    /// Of the blob that was or would be fetched.
    pub blob: Digest,
    /// Of that blob.
    pub fetched_bytes: u64,
    /// On disk, if it is here and known.
    pub size_bytes: Option<u64>,
    /// How many images have it.
    pub images: u32,
}

impl Store {
    /// Every image, sorted by its first name.
    ///
    /// # Errors
    /// If the store's files cannot be read.
    pub async fn list(&self) -> Result<Vec<Summary>, StoreError> {
        self.blocking(|inner| Ok(inner.list())).await
    }

    /// One image.
    ///
    /// # Errors
    /// If there is none of this name, or its documents cannot be read.
    pub async fn inspect(&self, reference: &Reference) -> Result<Details, StoreError> {
        let reference = reference.clone();
        self.blocking(move |inner| inner.inspect(&reference)).await
    }
}

impl Inner {
    fn list(&self) -> Vec<Summary> {
        let sharing = self.sharing();
        let shared = |name: &LayerName| sharing.get(name).copied().unwrap_or(0);
        let images = self.index().all();
        let mut list: Vec<Summary> = images
            .into_iter()
            .map(|(digest, names)| self.summary(digest, names, &shared))
            .collect();
        list.sort_by(|a, b| a.names.cmp(&b.names));
        list
    }

    fn summary(
        &self,
        digest: Digest,
        names: Vec<String>,
        shared: &impl Fn(&LayerName) -> u32,
    ) -> Summary {
        let config = self.load(digest).map(|(_, config)| config);
        let platform = config.as_ref().map(ParsedConfig::platform);
        let for_here = config
            .clone()
            .and_then(|config| config.made_for(&Platform::HERE).ok());
        let diff_ids = config.map(|config| config.diff_ids);
        let (mut size_bytes, mut own_bytes) = (0, 0);
        for name in diff_ids.iter().flat_map(|ids| Layers::parts(ids)) {
            let mark = self.layers.mark(&name);
            let bytes = mark.and_then(|mark| mark.size_bytes).unwrap_or(0);
            size_bytes += bytes;
            own_bytes += if shared(&name) <= 1 { bytes } else { 0 };
        }
        Summary {
            digest,
            names,
            size_bytes,
            own_bytes,
            layers: diff_ids.as_ref().map_or(0, Vec::len),
            last_used_s: seconds(self.last_used(digest)),
            in_use: !self.layers.uses.is_image_free(digest),
            complete: diff_ids.is_some_and(|ids| self.layers.has_image(&ids)),
            platform: platform.unwrap_or_default(),
            runs_here: for_here.is_some(),
        }
    }

    fn inspect(&self, reference: &Reference) -> Result<Details, StoreError> {
        let unknown = || StoreError::Unknown(reference.to_string());
        let (digest, names) = {
            let index = self.index();
            let digest = index.get(reference).ok_or_else(unknown)?;
            (digest, index.all().remove(&digest).unwrap_or_default())
        };
        let (manifest, config) = self.load(digest).ok_or_else(unknown)?;
        let sharing = self.sharing();
        let shared = |name: &LayerName| sharing.get(name).copied().unwrap_or(0);
        let layers = manifest.layers.iter().zip(&config.diff_ids);
        let parts = layers.map(|(layer, diff_id)| {
            let name = LayerName::layer(*diff_id);
            Part {
                diff_id: *diff_id,
                blob: layer.blob.digest,
                fetched_bytes: layer.blob.size_bytes,
                size_bytes: self.layers.mark(&name).and_then(|mark| mark.size_bytes),
                images: shared(&name),
            }
        });
        let json = |digest, max_bytes| {
            let bytes = self.read_blob(digest, max_bytes).ok_or_else(unknown)?;
            serde_json::from_slice(&bytes).map_err(|_| unknown())
        };
        Ok(Details {
            summary: self.summary(digest, names, &shared),
            parts: parts.collect(),
            manifest: json(digest, MAX_MANIFEST_BYTES)?,
            config: json(manifest.config.digest, MAX_CONFIG_BYTES)?,
        })
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
