//! The listener against clients that take their time.

use std::net::SocketAddr;
use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;

/// Longest wait for anything that must come.
const PATIENCE: Duration = Duration::from_secs(20);
/// More than what the review held open, and than there may be connections.
const CROWD: usize = 560;

/// A listener with one route that takes a body and one that does not.
async fn listen(patience: Patience) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let intake = axum::middleware::from_fn_with_state(Intake::new(patience.body), body::whole);
    let router = Router::new()
        .route("/health", get(|| async { "fine" }))
        .route("/api/v1", post(|body: String| async { body }))
        .layer(intake);
    tokio::spawn(serve_router(
        (listener, None),
        router,
        patience,
        CancellationToken::new(),
    ));
    address
}

async fn send(address: SocketAddr, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

/// Everything until the server closes.
async fn rest(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    let read = stream.read_to_end(&mut text);
    // A reset is an end as well.
    let _ = tokio::time::timeout(PATIENCE, read)
        .await
        .expect("the server closes");
    String::from_utf8_lossy(&text).into_owned()
}

const HALF: &str = "POST /api/v1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{";

async fn health(address: SocketAddr) -> String {
    let get = "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    rest(send(address, get).await).await
}

fn patience(head: u64, body: u64, stall: u64) -> Patience {
    Patience {
        head: Duration::from_millis(head),
        body: Duration::from_millis(body),
        stall: Duration::from_millis(stall),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_sent_bodies_are_answered_408_and_keep_nobody_out() {
    // Long enough that all are held when the health is asked for.
    let address = listen(patience(60_000, 5_000, 60_000)).await;
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        crowd.push(send(address, HALF).await);
    }
    let asked = Instant::now();
    let answer = health(address).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("fine"));
    assert!(
        asked.elapsed() < Duration::from_secs(4),
        "{:?}",
        asked.elapsed()
    );
    let mut answers = [0, 0];
    for stream in crowd {
        let answer = rest(stream).await;
        match answer.get(..12) {
            Some("HTTP/1.1 408") => answers[0] += 1,
            Some("HTTP/1.1 503") => answers[1] += 1,
            _ => panic!("{answer:?}"),
        }
    }
    // The places are free again after that.
    assert_eq!(answers, [body::BODIES_MAX, CROWD - body::BODIES_MAX]);
    assert!(health(address).await.ends_with("fine"));
    let whole = HALF.replace(
        "Content-Length: 9",
        "Connection: close\r\nContent-Length: 1",
    );
    assert!(
        rest(send(address, &whole).await)
            .await
            .ends_with("\r\n\r\n{")
    );
}

#[tokio::test]
async fn slow_heads_and_idle_connections_are_closed() {
    let address = listen(patience(50, 60_000, 60_000)).await;
    for text in [
        "",
        "GET /health HTTP/1.1\r\nHo",
        "GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        let answer = rest(send(address, text).await).await;
        assert!(
            !answer.contains("fine") || text.ends_with("\r\n\r\n"),
            "{answer}"
        );
    }
}
