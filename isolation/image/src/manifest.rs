//! Manifests and indexes: which config and which layers an image has on this platform.
//!
//! It decides which documents are believed: OCI and Docker schema 2, whose media type as served
//! and as written agree, within bounds on numbers and sizes. It does not fetch and does not hash.
//!
//! Invariants: one document is read in one way only. A document that could be both an index and a
//! manifest is refused, as two readers that disagree about it would run different content under
//! one digest (CVE-2021-41190); so is one whose members differ from the known ones in case alone,
//! which other readers take for them. An address in a manifest is never fetched.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::Digest;
use crate::platform::Platform;

/// Largest manifest or index that is read, in bytes.
pub(crate) const MAX_MANIFEST_BYTES: u64 = 4 << 20;
/// Largest config blob that is read, in bytes.
pub(crate) const MAX_CONFIG_BYTES: u64 = 8 << 20;
/// Most layers of an image: overlayfs and every other runtime stop there too.
pub(crate) const MAX_LAYERS: usize = 128;
/// Most indexes inside an index, one in the other: what tools write has one.
pub(crate) const MAX_NESTING: usize = 3;
/// Most entries of an index that are looked at.
const MAX_INDEX_ENTRIES: usize = 1024;
/// Largest compressed layer, in bytes.
const MAX_LAYER_BYTES: u64 = 64 << 30;
/// The operating system of entries that are no images.
const UNKNOWN: &str = "unknown";
/// Most of an unknown media type that an error repeats, in characters.
const MAX_QUOTE: usize = 100;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const OCI_ARTIFACT: &str = "application/vnd.oci.artifact.manifest.v1+json";
const SCHEMA1_PREFIX: &str = "application/vnd.docker.distribution.manifest.v1+";

/// What to send as `Accept` when asking for a manifest.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json";

/// Why a manifest is refused.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON, or not of the expected shape.
    #[error("the manifest is not valid")]
    Json(#[source] serde_json::Error),
    /// The old signed format.
    #[error(
        "the image is in Docker's old schema 1 format, which is not supported: push it again with a current tool"
    )]
    Schema1,
    /// Neither an image manifest nor an index.
    #[error("{0:?} is not a media type of an image manifest")]
    MediaType(String),
    /// Served as one type, written as another, or shaped as both.
    #[error("the manifest is ambiguous: its media type and its content disagree")]
    Ambiguous,
    /// No entry of the index fits this node.
    #[error("no image for {node} in the index, which has: {has}")]
    Platform {
        /// This node.
        node: String,
        /// What there is.
        has: String,
    },
    /// Indexes inside indexes without end.
    #[error("the index leads to more than {MAX_NESTING} other indexes, one inside the other")]
    Nested,
    /// The config is of a kind that is not a container image (a chart, a signature …).
    #[error("this is not a container image: its config has the media type {0:?}")]
    Config(String),
    /// Something that is stored like an image and is none.
    #[error("this is not a container image but an OCI artifact ({0:?})")]
    Artifact(String),
    /// A layer that the registry does not have and that is to be fetched from somewhere else.
    #[error(
        "the image has a foreign layer ({0}), which is kept outside of the registry; only what the registry itself has is fetched: push the image again with that layer included"
    )]
    Foreign(String),
    /// A layer in a compression or kind that this version cannot read.
    #[error("layers of the media type {0:?} are not supported yet")]
    Layer(String),
    /// A number or size beyond the bounds.
    #[error("the manifest has {0}")]
    Bounds(&'static str),
}

/// A document that a registry served for a tag or digest.
#[derive(Debug)]
pub(crate) enum Document {
    Manifest(Manifest),
    Index(Index),
}

/// One image for one platform.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub(crate) config: Blob,
    /// Bottom first.
    pub(crate) layers: Vec<Layer>,
}

/// A list of manifests for several platforms.
#[derive(Debug)]
pub(crate) struct Index(Vec<IndexEntry>);

/// Something to fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Blob {
    pub(crate) digest: Digest,
    pub(crate) size_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layer {
    pub(crate) blob: Blob,
    pub(crate) compression: Compression,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: u32,
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<IndexEntry>>,
    artifact_type: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: Digest,
    size: u64,
    /// Places outside of the registry; only counted.
    urls: Option<Vec<IgnoredAny>>,
}

#[derive(Debug, Deserialize)]
struct IndexEntry {
    #[serde(flatten)]
    descriptor: Descriptor,
    platform: Option<EntryPlatform>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct EntryPlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: String,
}

impl EntryPlatform {
    /// Whether it is this operating system and architecture, in whatever variant.
    pub(crate) fn is(&self, platform: &Platform) -> bool {
        platform.has(&self.os, &self.architecture)
    }
}

impl fmt::Display for EntryPlatform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            os,
            architecture,
            variant,
        } = self;
        let slash = if variant.is_empty() { "" } else { "/" };
        f.write_str(&quote(&format!("{os}/{architecture}{slash}{variant}")))
    }
}

impl Document {
    /// Reads what was served as `content_type` (`None` if that is not known or says nothing).
    pub(crate) fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Self, ManifestError> {
        let served = content_type.filter(|kind| is_telling(kind));
        if served.is_some_and(|kind| kind.starts_with(SCHEMA1_PREFIX)) {
            return Err(ManifestError::Schema1);
        }
        let raw: Raw = serde_json::from_slice(bytes).map_err(|error| {
            // Schema 1 has no such members, so say what it is rather than what it lacks.
            if is_schema1(bytes) {
                ManifestError::Schema1
            } else {
                ManifestError::Json(error)
            }
        })?;
        match raw.schema_version {
            2 => {}
            1 => return Err(ManifestError::Schema1),
            _ => return Err(ManifestError::Bounds("an unknown schema version")),
        }
        let written = raw.media_type.as_deref();
        if let (Some(served), Some(written)) = (served, written)
            && served != written
        {
            return Err(ManifestError::Ambiguous);
        }
        let is_index = match served.or(written) {
            Some(OCI_INDEX | DOCKER_LIST) => true,
            Some(OCI_MANIFEST | DOCKER_MANIFEST) => false,
            Some(OCI_ARTIFACT) => return Err(ManifestError::Artifact(quote(OCI_ARTIFACT))),
            Some(other) => return Err(ManifestError::MediaType(quote(other))),
            None => raw.manifests.is_some(),
        };
        if has_lookalikes(bytes) {
            return Err(ManifestError::Ambiguous);
        }
        match (is_index, raw.config, raw.layers, raw.manifests) {
            (true, None, None, Some(entries)) if entries.len() <= MAX_INDEX_ENTRIES => {
                Ok(Self::Index(Index(entries)))
            }
            (true, None, None, Some(_)) => Err(ManifestError::Bounds("too many entries")),
            (false, Some(config), Some(layers), None) => {
                let artifact = raw.artifact_type.as_deref();
                Manifest::check(&config, &layers, artifact).map(Self::Manifest)
            }
            _ => Err(ManifestError::Ambiguous),
        }
    }
}

/// Servers that know nothing about registries say one of these, and the document decides.
fn is_telling(content_type: &str) -> bool {
    !matches!(
        content_type,
        "" | "application/json" | "text/plain" | "application/octet-stream"
    )
}

/// Whether a member at the top is one of ours but for case, as readers written in Go fold it.
fn has_lookalikes(bytes: &[u8]) -> bool {
    const OURS: [&str; 6] = [
        "schemaVersion",
        "mediaType",
        "config",
        "layers",
        "manifests",
        "artifactType",
    ];
    let fold = |c: char| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    };
    let looks_like =
        |name: &str, ours: &str| name != ours && name.chars().map(fold).eq(ours.chars().map(fold));
    // It was read as an object before.
    let members: BTreeMap<String, IgnoredAny> = serde_json::from_slice(bytes).unwrap_or_default();
    let mut names = members.keys();
    names.any(|name| OURS.iter().any(|ours| looks_like(name, ours)))
}

fn is_schema1(bytes: &[u8]) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Version {
        schema_version: u32,
    }
    serde_json::from_slice::<Version>(bytes).is_ok_and(|version| version.schema_version == 1)
}

fn quote(text: &str) -> String {
    text.chars().take(MAX_QUOTE).collect()
}

impl Manifest {
    fn check(
        config: &Descriptor,
        layers: &[Descriptor],
        artifact: Option<&str>,
    ) -> Result<Self, ManifestError> {
        match config.media_type.as_str() {
            "application/vnd.oci.image.config.v1+json"
            | "application/vnd.docker.container.image.v1+json" => {}
            other => {
                let named = artifact.map(|kind| ManifestError::Artifact(quote(kind)));
                return Err(named.unwrap_or_else(|| ManifestError::Config(quote(other))));
            }
        }
        if config.has_urls() {
            return Err(ManifestError::Foreign("its config".into()));
        }
        if config.size > MAX_CONFIG_BYTES {
            return Err(ManifestError::Bounds("a config that is too large"));
        }
        match layers.len() {
            0 => return Err(ManifestError::Bounds("no layers")),
            1..=MAX_LAYERS => {}
            _ => return Err(ManifestError::Bounds("more than 128 layers")),
        }
        let layers = layers.iter().map(Layer::check).collect::<Result<_, _>>()?;
        Ok(Self {
            config: Blob {
                digest: config.digest,
                size_bytes: config.size,
            },
            layers,
        })
    }
}

impl Descriptor {
    fn has_urls(&self) -> bool {
        self.urls.as_ref().is_some_and(|urls| !urls.is_empty())
    }
}

impl Layer {
    fn check(descriptor: &Descriptor) -> Result<Self, ManifestError> {
        let compression = match descriptor.media_type.as_str() {
            "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.docker.image.rootfs.diff.tar" => Compression::None,
            "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip" => Compression::Gzip,
            "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Compression::Zstd,
            other if other.contains(".foreign.") || other.contains(".nondistributable.") => {
                return Err(ManifestError::Foreign(quote(other)));
            }
            other => return Err(ManifestError::Layer(quote(other))),
        };
        if descriptor.has_urls() {
            return Err(ManifestError::Foreign(descriptor.digest.to_string()));
        }
        if descriptor.size > MAX_LAYER_BYTES {
            return Err(ManifestError::Bounds("a layer that is too large"));
        }
        let blob = Blob {
            digest: descriptor.digest,
            size_bytes: descriptor.size,
        };
        Ok(Self { blob, compression })
    }
}

impl IndexEntry {
    /// Something about an image (where it comes from, what is in it) that is no image.
    fn is_attestation(&self) -> bool {
        let platform = self.platform.as_ref();
        let is_marked = self
            .annotations
            .as_ref()
            .is_some_and(|annotations| annotations.contains_key("vnd.docker.reference.type"));
        is_marked || platform.is_some_and(|platform| platform.os == UNKNOWN)
    }
}

impl Index {
    /// The manifest, or an index over it, for `node`: its own architecture, in the first variant of its list that there
    /// is. An index of a single image that names no platform is taken at its config's word.
    pub(crate) fn pick(&self, node: &Platform) -> Result<Blob, ManifestError> {
        let images = || self.0.iter().filter(|entry| !entry.is_attestation());
        let fits = |entry: &&IndexEntry, variant: &str| {
            entry
                .platform
                .as_ref()
                .is_some_and(|platform| platform.is(node) && platform.variant == variant)
        };
        let mut variants = node.variants().into_iter();
        let by_platform = variants.find_map(|variant| images().find(|entry| fits(entry, variant)));
        let only = || {
            let mut images = images();
            let first = images.next().filter(|entry| entry.platform.is_none());
            first.filter(|_| images.next().is_none())
        };
        let found = by_platform
            .or_else(only)
            .ok_or_else(|| ManifestError::Platform {
                node: node.to_string(),
                has: self.has(),
            })?;
        match found.descriptor.media_type.as_str() {
            // Whoever follows an index inside this one counts.
            OCI_MANIFEST | DOCKER_MANIFEST | OCI_INDEX | DOCKER_LIST => {}
            OCI_ARTIFACT => return Err(ManifestError::Artifact(quote(OCI_ARTIFACT))),
            other => return Err(ManifestError::MediaType(quote(other))),
        }
        if found.descriptor.size > MAX_MANIFEST_BYTES {
            return Err(ManifestError::Bounds("an entry that is too large"));
        }
        Ok(Blob {
            digest: found.descriptor.digest,
            size_bytes: found.descriptor.size,
        })
    }

    fn has(&self) -> String {
        let names: Vec<String> = self
            .0
            .iter()
            .filter_map(|entry| entry.platform.as_ref())
            .filter(|platform| platform.os != UNKNOWN)
            .take(20)
            .map(EntryPlatform::to_string)
            .collect();
        if names.is_empty() {
            "nothing".into()
        } else {
            names.join(", ")
        }
    }
}

#[cfg(test)]
mod tests;
