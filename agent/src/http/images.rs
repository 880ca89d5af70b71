//! `/images…`: what is in the node's store of images, and pulls, imports, exports and removals on
//! request. `gantry image` is the client, through the coordinator or, where no node runs, through
//! [`crate::ImageServer`].
//!
//! ```text
//! GET  /images                          every image
//! GET  /images/inspect?name=            one, with its documents
//! POST /images/pull    {name, force, insecure_registries, platform, config}     lines, see below
//! POST /images/import?name=&images=     the body is the archive; lines
//! GET  /images/export?name=&format=     the answer is the archive
//! POST /images/remove  {name, force}    what was removed
//! POST /images/prune   {all}            what was removed
//! ```
//! Lines are JSON objects: any number of `{"progress": …}`, then one `{"done": …}` or `{"error": …}`.
//! A refusal is `{"message": …, "trouble": …}`, see [`refusal`]; so is that `error`.
//!
//! It decides nothing about images. Invariants: at most [`JOBS_MAX`] pulls, imports and exports at a
//! time; a client that goes away ends its job; an archive is never held in memory.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use futures_util::StreamExt as _;
use gantry_image::{
    Archive, ArchiveFormat, Credentials, Details, ImportOptions, Platform, PlatformError, Progress,
    Prune, PullOptions, Reference, Report, Store, Summary,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::AbortHandle;

use self::refusal::Refusal;

mod refusal;

/// Pulls, imports and exports at a time.
const JOBS_MAX: usize = 8;
/// Lines, or pieces of an archive, between a job and its client.
const PIECES_MAX: usize = 16;
/// Longest pause of a client that sends an archive.
const UPLOAD_STALL_MAX: Duration = Duration::from_secs(60);
/// Largest archive, and room that is left on the disk.
const ARCHIVE_MAX_BYTES: u64 = 64 << 30;
const RESERVE_BYTES: u64 = 256 << 20;
/// The room is looked at when so much has come.
const LOOK_BYTES: u64 = 64 << 20;

/// What the handlers need.
pub(crate) struct Images {
    store: Store,
    jobs: Arc<Semaphore>,
}

impl Images {
    pub(crate) fn new(store: Store) -> Self {
        let jobs = Arc::new(Semaphore::new(JOBS_MAX));
        Self { store, jobs }
    }

    fn slot(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let slot = self.jobs.clone().try_acquire_owned();
        slot.map_err(|_| Refusal::busy())
    }
}

/// Everything whose request is small.
pub(crate) fn router<S: Clone + Send + Sync + 'static>(images: Arc<Images>) -> Router<S> {
    Router::new()
        .route("/images", get(list))
        .route("/images/inspect", get(inspect))
        .route("/images/pull", post(pull))
        .route("/images/export", get(export))
        .route("/images/remove", post(remove))
        .route("/images/prune", post(prune))
        .with_state(images)
}

/// The request whose body is an archive.
pub(crate) fn upload<S: Clone + Send + Sync + 'static>(images: Arc<Images>) -> Router<S> {
    Router::new()
        .route("/images/import", post(import))
        .with_state(images)
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PullOrder {
    name: String,
    force: bool,
    insecure_registries: Vec<String>,
    /// `OS/ARCHITECTURE[/VARIANT]`; empty means this node's.
    platform: String,
    /// The text of a Docker `config.json`: logins for this pull, kept nowhere.
    config: String,
}

impl Default for PullOrder {
    fn default() -> Self {
        Self {
            name: String::new(),
            force: true,
            insecure_registries: Vec::new(),
            platform: String::new(),
            config: String::new(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoveOrder {
    name: String,
    #[serde(default)]
    force: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PruneOrder {
    #[serde(default)]
    all: bool,
}

#[derive(Debug, Deserialize)]
struct ImportOrder {
    name: Option<String>,
    /// Which of the archive's images, divided by commas, which no name has.
    #[serde(default)]
    images: String,
}

#[derive(Debug, Deserialize)]
struct ExportOrder {
    name: String,
    #[serde(default)]
    format: Format,
}

#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Oci,
    Docker,
}

async fn list(State(images): State<Arc<Images>>) -> Result<Json<Vec<Summary>>, Refusal> {
    Ok(Json(images.store.list().await?))
}

async fn inspect(
    State(images): State<Arc<Images>>,
    Query(named): Query<Named>,
) -> Result<Json<Details>, Refusal> {
    let reference = reference(&named.name)?;
    Ok(Json(images.store.inspect(&reference).await?))
}

async fn remove(
    State(images): State<Arc<Images>>,
    Json(order): Json<RemoveOrder>,
) -> Result<Json<Report>, Refusal> {
    let reference = reference(&order.name)?;
    Ok(Json(images.store.remove(&reference, order.force).await?))
}

async fn prune(
    State(images): State<Arc<Images>>,
    Json(order): Json<PruneOrder>,
) -> Result<Json<Report>, Refusal> {
    let what = if order.all {
        Prune::Unused
    } else {
        Prune::Untagged
    };
    Ok(Json(images.store.prune(what).await?))
}

async fn pull(
    State(images): State<Arc<Images>>,
    Json(order): Json<PullOrder>,
) -> Result<Response, Refusal> {
    let reference = reference(&order.name)?;
    let credentials = if order.config.is_empty() {
        Credentials::default()
    } else {
        let parsed = Credentials::from_config(order.config.as_bytes());
        parsed.map_err(|error| Refusal::bad_request(crate::chain(&error)))?
    };
    let platform: Option<Platform> = match order.platform.as_str() {
        "" => None,
        text => {
            let parsed = text.parse();
            Some(parsed.map_err(|error: PlatformError| Refusal::bad_request(error.to_string()))?)
        }
    };
    let runs_here = platform.as_ref().is_none_or(Platform::is_here);
    let slot = images.slot()?;
    let (lines, answer) = mpsc::channel(PIECES_MAX);
    let options = PullOptions {
        platform,
        force: order.force,
        insecure_registries: order.insecure_registries,
        credentials,
        progress: Some(reporter(&lines)),
    };
    let store = images.store.clone();
    let job = tokio::spawn(async move {
        let line = match store.pull(&reference, options).await {
            Ok(image) => {
                let name = if runs_here {
                    reference.clone()
                } else {
                    reference.pinned(image.digest)
                };
                let (name, digest) = (name.to_string(), image.digest);
                json!({"done": {"name": name, "digest": digest, "runs_here": runs_here}})
            }
            Err(error) => json!({"error": {
                "message": error.message(), "trouble": error.trouble(),
                "permanent": error.is_permanent(),
            }}),
        };
        // A client that is gone does not want to know.
        let _ = lines.send(line_of(&line)).await;
        drop(slot);
    });
    Ok(streamed(answer, job.abort_handle()))
}

async fn import(
    State(images): State<Arc<Images>>,
    Query(order): Query<ImportOrder>,
    request: Request,
) -> Result<Response, Refusal> {
    let name = order.name.as_deref().map(reference).transpose()?;
    let slot = images.slot()?;
    let archive = receive(&images.store, request.into_body()).await?;
    let (lines, answer) = mpsc::channel(PIECES_MAX);
    let wanted = order.images.split(',').filter(|image| !image.is_empty());
    let options = ImportOptions {
        name,
        images: wanted.map(str::to_owned).collect(),
        progress: Some(reporter(&lines)),
    };
    let store = images.store.clone();
    let job = tokio::spawn(async move {
        let line = match store.import(Archive::File(archive), options).await {
            Ok(imported) => {
                let one = |imported: &gantry_image::Imported| {
                    let names: Vec<String> =
                        imported.names.iter().map(Reference::to_string).collect();
                    json!({"names": names, "digest": imported.image.digest})
                };
                json!({"done": {"images": imported.iter().map(one).collect::<Vec<_>>()}})
            }
            Err(error) => json!({"error": {
                "message": error.message(), "trouble": error.trouble(),
            }}),
        };
        // As above.
        let _ = lines.send(line_of(&line)).await;
        drop(slot);
    });
    Ok(streamed(answer, job.abort_handle()))
}

/// Takes a body into a file without a name.
async fn receive(store: &Store, body: Body) -> Result<std::fs::File, Refusal> {
    let failed = |error: io::Error| Refusal::io("keep the archive", &error);
    let spool = {
        let store = store.clone();
        tokio::task::spawn_blocking(move || store.spool()).await
    };
    let file = spool.map_err(|error| failed(io::Error::other(error)))?;
    let mut file = tokio::fs::File::from_std(file.map_err(failed)?);
    let mut body = body.into_data_stream();
    let (mut received, mut looked) = (0_u64, 0_u64);
    loop {
        let next = tokio::time::timeout(UPLOAD_STALL_MAX, body.next()).await;
        let Some(piece) = next.map_err(|_| Refusal::stalled(UPLOAD_STALL_MAX))? else {
            break;
        };
        let piece = piece
            .map_err(|_| Refusal::bad_request("the archive broke off on its way".to_owned()))?;
        received += piece.len() as u64;
        if received > ARCHIVE_MAX_BYTES {
            let most = ARCHIVE_MAX_BYTES >> 30;
            return Err(Refusal::bad_request(format!(
                "the archive is larger than {most} GiB"
            )));
        }
        if received >= looked {
            looked = received + LOOK_BYTES;
            if !has_room(&file) {
                return Err(Refusal::no_space());
            }
        }
        file.write_all(&piece).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)?;
    Ok(file.into_std().await)
}

fn has_room(file: &tokio::fs::File) -> bool {
    rustix::fs::fstatvfs(file)
        .is_ok_and(|stat| stat.f_bavail.saturating_mul(stat.f_frsize) >= RESERVE_BYTES + LOOK_BYTES)
}

async fn export(
    State(images): State<Arc<Images>>,
    Query(order): Query<ExportOrder>,
) -> Result<Response, Refusal> {
    let reference = reference(&order.name)?;
    let format = match order.format {
        Format::Oci => ArchiveFormat::Oci,
        Format::Docker => ArchiveFormat::Docker,
    };
    let slot = images.slot()?;
    let export = images.store.export(&reference, format).await?;
    let id = export.id.map(|id| id.to_string()).unwrap_or_default();
    let repacked = export.repacked.len().to_string();
    let layer_bytes = export.layer_bytes.to_string();
    let (pieces, answer) = mpsc::channel::<io::Result<Bytes>>(PIECES_MAX);
    tokio::task::spawn_blocking(move || {
        let written = export.write(Pieces(pieces.clone()));
        if let Err(error) = written {
            // The client only sees that the answer broke off, if it is still there.
            if !pieces.is_closed() {
                tracing::error!(image = %reference, "an export: {}", error.message());
            }
            let _ = pieces.blocking_send(Err(io::Error::other(error.message())));
        }
        drop(slot);
    });
    let body = futures_util::stream::unfold(answer, |mut answer| async move {
        answer.recv().await.map(|piece| (piece, answer))
    });
    let headers = [
        (CONTENT_TYPE.as_str(), "application/x-tar"),
        ("gantry-image-id", &id),
        ("gantry-repacked-layers", &repacked),
        ("gantry-layer-bytes", &layer_bytes),
    ];
    Ok((headers, Body::from_stream(body)).into_response())
}

/// Writes into an answer; fails when nobody reads it any more.
struct Pieces(mpsc::Sender<io::Result<Bytes>>);

impl io::Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn reference(name: &str) -> Result<Reference, Refusal> {
    Reference::parse(name).map_err(|error| Refusal::bad_request(crate::chain(&error)))
}

fn line_of(value: &Value) -> Bytes {
    Bytes::from(format!("{value}\n"))
}

/// Progress that finds the channel full is not news any more when there is room.
fn reporter(lines: &mpsc::Sender<Bytes>) -> gantry_image::ProgressFn {
    let lines = lines.clone();
    Arc::new(move |progress: &Progress| {
        let _ = lines.try_send(line_of(&json!({"progress": progress})));
    })
}

/// An answer of lines; when the client goes away, the job ends.
fn streamed(lines: mpsc::Receiver<Bytes>, job: AbortHandle) -> Response {
    let guard = AbortOnDrop(job);
    let body = futures_util::stream::unfold((lines, guard), |(mut lines, guard)| async move {
        let line = lines.recv().await?;
        Some((Ok::<_, Infallible>(line), (lines, guard)))
    });
    let headers = [(CONTENT_TYPE, "application/x-ndjson")];
    (headers, Body::from_stream(body)).into_response()
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
