//! `/files/stream?path=…`: what a task wrote to an output, over all of its files, and, with
//! `follow=true`, what it writes from then on until it has ended.
//!
//! `offset` is a place in the whole stream, counted from the task's first byte; `lines` asks for
//! the last lines; else it begins with the oldest byte kept. The header `Gantry-Offset` says where
//! the answer begins, and a body never has a hole: where bytes are not kept any more it ends, and the
//! next request, with the place reached, says where it goes on. So a client that asks again from
//! where it is until nothing comes has lost and doubled nothing, whatever broke. Without `follow`,
//! `Gantry-End` is the place that it goes to.
//!
//! It decides when a body ends; it waits for changes, not for a clock. Invariants: followers are
//! bounded; nothing is read ahead of a client that does not take it.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderName;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore, oneshot};

use super::Server;
use super::beneath::Found;
use super::changes::{Changes, Watched};
use super::files;
use super::output_files::{From, OutputFiles, Piece};
use super::problem::Problem;
use crate::inbox::{Ask, Event};

/// Streams at a time. Each has a connection; others need some, too.
const STREAMS_MAX: usize = 256;
/// Between two looks for a file that must appear, but which a task may have taken away.
const LOOK: Duration = Duration::from_millis(250);

const OFFSET: HeaderName = HeaderName::from_static("gantry-offset");
const END: HeaderName = HeaderName::from_static("gantry-end");

/// What all streams of a listener share.
#[derive(Debug)]
pub(crate) struct Streams {
    slots: Arc<Semaphore>,
    changes: OnceCell<Changes>,
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            slots: Arc::new(Semaphore::new(STREAMS_MAX)),
            changes: OnceCell::new(),
        }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct StreamQuery {
    path: Option<String>,
    offset: Option<u64>,
    lines: Option<usize>,
    #[serde(default)]
    follow: bool,
}

pub(super) async fn stream(
    State(server): State<Arc<Server>>,
    query: Result<Query<StreamQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|error| Problem::BadRequest(error.body_text()))?;
    let slot = server.streams.slots.clone().try_acquire_owned();
    let slot = slot.map_err(|_| Problem::Busy)?;
    let from = match (query.offset, query.lines) {
        (None, None) => From::Beginning,
        (Some(place), None) => From::Place(place),
        (None, Some(lines)) => From::Lines(lines),
        (Some(_), Some(_)) => {
            let text = "Either 'offset' or 'lines', not both".to_owned();
            return Err(Problem::BadRequest(text));
        }
    };
    let (dir, name) = directory(&server, query.path).await?;
    // Asked before anything is read: what was written before the end is read after it.
    let ended = if query.follow {
        Some(end(&server, &dir).await?)
    } else {
        None
    };
    let open = move || {
        Ok((
            OutputFiles::open(dir, &name, from).map_err(|error| failed(&error))?,
            name,
        ))
    };
    let (files, name) = files::blocking(open).await?;
    let files =
        files.ok_or_else(|| Problem::NotFound(format!("'{name}' is no output in that place")))?;
    let mut headers = vec![
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (OFFSET, files.at().to_string()),
    ];
    let mut follower = Follower::new(server, files, ended, slot);
    if !query.follow {
        let end = follower.end().await?;
        headers.push((END, end.to_string()));
    }
    let pieces = futures_util::stream::try_unfold(follower, |mut follower| async move {
        let piece = follower.next().await?;
        Ok::<_, std::io::Error>(piece.map(|bytes| (bytes, follower)))
    });
    let mut response = Body::from_stream(pieces).into_response();
    for (name, value) in headers {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(name, value);
        }
    }
    Ok(response)
}

fn failed(error: &std::io::Error) -> Problem {
    Problem::Internal(error.to_string())
}

/// The directory that a path names, and the name in it.
async fn directory(
    server: &Arc<Server>,
    path: Option<String>,
) -> Result<(OwnedFd, String), Problem> {
    let path = path.unwrap_or_default();
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
    if parent.is_empty() || matches!(name, "" | "." | "..") || name.contains('\0') {
        let text = "Expecting 'path=value' in query, the path of a file.".to_owned();
        return Err(Problem::BadRequest(text));
    }
    match files::find(server, Some(parent.to_owned())).await? {
        Found::Directory(dir) => Ok((dir, name.to_owned())),
        Found::File(_) => Err(Problem::NotFound("No such file or directory".to_owned())),
    }
}

/// Resolves when the container has ended whose sandbox the directory lies in.
async fn end(server: &Server, dir: &OwnedFd) -> Result<oneshot::Receiver<()>, Problem> {
    let link = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
    let place = tokio::fs::read_link(link)
        .await
        .map_err(|error| failed(&error))?;
    let container = container_of(&server.slaves, &place);
    let container = container.ok_or_else(|| Problem::NotFound("In no sandbox".to_owned()))?;
    let (reply, ended) = oneshot::channel();
    let ask = Event::Ask(Ask::WaitEnd { container, reply });
    let sent = server.events.send(ask).await;
    sent.map_err(|_| Problem::Unavailable)?;
    Ok(ended)
}

/// `A/frameworks/F/executors/E/runs/C…`, or `…/C/containers/M…` for one that shares an executor.
fn container_of(slaves: &Path, place: &Path) -> Option<String> {
    let inside = place.strip_prefix(slaves).ok()?;
    let mut parts = inside.iter().skip(6).map(|part| part.to_str());
    let container = parts.next()??;
    let nested = match parts.next() {
        Some(Some(crate::layout::NESTED)) => parts.next().flatten(),
        _ => None,
    };
    Some(nested.unwrap_or(container).to_owned())
}

/// One who reads a stream.
struct Follower {
    server: Arc<Server>,
    files: Option<OutputFiles>,
    /// Of the file that is read, and which one that is.
    watched: Option<(u64, Watched)>,
    /// None: it is not waited for.
    ended: Option<oneshot::Receiver<()>>,
    is_over: bool,
    /// Where to stop.
    end: Option<u64>,
    _slot: OwnedSemaphorePermit,
}

impl Follower {
    fn new(
        server: Arc<Server>,
        files: OutputFiles,
        ended: Option<oneshot::Receiver<()>>,
        slot: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            server,
            files: Some(files),
            watched: None,
            is_over: ended.is_none(),
            ended,
            end: None,
            _slot: slot,
        }
    }

    async fn blocking<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut OutputFiles) -> std::io::Result<T> + Send + 'static,
    ) -> std::io::Result<T> {
        let gone = || std::io::Error::other("an earlier read did not end well");
        let mut files = self.files.take().ok_or_else(gone)?;
        let done = tokio::task::spawn_blocking(move || (work(&mut files), files)).await;
        let (result, files) = done.map_err(|_| gone())?;
        self.files = Some(files);
        result
    }

    /// Where it stops from now on.
    async fn end(&mut self) -> Result<u64, Problem> {
        let end = self
            .blocking(|files| files.end())
            .await
            .map_err(|error| failed(&error))?;
        self.end = Some(end);
        Ok(end)
    }

    /// The next bytes; None at the end, or where there is a hole.
    async fn next(&mut self) -> std::io::Result<Option<Bytes>> {
        loop {
            let attributes = self.watch().await?;
            let end = self.end;
            let next = move |files: &mut OutputFiles| {
                let most = end.map_or(u64::MAX, |end| end.saturating_sub(files.at()));
                if most == 0 {
                    return Ok(Piece::Hole);
                }
                files.piece(most, attributes)
            };
            match self.blocking(next).await? {
                Piece::Bytes(bytes) => return Ok(Some(bytes)),
                Piece::Hole => return Ok(None),
                Piece::Nothing { .. } if self.is_over => return Ok(None),
                Piece::Nothing { is_over } => self.wait(is_over).await,
            }
        }
    }

    /// Sees to it that the file that is read is watched; how often its attributes changed.
    async fn watch(&mut self) -> std::io::Result<u64> {
        let (false, Some(files)) = (self.is_over, &self.files) else {
            // It is only read: what there is is looked at once more.
            return Ok(u64::MAX);
        };
        if let Some((number, watched)) = &mut self.watched
            && *number == files.changes
        {
            return Ok(watched.mark());
        }
        let changes = &self.server.streams.changes;
        let changes = changes.get_or_try_init(|| async { Changes::new() }).await?;
        let mut watched = changes.watch(files.file())?;
        let attributes = watched.mark();
        self.watched = Some((files.changes, watched));
        Ok(attributes)
    }

    /// Waits for a change, or for the end.
    async fn wait(&mut self, must_appear: bool) {
        let (Some((_, watched)), Some(ended)) = (&mut self.watched, &mut self.ended) else {
            return;
        };
        tokio::select! {
            // Whoever is asked and cannot tell knows no such container, or is gone itself.
            _ = ended => self.is_over = true,
            () = watched.changed() => {}
            () = tokio::time::sleep(LOOK), if must_appear => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_told_by_the_place() {
        let of = |place: &str| container_of(Path::new("/d/slaves"), Path::new(place));
        let run = "/d/slaves/a/frameworks/f/executors/e/runs";
        for (place, want) in [
            (format!("{run}/c"), Some("c")),
            (format!("{run}/c/logs"), Some("c")),
            (format!("{run}/c/containers/m"), Some("m")),
            (format!("{run}/c/containers/m/logs"), Some("m")),
            (format!("{run}/c/containers"), Some("c")),
            (run.to_owned(), None),
            ("/etc".to_owned(), None),
        ] {
            assert_eq!(of(&place).as_deref(), want, "{place}");
        }
    }
}
