//! Which requests get in: those whose `Host` is a loopback name or address, or one that the
//! operator allowed. A page elsewhere that makes a browser speak to this port (DNS rebinding)
//! carries its own name there.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::HOST;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::Server;
use super::problem::Problem;

pub(super) async fn check(
    State(server): State<Arc<Server>>,
    request: Request,
    next: Next,
) -> Response {
    let host = request
        .headers()
        .get(HOST)
        .and_then(|host| host.to_str().ok());
    match host {
        Some(host) if allowed(host, &server.allowed_hosts) => next.run(request).await,
        Some(host) => {
            let text = format!("This agent does not answer to the name '{host}'");
            Problem::Forbidden(text).into_response()
        }
        None => Problem::BadRequest("A Host header is needed".to_owned()).into_response(),
    }
}

fn allowed(host: &str, extra: &[String]) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let loopback = name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let listed = extra.iter().any(|known| known.eq_ignore_ascii_case(name));
    loopback || listed || name.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::allowed;

    #[test]
    fn only_loopback_and_listed_names() {
        let extra = ["node1".to_owned()];
        for good in [
            "localhost",
            "LOCALHOST:5051",
            "127.0.0.1:1",
            "[::1]:5051",
            "node1:80",
        ] {
            assert!(allowed(good, &extra), "{good}");
        }
        for bad in [
            "",
            "evil.example",
            "10.0.0.1",
            "localhost.evil",
            "127.0.0.1.evil",
            "[::2]",
        ] {
            assert!(!allowed(bad, &extra), "{bad}");
        }
    }
}
