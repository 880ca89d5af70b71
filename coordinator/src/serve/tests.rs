//! Connections that say nothing or too little make room for those that ask; answers that are on
//! their way are not cut.

use std::net::SocketAddr;
use std::time::Instant;

use axum::routing::get;
use futures_util::stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use super::*;

/// Far more than are shed while one that was shed comes to its end ([`SHED_MAX`] by
/// [`SHED_AGAIN`]), so that the newest is never among them.
const SEATS: usize = 64;
const GET: &[u8] = b"GET /ping HTTP/1.1\r\nhost: localhost\r\n\r\n";
const SOON: Duration = Duration::from_secs(3);

/// A server with few seats; `/slow` sends its body in two parts, the second after `go`.
async fn begin() -> (SocketAddr, Server, Arc<Notify>) {
    let go = Arc::new(Notify::new());
    let wait = Arc::clone(&go);
    let slow = move || {
        let wait = Arc::clone(&wait);
        let parts = stream::unfold(0, move |part| {
            let wait = Arc::clone(&wait);
            async move {
                if part == 1 {
                    wait.notified().await;
                }
                let text = ["first", "second"].get(part)?;
                Some((Ok::<_, std::convert::Infallible>(*text), part + 1))
            }
        });
        async move { Body::from_stream(parts) }
    };
    let router = Router::new()
        .route("/ping", get(|| async { "pong" }))
        .route("/slow", get(slow));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (address, Server::bounded(listener, router, SEATS), go)
}

async fn connect(address: SocketAddr, say: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(say).await.unwrap();
    stream
}

/// Reads until the text has come.
async fn expect(stream: &mut TcpStream, text: &str) {
    let mut heard = String::new();
    while !heard.contains(text) {
        let mut bytes = [0; 1024];
        let read = tokio::time::timeout(SOON, stream.read(&mut bytes)).await;
        let count = read.unwrap_or_else(|_| panic!("'{text}' does not come after '{heard}'"));
        let count = count.unwrap();
        assert!(count > 0, "the end instead of '{text}' after '{heard}'");
        heard.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
    }
}

#[tokio::test]
async fn connections_that_ask_nothing_make_room() {
    // Silent from the start; stuck within the headers; silent after an answer.
    for (say, answered) in [(&b""[..], false), (&GET[..9], false), (GET, true)] {
        let (address, server, _) = begin().await;
        let mut held = Vec::new();
        let began = Instant::now();
        for _ in 0..SEATS * 2 {
            let mut stream = connect(address, say).await;
            if answered {
                expect(&mut stream, "pong").await;
            }
            held.push(stream);
        }
        let mut stream = connect(address, GET).await;
        expect(&mut stream, "pong").await;
        assert!(began.elapsed() < FIRST_MAX, "shed, not timed out");
        server.shutdown().await;
    }
}

#[tokio::test]
async fn an_answer_on_its_way_is_not_cut() {
    let (address, server, go) = begin().await;
    let mut slow = connect(address, b"GET /slow HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    expect(&mut slow, "first").await;
    let mut idle = Vec::new();
    for _ in 0..SEATS * 3 {
        idle.push(connect(address, b"").await);
    }
    let mut other = connect(address, GET).await;
    expect(&mut other, "pong").await;
    // The stop waits for it too.
    let stopping = tokio::spawn(server.shutdown());
    go.notify_one();
    expect(&mut slow, "second").await;
    stopping.await.unwrap();
}

#[tokio::test]
async fn a_first_request_must_come_soon() {
    let (address, server, _) = begin().await;
    let mut silent = connect(address, b"").await;
    let mut bytes = [0; 8];
    let end = tokio::time::timeout(FIRST_MAX * 2, silent.read(&mut bytes)).await;
    assert_eq!(end.expect("it is closed in time").unwrap(), 0);
    server.shutdown().await;
}
