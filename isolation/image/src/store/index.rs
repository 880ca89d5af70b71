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
        if !changed {
            return Ok(());
        }
        let bytes = serde_json::to_vec(&self.images).map_err(io::Error::other)?;
        write_whole(&self.path, &bytes)
    }
}
