//! The image that every subject pulls: the same bytes on every machine, about as compressible as
//! programs and their libraries are, in small and large files.
//!
//! It writes an OCI image layout with two tags, `full` and `half`; what a container must see is
//! worked out beside it and not from any subject.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context;
use flate2::Compression;
use flate2::write::GzEncoder;
use gantry_image::Digest;
use serde_json::{Value, json};

use super::tree::{Entry, Tree};

/// How large it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) layers: usize,
    pub(super) directories: usize,
    pub(super) files: usize,
    pub(super) large_files: usize,
    large_bytes: usize,
}

impl Shape {
    pub(super) const FULL: Self = Self {
        layers: 8,
        directories: 50,
        files: 30,
        large_files: 8,
        large_bytes: 6 << 20,
    };
    pub(super) const TINY: Self = Self {
        layers: 4,
        directories: 3,
        files: 4,
        large_files: 1,
        large_bytes: 1 << 16,
    };
}

/// What was made.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) layout: PathBuf,
    pub(super) tree: Tree,
    pub(super) files: usize,
    pub(super) plain_bytes: u64,
    pub(super) packed_bytes: u64,
}

struct Layer {
    diff_id: Digest,
    blob: Vec<u8>,
    entries: Vec<Entry>,
    plain_bytes: u64,
}

/// Makes the image in a new directory.
pub(super) fn make(layout: &Path, shape: &Shape) -> anyhow::Result<Made> {
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    fs::write(
        layout.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )?;
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let mut layers: Vec<Layer> = Vec::new();
    let numbers: Vec<usize> = (0..shape.layers).collect();
    for numbers in numbers.chunks(cpus) {
        let made: Vec<anyhow::Result<Layer>> = std::thread::scope(|threads| {
            let running: Vec<_> = numbers
                .iter()
                .map(|number| threads.spawn(|| layer(*number, shape)))
                .collect();
            let ended = running.into_iter().map(|thread| {
                let panicked = |_| Err(anyhow::anyhow!("a thread panicked"));
                thread.join().unwrap_or_else(panicked)
            });
            ended.collect()
        });
        for layer in made {
            layers.push(layer?);
        }
    }
    let mut descriptors = Vec::new();
    for layer in &layers {
        let kind = "application/vnd.oci.image.layer.v1.tar+gzip";
        descriptors.push(put(&blobs, kind, &layer.blob)?);
    }
    let ids: Vec<Digest> = layers.iter().map(|layer| layer.diff_id).collect();
    let manifests = [("full", layers.len()), ("half", layers.len() / 2)].map(|(tag, count)| {
        let mut manifest = manifest(&blobs, &ids[..count], &descriptors[..count])?;
        manifest["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        Ok::<_, anyhow::Error>(manifest)
    });
    let manifests: Vec<Value> = manifests.into_iter().collect::<Result<_, _>>()?;
    let index = json!({"schemaVersion": 2, "manifests": manifests});
    fs::write(layout.join("index.json"), index.to_string())?;
    let entries: Vec<Entry> = layers
        .iter()
        .flat_map(|layer| layer.entries.clone())
        .collect();
    Ok(Made {
        layout: layout.to_owned(),
        files: entries.iter().filter(|entry| entry.is_file()).count(),
        plain_bytes: layers.iter().map(|layer| layer.plain_bytes).sum(),
        packed_bytes: layers.iter().map(|layer| layer.blob.len() as u64).sum(),
        tree: Tree::new(entries),
    })
}

fn manifest(blobs: &Path, ids: &[Digest], layers: &[Value]) -> anyhow::Result<Value> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = json!({
        "os": "linux", "architecture": architecture,
        "config": {"Cmd": ["/bin/true"]},
        "rootfs": {"type": "layers", "diff_ids": ids},
    });
    let kind = "application/vnd.oci.image.config.v1+json";
    let config = put(blobs, kind, config.to_string().as_bytes())?;
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest =
        json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers});
    put(blobs, kind, manifest.to_string().as_bytes())
}

fn put(blobs: &Path, kind: &str, bytes: &[u8]) -> anyhow::Result<Value> {
    let digest = Digest::of(bytes);
    fs::write(blobs.join(digest.hex()), bytes).context("write a blob")?;
    Ok(json!({"mediaType": kind, "digest": digest, "size": bytes.len()}))
}

fn layer(number: usize, shape: &Shape) -> anyhow::Result<Layer> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (number as u64 + 1));
    let words = random.words();
    let mut tar = tar::Builder::new(Vec::new());
    let mut entries = Vec::new();
    let top = format!("layer{number}");
    entries.push(directory(&mut tar, &top)?);
    for at in 0..shape.directories {
        let path = format!("{top}/dir{at}");
        entries.push(directory(&mut tar, &path)?);
        for at in 0..shape.files {
            // Most files are small: 0.3 to 40 KiB.
            let size = 300 << random.below(8);
            let size = size + random.below(size);
            let content = random.content(&words, size);
            let path = format!("{path}/file{at}.so");
            entries.push(file(&mut tar, &path, &content, &mut random)?);
        }
        let (path, target) = (format!("{path}/link"), "file0.so");
        entries.push(symlink(&mut tar, &path, target)?);
    }
    for at in 0..shape.large_files {
        let size = shape.large_bytes / 2 + random.below(shape.large_bytes);
        let content = random.content(&words, size);
        entries.push(file(
            &mut tar,
            &format!("{top}/large{at}"),
            &content,
            &mut random,
        )?);
    }
    let plain = tar.into_inner()?;
    let mut packer = GzEncoder::new(Vec::new(), Compression::default());
    packer.write_all(&plain)?;
    Ok(Layer {
        diff_id: Digest::of(&plain),
        blob: packer.finish()?,
        entries,
        plain_bytes: plain.len() as u64,
    })
}

const TIME: u64 = 1_700_000_000;

fn directory(tar: &mut tar::Builder<Vec<u8>>, path: &str) -> anyhow::Result<Entry> {
    let mut header = header(tar::EntryType::Directory, 0o755, (0, 0), 0);
    tar.append_data(&mut header, format!("{path}/"), &[][..])?;
    Ok(Entry::directory(path, 0o755, (0, 0)))
}

fn file(
    tar: &mut tar::Builder<Vec<u8>>,
    path: &str,
    content: &[u8],
    random: &mut Random,
) -> anyhow::Result<Entry> {
    let (mode, owner) = match random.below(50) {
        0 => (0o4755, (0, 0)),
        1..5 => (0o640, (1000, 1000)),
        5..25 => (0o755, (0, 0)),
        _ => (0o644, (0, 0)),
    };
    let mut header = header(tar::EntryType::Regular, mode, owner, content.len() as u64);
    tar.append_data(&mut header, path, content)?;
    Ok(Entry::file(path, mode, owner, TIME, content))
}

fn symlink(tar: &mut tar::Builder<Vec<u8>>, path: &str, target: &str) -> anyhow::Result<Entry> {
    let mut header = header(tar::EntryType::Symlink, 0o777, (0, 0), 0);
    tar.append_link(&mut header, path, target)?;
    Ok(Entry::symlink(path, target))
}

fn header(kind: tar::EntryType, mode: u32, owner: (u64, u64), size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(owner.0);
    header.set_gid(owner.1);
    header.set_mtime(TIME);
    header.set_size(size);
    header
}

/// xorshift, by Marsaglia: the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        let bound = bound.max(1) as u64;
        usize::try_from(self.next() % bound).unwrap_or(0)
    }

    /// What content is put together from.
    fn words(&mut self) -> Vec<Vec<u8>> {
        let word = |random: &mut Self| {
            let length = 2 + random.below(10);
            (0..length)
                .map(|_| random.next().to_le_bytes()[3])
                .collect()
        };
        (0..4096).map(|_| word(self)).collect()
    }

    /// Words, the frequent ones more often, and some noise: gzip makes less than half of it.
    fn content(&mut self, words: &[Vec<u8>], size: usize) -> Vec<u8> {
        let mut content = Vec::with_capacity(size + 16);
        while content.len() < size {
            let number = self.next();
            if number.is_multiple_of(16) {
                content.extend_from_slice(&self.next().to_le_bytes()[..4]);
            } else {
                let shift = u32::try_from(number >> 8 & 7).unwrap_or(0);
                let at = self.below(words.len() >> shift);
                content.extend_from_slice(&words[at]);
            }
        }
        content.truncate(size);
        content
    }
}
