//! Which requests get in: [`gantry_wire::caller`] decides, this carries it out. Invariant: a request
//! that is refused changes nothing.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::Method;
use axum::http::header::{self, HeaderMap, HeaderName};
use axum::http::uri::Authority;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use gantry_wire::caller::{Caller, Header, Refusal};

use super::Server;
use super::problem::Problem;

pub(super) async fn check(
    State(server): State<Arc<Server>>,
    request: Request,
    next: Next,
) -> Response {
    match refusal(&request, &server.allowed_hosts) {
        None => next.run(request).await,
        Some(refusal) => problem(&refusal).into_response(),
    }
}

/// Why the request is refused, if it is.
fn refusal(request: &Request, names: &[String]) -> Option<Refusal> {
    let headers = request.headers();
    let caller = Caller {
        reads: matches!(
            *request.method(),
            Method::GET | Method::HEAD | Method::OPTIONS
        ),
        target: request.uri().authority().map(Authority::as_str),
        host: header(headers, &header::HOST),
        site: header(headers, &HeaderName::from_static("sec-fetch-site")),
        origin: header(headers, &header::ORIGIN),
    };
    caller.refusal(names)
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Header<'a> {
    Header::of(
        headers
            .get_all(name)
            .iter()
            .map(|value| value.to_str().ok()),
    )
}

fn problem(refusal: &Refusal) -> Problem {
    let text = refusal.to_string();
    match refusal {
        Refusal::NoHost | Refusal::ManyHosts => Problem::BadRequest(text),
        Refusal::NotOurs(_) | Refusal::ForeignPage => Problem::Forbidden(text),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[test]
    fn the_headers_that_count_are_read() {
        let host = ("host", "localhost:5051");
        for (method, uri, headers, may) in [
            ("GET", "/state", vec![host], true),
            ("GET", "/state", vec![], false),
            ("GET", "/state", vec![host, host], false),
            ("GET", "http://evil.example/state", vec![host], false),
            ("POST", "/api/v1", vec![host], true),
            ("POST", "/api/v1", vec![host, ("origin", "null")], false),
            ("GET", "/api/v1", vec![host, ("origin", "null")], true),
            (
                "PUT",
                "/x",
                vec![host, ("sec-fetch-site", "cross-site")],
                false,
            ),
        ] {
            let mut request = Request::builder().method(method).uri(uri);
            for (name, value) in &headers {
                request = request.header(*name, *value);
            }
            let request = request.body(Body::empty()).unwrap();
            let got = refusal(&request, &[]);
            assert_eq!(got.is_none(), may, "{method} {uri} {headers:?}: {got:?}");
        }
    }
}
