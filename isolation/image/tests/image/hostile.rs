//! Servers that answer nonsense, too much, too little, too late, or somebody else's content.

use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use gantry_image::{
    Digest, Limits, PullError, PullOptions, Reference, Store, StoreConfig, Timeouts,
};

use crate::fixture::{Scratch, until};
use crate::server::{FakeImage, INDEX, MANIFEST, Request, Server, gzip, reply, tar_of};

const LAYER: &[u8] = b"what is in the layer";

fn config() -> StoreConfig {
    let second = Duration::from_secs(1);
    let timeouts = Timeouts {
        connect: second,
        stall: second,
        document: second * 2,
    };
    StoreConfig {
        timeouts,
        ..StoreConfig::default()
    }
}

fn store() -> (Scratch, Store) {
    let dir = Scratch::new();
    let store = Store::open_with(dir.path(), config()).unwrap();
    (dir, store)
}

async fn pull(store: &Store, host: &str) -> Result<gantry_image::Image, PullError> {
    let reference = Reference::parse(&format!("{host}/a/b:1")).unwrap();
    store.pull(&reference, PullOptions::default()).await
}

async fn refusal(answer: impl Fn(&Request, &mut TcpStream) + Send + Sync + 'static) -> String {
    let server = Server::start(answer);
    let (dir, store) = store();
    let error = pull(&store, &server.host).await.unwrap_err();
    assert_clean(dir.path());
    error.message()
}

/// Nothing of a failed pull is left; the thread that unpacks may need a moment to remove it.
pub(crate) fn assert_clean(store: &Path) {
    let is_empty = |name: &str| {
        std::fs::read_dir(store.join(name))
            .unwrap()
            .next()
            .is_none()
    };
    until("the store is clean again", || is_empty("tmp"));
    assert!(
        is_empty("layers") && is_empty("complete"),
        "layers of a failed pull are there"
    );
}

fn image() -> FakeImage {
    FakeImage::new(&[tar_of(&[("file", LAYER)])])
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there() {
    let (_dir, store) = store();
    let error = pull(&store, "localhost:1").await.unwrap_err();
    let message = error.message();
    assert!(
        message.starts_with(
            "cannot pull image localhost:1/a/b:1: registry localhost:1 refused the connection"
        ),
        "{message}"
    );
    assert!(!error.is_permanent());
    let error = pull(&store, "no-such-host.invalid")
        .await
        .unwrap_err()
        .message();
    assert!(
        error.contains("no-such-host.invalid has no address"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense() {
    type Nonsense = (&'static str, &'static [u8]);
    let answers: [Nonsense; 6] = [
        ("did not speak HTTP", b"SSH-2.0-OpenSSH_9.2\r\n"),
        ("did not speak HTTP", b"\0\xff\0\xff\r\n\r\n"),
        ("did not speak HTTP", b""),
        ("answered 500", b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"),
        ("too many requests", b"HTTP/1.1 429 Oh\r\nContent-Length: 0\r\n\r\n"),
        ("not a media type", b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 19\r\n\r\n{\"schemaVersion\":2}"),
    ];
    for (says, bytes) in answers {
        let error = refusal(move |_, stream| drop(stream.write_all(bytes))).await;
        assert!(error.contains(says), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_answers() {
    let error = refusal(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n");
        while stream.write_all(&[b' '; 65536]).is_ok() {}
    });
    let error = error.await;
    assert!(error.contains("sent more than 4194304 bytes"), "{error}");

    let error = refusal(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        while stream.write_all(b"X-Header: x\r\n").is_ok() {}
    });
    let error = error.await;
    assert!(error.contains("did not speak HTTP"), "{error}");

    let image = image();
    let error = refusal(move |request, stream| {
        if request.path.contains("/blobs/")
            && request
                .path
                .ends_with(&Digest::of(&image.layers[0]).to_string())
        {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            let _ = stream.write_all(&image.layers[0]);
            while stream.write_all(&[0; 65536]).is_ok() {}
        } else {
            image.answer(request, stream);
        }
    });
    let error = error.await;
    assert!(error.contains("another size"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn silence() {
    for start in ["", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"] {
        let error = refusal(move |_, stream| {
            let _ = stream.write_all(start.as_bytes());
            // Until the client gives up and closes.
            let _ = std::io::Read::read(stream, &mut [0; 1]);
        });
        let error = error.await;
        assert!(error.contains("did not answer in time"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_content() {
    // The manifest is not what the registry's own header says.
    let good = image();
    let error = refusal(move |_, stream| {
        let digest = Digest::of(b"else").to_string();
        let headers = [
            ("Content-Type", MANIFEST),
            ("Docker-Content-Digest", digest.as_str()),
        ];
        reply(stream, "200 OK", &headers, &good.manifest);
    });
    let error = error.await;
    assert!(error.contains("wrong content"), "{error}");

    // Each blob in turn: other bytes of the same length, too short, too long.
    let good = image();
    for blob in [good.config.clone(), good.layers[0].clone()] {
        let name = Digest::of(&blob).to_string();
        let mut other = blob.clone();
        other[0] ^= 1;
        let long = [blob.as_slice(), b"x"].concat();
        for bad in [other, blob[1..].to_vec(), long] {
            let (good, name) = (good.clone(), name.clone());
            let error = refusal(move |request, stream| {
                if request.path.ends_with(&name) {
                    reply(stream, "200 OK", &[], &bad);
                } else {
                    good.answer(request, stream);
                }
            });
            let error = error.await;
            let told = [
                "wrong content",
                "another size",
                "sent more than",
                "could not be read",
            ];
            assert!(told.iter().any(|part| error.contains(part)), "{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_off() {
    let good = image();
    let error = refusal(move |request, stream| {
        if request
            .path
            .ends_with(&Digest::of(&good.layers[0]).to_string())
        {
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                good.layers[0].len()
            );
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(&good.layers[0][..10]);
        } else {
            good.answer(request, stream);
        }
    });
    let error = error.await;
    assert!(error.contains("broke off"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_that_lie() {
    let tar = tar_of(&[("file", LAYER)]);
    let other = Digest::of(b"else");
    let serve = |image: FakeImage| {
        move |request: &Request, stream: &mut TcpStream| image.answer(request, stream)
    };
    let not_gzip = FakeImage::with(std::slice::from_ref(&tar), &[Digest::of(&tar)], "amd64");
    let cut = gzip(&tar);
    let cut = FakeImage::with(
        &[cut[..cut.len() - 9].to_vec()],
        &[Digest::of(&tar)],
        "amd64",
    );
    let wrong_id = FakeImage::with(&[gzip(&tar)], &[other], "amd64");
    let too_few = FakeImage::with(&[gzip(&tar)], &[], "amd64");
    let arm = FakeImage::with(&[gzip(&tar)], &[Digest::of(&tar)], "arm64");
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..15].copy_from_slice(b"../../../escape");
    header.set_size(0);
    header.set_mode(0o644);
    header.set_cksum();
    let escape = [header.as_bytes().as_slice(), &[0; 1024]].concat();
    let escape = FakeImage::new(&[escape]);
    for (image, says) in [
        (not_gzip, "could not be read"),
        (cut, "could not be read"),
        (wrong_id, "the image's config says"),
        (too_few, "names 0 layers, its manifest 1"),
        (arm, "is for linux/arm64, not for linux/amd64"),
        (escape, "has a \"..\" in it"),
    ] {
        let error = refusal(serve(image)).await;
        assert!(error.contains(says), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bombs() {
    // 64 MiB of zeros are 64 KiB of gzip.
    let image = FakeImage::new(&[tar_of(&[("zeros", &vec![0; 64 << 20])])]);
    let server = Server::start(move |request, stream| image.answer(request, stream));
    let dir = Scratch::new();
    let limits = Limits {
        ratio_floor_bytes: 1 << 20,
        ..Limits::default()
    };
    let store = Store::open_with(dir.path(), StoreConfig { limits, ..config() }).unwrap();
    let error = pull(&store, &server.host).await.unwrap_err();
    assert!(
        error.message().contains("possible bomb") && error.is_permanent(),
        "{}",
        error.message()
    );
    assert_clean(dir.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_by_platform() {
    let image = image();
    let entry = |arch: &str, digest: Digest| {
        serde_json::json!({"mediaType": MANIFEST, "digest": digest, "size": image.manifest.len(),
            "platform": {"os": "linux", "architecture": arch}})
    };
    let entries = [
        entry("arm64", Digest::of(b"arm")),
        entry("amd64", Digest::of(&image.manifest)),
    ];
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
    let index = index.to_string().into_bytes();
    let index_digest = Digest::of(&index);
    let served = image.clone();
    let server = Server::start(move |request, stream| {
        if request.path.ends_with("/manifests/1")
            || request.path.ends_with(&index_digest.to_string())
        {
            reply(stream, "200 OK", &[("Content-Type", INDEX)], &index);
        } else {
            served.answer(request, stream);
        }
    });
    let (_dir, store) = store();
    let pulled = pull(&store, &server.host).await.unwrap();
    assert_eq!(pulled.digest, Digest::of(&image.manifest));
    // By the digest of the index the same image is meant; once known, nobody is asked again.
    let pinned = Reference::parse(&format!("{}/a/b@{index_digest}", server.host)).unwrap();
    assert_eq!(
        store.pull(&pinned, PullOptions::default()).await.unwrap(),
        pulled
    );
    let asked = server.requests().len();
    let force = PullOptions {
        force: true,
        ..PullOptions::default()
    };
    assert_eq!(store.pull(&pinned, force).await.unwrap(), pulled);
    assert_eq!(server.requests().len(), asked);
}

fn auth(request: &Request) -> Option<&str> {
    request.headers.get("authorization").map(String::as_str)
}

#[tokio::test(flavor = "multi_thread")]
async fn bearer_tokens_and_redirects() {
    let image = FakeImage::new(&[
        tar_of(&[("a", b"a")]),
        tar_of(&[("b", b"b")]),
        tar_of(&[("c", b"c")]),
    ]);
    let cdn_image = image.clone();
    let cdn = Server::start(move |request, stream| cdn_image.answer(request, stream));
    let tokens = Server::start(|_, stream| reply(stream, "200 OK", &[], br#"{"token":"s3cret"}"#));
    let (realm, elsewhere) = (tokens.host.clone(), cdn.host.clone());
    let registry = Server::start(move |request, stream| {
        if auth(request) != Some("Bearer s3cret") {
            let challenge = format!(
                r#"Bearer realm="http://{realm}/token",service="reg",scope="repository:a/b:pull""#
            );
            return reply(
                stream,
                "401 Unauthorized",
                &[("WWW-Authenticate", &challenge)],
                b"{}",
            );
        }
        if request.path.contains("/blobs/") {
            let location = format!("http://{elsewhere}{}", request.path);
            return reply(
                stream,
                "307 Temporary Redirect",
                &[("Location", &location)],
                b"",
            );
        }
        image.answer(request, stream);
    });
    let (_dir, store) = store();
    assert_eq!(pull(&store, &registry.host).await.unwrap().layers.len(), 3);
    assert_eq!(
        tokens.requests().len(),
        1,
        "one token serves the whole pull"
    );
    assert_eq!(
        tokens.requests()[0].path,
        "/token?service=reg&scope=repository%3Aa%2Fb%3Apull"
    );
    assert_eq!(
        registry
            .requests()
            .iter()
            .filter(|request| auth(request).is_none())
            .count(),
        1
    );
    assert_eq!(cdn.requests().len(), 4);
    for request in cdn.requests().iter().chain(&tokens.requests()) {
        assert_eq!(auth(request), None, "a token went to another host");
        assert!(
            !request.headers.contains_key("cookie") && !request.headers.contains_key("referer")
        );
        assert!(request.headers["user-agent"].starts_with("gantry/"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_do_not_help() {
    let unauthorized = |challenge: String| {
        move |_: &Request, stream: &mut TcpStream| {
            reply(
                stream,
                "401 Unauthorized",
                &[("WWW-Authenticate", &challenge)],
                b"{}",
            );
        }
    };
    let useless =
        Server::start(|_, stream| reply(stream, "200 OK", &[], br#"{"token":"useless"}"#));
    let broken = Server::start(|_, stream| reply(stream, "200 OK", &[], b"<html>"));
    let denying = Server::start(|_, stream| reply(stream, "403 Forbidden", &[], b"{}"));
    for (challenge, says) in [
        (
            format!(r#"Bearer realm="http://{}/""#, useless.host),
            "without a login",
        ),
        (
            format!(r#"Bearer realm="http://{}/""#, broken.host),
            "gave no token (its answer has none)",
        ),
        (
            format!(r#"Bearer realm="http://{}/""#, denying.host),
            "without a login",
        ),
        (
            r#"Bearer realm="http://127.0.0.1:1/""#.into(),
            "refused the connection",
        ),
        (
            r#"Bearer realm="http://example.invalid/""#.into(),
            "neither to TLS nor to a host listed",
        ),
        (
            r#"Bearer realm="file:///etc/passwd""#.into(),
            "neither to TLS nor to a host listed",
        ),
        (r#"Bearer realm="nonsense""#.into(), "is not a URL"),
        (r#"Basic realm="x""#.into(), "without a login"),
        ("Nonsense".into(), "without a login"),
    ] {
        let server = Server::start(unauthorized(challenge.clone()));
        let (_dir, store) = store();
        let error = pull(&store, &server.host).await.unwrap_err().message();
        assert!(error.contains(says), "{challenge}: {error}");
        assert!(
            server.requests().len() <= 2,
            "{challenge}: asked again and again"
        );
    }
    assert_eq!(useless.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_that_are_not_followed() {
    for (location, says) in [
        (
            "http://example.invalid/v2/",
            "neither to TLS nor to a host listed as insecure",
        ),
        (
            "file:///etc/passwd",
            "neither to TLS nor to a host listed as insecure",
        ),
        (
            "http://user:pass@127.0.0.1:1/",
            "carries a user or password",
        ),
        ("http://[", "is not a URL"),
        ("/v2/again", "more redirects than are followed"),
        ("", "more redirects than are followed"),
    ] {
        let error = refusal(move |_, stream| {
            reply(stream, "302 Found", &[("Location", location)], b"");
        });
        let error = error.await;
        assert!(error.contains(says), "{location}: {error}");
    }
}

/// A zstd frame may ask for a window of any size before it has shown a byte.
#[tokio::test(flavor = "multi_thread")]
async fn a_zstd_window_that_would_take_all_memory() {
    let tar = tar_of(&[("a", b"a")]);
    // Magic, a descriptor without content size or checksum, a window of 2^(10+21) bytes, one raw
    // last block with the content.
    let mut blob = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3];
    let block = u32::try_from(tar.len()).unwrap() << 3 | 1;
    blob.extend_from_slice(&block.to_le_bytes()[..3]);
    blob.extend_from_slice(&tar);
    let small = [&blob[..5], &[7 << 3], &blob[6..]].concat();
    for (blob, taken) in [(blob, false), (small, true)] {
        let image = FakeImage::with(&[blob], &[Digest::of(&tar)], "amd64");
        let server = Server::start(move |request, stream| image.answer(request, stream));
        let (dir, store) = store();
        let pulled = pull(&store, &server.host).await;
        assert_eq!(pulled.is_ok(), taken, "{pulled:?}");
        if !taken {
            assert_clean(dir.path());
        }
    }
}
