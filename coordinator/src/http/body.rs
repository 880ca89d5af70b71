//! Reading a request body within bounds.
//!
//! It decides how large and how slow a body may be, not what it must hold: that is the core's
//! (which reads JSON with serde_json, whose parser stops at 128 levels of nesting). Invariants: no
//! more than [`BODY_MAX_BYTES`] are ever held, and a body that stalls ends the request after
//! [`BODY_MAX_TIME`]. The content type is not looked at, as in Marathon: a missing one means JSON.

use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use futures_util::StreamExt;

use super::refusal::Refusal;

/// Largest request body in bytes.
pub(super) const BODY_MAX_BYTES: usize = 1 << 20;

/// How long a client may take to send a body.
const BODY_MAX_TIME: Duration = Duration::from_secs(20);

/// What is read and thrown away of a body that is too large: a connection that is closed while the
/// client still sends is reset, and the client never sees the answer (RFC 9112, 9.6).
const DRAIN_MAX_BYTES: usize = 64 << 20;

/// How long that may take.
const DRAIN_MAX_TIME: Duration = Duration::from_secs(2);

/// Reads the whole body.
pub(super) async fn read(body: Body) -> Result<Bytes, Refusal> {
    read_within(body, BODY_MAX_TIME).await
}

async fn read_within(body: Body, time: Duration) -> Result<Bytes, Refusal> {
    let mut stream = body.into_data_stream();
    match tokio::time::timeout(time, collect(&mut stream)).await {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => {
            // Whether all of it came or not, the answer is the same.
            let _ = tokio::time::timeout(DRAIN_MAX_TIME, drain(&mut stream)).await;
            Err(Refusal::BodyTooLarge)
        }
        Err(_) => Err(Refusal::BodyTooSlow),
    }
}

/// All of it, or nothing when it is too large. A connection that broke counts as that: nobody
/// reads the answer.
async fn collect(stream: &mut BodyDataStream) -> Option<Bytes> {
    let mut bytes = Vec::new();
    while let Some(piece) = stream.next().await {
        let piece = piece.ok()?;
        if bytes.len() + piece.len() > BODY_MAX_BYTES {
            return None;
        }
        bytes.extend_from_slice(&piece);
    }
    Some(bytes.into())
}

async fn drain(stream: &mut BodyDataStream) {
    let mut left = DRAIN_MAX_BYTES;
    while let Some(Ok(piece)) = stream.next().await {
        let Some(rest) = left.checked_sub(piece.len()) else {
            return;
        };
        left = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bodies_are_bounded_in_size_and_time() {
        let full = vec![b'x'; BODY_MAX_BYTES];
        assert_eq!(
            read(Body::from(full.clone())).await.unwrap().len(),
            BODY_MAX_BYTES
        );
        let over = [full, vec![b'x']].concat();
        assert!(matches!(
            read(Body::from(over)).await,
            Err(Refusal::BodyTooLarge)
        ));
        let stalled = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        let stalled = read_within(Body::from_stream(stalled), Duration::from_millis(10)).await;
        assert!(matches!(stalled, Err(Refusal::BodyTooSlow)));
    }
}
