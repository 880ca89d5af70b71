//! From an archive to images in the store.
//!
//! It checks every blob against its digest; which images are meant [`super::select`] decides. A layer
//! that is here already is not read at all.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::stream::{self, TryStreamExt};

use super::select::Wish;
use super::source::{READ_BYTES, Source, Stretch};
use super::{ArchiveError, docker, io_failed, layout, look};
use crate::config::ParsedConfig;
use crate::manifest::{Document, Layer};
use crate::progress::{LayerProgress, LayerState, ProgressFn, Tracker};
use crate::store::Inner;
use crate::store::name::LayerName;
use crate::{Digest, Image, Platform, Reference, Store, pull, stages};
use gantry_intake::Hasher;

/// Layers that are worked on at the same time.
const MAX_PARALLEL: usize = 2;

/// What to import.
#[derive(Debug)]
pub enum Archive {
    /// A directory or a file.
    Path(PathBuf),
    /// A file that is open for reading.
    File(File),
}

/// How to import.
#[derive(Clone, Default)]
pub struct ImportOptions {
    /// What to call the image, instead of what the archive says.
    pub name: Option<Reference>,
    /// Which of the archive's images are meant: names as they stand there or in full, or digests
    /// (of the manifest, of the index over it, or of the config), with or without `@`; none means
    /// all that are for this node.
    pub images: Vec<String>,
    /// Told how far it is, for each image.
    pub progress: Option<ProgressFn>,
}

/// One image that is here now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// Its names.
    pub names: Vec<Reference>,
    /// The image.
    pub image: Image,
}

/// An image in an archive, its documents checked against their digests.
pub(super) struct Found {
    /// As they stand there.
    pub(super) names: Vec<String>,
    pub(super) digest: Digest,
    pub(super) manifest: Vec<u8>,
    pub(super) config_digest: Digest,
    pub(super) config: Vec<u8>,
    /// Of the index over it, if the archive names that.
    pub(super) index: Option<Digest>,
    /// Bottom first.
    pub(super) pieces: Vec<Piece>,
}

impl Found {
    /// Everything that it is known by.
    pub(super) fn digests(&self) -> Vec<Digest> {
        let own = [self.digest, self.config_digest];
        own.into_iter().chain(self.index).collect()
    }
}

/// A layer in an archive.
pub(super) struct Piece {
    /// The file that has it.
    pub(super) name: String,
    pub(super) layer: Layer,
    pub(super) content: Content,
}

/// What a layer's digest and size in its descriptor are about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// The file as it is.
    Blob,
    /// The uncompressed layer, which is checked when it is unpacked.
    Layer,
}

impl Store {
    /// Takes in images of an OCI image layout (a directory or a tar archive) or
    /// of a Docker archive, which may be compressed as a whole.
    ///
    /// # Errors
    /// Says what is wrong with the archive, its images, or this node's disk.
    pub async fn import(
        &self,
        archive: Archive,
        options: ImportOptions,
    ) -> Result<Vec<Imported>, ArchiveError> {
        let inner = Arc::clone(&self.0);
        let ImportOptions {
            name,
            images,
            progress,
        } = options;
        let read = blocking(move || {
            let spool = || inner.layers.spool();
            let source = match archive {
                Archive::Path(path) => Source::open(&path, &inner.limits, spool)?,
                Archive::File(file) => Source::archive(file, &inner.limits, spool)?,
            };
            let contents = if layout::is_layout(&source)? {
                layout::read(&source)?
            } else if docker::is_archive(&source)? {
                docker::read(&source)?
            } else {
                return Err(ArchiveError::Format(look::of_names(&source)));
            };
            let wishes: Vec<Wish> = images.iter().map(|image| Wish::parse(image)).collect();
            Ok((source, contents.choose(&wishes, name.as_ref())?))
        });
        let (source, chosen) = read.await?;
        let source = Arc::new(source);
        let mut imported = Vec::new();
        for (found, names) in chosen {
            let image = self.take(&source, found, &names, progress.clone());
            let image = image.await?;
            imported.push(Imported { names, image });
        }
        Ok(imported)
    }

    /// A new file that is gone when closed, on the disk of the images: for an archive that arrives
    /// in pieces. Blocks.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn spool(&self) -> io::Result<File> {
        self.0.layers.spool()
    }

    async fn take(
        &self,
        source: &Arc<Source>,
        found: Found,
        names: &[Reference],
        progress: Option<ProgressFn>,
    ) -> Result<Image, ArchiveError> {
        let inner = &self.0;
        let Document::Manifest(manifest) = Document::parse(&found.manifest, None)? else {
            return Err(crate::ManifestError::Nested.into());
        };
        let config = ParsedConfig::parse(&found.config, manifest.layers.len())?;
        let config = config.made_for(&Platform::HERE)?;
        let waiting = |piece: &Piece| LayerProgress {
            digest: piece.layer.blob.digest,
            total_bytes: piece.layer.blob.size_bytes,
            done_bytes: 0,
            state: LayerState::Waiting,
        };
        let layers = found.pieces.iter().map(waiting).collect();
        let title = names.first().map(Reference::to_string).unwrap_or_default();
        let tracker = Arc::new(Tracker::new(title, layers, progress));
        let hold = inner.layers.hold(found.digest, &config.diff_ids);
        self.layers(source, &found.pieces, &config, &tracker)
            .await?;
        tracker.finish();
        let documents = [
            (found.digest, found.manifest),
            (found.config_digest, found.config),
        ];
        let mut all: Vec<Reference> = names.to_vec();
        for name in names {
            let pinned = name.pinned(found.digest);
            if !all.contains(&pinned) {
                all.push(pinned);
            }
        }
        Ok(pull::finish(inner, documents, all, config, hold).await?)
    }

    async fn layers(
        &self,
        source: &Arc<Source>,
        pieces: &[Piece],
        config: &ParsedConfig,
        tracker: &Arc<Tracker>,
    ) -> Result<(), ArchiveError> {
        let work = pieces.iter().zip(&config.diff_ids).enumerate().map(Ok);
        stream::iter(work)
            .try_for_each_concurrent(MAX_PARALLEL, |(number, (piece, diff_id))| async move {
                let name = LayerName::layer(*diff_id);
                let _one_at_a_time = self.0.layers.lock(&name).await;
                // Never closed, so the error cannot come.
                let _permit = self.0.parallel.acquire().await.ok();
                let job = Job {
                    inner: Arc::clone(&self.0),
                    source: Arc::clone(source),
                    name: piece.name.clone(),
                    layer: piece.layer,
                    content: piece.content,
                    diff_id: *diff_id,
                    tracker: Arc::clone(tracker),
                    number,
                };
                blocking(move || job.run()).await
            })
            .await
    }
}

/// One layer, on a thread that may block.
struct Job {
    inner: Arc<Inner>,
    source: Arc<Source>,
    name: String,
    layer: Layer,
    content: Content,
    diff_id: Digest,
    tracker: Arc<Tracker>,
    number: usize,
}

impl Job {
    fn run(self) -> Result<(), ArchiveError> {
        if self.inner.layers.has(&LayerName::layer(self.diff_id)) {
            self.tracker.state(self.number, LayerState::Present);
            return Ok(());
        }
        self.tracker.state(self.number, LayerState::Fetching);
        let stretch = self.source.file(&self.name)?;
        let stretch = stretch.ok_or_else(|| ArchiveError::Missing(self.name.clone()))?;
        let blob = self.layer.blob;
        let wrong_size = stretch.size_bytes() != blob.size_bytes;
        if wrong_size {
            return Err(ArchiveError::Bounds(
                "a layer of another size than its manifest says",
            ));
        }
        let checked = Arc::new(AtomicBool::new(false));
        let input = Checked {
            input: stretch,
            hasher: Some(Hasher::new()),
            // The digest of what is inside is compared when it is unpacked.
            expected: (self.content == Content::Blob).then_some(blob.digest),
            checked: Arc::clone(&checked),
            tracker: Arc::clone(&self.tracker),
            number: self.number,
        };
        let input = BufReader::with_capacity(READ_BYTES, input);
        let ready = stages::unpack(&self.inner, self.layer, self.diff_id, input)?;
        if !checked.load(Ordering::SeqCst) {
            return Err(ArchiveError::Bounds("a layer with something after its end"));
        }
        ready.finish()?;
        self.tracker.state(self.number, LayerState::Done);
        Ok(())
    }
}

/// Fails at the end if the digest of what was read is not the expected one.
struct Checked {
    input: Stretch,
    hasher: Option<Hasher>,
    expected: Option<Digest>,
    /// Whether the end was reached and all was well.
    checked: Arc<AtomicBool>,
    tracker: Arc<Tracker>,
    number: usize,
}

impl Read for Checked {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(into)?;
        self.tracker.received(self.number, read as u64);
        if self.expected.is_some()
            && let Some(hasher) = &mut self.hasher
        {
            hasher.update(&into[..read]);
        }
        if read == 0
            && !into.is_empty()
            && let Some(hasher) = self.hasher.take()
        {
            let actual = hasher.finish();
            if self.expected.is_some_and(|expected| expected != actual) {
                return Err(io::Error::other(format!("its digest is {actual}")));
            }
            self.checked.store(true, Ordering::SeqCst);
        }
        Ok(read)
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ArchiveError> + Send + 'static,
) -> Result<T, ArchiveError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(io_failed("run a file operation")(io::Error::other(error))),
    }
}
