//! Takes request bodies in, before any handler: whole, in bounded memory, number and time.
//!
//! It decides how large and how slow a body may be, not what it must hold. Invariants: at most
//! [`BODIES_MAX`] connections are ever waited on for a body, far fewer than there may be, so that
//! clients who never finish theirs cannot keep others out; a body that stalls is answered 408 and
//! its connection closed.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use tokio::sync::Semaphore;

use super::problem::Problem;

/// Longest request body.
const BODY_MAX_BYTES: usize = 1 << 20;
/// Bodies that may be on their way in at a time.
pub(super) const BODIES_MAX: usize = 128;

/// The bounds, shared by all requests of a listener.
#[derive(Clone)]
pub(super) struct Intake {
    max_time: Duration,
    slots: Arc<Semaphore>,
}

impl Intake {
    pub(super) fn new(max_time: Duration) -> Self {
        let slots = Arc::new(Semaphore::new(BODIES_MAX));
        Self { max_time, slots }
    }

    /// The whole body.
    pub(super) async fn read(&self, body: Body) -> Result<Bytes, Problem> {
        let Ok(_slot) = self.slots.try_acquire() else {
            return Err(Problem::Busy);
        };
        let reading = axum::body::to_bytes(body, BODY_MAX_BYTES);
        match tokio::time::timeout(self.max_time, reading).await {
            Ok(Ok(bytes)) => Ok(bytes),
            // The only other failure is a connection that broke, and then nobody reads the answer.
            Ok(Err(_)) => Err(Problem::TooLarge(BODY_MAX_BYTES)),
            Err(_) => Err(Problem::TooSlow(self.max_time)),
        }
    }
}

pub(super) async fn whole(State(intake): State<Intake>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    if body.is_end_stream() {
        return next.run(Request::from_parts(parts, body)).await;
    }
    match intake.read(body).await {
        Ok(bytes) => next.run(Request::from_parts(parts, bytes.into())).await,
        Err(problem) => problem.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stalled() -> Body {
        Body::from_stream(futures_util::stream::pending::<
            Result<bytes::Bytes, std::io::Error>,
        >())
    }

    #[tokio::test]
    async fn bodies_are_bounded_in_size_time_and_number() {
        let intake = Intake::new(Duration::from_millis(10));
        let full = vec![b'x'; BODY_MAX_BYTES];
        assert!(intake.read(Body::from(full.clone())).await.is_ok());
        let over = intake.read(Body::from([full, vec![b'x']].concat())).await;
        assert_eq!(over.unwrap_err(), Problem::TooLarge(BODY_MAX_BYTES));
        let slow = intake.read(stalled()).await;
        assert_eq!(
            slow.unwrap_err(),
            Problem::TooSlow(Duration::from_millis(10))
        );
        let patient = Intake::new(Duration::from_secs(3600));
        let waiting: Vec<_> = (0..BODIES_MAX).map(|_| patient.read(stalled())).collect();
        let waiting = futures_util::future::join_all(waiting);
        tokio::select! {
            biased;
            _ = waiting => panic!("they stall"),
            more = patient.read(Body::from("x")) => assert_eq!(more.unwrap_err(), Problem::Busy),
        }
        assert!(patient.read(Body::from("x")).await.is_ok());
    }
}
