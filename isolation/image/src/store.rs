//! The images of one node: a directory of unpacked layers, small documents and names.
//!
//! ```text
//! <dir>/lock               flock, held while the store is open
//! <dir>/images.json        full reference → manifest digest, written whole and renamed
//! <dir>/blobs/sha256-…     manifests and configs as served (compressed layers are not kept)
//! <dir>/layers/sha256-…/   one unpacked layer, named by the digest of its uncompressed archive
//! <dir>/layers/patch-…/    what goes on top of one stack of layers, see [`inherit`]
//! <dir>/implied/sha256-…   the directories that this layer uses and does not list, if any
//! <dir>/recipes/sha256-…   how this layer's archive is made again from its files, see [`crate::recipe`]
//! <dir>/complete/…         "synced", or the boot id under which that layer was unpacked
//! <dir>/held/…             what a task uses, until it is released
//! <dir>/tmp/…              what is being unpacked
//! ```
//!
//! It decides when a layer or an image counts as present and removes what a crash left behind.
//! It does not talk to registries ([`crate::pull`] does), and it removes images only when it is told
//! to ([`collect`]).
//!
//! Invariants: a directory in `layers/` is a whole, verified layer if its mark in `complete/` says
//! `synced` or names the running boot; everything else there is removed on open. A pull does not
//! wait for the disk: layers are marked with the boot id at once, synced in the background by one
//! syncfs, then marked `synced`. A power failure in between costs that pull, never correctness.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use rustix::fs::{FlockOperation, flock};

use crate::config::ParsedConfig;
use crate::error::{PullError, PullFailure};
use crate::manifest::{Document, MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES, Manifest};
use crate::platform::Platform;
use crate::progress::{Audiences, ProgressFn};
use crate::registry::{Registries, RegistryConfig};
use crate::unpack::Limits;
use crate::{Credentials, Digest, ImageConfig, Reference};
use gantry_intake::Timeouts;

use self::index::Index;
use self::layers::Layers;
use self::locks::Locks;
use self::uses::Hold;

pub(crate) mod collect;
mod index;
mod inherit;
pub(crate) mod layers;
pub(crate) mod list;
mod locks;
pub(crate) mod name;
mod sync;
pub(crate) mod uses;

/// Layers that are fetched and unpacked at the same time, over all pulls.
const MAX_PARALLEL_LAYERS: usize = 4;
/// Images that are pulled at the same time. Those who wait for another's pull do not count.
const MAX_PARALLEL_PULLS: usize = 4;

/// The images of this node. Cheap to clone.
#[derive(Clone)]
pub struct Store(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    blobs: PathBuf,
    index: Mutex<Index>,
    pub(crate) layers: Layers,
    pub(crate) pulls: Locks<String>,
    pub(crate) parallel: tokio::sync::Semaphore,
    pub(crate) parallel_pulls: tokio::sync::Semaphore,
    pub(crate) audiences: Audiences,
    pub(crate) registries: Registries,
    pub(crate) limits: Limits,
    collecting: Mutex<()>,
    _lock: File,
}

/// What can be tuned.
#[derive(Debug, Clone, Default)]
pub struct StoreConfig {
    /// How long to wait for registries.
    pub timeouts: Timeouts,
    /// How large a layer may become.
    pub limits: Limits,
    /// Mirrors, certificates, credentials: how this node speaks to registries.
    pub registry: RegistryConfig,
}

/// How to pull.
#[derive(Clone, Default)]
pub struct PullOptions {
    /// Ask the registry what the tag means even if the image is here. (A digest never changes.)
    pub force: bool,
    /// `host` or `host:port` of registries that may be spoken to over plain HTTP, besides those of
    /// [`RegistryConfig`]; loopback always may.
    pub insecure_registries: Vec<String>,
    /// Logins of whoever asks for the image; they count before the node's own. An image that is
    /// here already needs none, unless `force` asks the registry.
    pub credentials: Credentials,
    /// For which machine, if not for this one. What this node cannot run is kept under its digest
    /// only, so that its tag goes on to mean what runs here.
    pub platform: Option<Platform>,
    /// Told how far it is, or how far the pull is that this one waits for; not called when nothing
    /// has to be fetched from a registry.
    pub progress: Option<ProgressFn>,
}

/// An image on this node, ready to be mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Digest of the manifest for this platform.
    pub digest: Digest,
    /// Unpacked layer directories, topmost first: at least one, none twice.
    pub layers: Vec<PathBuf>,
    /// What to run.
    pub config: ImageConfig,
    /// While this or a clone of it lives, the layers stay where they are.
    pub hold: Hold,
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("the image store {} is in use by another process", .0.display())]
    Busy(PathBuf),
    /// A file operation failed.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Its error.
        #[source]
        source: io::Error,
    },
}

fn io_error<'a>(
    operation: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> OpenError + 'a {
    move |source| OpenError::Io {
        operation,
        path: path.to_owned(),
        source,
    }
}

impl Store {
    /// Opens or creates the store in `dir` and removes what a crash left there. Blocks.
    ///
    /// # Errors
    /// If the directory cannot be made or read, or is open elsewhere.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        Self::open_with(dir, StoreConfig::default())
    }

    /// [`Store::open`] with other bounds.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_with(dir: &Path, config: StoreConfig) -> Result<Self, OpenError> {
        private_dir(dir)?;
        let dir = dir.canonicalize().map_err(io_error("resolve", dir))?;
        let lock = lock(&dir)?;
        let blobs = dir.join("blobs");
        private_dir(&blobs)?;
        let layers = Layers::open(&dir)?;
        Ok(Self(Arc::new(Inner {
            blobs,
            index: Mutex::new(Index::load(&dir)),
            layers,
            pulls: Locks::default(),
            parallel: tokio::sync::Semaphore::new(MAX_PARALLEL_LAYERS),
            parallel_pulls: tokio::sync::Semaphore::new(MAX_PARALLEL_PULLS),
            audiences: Audiences::default(),
            registries: Registries::new(config.timeouts, config.registry),
            limits: config.limits,
            collecting: Mutex::default(),
            _lock: lock,
        })))
    }

    /// The image if all of it is on this node, which can run it; asks no registry.
    pub async fn local(&self, reference: &Reference) -> Option<Image> {
        self.kept(reference, Some(Platform::HERE)).await
    }

    /// The same for a platform, or for any.
    pub(crate) async fn kept(
        &self,
        reference: &Reference,
        platform: Option<Platform>,
    ) -> Option<Image> {
        let (inner, reference) = (Arc::clone(&self.0), reference.clone());
        tokio::task::spawn_blocking(move || inner.local(&reference, platform.as_ref()))
            .await
            .ok()
            .flatten()
    }

    /// The image, fetched from its registry where it is not here or `force` is set.
    ///
    /// Concurrent pulls of one image or of images with common layers share the work. Dropping the
    /// future stops the pull and removes what was half unpacked.
    ///
    /// # Errors
    /// Says what is wrong with the registry, the image, or this node's disk.
    pub async fn pull(
        &self,
        reference: &Reference,
        options: PullOptions,
    ) -> Result<Image, PullError> {
        crate::pull::pull(&self.0, reference, options)
            .await
            .map_err(|failure| PullError {
                image: reference.to_string(),
                failure,
            })
    }
}

impl Inner {
    fn local(&self, reference: &Reference, platform: Option<&Platform>) -> Option<Image> {
        let digest = self.index().get(reference)?;
        let (_, config) = self.load(digest)?;
        let config = match platform {
            Some(platform) => config.made_for(platform).ok()?,
            None => config,
        };
        // Held before it is looked at: what is found stays.
        let hold = self.layers.hold(digest, &config.diff_ids);
        let is_here = self.layers.has_image(&config.diff_ids);
        is_here.then(|| self.image(digest, config, hold))
    }

    /// Manifest and config of an image whose documents are here.
    pub(crate) fn load(&self, digest: Digest) -> Option<(Manifest, ParsedConfig)> {
        let bytes = self.read_blob(digest, MAX_MANIFEST_BYTES)?;
        let Document::Manifest(manifest) = Document::parse(&bytes, None).ok()? else {
            return None;
        };
        let bytes = self.read_blob(manifest.config.digest, MAX_CONFIG_BYTES)?;
        let config = ParsedConfig::parse(&bytes, manifest.layers.len()).ok()?;
        Some((manifest, config))
    }

    /// The image of layers that are all here and held. Counts as a use of it.
    pub(crate) fn image(&self, digest: Digest, config: ParsedConfig, hold: Hold) -> Image {
        self.touch(digest);
        Image {
            digest,
            layers: self.layers.stack(&config.diff_ids),
            config: config.config,
            hold,
        }
    }

    /// The time of an image's manifest file is when the image was used last: one system call, and it
    /// is still there after a restart.
    fn touch(&self, digest: Digest) {
        let path = self.blobs.join(digest.file_name());
        let touched = File::open(path).and_then(|file| file.set_modified(SystemTime::now()));
        if let Err(error) = touched {
            tracing::debug!(%error, "the last use of an image could not be noted");
        }
    }

    fn last_used(&self, digest: Digest) -> SystemTime {
        let metadata = fs::metadata(self.blobs.join(digest.file_name()));
        let time = metadata.and_then(|metadata| metadata.modified());
        time.unwrap_or(SystemTime::UNIX_EPOCH)
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a complete image known under its names, with its documents. Blocks.
    pub(crate) fn record(
        &self,
        names: &[Reference],
        digest: Digest,
        documents: &[(Digest, Vec<u8>)],
    ) -> Result<(), PullFailure> {
        // With the index locked, nobody takes these for documents of no image.
        let mut index = self.index();
        for (digest, bytes) in documents {
            write_whole(&self.blobs.join(digest.file_name()), bytes)
                .map_err(store_error("write a manifest or config"))?;
        }
        index
            .set(names, digest)
            .map_err(store_error("write the index of images"))
    }

    pub(crate) fn read_blob(&self, digest: Digest, max_bytes: u64) -> Option<Vec<u8>> {
        let path = self.blobs.join(digest.file_name());
        let bytes = read_bounded(&path, max_bytes).ok()?;
        (Digest::of(&bytes) == digest).then_some(bytes)
    }
}

pub(crate) fn store_error(operation: &'static str) -> impl FnOnce(io::Error) -> PullFailure {
    move |source| PullFailure::Store { operation, source }
}

fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join("lock");
    let mut options = fs::OpenOptions::new();
    let options = options.write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(&path).map_err(io_error("open", &path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::Busy(dir.to_owned())),
        Err(error) => Err(io_error("lock", &path)(error.into())),
    }
}

/// A directory that only its owner can look into: layers have set-id files and secrets in them.
fn private_dir(path: &Path) -> Result<(), OpenError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(io_error("create", path))
}

fn read_bounded(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    use io::Read as _;
    let mut bytes = Vec::new();
    File::open(path)?
        .take(max_bytes.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

/// Writes a file so that a reader sees the old content or the new, never a part.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_added_extension("new");
    fs::write(&temporary, bytes)?;
    fs::rename(&temporary, path)
}
