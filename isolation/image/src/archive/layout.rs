//! The OCI image layout: `oci-layout`, `index.json`, `blobs/sha256/…`. Docker writes one too since
//! version 25, beside its own `manifest.json`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::ArchiveError;
use super::import::{Content, Found, Piece};
use super::source::Source;
use crate::manifest::{Document, MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES, Manifest};
use crate::platform::Platform;
use crate::{Digest, manifest};

/// Most images in one layout.
pub(super) const MAX_IMAGES: usize = 1024;
/// Where containerd and Docker write the full name, and where the specification has the tag.
const FULL_NAME: &str = "io.containerd.image.name";
const REF_NAME: &str = "org.opencontainers.image.ref.name";

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(default)]
    media_type: String,
    digest: Digest,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    platform: Option<manifest::EntryPlatform>,
}

/// Whether there is one.
pub(super) fn is_layout(source: &Source) -> Result<bool, ArchiveError> {
    Ok(source.file("index.json")?.is_some() && source.file("oci-layout")?.is_some())
}

/// The images for this node.
pub(super) fn read(source: &Source) -> Result<Vec<Found>, ArchiveError> {
    let bytes = document(source, "index.json", MAX_MANIFEST_BYTES)?;
    let index: Index = serde_json::from_slice(&bytes).map_err(|source| ArchiveError::Json {
        name: "index.json",
        source,
    })?;
    if index.manifests.len() > MAX_IMAGES {
        return Err(ArchiveError::Bounds("too many images"));
    }
    let mut found: Vec<Found> = Vec::new();
    let mut elsewhere = None;
    for entry in index.manifests {
        let named = entry.annotations.get(FULL_NAME);
        let name = named.or_else(|| entry.annotations.get(REF_NAME)).cloned();
        match image(source, &entry) {
            Ok(Some(image)) => {
                let same = found.iter_mut().find(|other| other.digest == image.digest);
                match same {
                    Some(other) => other.names.extend(name),
                    None => found.push(Found {
                        names: name.into_iter().collect(),
                        ..image
                    }),
                }
            }
            Ok(None) => {}
            Err(ArchiveError::Manifest(error @ crate::ManifestError::Platform { .. })) => {
                elsewhere = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    match (found.is_empty(), elsewhere) {
        (true, Some(error)) => Err(error.into()),
        (true, None) => Err(ArchiveError::Bounds("no image for this node")),
        (false, _) => Ok(found),
    }
}

/// The image of an entry; none if the entry says that it is for another platform.
fn image(source: &Source, entry: &Entry) -> Result<Option<Found>, ArchiveError> {
    let here = Platform::HERE;
    let elsewhere = |platform: &manifest::EntryPlatform| !platform.is(here);
    if entry.platform.as_ref().is_some_and(elsewhere) {
        return Ok(None);
    }
    let kind = Some(entry.media_type.as_str());
    let mut digest = entry.digest;
    let mut bytes = blob(source, digest, MAX_MANIFEST_BYTES)?;
    let manifest = match Document::parse(&bytes, kind)? {
        Document::Manifest(manifest) => manifest,
        Document::Index(index) => {
            digest = index.pick(here)?.digest;
            bytes = blob(source, digest, MAX_MANIFEST_BYTES)?;
            match Document::parse(&bytes, None)? {
                Document::Manifest(manifest) => manifest,
                Document::Index(_) => return Err(crate::ManifestError::Nested.into()),
            }
        }
    };
    let config = blob(source, manifest.config.digest, MAX_CONFIG_BYTES)?;
    Ok(Some(Found {
        names: Vec::new(),
        digest,
        pieces: pieces(&manifest),
        manifest: bytes,
        config_digest: manifest.config.digest,
        config,
    }))
}

fn pieces(manifest: &Manifest) -> Vec<Piece> {
    let piece = |layer: &manifest::Layer| Piece {
        name: blob_name(layer.blob.digest),
        layer: *layer,
        content: Content::Blob,
    };
    manifest.layers.iter().map(piece).collect()
}

fn blob(source: &Source, digest: Digest, max_bytes: u64) -> Result<Vec<u8>, ArchiveError> {
    let name = blob_name(digest);
    let bytes = document(source, &name, max_bytes)?;
    let actual = Digest::of(&bytes);
    if actual != digest {
        return Err(ArchiveError::WrongDigest { name, actual });
    }
    Ok(bytes)
}

pub(super) fn blob_name(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

pub(super) fn document(
    source: &Source,
    name: &str,
    max_bytes: u64,
) -> Result<Vec<u8>, ArchiveError> {
    let found = source.document(name, max_bytes)?;
    found.ok_or_else(|| ArchiveError::Missing(name.chars().take(200).collect()))
}
