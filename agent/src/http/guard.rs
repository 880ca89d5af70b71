//! Which requests get in: those whose `Host` is a loopback name or address, or one that the
//! operator allowed, and that no page of another site sent.
//!
//! A browser is the danger on loopback: a page elsewhere may resolve its own name to 127.0.0.1 and
//! read our answers (DNS rebinding: its `Host` is not ours), or send a form at us (`Origin` and
//! `Sec-Fetch-Site` tell). Who the caller is, it does not ask. Invariant: a request that is refused
//! changes nothing.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{self, HeaderMap, HeaderName};
use axum::http::uri::Authority;
use axum::http::{Method, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::Server;
use super::problem::Problem;

pub(super) async fn check(
    State(server): State<Arc<Server>>,
    request: Request,
    next: Next,
) -> Response {
    let (method, uri, headers) = (request.method(), request.uri(), request.headers());
    match refusal(method, uri, headers, &server.allowed_hosts) {
        None => next.run(request).await,
        Some(problem) => problem.into_response(),
    }
}

/// Why the request is refused, if it is.
fn refusal(method: &Method, uri: &Uri, headers: &HeaderMap, extra: &[String]) -> Option<Problem> {
    let host = match single(headers, &header::HOST) {
        Ok(Some(host)) => host,
        Ok(None) => return Some(Problem::BadRequest("A Host header is needed".to_owned())),
        Err(()) => return Some(Problem::BadRequest("One Host header is needed".to_owned())),
    };
    let target = uri.authority().map(Authority::as_str);
    for name in [Some(host), target].into_iter().flatten() {
        if !allowed(name, extra) {
            let text = format!("This agent does not answer to the name '{name}'");
            return Some(Problem::Forbidden(text));
        }
    }
    let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    (!reads && is_foreign(headers, host))
        .then(|| Problem::Forbidden("Requests from pages of other sites are refused".to_owned()))
}

fn allowed(authority: &str, extra: &[String]) -> bool {
    let Some(host) = host_of(authority) else {
        return false;
    };
    let loopback = host
        .parse::<IpAddr>()
        .is_ok_and(|ip| ip.to_canonical().is_loopback());
    let listed = extra.iter().any(|known| known.eq_ignore_ascii_case(host));
    loopback || listed || host.eq_ignore_ascii_case("localhost")
}

/// The host of `host` or `host:port`, an IPv6 address in brackets; nothing else may be in there.
fn host_of(authority: &str) -> Option<&str> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        host.parse::<Ipv6Addr>().ok()?;
        (host, port)
    } else {
        let end = authority.find(':').unwrap_or(authority.len());
        let (host, port) = authority.split_at(end);
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        (!host.is_empty() && host.bytes().all(plain)).then_some((host, port))?
    };
    let is_port =
        |digits: &str| digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<u16>().is_ok();
    match port.strip_prefix(':') {
        None => port.is_empty().then_some(host),
        Some(digits) => is_port(digits).then_some(host),
    }
}

/// Whether a browser says that another site's page sent this.
fn is_foreign(headers: &HeaderMap, host: &str) -> bool {
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
            at.is_none_or(|at| !at.eq_ignore_ascii_case(host))
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

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn only_loopback_and_listed_names() {
        let extra = ["node1".to_owned()];
        for good in [
            "localhost",
            "LOCALHOST:5051",
            "127.0.0.1:1",
            "[::1]:5051",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "node1:80",
        ] {
            assert!(allowed(good, &extra), "{good}");
        }
        for bad in [
            "",
            ":80",
            "evil.example",
            "10.0.0.1",
            "localhost.evil",
            "127.0.0.1.evil",
            "[::2]",
            "127.0.0.1:1@evil",
            "evil@127.0.0.1",
            "127.0.0.1:",
            "127.0.0.1:+1",
            "127.0.0.1:65536",
            "127.0.0.1:1:2",
            "localhost/",
            "localhost ",
            "[::1]evil",
            "[::1",
            "[127.0.0.1]",
            "::1",
            "[node1]",
        ] {
            assert!(!allowed(bad, &extra), "{bad}");
        }
    }

    fn verdict(method: &Method, uri: &str, headers: &[(&'static str, &'static str)]) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        refusal(method, &uri.parse().unwrap(), &map, &[]).is_none()
    }

    #[test]
    fn pages_of_other_sites_change_nothing() {
        let host = ("host", "localhost:5051");
        for (name, value, may) in [
            ("origin", "http://localhost:5051", true),
            ("origin", "http://localhost:3000", false),
            ("origin", "http://evil.example", false),
            ("origin", "null", false),
            ("origin", "", false),
            ("sec-fetch-site", "same-origin", true),
            ("sec-fetch-site", "none", true),
            ("sec-fetch-site", "same-site", false),
            ("sec-fetch-site", "cross-site", false),
        ] {
            let headers = [host, (name, value)];
            let got = verdict(&Method::POST, "/api/v1", &headers);
            assert_eq!(got, may, "{name}: {value}");
            assert!(verdict(&Method::GET, "/state", &headers), "{name}: {value}");
        }
    }

    #[test]
    fn every_name_that_a_request_carries_must_be_ours() {
        let host = ("host", "localhost:5051");
        assert!(verdict(
            &Method::GET,
            "http://127.0.0.1:5051/state",
            &[host]
        ));
        for (uri, headers) in [
            ("http://evil.example/state", vec![host]),
            ("/state", vec![]),
            ("/state", vec![host, ("host", "evil.example")]),
            ("/state", vec![("host", "127.0.0.1:1@evil")]),
        ] {
            assert!(!verdict(&Method::GET, uri, &headers), "{uri} {headers:?}");
        }
    }
}
