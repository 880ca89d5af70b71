//! `?jsonp=f`: an answer in JSON becomes a script that calls `f` with it, as old pages of Mesos ask.
//!
//! A script may be loaded by a page of any site, which JSON may not; so one is only made for who is
//! no page of another site. Invariant: what is called is a name, and nothing else can be written
//! into the script.

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, ORIGIN, REFERER};
use axum::http::{HeaderMap, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::problem::Problem;

/// Longest name of a function.
const NAME_MAX_BYTES: usize = 128;
/// Longest answer that is wrapped: all of `/state` with ten thousand tasks.
const ANSWER_MAX_BYTES: usize = 64 << 20;

pub(super) async fn wrap(request: Request, next: Next) -> Response {
    let Some(name) = asked(request.uri()) else {
        return next.run(request).await;
    };
    if !is_name(&name) {
        return Problem::BadRequest("'jsonp' is no name of a function".to_owned()).into_response();
    }
    if !is_own(request.headers()) {
        let text = "'jsonp' is not for pages of other sites";
        return Problem::Forbidden(text.to_owned()).into_response();
    }
    let response = next.run(request).await;
    let json = HeaderValue::from_static("application/json");
    if response.headers().get(CONTENT_TYPE) != Some(&json) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Ok(body) = axum::body::to_bytes(body, ANSWER_MAX_BYTES).await else {
        return Problem::Internal("the answer is too long for a script".to_owned()).into_response();
    };
    parts.headers.remove(CONTENT_LENGTH);
    let kind = HeaderValue::from_static("text/javascript");
    parts.headers.insert(CONTENT_TYPE, kind);
    Response::from_parts(parts, Body::from(script(&name, &body)))
}

fn script(name: &str, json: &Bytes) -> Vec<u8> {
    [name.as_bytes(), b"(", json, b");"].concat()
}

/// The value of the first `jsonp`, as it is written: a name needs no escapes.
fn asked(uri: &Uri) -> Option<String> {
    let mut pairs = uri.query()?.split('&');
    let value = pairs.find_map(|pair| pair.strip_prefix("jsonp="))?;
    Some(value.to_owned())
}

fn is_name(text: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '.');
    let digit_first = text.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    !text.is_empty() && text.len() <= NAME_MAX_BYTES && !digit_first && text.chars().all(letter)
}

/// Browsers say of each request from where it comes; who says nothing is none.
fn is_own(headers: &HeaderMap) -> bool {
    let mut sites = headers.get_all("sec-fetch-site").iter().peekable();
    if sites.peek().is_some() {
        return sites.all(|site| site == "same-origin" || site == "none");
    }
    !headers.contains_key(ORIGIN) && !headers.contains_key(REFERER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_are_called() {
        for name in ["f", "jQuery123_4", "angular.callbacks._0", "$.f"] {
            assert!(is_name(name), "{name}");
        }
        let long = "f".repeat(NAME_MAX_BYTES + 1);
        for text in [
            "",
            "1f",
            ".f",
            "f(1)",
            "alert;f",
            "f%28",
            "a b",
            "a[0]",
            "</script>",
            &long,
        ] {
            assert!(!is_name(text), "{text}");
        }
        let of = |uri: &str| asked(&uri.parse().unwrap());
        assert_eq!(of("/state?x=1&jsonp=f&jsonp=g"), Some("f".to_owned()));
        assert_eq!(of("/state?xjsonp=f"), None);
        assert_eq!(of("/state"), None);
    }

    #[test]
    fn pages_of_other_sites_get_no_script() {
        for (headers, own) in [
            (vec![], true),
            (vec![("sec-fetch-site", "same-origin")], true),
            (vec![("sec-fetch-site", "none")], true),
            (vec![("sec-fetch-site", "cross-site")], false),
            (vec![("sec-fetch-site", "same-site")], false),
            (
                vec![("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")],
                false,
            ),
            (vec![("referer", "http://evil.example/")], false),
            (vec![("origin", "null")], false),
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in &headers {
                map.append(*name, HeaderValue::from_static(value));
            }
            assert_eq!(is_own(&map), own, "{headers:?}");
        }
    }
}
