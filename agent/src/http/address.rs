//! What a path means, by the rules of [`routes`]: Mesos's endpoints have many spellings
//! (`/slave(1)/state`, `/slave%281%29/state/`, `/state.json`), the router knows one of each.
//!
//! It decides no more than that; a path that is no spelling of these endpoints passes as it is.

use axum::http::Request;
use axum::http::uri::{PathAndQuery, Uri};
use gantry_wire::mesos::routes::{self, Daemon};

/// Mesos's endpoints, as the router knows them. A longer path means the longest that fits.
const ENDPOINTS: &[&str] = &[
    "/api/v1",
    "/api/v1/executor",
    "/containerizer/debug",
    "/containers",
    "/files/browse",
    "/files/debug",
    "/files/download",
    "/files/read",
    "/flags",
    "/health",
    "/logging/toggle",
    "/metrics/snapshot",
    "/monitor/statistics",
    "/state",
    "/system/stats",
    "/version",
];
/// Some have a second name with this at its end.
const SUFFIX: &str = ".json";

/// The request with the path that the router knows.
pub(super) fn resolve<B>(mut request: Request<B>) -> Request<B> {
    if let Some(uri) = meant(request.uri()) {
        *request.uri_mut() = uri;
    }
    request
}

/// None where nothing is to be changed.
fn meant(uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    let path = path.strip_suffix(SUFFIX).unwrap_or(path);
    let endpoint = routes::resolve(Daemon::Agent, path, ENDPOINTS)?.endpoint;
    if endpoint == uri.path() {
        return None;
    }
    let path = match uri.query() {
        Some(query) => PathAndQuery::try_from(format!("{endpoint}?{query}")).ok()?,
        None => PathAndQuery::from_static(endpoint),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings() {
        for (spelling, want) in [
            ("/state", "/state"),
            ("/state.json", "/state"),
            ("/slave(1)/state", "/state"),
            ("/slave%281%29/state.json?jsonp=f", "/state?jsonp=f"),
            ("/slave%281%29/api/v1", "/api/v1"),
            ("/api/v1/operator/?x=%2F", "/api/v1?x=%2F"),
            ("/files/read.json?path=/a.json", "/files/read?path=/a.json"),
            ("http://h:1/slave(1)/health", "http://h:1/health"),
            ("/slave(2)/state", "/slave(2)/state"),
            ("/images/inspect?name=a", "/images/inspect?name=a"),
            ("/", "/"),
        ] {
            let request = Request::builder().uri(spelling).body(()).unwrap();
            assert_eq!(resolve(request).uri().to_string(), want, "{spelling}");
        }
    }
}
