//! From an image in the store to an archive that other tools take.
//!
//! Layers are written uncompressed: their digests are then the diff ids of the config, so the image
//! keeps its id although the compressed blobs are gone. A layer whose archive cannot be made again
//! byte for byte (see [`crate::recipe`]) is packed anew from its files; it and so the image get
//! other digests then, and whoever asked is told.
//!
//! Invariant: everything is read twice, first to learn digests and sizes, then to be written, and
//! what is written the second time is compared with the first.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use serde_json::{Value, json};

use super::import::blocking;
use super::{ArchiveError, io_failed, layout, repack};
use crate::manifest::{MAX_CONFIG_BYTES, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST};
use crate::platform::Platform;
use crate::store::Inner;
use crate::store::name::LayerName;
use crate::{Digest, Hold, Image, Reference, Store, recipe};
use gantry_intake::Hasher;

const BLOCK: u64 = 512;
const WRITE_BYTES: usize = 256 << 10;

/// Which kind of archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// An OCI image layout in a tar archive.
    Oci,
    /// As `docker save` writes it.
    Docker,
}

/// An image that is ready to be written as an archive. Until it is dropped, the image stays.
pub struct Export {
    /// The image's id: the digest of its config.
    pub id: Digest,
    /// Diff ids of the layers that have to be packed anew; none means that the id is the original.
    pub repacked: Vec<Digest>,
    name: Reference,
    format: ArchiveFormat,
    config: Vec<u8>,
    layers: Vec<Layer>,
    _hold: Hold,
}

impl Store {
    /// Reads an image once, to learn what its archive will have.
    ///
    /// # Errors
    /// If there is no such image here, or it cannot be read.
    pub async fn export(
        &self,
        reference: &Reference,
        format: ArchiveFormat,
    ) -> Result<Export, ArchiveError> {
        let unknown = ArchiveError::Unknown(reference.to_string());
        let image = self.local(reference).await.ok_or(unknown)?;
        let (inner, name) = (Arc::clone(&self.0), reference.clone());
        blocking(move || prepare(&inner, name, &image, format)).await
    }
}

impl Export {
    /// Writes the archive; returns its size in bytes. Blocks.
    ///
    /// # Errors
    /// If the image cannot be read or the archive not written; what was written is no archive then.
    pub fn write(&self, out: impl Write) -> Result<u64, ArchiveError> {
        let out = io::BufWriter::with_capacity(WRITE_BYTES, out);
        let mut writer = Writer { out, bytes: 0 };
        match self.format {
            ArchiveFormat::Oci => oci(&mut writer, &self.name, &self.config, &self.layers)?,
            ArchiveFormat::Docker => docker(&mut writer, &self.name, &self.config, &self.layers)?,
        }
        writer.finish()
    }
}

/// A layer to be written.
struct Layer {
    diff_id: Digest,
    dir: PathBuf,
    recipe: PathBuf,
    /// What its archive will have.
    digest: Digest,
    size_bytes: u64,
}

impl Layer {
    fn look(inner: &Inner, diff_id: Digest) -> Result<Self, ArchiveError> {
        let name = LayerName::layer(diff_id);
        let mut layer = Self {
            diff_id,
            dir: inner.layers.path(&name),
            recipe: inner.layers.recipe(&name),
            digest: diff_id,
            size_bytes: 0,
        };
        // What a recipe cannot do shows in the digest, or as a file that is not there.
        let mut sink = Measured::new(io::sink());
        let replayed = layer.replay(&mut sink);
        let (digest, size_bytes) = sink.finish();
        if replayed.is_ok() && digest == diff_id {
            layer.size_bytes = size_bytes;
            return Ok(layer);
        }
        let mut sink = Measured::new(io::sink());
        let packed = repack::pack(&layer.dir, &mut sink);
        packed.map_err(io_failed("read a layer"))?;
        (layer.digest, layer.size_bytes) = sink.finish();
        Ok(layer)
    }

    fn is_original(&self) -> bool {
        self.digest == self.diff_id
    }

    fn replay(&self, out: &mut dyn Write) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root: OwnedFd = rustix::fs::open(&self.dir, flags, Mode::empty())?;
        recipe::replay(File::open(&self.recipe)?, &root, out)
    }

    fn write(&self, out: &mut dyn Write) -> Result<(), ArchiveError> {
        let mut out = Measured::new(out);
        let written = if self.is_original() {
            self.replay(&mut out)
        } else {
            repack::pack(&self.dir, &mut out)
        };
        written.map_err(io_failed("write the archive"))?;
        let same = out.finish() == (self.digest, self.size_bytes);
        same.then_some(())
            .ok_or(ArchiveError::Changing(self.diff_id))
    }
}

fn prepare(
    inner: &Inner,
    name: Reference,
    image: &Image,
    format: ArchiveFormat,
) -> Result<Export, ArchiveError> {
    let unknown = || ArchiveError::Unknown(name.to_string());
    let (manifest, config) = inner.load(image.digest).ok_or_else(unknown)?;
    let look = |id: &Digest| Layer::look(inner, *id);
    let layers: Vec<Layer> = config.diff_ids.iter().map(look).collect::<Result<_, _>>()?;
    let changed = layers.iter().filter(|layer| !layer.is_original());
    let repacked: Vec<Digest> = changed.map(|layer| layer.diff_id).collect();
    let blob = inner.read_blob(manifest.config.digest, MAX_CONFIG_BYTES);
    let mut config = blob.ok_or_else(unknown)?;
    if !repacked.is_empty() {
        config = with_layers(&config, &layers)?;
    }
    Ok(Export {
        id: Digest::of(&config),
        repacked,
        name,
        format,
        config,
        layers,
        _hold: image.hold.clone(),
    })
}

/// The config with the digests that the layers have now.
fn with_layers(config: &[u8], layers: &[Layer]) -> Result<Vec<u8>, ArchiveError> {
    let json = |source| ArchiveError::Json {
        name: "config",
        source,
    };
    let mut config: Value = serde_json::from_slice(config).map_err(json)?;
    let ids: Vec<Digest> = layers.iter().map(|layer| layer.digest).collect();
    config["rootfs"]["diff_ids"] = json!(ids);
    serde_json::to_vec(&config).map_err(json)
}

fn oci(
    writer: &mut Writer<impl Write>,
    name: &Reference,
    config: &[u8],
    layers: &[Layer],
) -> Result<(), ArchiveError> {
    let described = |kind: &str, digest: Digest, size: u64| json!({"mediaType": kind, "digest": digest, "size": size});
    let id = Digest::of(config);
    let list: Vec<Value> = layers
        .iter()
        .map(|layer| described(OCI_LAYER, layer.digest, layer.size_bytes))
        .collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": described(OCI_CONFIG, id, config.len() as u64),
        "layers": list,
    });
    let manifest = manifest.to_string().into_bytes();
    let digest = Digest::of(&manifest);
    let mut entry = described(OCI_MANIFEST, digest, manifest.len() as u64);
    let here = Platform::HERE;
    entry["platform"] = json!({"os": here.os, "architecture": here.architecture});
    entry["annotations"] = json!({
        "org.opencontainers.image.ref.name": name.to_string(),
        "io.containerd.image.name": name.to_string(),
    });
    let index = json!({"schemaVersion": 2, "manifests": [entry]});
    writer.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    writer.file("index.json", index.to_string().as_bytes())?;
    writer.file(&layout::blob_name(digest), &manifest)?;
    writer.file(&layout::blob_name(id), config)?;
    writer.layers(layers, layout::blob_name)
}

fn docker(
    writer: &mut Writer<impl Write>,
    name: &Reference,
    config: &[u8],
    layers: &[Layer],
) -> Result<(), ArchiveError> {
    let layer_name = |digest: Digest| format!("{}.tar", digest.hex());
    let config_name = format!("{}.json", Digest::of(config).hex());
    let names: Vec<String> = layers
        .iter()
        .map(|layer| layer_name(layer.digest))
        .collect();
    // A name by digest is none that an image can be loaded under.
    let tags: Vec<String> = match name.digest() {
        None => vec![name.to_string()],
        Some(_) => Vec::new(),
    };
    let manifest = json!([{"Config": config_name, "RepoTags": tags, "Layers": names}]);
    writer.file("manifest.json", manifest.to_string().as_bytes())?;
    writer.file(&config_name, config)?;
    writer.layers(layers, layer_name)
}

/// A tar archive of files.
struct Writer<W> {
    out: W,
    bytes: u64,
}

impl<W: Write> Writer<W> {
    fn file(&mut self, name: &str, content: &[u8]) -> Result<(), ArchiveError> {
        self.header(name, content.len() as u64)?;
        self.put(content)?;
        self.pad(content.len() as u64)
    }

    /// Each layer once, also one that the image has twice.
    fn layers(
        &mut self,
        layers: &[Layer],
        name: impl Fn(Digest) -> String,
    ) -> Result<(), ArchiveError> {
        let mut written = std::collections::HashSet::new();
        for layer in layers.iter().filter(|layer| written.insert(layer.digest)) {
            self.header(&name(layer.digest), layer.size_bytes)?;
            layer.write(&mut self.out)?;
            self.bytes += layer.size_bytes;
            self.pad(layer.size_bytes)?;
        }
        Ok(())
    }

    fn header(&mut self, name: &str, size_bytes: u64) -> Result<(), ArchiveError> {
        let mut header = tar::Header::new_gnu();
        let set = header.set_path(name);
        set.map_err(io_failed("name a file of the archive"))?;
        header.set_size(size_bytes);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_entry_type(tar::EntryType::Regular);
        header.set_cksum();
        self.put(header.as_bytes())
    }

    fn pad(&mut self, size_bytes: u64) -> Result<(), ArchiveError> {
        let zeros = [0; 512];
        let length = usize::try_from((BLOCK - size_bytes % BLOCK) % BLOCK).unwrap_or(0);
        self.put(&zeros[..length])
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.bytes += bytes.len() as u64;
        let written = self.out.write_all(bytes);
        written.map_err(io_failed("write the archive"))
    }

    fn finish(mut self) -> Result<u64, ArchiveError> {
        self.put(&[0; 1024])?;
        self.out.flush().map_err(io_failed("write the archive"))?;
        Ok(self.bytes)
    }
}

/// Counts and hashes what passes.
struct Measured<W> {
    out: W,
    hasher: Hasher,
    size_bytes: u64,
}

impl<W: Write> Measured<W> {
    fn new(out: W) -> Self {
        Self {
            out,
            hasher: Hasher::new(),
            size_bytes: 0,
        }
    }

    fn finish(self) -> (Digest, u64) {
        (self.hasher.finish(), self.size_bytes)
    }
}

impl<W: Write> Write for Measured<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size_bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
