//! Reading a request body within bounds.
//!
//! It decides how large and how slow a body may be, not what it must hold: that is the core's
//! (which reads JSON with serde_json, whose parser stops at 128 levels of nesting). Invariants: no
//! more than [`BODY_MAX_BYTES`] are ever held, and a body that stalls ends the request after
//! [`BODY_MAX_TIME`]. The content type is not looked at, as in Marathon: a missing one means JSON.

use std::time::Duration;

use axum::body::{Body, Bytes};

use super::refusal::Refusal;

/// Largest request body in bytes.
pub(super) const BODY_MAX_BYTES: usize = 1 << 20;

/// How long a client may take to send a body.
const BODY_MAX_TIME: Duration = Duration::from_secs(20);

/// Reads the whole body.
pub(super) async fn read(body: Body) -> Result<Bytes, Refusal> {
    read_within(body, BODY_MAX_TIME).await
}

async fn read_within(body: Body, time: Duration) -> Result<Bytes, Refusal> {
    let reading = axum::body::to_bytes(body, BODY_MAX_BYTES);
    match tokio::time::timeout(time, reading).await {
        Ok(Ok(bytes)) => Ok(bytes),
        // The only other failure is a connection that broke, and then nobody reads the answer.
        Ok(Err(_)) => Err(Refusal::BodyTooLarge),
        Err(_) => Err(Refusal::BodyTooSlow),
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
