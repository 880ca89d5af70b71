//! The archive of `docker save`: `manifest.json` names a config and uncompressed layers. It has no
//! manifest as registries have, so one is written here; the image's id, the digest of the config,
//! is the same.

use serde::Deserialize;
use serde_json::json;

use super::import::{Content, Found, Piece};
use super::layout::{MAX_IMAGES, document};
use super::select::Contents;
use super::source::Source;
use super::{ArchiveError, look};
use crate::Digest;
use crate::manifest::{
    self, Blob, Layer, MAX_CONFIG_BYTES, MAX_LAYERS, MAX_MANIFEST_BYTES, OCI_MANIFEST,
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<Digest>,
}

/// Whether there is one.
pub(super) fn is_archive(source: &Source) -> Result<bool, ArchiveError> {
    Ok(source.file("manifest.json")?.is_some())
}

/// Its images.
pub(super) fn read(source: &Source) -> Result<Contents, ArchiveError> {
    let bytes = document(source, "manifest.json", MAX_MANIFEST_BYTES)?;
    if bytes.trim_ascii_start().starts_with(b"{") {
        // One image's own manifest, as skopeo's directories have it.
        return Err(ArchiveError::Format(look::of_names(source)));
    }
    let entries: Vec<Entry> =
        serde_json::from_slice(&bytes).map_err(|source| ArchiveError::Json {
            name: "manifest.json",
            source,
        })?;
    if entries.is_empty() || entries.len() > MAX_IMAGES {
        return Err(ArchiveError::Bounds("no images or too many"));
    }
    let found = entries.into_iter().map(|entry| image(source, entry));
    Ok(Contents {
        found: found.collect::<Result<_, _>>()?,
        passed: Vec::new(),
    })
}

fn image(source: &Source, entry: Entry) -> Result<Found, ArchiveError> {
    let config = document(source, &entry.config, MAX_CONFIG_BYTES)?;
    let parsed: Config = serde_json::from_slice(&config).map_err(|source| ArchiveError::Json {
        name: "config",
        source,
    })?;
    let ids = parsed.rootfs.diff_ids;
    if ids.is_empty() || ids.len() > MAX_LAYERS || ids.len() != entry.layers.len() {
        return Err(ArchiveError::Bounds("an unreasonable number of layers"));
    }
    let mut pieces = Vec::new();
    for (diff_id, name) in ids.into_iter().zip(entry.layers) {
        let stretch = source.file(&name)?;
        let stretch = stretch.ok_or_else(|| ArchiveError::Missing(name.clone()))?;
        let read = stretch.compression();
        pieces.push(Piece {
            layer: Layer {
                blob: Blob {
                    digest: diff_id,
                    size_bytes: stretch.size_bytes(),
                },
                compression: read.map_err(super::io_failed("read the archive"))?,
            },
            name,
            content: Content::Layer,
        });
    }
    let config_digest = Digest::of(&config);
    let manifest = manifest_of(config_digest, config.len(), &pieces);
    Ok(Found {
        names: entry.repo_tags.unwrap_or_default(),
        digest: Digest::of(&manifest),
        manifest,
        config_digest,
        config,
        index: None,
        pieces,
    })
}

fn manifest_of(config: Digest, size: usize, pieces: &[Piece]) -> Vec<u8> {
    let layers: Vec<_> = pieces
        .iter()
        .map(|piece| {
            let Blob { digest, size_bytes } = piece.layer.blob;
            json!({"mediaType": manifest::OCI_LAYER, "digest": digest, "size": size_bytes})
        })
        .collect();
    let document = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": manifest::OCI_CONFIG, "digest": config, "size": size},
        "layers": layers,
    });
    document.to_string().into_bytes()
}
