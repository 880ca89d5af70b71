//! What a request must satisfy before any handler sees it, and what every answer carries.
//!
//! Whether the caller reached us under a name of ours and from a page of ours, [`gantry_wire::caller`]
//! decides; who the caller is, nobody asks (authentication comes with the first listener beyond
//! loopback). Invariants: a request that fails changes nothing,
//! no answer may be cached, framed, sniffed or embedded by another site, and each ends within
//! [`ANSWER_MAX`] (streams: begins within the proxy's own bounds).

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::uri::Authority;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use gantry_wire::caller::{Caller, Header, Refusal};
use tokio::sync::Semaphore;

use super::refusal::message;

/// Requests that may be in a handler at once; one more is answered 503 (Marathon's
/// `http_max_concurrent_requests`).
const REQUESTS_MAX: usize = 1024;

/// How long any answer but a proxied one may take to begin.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(30);

/// What may be loaded into an answer that is opened as a document: nothing. The page sets its own.
const NOTHING: &str = "default-src 'none'; frame-ancestors 'none'; sandbox";

/// The checks and their bounds, shared by all requests of a router.
#[derive(Clone)]
pub(super) struct Guard {
    names: Arc<[String]>,
    requests: Arc<Semaphore>,
}

impl Guard {
    /// `names` are hosts (no port) under which this node may be addressed beside loopback.
    pub(super) fn new(names: Vec<String>) -> Self {
        Self {
            names: names.into(),
            requests: Arc::new(Semaphore::new(REQUESTS_MAX)),
        }
    }

    /// Why the request is refused, if it is.
    fn refuses(&self, request: &Request) -> Option<Refusal> {
        let headers = request.headers();
        let caller = Caller {
            reads: matches!(
                *request.method(),
                Method::GET | Method::HEAD | Method::OPTIONS
            ),
            target: request.uri().authority().map(Authority::as_str),
            host: header_of(headers, &header::HOST),
            site: header_of(headers, &HeaderName::from_static("sec-fetch-site")),
            origin: header_of(headers, &header::ORIGIN),
        };
        caller.refusal(&self.names)
    }
}

fn header_of<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Header<'a> {
    Header::of(
        headers
            .get_all(name)
            .iter()
            .map(|value| value.to_str().ok()),
    )
}

/// The middleware around every route.
pub(super) async fn guard(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let mut response = match guard.refuses(&request) {
        Some(refusal) => {
            let status = StatusCode::from_u16(refusal.status());
            message(
                status.unwrap_or(StatusCode::FORBIDDEN),
                &refusal.to_string(),
            )
        }
        None => match guard.requests.clone().try_acquire_owned() {
            Err(_) => message(StatusCode::SERVICE_UNAVAILABLE, "Too many requests at once"),
            Ok(_permit) => next.run(request).await,
        },
    };
    secure(response.headers_mut());
    response
}

/// The middleware around every route that answers by itself: a late answer is a 503.
pub(super) async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(ANSWER_MAX, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            message(StatusCode::SERVICE_UNAVAILABLE, "The request took too long").into_response()
        }
    }
}

fn secure(headers: &mut HeaderMap) {
    let fixed = HeaderValue::from_static;
    headers.insert(header::CACHE_CONTROL, fixed("no-store"));
    headers.insert(header::X_FRAME_OPTIONS, fixed("DENY"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, fixed("nosniff"));
    headers.insert(header::REFERRER_POLICY, fixed("no-referrer"));
    headers.insert("cross-origin-resource-policy", fixed("same-origin"));
    headers.insert("cross-origin-opener-policy", fixed("same-origin"));
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(fixed(NOTHING));
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[test]
    fn the_headers_that_count_are_read() {
        let host = ("host", "localhost:5050");
        for (method, headers, want) in [
            ("GET", vec![host], None),
            ("GET", vec![("host", "node1.example")], None),
            ("GET", vec![("host", "evil.example")], Some(403)),
            ("GET", vec![], Some(400)),
            ("GET", vec![host, ("host", "evil.example")], Some(400)),
            ("POST", vec![host], None),
            ("POST", vec![host, ("origin", "null")], Some(403)),
            ("GET", vec![host, ("origin", "null")], None),
            (
                "DELETE",
                vec![host, ("sec-fetch-site", "cross-site")],
                Some(403),
            ),
        ] {
            let mut request = Request::builder().method(method).uri("/v2/apps");
            for (name, value) in &headers {
                request = request.header(*name, *value);
            }
            let request = request.body(Body::empty()).unwrap();
            let guard = Guard::new(vec!["node1.example".into()]);
            let got = guard.refuses(&request).map(|refusal| refusal.status());
            assert_eq!(got, want, "{method} {headers:?}");
        }
    }
}
