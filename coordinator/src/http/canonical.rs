//! The one path of a resource: which aliases, prefixes and trailing slashes lead to it.
//!
//! It decides only how a path is rewritten before routing; it knows no method and no handler.
//! Clients reach Marathon at `/v2` and, through DC/OS, at `/service/marathon/v2`; Mesos endpoints
//! at `/state`, `/master/state`, `/mesos/state` and `/mesos/master/state`. Mesos also ignores what
//! follows an endpoint (`libprocess`, `ProcessBase::consume`), and some drivers rely on it.
//! Invariants: the query is never touched, rewriting twice is the same as once, and paths below
//! `/agent` and `/slave` keep everything after the agent's id byte for byte.

use axum::extract::Request;
use axum::http::Uri;
use axum::http::uri::PathAndQuery;

/// Prefixes under which Marathon is also reached.
const MARATHON_PREFIXES: [&str; 2] = ["/service/marathon", "/marathon"];

/// Prefixes under which Mesos endpoints are also reached, the longest first.
const MESOS_PREFIXES: [&str; 3] = ["/mesos/master", "/mesos", "/master"];

/// Mesos endpoints that answer whatever follows them in the path.
const MESOS_ENDPOINTS: [&str; 9] = [
    "/files/browse",
    "/files/read",
    "/health",
    "/metrics/snapshot",
    "/slaves",
    "/state",
    "/state-summary",
    "/state.json",
    "/version",
];

/// Rewrites the path of a request to the canonical one.
pub(super) fn rewrite(mut request: Request) -> Request {
    let uri = request.uri();
    let path = canonical(uri.path());
    if path == uri.path() {
        return request;
    }
    let target = uri
        .query()
        .map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
    // What came out of a valid path is a valid path; should it not be, the route stays as it was.
    if let Ok(target) = target.parse::<PathAndQuery>() {
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = Some(target);
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
    request
}

/// The canonical path of `path`.
fn canonical(path: &str) -> String {
    if below(path, "/agent").is_some() || below(path, "/slave").is_some() {
        return path.to_owned();
    }
    let path = strip(path, &MARATHON_PREFIXES);
    let path = strip(path, &MESOS_PREFIXES);
    let endpoint = MESOS_ENDPOINTS
        .into_iter()
        .find(|endpoint| below(path, endpoint).is_some());
    let path = match endpoint {
        // `/slaves/<id>` and `/slaves(1)/…` are no endpoints of ours; `below` cuts at segments.
        Some("/state.json") => "/state",
        Some(endpoint) => endpoint,
        None => path.trim_end_matches('/'),
    };
    if path.is_empty() {
        "/".to_owned()
    } else {
        path.to_owned()
    }
}

/// What follows `prefix` in `path` (empty, or with a leading `/`), if it ends at a segment.
fn below<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    path.strip_prefix(prefix)
        .filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn strip<'a>(path: &'a str, prefixes: &[&str]) -> &'a str {
    prefixes
        .iter()
        .find_map(|prefix| below(path, prefix))
        .unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[test]
    fn aliases_lead_to_one_path() {
        for (path, want) in [
            ("/", "/"),
            ("//", "/"),
            ("/v2/apps", "/v2/apps"),
            ("/v2/apps/", "/v2/apps"),
            ("/v2/apps//a/b/", "/v2/apps//a/b"),
            ("/v2/apps/%2Fa%2Fb", "/v2/apps/%2Fa%2Fb"),
            ("/service/marathon/v2/apps//a", "/v2/apps//a"),
            ("/service/marathon", "/"),
            ("/service/marathons/v2", "/service/marathons/v2"),
            ("/state", "/state"),
            ("/state/", "/state"),
            ("/state.json", "/state"),
            ("/master/state", "/state"),
            ("/mesos/state", "/state"),
            ("/mesos/master/state/x/y", "/state"),
            ("/master/slaves", "/slaves"),
            ("/statement", "/statement"),
            ("/metrics", "/metrics"),
            ("/metrics/snapshot/", "/metrics/snapshot"),
            ("/agent/a//b/", "/agent/a//b/"),
            ("/slave/a/state/", "/slave/a/state/"),
        ] {
            assert_eq!(canonical(path), want, "{path}");
            assert_eq!(canonical(&canonical(path)), want, "{path} twice");
        }
    }

    #[test]
    fn the_query_stays() {
        let request = Request::builder()
            .uri("/mesos/state/?a=%2F&b")
            .body(Body::empty())
            .unwrap();
        assert_eq!(rewrite(request).uri(), "/state?a=%2F&b");
        let request = Request::builder()
            .uri("http://h:1/state/")
            .body(Body::empty())
            .unwrap();
        assert_eq!(rewrite(request).uri(), "http://h:1/state");
    }
}
