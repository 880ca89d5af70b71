//! `/files/read` and `/files/download`: output and other files of sandboxes, in Mesos's shapes
//! (`src/files/files.cpp`). Decides what of a file goes into an answer.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio_util::io::ReaderStream;

use super::Server;
use super::beneath::{self, Found};
use super::problem::Problem;
use super::sandbox_path::SandboxPath;

/// Most bytes of a file in one answer: 16 pages, as Mesos.
pub(super) const READ_MAX_BYTES: u64 = 16 * 4_096;
/// Buffer of a download.
const DOWNLOAD_BUFFER_BYTES: usize = 64 * 1024;

#[derive(Debug, Deserialize)]
pub(super) struct PathQuery {
    path: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ReadQuery {
    path: Option<String>,
    offset: Option<i64>,
    length: Option<i64>,
}

#[derive(Debug, Serialize)]
struct Piece {
    data: String,
    offset: u64,
}

/// Opens what `path` names, off the async threads.
pub(super) async fn find(server: &Arc<Server>, path: Option<String>) -> Result<Found, Problem> {
    let path = path.filter(|path| !path.is_empty());
    let path =
        path.ok_or_else(|| Problem::BadRequest("Expecting 'path=value' in query.".into()))?;
    let parsed = SandboxPath::parse(&path, &server.slaves, server.facts.agent_id());
    let parsed = parsed.ok_or_else(|| Problem::NotFound(format!("'{path}' is in no sandbox")))?;
    let slaves = server.slaves.clone();
    blocking(move || beneath::open(&slaves, &parsed)).await
}

/// Runs blocking file work where it may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(Problem::Internal("reading did not end well".to_owned())))
}

/// The path of a query, or why the query cannot be read.
pub(super) fn path_of(
    query: Result<Query<PathQuery>, QueryRejection>,
) -> Result<Option<String>, Problem> {
    let Query(query) = query.map_err(|error| Problem::BadRequest(error.body_text()))?;
    Ok(query.path)
}

/// A piece of a file. `offset=-1`, or none, asks for the size; the length is capped.
pub(super) async fn read(
    State(server): State<Arc<Server>>,
    query: Result<Query<ReadQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|error| Problem::BadRequest(error.body_text()))?;
    let Found::File(file) = find(&server, query.path).await? else {
        return Err(Problem::BadRequest(
            "Cannot read from a directory".to_owned(),
        ));
    };
    let (offset, length) = (query.offset.unwrap_or(-1), query.length.unwrap_or(-1));
    if offset < -1 || length < -1 {
        return Err(Problem::BadRequest("Negative offset or length".to_owned()));
    }
    let length = u64::try_from(length)
        .unwrap_or(READ_MAX_BYTES)
        .min(READ_MAX_BYTES);
    let piece = blocking(move || piece(&file, u64::try_from(offset).ok(), length)).await?;
    Ok(Json(piece).into_response())
}

fn piece(file: &File, offset: Option<u64>, length: u64) -> Result<Piece, Problem> {
    let Some(offset) = offset else {
        return Ok(Piece {
            data: String::new(),
            offset: size(file)?,
        });
    };
    let (_, bytes) = bytes(file, offset, length)?;
    Ok(Piece {
        data: text(&bytes),
        offset,
    })
}

fn failed(error: &std::io::Error) -> Problem {
    Problem::Internal(error.to_string())
}

fn size(file: &File) -> Result<u64, Problem> {
    Ok(file.metadata().map_err(|error| failed(&error))?.len())
}

/// The size of a file, and some of what is in it.
pub(super) fn bytes(file: &File, offset: u64, length: u64) -> Result<(u64, Vec<u8>), Problem> {
    let size = size(file)?;
    let wanted = length.min(READ_MAX_BYTES).min(size.saturating_sub(offset));
    let mut bytes = vec![0; usize::try_from(wanted).unwrap_or(usize::MAX)];
    let mut filled = 0;
    while filled < bytes.len() {
        match file
            .read_at(&mut bytes[filled..], offset + filled as u64)
            .map_err(|error| failed(&error))?
        {
            0 => break,
            read => filled += read,
        }
    }
    bytes.truncate(filled);
    Ok((size, bytes))
}

/// Bytes as JSON can carry them, each as many bytes of text: what is not UTF-8 becomes `?`, so that
/// a client that adds the length of `data` to its offset stays in step. A character that is cut at
/// the end is left for the next piece.
fn text(mut bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    loop {
        match std::str::from_utf8(bytes) {
            Ok(rest) => {
                text.push_str(rest);
                return text;
            }
            Err(error) => {
                let (valid, rest) = bytes.split_at(error.valid_up_to());
                text.push_str(&String::from_utf8_lossy(valid));
                let Some(bad) = error.error_len() else {
                    return text;
                };
                text.extend(std::iter::repeat_n('?', bad));
                bytes = &rest[bad..];
            }
        }
    }
}

/// The whole file as it is, streamed.
pub(super) async fn download(
    State(server): State<Arc<Server>>,
    query: Result<Query<PathQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let path = path_of(query)?;
    let name = path
        .as_deref()
        .and_then(|path| path.rsplit('/').next())
        .unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let name: String = name
        .chars()
        .map(|c| if plain(c) { c } else { '_' })
        .collect();
    let Found::File(file) = find(&server, path).await? else {
        return Err(Problem::BadRequest(
            "Cannot download a directory".to_owned(),
        ));
    };
    let file = tokio::fs::File::from_std(file);
    let body = Body::from_stream(ReaderStream::with_capacity(file, DOWNLOAD_BUFFER_BYTES));
    let headers = [
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (CONTENT_DISPOSITION, format!("attachment; filename={name}")),
    ];
    Ok((headers, body).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_keeps_its_length() {
        for (bytes, want) in [
            (&b"plain"[..], "plain"),
            (b"a\xffb\xc3(c", "a?b?(c"),
            ("z\u{fc}".as_bytes(), "z\u{fc}"),
            (b"cut \xe2\x82", "cut "),
            (b"\xe2\x82", ""),
            (b"\xf0\x9f\x92x", "???x"),
        ] {
            assert_eq!(text(bytes), want);
        }
    }

    #[test]
    fn pieces_have_mesos_shapes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "0123456789").unwrap();
        let file = File::open(path).unwrap();
        let of = |offset, length| {
            let piece = piece(&file, offset, length).unwrap();
            (piece.data, piece.offset)
        };
        assert_eq!(of(None, 5), (String::new(), 10));
        assert_eq!(of(Some(0), 4), ("0123".into(), 0));
        assert_eq!(of(Some(8), 4), ("89".into(), 8));
        assert_eq!(of(Some(10), 4), (String::new(), 10));
        assert_eq!(of(Some(u64::MAX), 4), (String::new(), u64::MAX));
    }
}
