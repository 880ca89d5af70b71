//! Which references this node knows, and the manifest each one means.
//!
//! Invariant: the file is replaced whole. It is not synced: losing it costs a question to the
//! registry, and an unreadable one counts as empty.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{read_bounded, write_whole};
use crate::{Digest, Reference};

/// Largest index that is read, in bytes, and most names in it.
const MAX_INDEX_BYTES: u64 = 64 << 20;
const MAX_NAMES: usize = 50_000;

pub(super) struct Index {
    path: PathBuf,
    images: Images,
}

#[derive(Default, Serialize, Deserialize)]
struct Images {
    images: BTreeMap<String, Digest>,
}

impl Index {
    pub(super) fn load(dir: &Path) -> Self {
        let path = dir.join("images.json");
        let images = match read_bounded(&path, MAX_INDEX_BYTES) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!(%error, path = %path.display(), "image index unreadable, begun anew");
                Images::default()
            }),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(%error, path = %path.display(), "image index unreadable, begun anew");
                }
                Images::default()
            }
        };
        Self { path, images }
    }

    pub(super) fn get(&self, reference: &Reference) -> Option<Digest> {
        self.images.images.get(&reference.to_string()).copied()
    }

    pub(super) fn set(&mut self, names: &[Reference], digest: Digest) -> io::Result<()> {
        let images = &mut self.images.images;
        let mut changed = false;
        for name in names {
            changed |= images.insert(name.to_string(), digest) != Some(digest);
        }
        while images.len() > MAX_NAMES {
            images.pop_first();
        }
        if changed { self.save() } else { Ok(()) }
    }

    /// Every image with its names.
    pub(super) fn all(&self) -> BTreeMap<Digest, Vec<String>> {
        let mut images: BTreeMap<Digest, Vec<String>> = BTreeMap::new();
        for (name, digest) in &self.images.images {
            images.entry(*digest).or_default().push(name.clone());
        }
        images
    }

    /// Forgets the names for which `goes` holds.
    pub(super) fn forget(&mut self, goes: impl Fn(&str, Digest) -> bool) -> io::Result<()> {
        let before = self.images.images.len();
        self.images
            .images
            .retain(|name, digest| !goes(name, *digest));
        if self.images.images.len() == before {
            return Ok(());
        }
        self.save()
    }

    fn save(&self) -> io::Result<()> {
        let bytes = serde_json::to_vec(&self.images).map_err(io::Error::other)?;
        write_whole(&self.path, &bytes)
    }
}
