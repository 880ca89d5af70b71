//! The OCI image layout: `oci-layout`, `index.json`, `blobs/sha256/…`. Docker writes one too since
//! version 25, beside its own `manifest.json`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::ArchiveError;
use super::import::{Content, Found, Piece};
use super::select::{Contents, Passed};
use super::source::Source;
use crate::manifest::{Document, MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES, MAX_NESTING, Manifest};
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
pub(super) fn read(source: &Source) -> Result<Contents, ArchiveError> {
    let bytes = document(source, "index.json", MAX_MANIFEST_BYTES)?;
    let index: Index = serde_json::from_slice(&bytes).map_err(|source| ArchiveError::Json {
        name: "index.json",
        source,
    })?;
    if index.manifests.len() > MAX_IMAGES {
        return Err(ArchiveError::Bounds("too many images"));
    }
    let (mut found, mut passed): (Vec<Found>, Vec<Passed>) = (Vec::new(), Vec::new());
    for entry in index.manifests {
        let named = entry.annotations.get(FULL_NAME);
        let name = named.or_else(|| entry.annotations.get(REF_NAME)).cloned();
        match image(source, &entry) {
            Ok(image) => {
                let same = found.iter_mut().find(|other| other.digest == image.digest);
                match same {
                    Some(other) => other.names.extend(name),
                    None => found.push(Found {
                        names: name.into_iter().collect(),
                        ..image
                    }),
                }
            }
            Err(why) if is_passed(&why) => passed.push(Passed {
                names: name.into_iter().collect(),
                digest: entry.digest,
                why,
            }),
            Err(error) => return Err(error),
        }
    }
    Ok(Contents { found, passed })
}

/// What may stand beside images: those for other machines, and signatures and the like.
fn is_passed(error: &ArchiveError) -> bool {
    use crate::ManifestError::{Artifact, Config, Platform};
    matches!(
        error,
        ArchiveError::Manifest(Platform { .. } | Config(_) | Artifact(_))
    )
}

/// The image of an entry.
fn image(source: &Source, entry: &Entry) -> Result<Found, ArchiveError> {
    let here = Platform::HERE;
    if let Some(platform) = entry
        .platform
        .as_ref()
        .filter(|platform| !platform.is(&here))
    {
        let (node, has) = (here.to_string(), platform.to_string());
        return Err(crate::ManifestError::Platform { node, has }.into());
    }
    let mut digest = entry.digest;
    let mut bytes = blob(source, digest, MAX_MANIFEST_BYTES)?;
    let mut document = Document::parse(&bytes, Some(entry.media_type.as_str()))?;
    for _ in 0..=MAX_NESTING + 1 {
        let index = match document {
            Document::Index(index) => index,
            Document::Manifest(manifest) => {
                return Ok(Found {
                    names: Vec::new(),
                    digest,
                    pieces: pieces(&manifest),
                    manifest: bytes,
                    config_digest: manifest.config.digest,
                    config: blob(source, manifest.config.digest, MAX_CONFIG_BYTES)?,
                    index: (digest != entry.digest).then_some(entry.digest),
                });
            }
        };
        digest = index.pick(&here)?.digest;
        bytes = blob(source, digest, MAX_MANIFEST_BYTES)?;
        document = Document::parse(&bytes, None)?;
    }
    Err(crate::ManifestError::Nested.into())
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
