//! What a request must satisfy before any handler sees it, and what every answer carries.
//!
//! It decides whether the caller reached us under a name of ours and from a page of ours; who the
//! caller is, it does not ask (authentication comes with the first listener beyond loopback).
//! A browser is the danger on loopback: a foreign site may resolve its own name to 127.0.0.1 and
//! read our answers (DNS rebinding: its `Host` is not ours), or send a form at us (cross-site
//! request: `Origin` or `Sec-Fetch-Site` tell). Invariants: a request that fails changes nothing,
//! no answer may be cached, framed, sniffed or embedded by another site, and each ends within
//! [`ANSWER_MAX`] (streams: begins within the proxy's own bounds).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::uri::Authority;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
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

    fn is_ours(&self, authority: &Authority) -> bool {
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']');
        let host = host.trim_end_matches('.');
        let loopback = host
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.to_canonical().is_loopback());
        let local = host.eq_ignore_ascii_case("localhost")
            || host.to_ascii_lowercase().ends_with(".localhost");
        loopback
            || local
            || self
                .names
                .iter()
                .any(|name| name.eq_ignore_ascii_case(host))
    }

    /// Why the request is refused, if it is.
    fn refuses(&self, request: &Request) -> Option<(StatusCode, &'static str)> {
        let bad_host = (
            StatusCode::FORBIDDEN,
            "The Host of this request is not a name of this node",
        );
        let host = match single(request.headers(), &header::HOST) {
            Ok(Some(value)) => value.parse::<Authority>().ok(),
            Ok(None) if request.uri().authority().is_some() => request.uri().authority().cloned(),
            Ok(None) => return Some((StatusCode::BAD_REQUEST, "The Host header is missing")),
            Err(()) => None,
        };
        let Some(host) = host.filter(|host| self.is_ours(host)) else {
            return Some(bad_host);
        };
        if request
            .uri()
            .authority()
            .is_some_and(|authority| !self.is_ours(authority))
        {
            return Some(bad_host);
        }
        let reads = matches!(
            *request.method(),
            Method::GET | Method::HEAD | Method::OPTIONS
        );
        if !reads && is_foreign(request.headers(), &host) {
            return Some((
                StatusCode::FORBIDDEN,
                "Requests from pages of other sites are refused",
            ));
        }
        None
    }
}

/// Whether a browser says that another site's page sent this.
fn is_foreign(headers: &HeaderMap, host: &Authority) -> bool {
    let site = single(headers, &HeaderName::from_static("sec-fetch-site"));
    if !matches!(site, Ok(None | Some("same-origin" | "none"))) {
        return true;
    }
    match single(headers, &header::ORIGIN) {
        Ok(None) => false,
        Ok(Some(origin)) => {
            let at = origin
                .strip_prefix("http://")
                .or_else(|| origin.strip_prefix("https://"));
            at.is_none_or(|at| !at.eq_ignore_ascii_case(host.as_str()))
        }
        Err(()) => true,
    }
}

/// The one value of a header as text; an error when it repeats or is not text.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| ()),
        (Some(_), Some(_)) => Err(()),
    }
}

/// The middleware around every route.
pub(super) async fn guard(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let mut response = match guard.refuses(&request) {
        Some((status, why)) => message(status, why),
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

    fn verdict(method: &str, headers: &[(&str, &str)]) -> Option<u16> {
        let mut request = Request::builder().method(method).uri("/v2/apps");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        let guard = Guard::new(vec!["node1.example".into(), "10.0.0.7".into()]);
        guard.refuses(&request).map(|(status, _)| status.as_u16())
    }

    #[test]
    fn only_names_of_this_node_are_answered() {
        for (host, want) in [
            ("localhost:5050", None),
            ("LOCALHOST", None),
            ("localhost.:5050", None),
            ("gantry.localhost:5050", None),
            ("127.0.0.1:5050", None),
            ("127.9.9.9", None),
            ("[::1]:5050", None),
            ("[::ffff:127.0.0.1]", None),
            ("node1.example:5050", None),
            ("Node1.Example", None),
            ("10.0.0.7:5050", None),
            ("10.0.0.8:5050", Some(403)),
            ("evil.example:5050", Some(403)),
            ("localhost.evil.example", Some(403)),
            ("evillocalhost", Some(403)),
            ("127.0.0.1.evil.example", Some(403)),
            ("0.0.0.0:5050", Some(403)),
            ("", Some(403)),
            ("a b", Some(403)),
        ] {
            assert_eq!(verdict("GET", &[("host", host)]), want, "{host:?}");
        }
        assert_eq!(verdict("GET", &[]), Some(400));
        assert_eq!(
            verdict("GET", &[("host", "localhost"), ("host", "evil.example")]),
            Some(403)
        );
    }

    #[test]
    fn pages_of_other_sites_change_nothing() {
        let host = ("host", "localhost:5050");
        for (name, value, want) in [
            ("origin", "http://localhost:5050", None),
            ("origin", "HTTP://localhost:5050", Some(403)),
            ("origin", "http://localhost:3000", Some(403)),
            ("origin", "http://evil.example", Some(403)),
            ("origin", "null", Some(403)),
            ("origin", "", Some(403)),
            ("sec-fetch-site", "same-origin", None),
            ("sec-fetch-site", "none", None),
            ("sec-fetch-site", "same-site", Some(403)),
            ("sec-fetch-site", "cross-site", Some(403)),
            ("x-other", "1", None),
        ] {
            assert_eq!(
                verdict("POST", &[host, (name, value)]),
                want,
                "{name}: {value}"
            );
            assert_eq!(
                verdict("DELETE", &[host, (name, value)]),
                want,
                "{name}: {value}"
            );
            assert_eq!(
                verdict("GET", &[host, (name, value)]),
                None,
                "{name}: {value}"
            );
        }
    }
}
