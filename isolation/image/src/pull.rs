//! From a reference to an image on disk: resolve, fetch, verify, unpack, record.
//!
//! It decides the order and what runs at the same time. Layers flow in three stages, each on a
//! thread of its own: this task receives and hashes the blob, the other two are [`crate::stages`].
//! Nothing becomes visible before both digests and the size are right.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, TryStreamExt};

use crate::config::ParsedConfig;
use crate::error::PullFailure;
use crate::manifest::{Blob, Document, Layer, MAX_MANIFEST_BYTES, MAX_NESTING, Manifest};
use crate::pipe::{self, Flow};
use crate::platform::Platform;
use crate::progress::{LayerProgress, LayerState, Progress, Tracker};
use crate::registry::{Session, Undelivered};
use crate::stages;
use crate::store::name::LayerName;
use crate::store::uses::Hold;
use crate::store::{Image, Inner, PullOptions, Store, store_error};
use crate::unpack::UnpackError;
use crate::{Digest, Reference};

/// Layers of one image that are worked on at the same time.
const MAX_PARALLEL: usize = 3;
/// A layer that comes more slowly than this is given up: a server must not hold a pull for ever.
const MIN_BYTES_PER_S: u64 = 4096;

pub(crate) async fn pull(
    inner: &Arc<Inner>,
    reference: &Reference,
    options: PullOptions,
) -> Result<Image, PullFailure> {
    let store = Store(Arc::clone(inner));
    let platform = options.platform.clone().unwrap_or(Platform::HERE);
    let is_for_here = platform.is_here();
    // The digest of an index means another manifest for each platform.
    let is_told = options.platform.is_some();
    let needs_registry = is_told || (options.force && reference.digest().is_none());
    if !needs_registry && let Some(image) = store.local(reference).await {
        return Ok(image);
    }
    let name = reference.to_string();
    let _seat = inner.audiences.join(name.clone(), options.progress.clone());
    let _one_at_a_time = inner.pulls.lock(&name).await;
    if !needs_registry && let Some(image) = store.local(reference).await {
        return Ok(image);
    }
    // Never closed, so the error cannot come.
    let _slot = inner.parallel_pulls.acquire().await.ok();
    let session = Session::open(&inner.registries, reference, &options).await?;
    let (digest, bytes, manifest) = resolve(&session, reference, &platform).await?;
    let config_bytes = session.document(manifest.config).await?;
    let config = ParsedConfig::parse(&config_bytes, manifest.layers.len())?;
    let config = config.made_for(&platform)?;
    let waiting = |layer: &Layer| LayerProgress {
        digest: layer.blob.digest,
        total_bytes: layer.blob.size_bytes,
        done_bytes: 0,
        state: LayerState::Waiting,
    };
    let layers = manifest.layers.iter().map(waiting).collect();
    let told = Arc::clone(inner);
    let audience = name.clone();
    let tell = move |progress: &Progress| told.audiences.tell(&audience, progress);
    let tracker = Tracker::new(name, layers, Some(Arc::new(tell)));
    let fetch = Fetch {
        inner,
        session: &session,
        tracker: &tracker,
    };
    // Before anything is looked at: what is here already must not go meanwhile.
    let hold = inner.layers.hold(digest, &config.diff_ids);
    fetch.layers(&manifest, &config).await?;
    tracker.finish();
    let documents = [(digest, bytes), (manifest.config.digest, config_bytes)];
    let mut names = vec![reference.pinned(digest)];
    if is_for_here {
        names.push(reference.clone());
    }
    finish(inner, documents, names, config, hold).await
}

/// Writes what belongs to the whole image once every layer is here.
pub(crate) async fn finish(
    inner: &Arc<Inner>,
    documents: [(Digest, Vec<u8>); 2],
    names: Vec<Reference>,
    config: ParsedConfig,
    hold: Hold,
) -> Result<Image, PullFailure> {
    let _one_at_a_time = inner.layers.lock(&LayerName::patch(&config.diff_ids)).await;
    let inner_here = Arc::clone(inner);
    let image = blocking(move || {
        let patched = inner_here.layers.make_patch(&config.diff_ids);
        patched.map_err(store_error("complete directories"))?;
        let digest = documents[0].0;
        inner_here.record(&names, digest, &documents)?;
        Ok(inner_here.image(digest, config, hold))
    })
    .await?;
    inner.layers.marks.sync_in_background();
    Ok(image)
}

/// The manifest for a platform: its digest, its bytes and what they say.
async fn resolve(
    session: &Session<'_>,
    reference: &Reference,
    platform: &Platform,
) -> Result<(Digest, Vec<u8>, Manifest), PullFailure> {
    let mut served = match (reference.digest(), reference.tag()) {
        (Some(digest), _) => {
            session
                .manifest_by_digest(digest, MAX_MANIFEST_BYTES)
                .await?
        }
        (None, tag) => session.manifest_by_tag(tag.unwrap_or_default()).await?,
    };
    for _ in 0..=MAX_NESTING + 1 {
        let index = match Document::parse(&served.bytes, served.content_type.as_deref())? {
            Document::Manifest(manifest) => {
                return Ok((Digest::of(&served.bytes), served.bytes, manifest));
            }
            Document::Index(index) => index,
        };
        let entry = index.pick(platform)?;
        served = session
            .manifest_by_digest(entry.digest, entry.size_bytes)
            .await?;
    }
    Err(crate::manifest::ManifestError::Nested.into())
}

struct Fetch<'a> {
    inner: &'a Arc<Inner>,
    session: &'a Session<'a>,
    tracker: &'a Tracker,
}

impl Fetch<'_> {
    async fn layers(&self, manifest: &Manifest, config: &ParsedConfig) -> Result<(), PullFailure> {
        let layers = manifest.layers.iter().zip(&config.diff_ids).enumerate();
        let work = layers.map(|(number, (layer, diff_id))| Ok((number, *layer, *diff_id)));
        stream::iter(work)
            .try_for_each_concurrent(MAX_PARALLEL, |(number, layer, diff_id)| {
                self.layer(number, layer, diff_id)
            })
            .await
    }

    async fn layer(&self, number: usize, layer: Layer, diff_id: Digest) -> Result<(), PullFailure> {
        let _one_at_a_time = self.inner.layers.lock(&LayerName::layer(diff_id)).await;
        let inner = Arc::clone(self.inner);
        if blocking(move || Ok(inner.layers.has(&LayerName::layer(diff_id)))).await? {
            self.tracker.state(number, LayerState::Present);
            return Ok(());
        }
        // Never closed, so the error cannot come; and no permit would only mean less order.
        let _permit = self.inner.parallel.acquire().await.ok();
        loop {
            self.tracker.state(number, LayerState::Fetching);
            match self.fetch_and_unpack(number, layer, diff_id).await {
                // A mirror that lies costs its share of the work, not the image.
                Err(PullFailure::Layer { .. }) if self.session.blame_mirrors(layer.blob.digest) => {
                }
                result => return result,
            }
        }
    }

    async fn fetch_and_unpack(
        &self,
        number: usize,
        layer: Layer,
        diff_id: Digest,
    ) -> Result<(), PullFailure> {
        let (sender, reader) = pipe::network();
        let inner = Arc::clone(self.inner);
        // Joined below, after the sender is gone; if this future is dropped, the sender is too, and
        // the thread ends with an error and removes what it wrote.
        let unpacking =
            tokio::task::spawn_blocking(move || stages::unpack(&inner, layer, diff_id, reader));
        let received = self.receive(number, layer, &sender).await;
        drop(sender);
        let unpacked = match unpacking.await {
            Ok(unpacked) => unpacked,
            Err(error) => Err(PullFailure::Store {
                operation: "unpack a layer",
                source: std::io::Error::other(error),
            }),
        };
        // A receiver that stopped early stopped because of the unpacker, whose reason counts; but a
        // cut or wrong body makes the unpacker fail too, and then the receiver's reason counts.
        match (received, unpacked) {
            (Err(Some(failure)), _) | (_, Err(failure)) => Err(failure),
            (_, Ok(ready)) => {
                blocking(|| ready.finish()).await?;
                self.tracker.state(number, LayerState::Done);
                Ok(())
            }
        }
    }

    /// Receives the blob into the pipe. `Err(None)` means that the unpacker has stopped reading.
    async fn receive(
        &self,
        number: usize,
        layer: Layer,
        sender: &tokio::sync::mpsc::Sender<Flow<bytes::Bytes>>,
    ) -> Result<(), Option<PullFailure>> {
        let budget = Duration::from_secs(layer.blob.size_bytes / MIN_BYTES_PER_S)
            .saturating_add(self.inner.registries.timeouts().document);
        let body = self.body(number, layer, sender);
        match tokio::time::timeout(budget, body).await {
            Ok(result) => result,
            Err(_) => Err(Some(self.session.too_slow().into())),
        }
    }

    async fn body(
        &self,
        number: usize,
        layer: Layer,
        sender: &tokio::sync::mpsc::Sender<Flow<bytes::Bytes>>,
    ) -> Result<(), Option<PullFailure>> {
        let mut download = self.session.download(layer.blob);
        let undelivered = |error| Some(failure(layer, error));
        while let Some(chunk) = download.chunk().await.map_err(undelivered)? {
            self.tracker.received(number, chunk.len() as u64);
            sender.send(Flow::Data(chunk)).await.map_err(|_| None)?;
        }
        sender.send(Flow::End).await.map_err(|_| None)
    }
}

/// A blob that did not come, as the failure of its layer.
fn failure(layer: Layer, error: Undelivered) -> PullFailure {
    let Blob { digest, size_bytes } = layer.blob;
    let source = match error {
        Undelivered::Registry(error) => return error.into(),
        Undelivered::WrongSize => UnpackError::WrongSize {
            expected_bytes: size_bytes,
        },
        Undelivered::WrongDigest { actual } => UnpackError::WrongDigest {
            expected: digest,
            actual,
        },
    };
    PullFailure::Layer { digest, source }
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PullFailure> + Send + 'static,
) -> Result<T, PullFailure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(PullFailure::Store {
            operation: "run a file operation",
            source: std::io::Error::other(error),
        }),
    }
}
