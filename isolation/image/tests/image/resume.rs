//! Downloads that break off and go on where they stopped.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gantry_image::{
    Digest, Image, PullError, PullOptions, Reference, Store, StoreConfig, Timeouts,
};

use crate::fixture::Scratch;
use crate::hostile::assert_clean;
use crate::server::{FakeImage, Request, Server, reply, tar_of};

/// Bytes that gzip cannot make smaller.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

fn image() -> FakeImage {
    FakeImage::new(&[tar_of(&[("file", &noise(1 << 20))])])
}

/// Where a request wants to begin.
fn wanted_from(request: &Request) -> Option<usize> {
    let range = request.headers.get("range")?;
    range
        .strip_prefix("bytes=")?
        .strip_suffix('-')?
        .parse()
        .ok()
}

/// Sends `bytes` from `from` on as a part of `blob`, but not all that it says.
fn part(stream: &mut TcpStream, blob: &[u8], from: usize, sent: usize) {
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {from}-{}/{}\r\n\r\n",
        blob.len() - from,
        blob.len() - 1,
        blob.len()
    );
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(&blob[from..blob.len().min(from.saturating_add(sent))]);
}

fn whole(stream: &mut TcpStream, blob: &[u8], sent: usize) {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", blob.len());
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(&blob[..blob.len().min(sent)]);
}

fn is_layer(request: &Request, image: &FakeImage) -> bool {
    let layer = Digest::of(&image.layers[0]).to_string();
    request.path.contains("/blobs/") && request.path.ends_with(&layer)
}

/// A store that waits a second for silent servers.
fn store() -> (Scratch, Store) {
    let dir = Scratch::new();
    let timeouts = Timeouts {
        stall: Duration::from_secs(1),
        ..Timeouts::default()
    };
    let config = StoreConfig {
        timeouts,
        ..StoreConfig::default()
    };
    let store = Store::open_with(dir.path(), config).unwrap();
    (dir, store)
}

async fn pull(store: &Store, host: &str) -> Result<Image, PullError> {
    let reference = Reference::parse(&format!("{host}/a/b:1")).unwrap();
    store.pull(&reference, PullOptions::default()).await
}

fn assert_file(image: &Image) {
    let file = std::fs::read(image.layers[0].join("file")).unwrap();
    assert!(file == noise(1 << 20), "the file is not what was packed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_download_goes_on_where_it_stopped() {
    let image = image();
    let served = image.clone();
    // Every connection gives 100 kB and breaks.
    let server = Server::start(move |request, stream| {
        if !is_layer(request, &served) {
            return served.answer(request, stream);
        }
        match wanted_from(request) {
            None => whole(stream, &served.layers[0], 100_000),
            Some(from) => part(stream, &served.layers[0], from, 100_000),
        }
    });
    let (_dir, store) = store();
    let pulled = pull(&store, &server.host).await.unwrap();
    assert_file(&pulled);
    let mut last = 0;
    for request in server.requests() {
        if let Some(from) = wanted_from(&request) {
            assert!(from > last, "asked for {from} after {last}");
            last = from;
        }
    }
    assert!(last > 900_000, "the last began at {last}");
    let expected = image.layers[0].len().div_ceil(100_000);
    assert_eq!(
        server.count(&Digest::of(&image.layers[0]).to_string()),
        expected
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_ranges_sends_it_again() {
    let image = image();
    let tries = Arc::new(AtomicUsize::new(0));
    // Each time a little further, always from the start; at last with a silence in the middle.
    let counted = Arc::clone(&tries);
    let server = Server::start(move |request, stream| {
        if !is_layer(request, &image) {
            return image.answer(request, stream);
        }
        match counted.fetch_add(1, Ordering::Relaxed) {
            0 => whole(stream, &image.layers[0], 300_000),
            1 => {
                whole(stream, &image.layers[0], 600_000);
                let _ = std::io::Read::read(stream, &mut [0; 1]);
            }
            _ => whole(stream, &image.layers[0], usize::MAX),
        }
    });
    let (_dir, store) = store();
    assert_file(&pull(&store, &server.host).await.unwrap());
    assert_eq!(tries.load(Ordering::Relaxed), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_range_than_was_asked_for_is_not_believed() {
    let image = image();
    let served = image.clone();
    let server = Server::start(move |request, stream| {
        if !is_layer(request, &served) {
            return served.answer(request, stream);
        }
        match wanted_from(request) {
            Some(from) => part(stream, &served.layers[0], from - 1, usize::MAX),
            None => whole(stream, &served.layers[0], 500_000),
        }
    });
    let (dir, store) = store();
    // It never gives the end; what it gives otherwise is not taken for the end.
    let error = pull(&store, &server.host).await.unwrap_err().message();
    assert!(error.contains("broke off"), "{error}");
    assert_clean(dir.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn tries_without_progress_end() {
    let image = image();
    let layer = Digest::of(&image.layers[0]).to_string();
    let served = image.clone();
    let server = Server::start(move |request, stream| {
        if !is_layer(request, &served) {
            return served.answer(request, stream);
        }
        match wanted_from(request) {
            None => whole(stream, &served.layers[0], 1000),
            Some(_) => reply(stream, "503 Service Unavailable", &[], b""),
        }
    });
    let (dir, store) = store();
    let error = pull(&store, &server.host).await.unwrap_err();
    assert!(
        error.message().contains("answered 503"),
        "{}",
        error.message()
    );
    assert!(!error.is_permanent());
    // Pauses of 0.2 and 0.4 s fit into the second that this store waits; 0.8 s more does not.
    assert_eq!(server.count(&layer), 3);
    assert_clean(dir.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_another_content_are_found_out() {
    let image = image();
    let mut other = image.layers[0].clone();
    let middle = other.len() / 2;
    other[middle] ^= 1;
    let served = image.clone();
    let server = Server::start(move |request, stream| {
        if !is_layer(request, &served) {
            return served.answer(request, stream);
        }
        match wanted_from(request) {
            None => whole(stream, &served.layers[0], 1000),
            Some(from) => part(stream, &other, from, usize::MAX),
        }
    });
    let (dir, store) = store();
    let error = pull(&store, &server.host).await.unwrap_err().message();
    assert!(
        error.contains("wrong content") || error.contains("could not be read"),
        "{error}"
    );
    assert_clean(dir.path());
}
