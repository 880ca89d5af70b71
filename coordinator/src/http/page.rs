//! The page: three fixed files, compiled in.
//!
//! It decides nothing: the page reads the same API as everybody. Invariants: it works without any
//! other server, and its content security policy lets it run its own script and nothing else, so
//! that an id or a label can never become code.

use axum::http::header;
use axum::response::{IntoResponse, Response};

/// Script, style and requests of the page come from this origin; nothing inline.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// GET / and /ui/.
pub(super) async fn document() -> Response {
    let policy = [(header::CONTENT_SECURITY_POLICY, POLICY)];
    (
        policy,
        file("text/html; charset=utf-8", include_str!("page.html")),
    )
        .into_response()
}

/// GET /page.js.
pub(super) async fn script() -> Response {
    file("text/javascript; charset=utf-8", include_str!("page.js"))
}

/// GET /page.css.
pub(super) async fn style() -> Response {
    file("text/css; charset=utf-8", include_str!("page.css"))
}

fn file(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}
