//! From an image in the store to an archive that other tools take.
//!
//! Layers are written uncompressed: their digests are then the diff ids of the config, so the image
//! keeps its id although the compressed blobs are gone. A layer whose archive cannot be made again
//! byte for byte (see [`crate::recipe`]) is packed anew from its files; it and so the image get
//! other digests then, and whoever asked is told.
//!
//! What an archive says about its layers comes from their recipes, so it begins at once, however
//! large they are. Only a layer that is packed anew is read twice: to learn its digest, and to be
//! written. Invariant: what is written is compared with what was said; an archive that would say
//! something else breaks off.

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
    /// The image's id, the digest of its config, unless layers are packed anew: then it is known
    /// when the archive is written.
    pub id: Option<Digest>,
    /// Diff ids of the layers that have to be packed anew; none means that the id is the original.
    pub repacked: Vec<Digest>,
    /// Of the layers that are not packed anew, so about what the archive will have.
    pub layer_bytes: u64,
    name: Reference,
    format: ArchiveFormat,
    config: Vec<u8>,
    layers: Vec<Layer>,
    _hold: Hold,
}

impl Store {
    /// Looks at what an image's archive will have; does not read its files.
    ///
    /// # Errors
    /// If there is no such image here, or it cannot be read.
    pub async fn export(
        &self,
        reference: &Reference,
        format: ArchiveFormat,
    ) -> Result<Export, ArchiveError> {
        let unknown = ArchiveError::Unknown(reference.to_string());
        let image = self.kept(reference, None).await.ok_or(unknown)?;
        let (inner, name) = (Arc::clone(&self.0), reference.clone());
        blocking(move || prepare(&inner, name, &image, format)).await
    }
}

impl Export {
    /// Writes the archive. Blocks.
    ///
    /// # Errors
    /// If the image cannot be read or the archive not written; what was written is no archive then.
    pub fn write(self, out: impl Write) -> Result<Written, ArchiveError> {
        let Self {
            name,
            format,
            mut config,
            mut layers,
            repacked,
            ..
        } = self;
        for layer in &mut layers {
            layer.measure()?;
        }
        if !repacked.is_empty() {
            config = with_layers(&config, &layers)?;
        }
        let out = io::BufWriter::with_capacity(WRITE_BYTES, out);
        let mut writer = Writer { out, bytes: 0 };
        match format {
            ArchiveFormat::Oci => oci(&mut writer, &name, &config, &layers)?,
            ArchiveFormat::Docker => docker(&mut writer, &name, &config, &layers)?,
        }
        Ok(Written {
            id: Digest::of(&config),
            bytes: writer.finish()?,
        })
    }
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// The id of the image in the archive.
    pub id: Digest,
    /// The archive's size.
    pub bytes: u64,
}

/// A layer to be written.
struct Layer {
    diff_id: Digest,
    dir: PathBuf,
    recipe: PathBuf,
    /// Digest and size of its archive, once they are known.
    written: Option<(Digest, u64)>,
}

impl Layer {
    fn look(inner: &Inner, diff_id: Digest) -> Self {
        let name = LayerName::layer(diff_id);
        let recipe = inner.layers.recipe(&name);
        // Without a whole recipe it is packed anew.
        let size_bytes = File::open(&recipe).and_then(recipe::size_bytes);
        Self {
            diff_id,
            dir: inner.layers.path(&name),
            recipe,
            written: size_bytes.ok().map(|size_bytes| (diff_id, size_bytes)),
        }
    }

    fn has_recipe(&self) -> bool {
        self.written
            .is_some_and(|(digest, _)| digest == self.diff_id)
    }

    /// Reads what has to be packed anew.
    fn measure(&mut self) -> Result<(), ArchiveError> {
        if self.written.is_none() {
            let mut sink = Measured::new(io::sink());
            let packed = repack::pack(&self.dir, &mut sink);
            packed.map_err(io_failed("read a layer"))?;
            self.written = Some(sink.finish());
        }
        Ok(())
    }

    /// Digest and size, once measured.
    fn described(&self) -> (Digest, u64) {
        self.written.unwrap_or((self.diff_id, 0))
    }

    fn replay(&self, out: &mut dyn Write) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root: OwnedFd = rustix::fs::open(&self.dir, flags, Mode::empty())?;
        recipe::replay(File::open(&self.recipe)?, &root, out)
    }

    fn write(&self, out: &mut dyn Write) -> Result<(), ArchiveError> {
        let mut out = Measured::new(out);
        let written = if self.has_recipe() {
            self.replay(&mut out)
        } else {
            repack::pack(&self.dir, &mut out)
        };
        match written {
            Ok(()) if out.finish() == self.described() => Ok(()),
            // A file that is shorter, or not there.
            Ok(()) => Err(ArchiveError::Changed(self.diff_id)),
            Err(error) if is_the_files(&error) => Err(ArchiveError::Changed(self.diff_id)),
            Err(error) => Err(io_failed("write the archive")(error)),
        }
    }
}

/// Whether a replay failed because of what it found, rather than of the disk or the reader.
fn is_the_files(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, NotADirectory, NotFound, UnexpectedEof};
    matches!(
        error.kind(),
        InvalidData | NotADirectory | NotFound | UnexpectedEof
    )
}

fn prepare(
    inner: &Inner,
    name: Reference,
    image: &Image,
    format: ArchiveFormat,
) -> Result<Export, ArchiveError> {
    let unknown = || ArchiveError::Unknown(name.to_string());
    let (manifest, config) = inner.load(image.digest).ok_or_else(unknown)?;
    let ids = config.diff_ids.iter();
    let layers: Vec<Layer> = ids.map(|id| Layer::look(inner, *id)).collect();
    let unknown_yet = layers.iter().filter(|layer| layer.written.is_none());
    let repacked: Vec<Digest> = unknown_yet.map(|layer| layer.diff_id).collect();
    let blob = inner.read_blob(manifest.config.digest, MAX_CONFIG_BYTES);
    let config = blob.ok_or_else(unknown)?;
    Ok(Export {
        id: repacked.is_empty().then_some(manifest.config.digest),
        layer_bytes: layers.iter().map(|layer| layer.described().1).sum(),
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
    let ids: Vec<Digest> = layers.iter().map(|layer| layer.described().0).collect();
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
        .map(Layer::described)
        .map(|(digest, size)| described(OCI_LAYER, digest, size))
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
    entry["platform"] = platform(config);
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

/// As the config says, which the index may repeat.
fn platform(config: &[u8]) -> Value {
    let config: Value = serde_json::from_slice(config).unwrap_or_default();
    let here = Platform::HERE;
    let (os, architecture) = here.parts();
    let said = |field: &str, else_: &str| match config[field].as_str() {
        None | Some("") => else_.to_owned(),
        Some(said) => said.to_owned(),
    };
    json!({"os": said("os", os), "architecture": said("architecture", architecture)})
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
        .map(|layer| layer_name(layer.described().0))
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
        for layer in layers {
            let (digest, size_bytes) = layer.described();
            if !written.insert(digest) {
                continue;
            }
            self.header(&name(digest), size_bytes)?;
            layer.write(&mut self.out)?;
            self.bytes += size_bytes;
            self.pad(size_bytes)?;
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
