//! What goes through the coordinator to an agent's own HTTP listener: `/agent/{id}/…`.
//!
//! It decides which agent, which path and which headers; what the agent answers passes unread.
//! It deliberately does not retry: a request may have effects. Invariants: only the address that a
//! registered agent gave is ever dialled (no redirects, no proxy of the environment, no part of
//! the host taken from the request); a path never climbs (`..`); the first byte of the answer
//! comes within [`FIRST_BYTE_MAX`] after the request has been sent whole, and after that both
//! directions stream for as long as they like, [`STREAMS_MAX`] at once at most.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::Request;
use axum::http::header::{self, HeaderMap, HeaderName};
use axum::http::uri::{Authority, Uri};
use axum::response::Response;
use futures_util::{Stream, StreamExt};
use gantry_link::Connecting;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::refusal::Refusal;

/// Proxied answers that may be streaming at once.
const STREAMS_MAX: usize = 512;

/// From the end of the request to the beginning of the answer.
const FIRST_BYTE_MAX: Duration = Duration::from_secs(30);

/// To reach the agent at all.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Headers that belong to one connection (RFC 9110 §7.6.1), and those that speak about the
/// browser's side of this hop, which the agent would judge by its own name.
const HOP: [HeaderName; 12] = [
    header::CONNECTION,
    header::COOKIE,
    header::HOST,
    HeaderName::from_static("keep-alive"),
    header::ORIGIN,
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The client side of the proxy, shared by all requests of a router.
#[derive(Clone)]
pub(super) struct Proxy {
    /// `None` when the platform gave no client; every request then says that the node cannot be
    /// reached, and the rest of the coordinator works.
    client: Option<reqwest::Client>,
    /// Whether agents of other machines can be reached.
    has_keys: bool,
    streams: Arc<Semaphore>,
    first_byte_max: Duration,
}

/// The agent that a request is for.
pub(super) struct Node<'a> {
    /// Its id, as errors name it.
    pub(super) id: &'a str,
    /// `host:port` of its listener.
    pub(super) address: &'a str,
}

impl Proxy {
    /// A failure to set up the client is logged, and met again by each request.
    pub(super) fn new(to_agents: Option<&Connecting>) -> Self {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_MAX);
        let client = match to_agents {
            Some(keys) => client.tls_backend_preconfigured(keys.config()),
            None => client,
        };
        let client = client
            .build()
            .inspect_err(|error| tracing::error!(%error, "no HTTP client to reach agents with"));
        Self {
            client: client.ok(),
            has_keys: to_agents.is_some(),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            first_byte_max: FIRST_BYTE_MAX,
        }
    }

    /// Sends the request to `node` as `path_and_query`, and its answer back.
    pub(super) async fn forward(
        &self,
        node: Node<'_>,
        path_and_query: &str,
        request: Request,
    ) -> Result<Response, Refusal> {
        let target = target(&node, path_and_query, self.has_keys)?;
        let unreachable = || Refusal::NodeUnreachable(node.id.to_owned());
        let client = self.client.as_ref().ok_or_else(unreachable)?;
        let permit = self.streams.clone().try_acquire_owned();
        let permit = permit.map_err(|_| Refusal::ProxyBusy(node.id.to_owned()))?;
        let (parts, body) = request.into_parts();
        let mut outgoing = client.request(parts.method, target);
        let has_body = parts.headers.contains_key(header::CONTENT_LENGTH)
            || parts.headers.contains_key(header::TRANSFER_ENCODING);
        let (sent, all_sent) = oneshot::channel();
        if has_body {
            let stream = Announced {
                inner: body.into_data_stream(),
                sent: Some(sent),
            };
            outgoing = outgoing.body(reqwest::Body::wrap_stream(stream));
        } else {
            drop(sent);
        }
        let outgoing = outgoing.headers(end_to_end(&parts.headers));
        let late = async {
            // Resolves by the sender's end, when the body has been read whole or given up.
            let _ = all_sent.await;
            tokio::time::sleep(self.first_byte_max).await;
        };
        let answer = tokio::select! {
            answer = outgoing.send() => answer,
            () = late => return Err(Refusal::NodeSlow(node.id.to_owned())),
        };
        let answer = answer.map_err(|source| {
            tracing::debug!(agent = node.id, %source, "the agent's listener did not answer");
            unreachable()
        })?;
        Ok(stream_back(answer, permit))
    }
}

/// Plain HTTP goes to this machine only; to others it needs keys, which the far end checks too.
fn target(node: &Node<'_>, path_and_query: &str, has_keys: bool) -> Result<String, Refusal> {
    let refused = || Refusal::BadRequest("The path of the request is not acceptable".to_owned());
    let authority: Option<Authority> = node.address.parse().ok();
    let plain = |a: &Authority| a.port_u16().is_some() && !a.as_str().contains('@');
    let authority = authority.filter(plain);
    let authority = authority.ok_or_else(|| Refusal::NodeUnreachable(node.id.to_owned()))?;
    let own = authority.host().trim_matches(['[', ']']).parse::<IpAddr>();
    let is_here = own.is_ok_and(|ip| ip.is_loopback());
    if !is_here && !has_keys {
        return Err(Refusal::NodeUnreachable(node.id.to_owned()));
    }
    let path = path_and_query.split('?').next().unwrap_or_default();
    if !path_and_query.starts_with('/') || path.split('/').any(climbs) {
        return Err(refused());
    }
    let uri = Uri::builder()
        .scheme(if is_here { "http" } else { "https" })
        .authority(authority)
        .path_and_query(path_and_query);
    uri.build()
        .map(|uri| uri.to_string())
        .map_err(|_| refused())
}

/// Whether a segment is `.` or `..`, plain or escaped, or smuggles a separator in.
fn climbs(segment: &str) -> bool {
    let plain = segment.to_ascii_lowercase().replace("%2e", ".");
    plain == "."
        || plain == ".."
        || plain.contains("%2f")
        || plain.contains("%5c")
        || plain.contains('\\')
}

/// The headers that pass to the next hop.
fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let named: Vec<&str> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    let drops = |name: &HeaderName| {
        HOP.contains(name)
            || *name == header::CONTENT_LENGTH
            || name.as_str().starts_with("sec-fetch-")
            || named.iter().any(|n| n.eq_ignore_ascii_case(name.as_str()))
    };
    let passes = headers.iter().filter(|(name, _)| !drops(name));
    passes
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

fn stream_back(answer: reqwest::Response, permit: OwnedSemaphorePermit) -> Response {
    let status = answer.status();
    let mut headers = end_to_end(answer.headers());
    headers.remove(header::SET_COOKIE);
    // What a task wrote must never be a document of ours; the guard sets the strict default.
    headers.remove(header::CONTENT_SECURITY_POLICY);
    if let Some(length) = answer.headers().get(header::CONTENT_LENGTH) {
        headers.insert(header::CONTENT_LENGTH, length.clone());
    }
    let stream = answer.bytes_stream().map(move |chunk| {
        let _held_while_streaming = &permit;
        chunk
    });
    let mut response = Response::new(Body::from_stream(stream));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// A request body that drops `sent` at its end, or with itself.
struct Announced {
    inner: BodyDataStream,
    sent: Option<oneshot::Sender<()>>,
}

impl Stream for Announced {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.inner.poll_next_unpin(cx);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.sent = None;
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::StatusCode;
    use axum::response::IntoResponse;
    use axum::routing::{any, get, post};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::*;

    async fn serve(router: Router) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    fn node(address: &str) -> Node<'_> {
        Node {
            id: "node-1",
            address,
        }
    }

    async fn text(response: Response) -> String {
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20)
            .await
            .unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn only_plain_paths_of_the_given_address_become_targets() {
        let to = |address: &str, path: &str| target(&node(address), path, true).ok();
        assert_eq!(
            to("127.0.0.1:1", "/a//b?c=/../d").as_deref(),
            Some("http://127.0.0.1:1/a//b?c=/../d")
        );
        assert_eq!(
            to("127.0.0.1:1", "/slave(1)/state").as_deref(),
            Some("http://127.0.0.1:1/slave(1)/state")
        );
        for path in [
            "a",
            "",
            "/..",
            "/a/../b",
            "/%2e%2E/b",
            "/.",
            "/a%2Fb",
            "/a\\b",
            "/a%5cb",
            "/.%2e?x",
        ] {
            assert_eq!(to("127.0.0.1:1", path), None, "{path}");
        }
        assert_eq!(
            to("10.0.0.1:1", "/a").as_deref(),
            Some("https://10.0.0.1:1/a")
        );
        assert_eq!(to("[::1]:1", "/a").as_deref(), Some("http://[::1]:1/a"));
        assert!(target(&node("10.0.0.1:1"), "/a", false).is_err());
        for address in ["", "h", "h:1/path", "h 1", "h:99999999", "u@h:1"] {
            assert_eq!(to(address, "/a"), None, "{address}");
        }
    }

    #[tokio::test]
    async fn headers_of_one_hop_stay_on_it() {
        let echo = async |request: Request| {
            let names: Vec<&str> = request.headers().keys().map(HeaderName::as_str).collect();
            let answer = [
                ("keep-alive", "5"),
                ("x-agent", "yes"),
                ("set-cookie", "a=b"),
            ];
            (StatusCode::IM_A_TEAPOT, answer, names.join(" ")).into_response()
        };
        let address = serve(Router::new().fallback(any(echo))).await;
        let request = Request::builder()
            .uri("/agent/node-1/x")
            .header("host", "localhost")
            .header("connection", "x-private, keep-alive")
            .header("x-private", "1")
            .header("origin", "http://localhost")
            .header("cookie", "a=b")
            .header("te", "trailers")
            .header("sec-fetch-site", "same-origin")
            .header("x-passes", "1")
            .body(Body::empty())
            .unwrap();
        let answer = Proxy::new(None)
            .forward(node(&address), "/x", request)
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::IM_A_TEAPOT);
        assert_eq!(answer.headers().get("x-agent").unwrap(), "yes");
        assert!(!answer.headers().contains_key("keep-alive"));
        assert!(!answer.headers().contains_key("set-cookie"));
        let seen = text(answer).await;
        let mut seen: Vec<&str> = seen.split(' ').collect();
        seen.retain(|name| !matches!(*name, "host" | "accept" | "user-agent"));
        assert_eq!(seen, ["x-passes"]);
    }

    #[tokio::test]
    async fn both_directions_stream() {
        let echo =
            async |request: Request| Body::from_stream(request.into_body().into_data_stream());
        let address = serve(Router::new().route("/echo", post(echo))).await;
        let (send, mut receive) = mpsc::channel::<Result<Bytes, std::io::Error>>(1);
        let body = futures_util::stream::poll_fn(move |cx| receive.poll_recv(cx));
        let request = Request::builder()
            .method("POST")
            .uri("/agent/node-1/echo")
            .header("transfer-encoding", "chunked")
            .body(Body::from_stream(body))
            .unwrap();
        let proxy = Proxy {
            first_byte_max: Duration::from_millis(50),
            ..Proxy::new(None)
        };
        let answer = proxy
            .forward(node(&address), "/echo", request)
            .await
            .unwrap();
        let mut answer = answer.into_body().into_data_stream();
        for part in ["one", "two", "three"] {
            send.send(Ok(Bytes::from(part))).await.unwrap();
            // Each part comes back before the next is sent: nothing waits for the end.
            assert_eq!(answer.next().await.unwrap().unwrap(), part);
        }
        drop(send);
        assert!(answer.next().await.is_none());
    }

    #[tokio::test]
    async fn a_node_that_is_gone_silent_or_busy_is_named() {
        let refused = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap().to_string()
        };
        let get_x = || Request::builder().uri("/x").body(Body::empty()).unwrap();
        let gone = Proxy::new(None)
            .forward(node(&refused), "/x", get_x())
            .await;
        assert!(matches!(gone, Err(Refusal::NodeUnreachable(id)) if id == "node-1"));

        let never = async || std::future::pending::<StatusCode>().await;
        let address = serve(Router::new().route("/x", get(never))).await;
        let proxy = Proxy {
            first_byte_max: Duration::from_millis(50),
            ..Proxy::new(None)
        };
        let slow = proxy.forward(node(&address), "/x", get_x()).await;
        assert!(matches!(slow, Err(Refusal::NodeSlow(id)) if id == "node-1"));

        let address = serve(Router::new().route("/x", get(async || "x"))).await;
        let proxy = Proxy {
            streams: Arc::new(Semaphore::new(1)),
            ..Proxy::new(None)
        };
        let first = proxy.forward(node(&address), "/x", get_x()).await.unwrap();
        let second = proxy.forward(node(&address), "/x", get_x()).await;
        assert!(matches!(second, Err(Refusal::ProxyBusy(_))));
        assert_eq!(text(first).await, "x");
        assert!(proxy.forward(node(&address), "/x", get_x()).await.is_ok());
    }

    #[tokio::test]
    async fn redirects_are_answers() {
        let away = async || (StatusCode::FOUND, [("location", "http://192.0.2.1/")]);
        let address = serve(Router::new().route("/x", get(away))).await;
        let request = Request::builder().uri("/x").body(Body::empty()).unwrap();
        let answer = Proxy::new(None)
            .forward(node(&address), "/x", request)
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::FOUND);
    }
}
