//! Attacks by a registry, or by whoever it sends us to: on our credentials, our memory, and on
//! what an image's name means. Each test tries it and fails if it works.

use std::io::Write;
use std::net::TcpStream;
use std::path::Path;

use gantry_image::{Credentials, Digest, PullOptions, Reference, Store};

use crate::fixture::Scratch;
use crate::hostile::assert_clean;
use crate::server::{FakeImage, INDEX, MANIFEST, Request, Server, reply, tar_of};

const PASSWORD: &str = "hunter2-hunter2";

fn store() -> (Scratch, Store) {
    let dir = Scratch::new();
    let store = Store::open(dir.path()).unwrap();
    (dir, store)
}

fn image() -> FakeImage {
    FakeImage::new(&[tar_of(&[("file", b"content")])])
}

fn password(host: &str) -> Credentials {
    let config = serde_json::json!({"auths": {host: {"username": "u", "password": PASSWORD}}});
    Credentials::from_config(config.to_string().as_bytes()).unwrap()
}

fn identity(host: &str) -> Credentials {
    let config = serde_json::json!({"auths": {host: {"identitytoken": PASSWORD}}});
    Credentials::from_config(config.to_string().as_bytes()).unwrap()
}

/// Pulls `a/b:1` with these credentials; what went wrong, in words without a secret.
async fn pull(store: &Store, host: &str, credentials: Credentials) -> Result<(), String> {
    let reference = Reference::parse(&format!("{host}/a/b:1")).unwrap();
    let options = PullOptions {
        credentials,
        ..PullOptions::default()
    };
    assert!(!format!("{:?}", options.credentials).contains(PASSWORD));
    let pulled = store.pull(&reference, options).await;
    pulled.map(drop).map_err(|error| {
        let (message, debug) = (error.message(), format!("{error:?}"));
        assert!(
            !message.contains(PASSWORD) && !debug.contains(PASSWORD),
            "{debug}"
        );
        message
    })
}

fn challenge(stream: &mut TcpStream, challenge: &str) {
    reply(
        stream,
        "401 Unauthorized",
        &[("WWW-Authenticate", challenge)],
        b"{}",
    );
}

fn redirect(stream: &mut TcpStream, to: &str) {
    reply(stream, "307 Temporary Redirect", &[("Location", to)], b"");
}

fn has_login(request: &Request) -> bool {
    request.headers.contains_key("authorization")
}

/// Nothing secret came here, in a header, in the path or in the body.
fn assert_saw_no_secret(server: &Server) {
    for request in server.requests() {
        let all = format!("{request:?}");
        assert!(!has_login(&request) && !all.contains(PASSWORD), "{all}");
    }
}

fn assert_not_in(dir: &Path) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let found = std::process::Command::new("grep")
            .args(["-r", "-l", "-e", PASSWORD, "-e", "Basic ", "-e", "Bearer "])
            .arg(dir)
            .output()
            .unwrap();
        // A file may get its final name while grep looks for it under the one before.
        let moved = found.status.code() == Some(2)
            && String::from_utf8_lossy(&found.stderr).contains("No such file");
        if !moved || std::time::Instant::now() > deadline {
            assert_eq!(found.status.code(), Some(1), "{found:?}");
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_takes_no_password_elsewhere() {
    let image = image();
    let served = image.clone();
    let cdn = Server::start(move |request, stream| served.answer(request, stream));
    let elsewhere = cdn.host.clone();
    let registry = Server::start(move |request, stream| {
        if !has_login(request) {
            return challenge(stream, "Basic realm=\"x\"");
        }
        if request.path.contains("/blobs/") {
            return redirect(stream, &format!("http://{elsewhere}{}", request.path));
        }
        image.answer(request, stream);
    });
    let (dir, store) = store();
    pull(&store, &registry.host, password(&registry.host))
        .await
        .unwrap();
    assert_eq!(cdn.requests().len(), 2, "config and layer came from there");
    assert_saw_no_secret(&cdn);
    assert_not_in(dir.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_there_and_back_brings_no_password_back() {
    let image = image();
    let back = std::sync::Arc::new(std::sync::OnceLock::<String>::new());
    let home = std::sync::Arc::clone(&back);
    let bounce = Server::start(move |request, stream| {
        redirect(
            stream,
            &format!("http://{}/back{}", home.get().unwrap(), request.path),
        );
    });
    let elsewhere = bounce.host.clone();
    let registry = Server::start(move |request, stream| {
        if request.path.starts_with("/back") {
            return image.answer(request, stream);
        }
        if !has_login(request) {
            return challenge(stream, "Basic realm=\"x\"");
        }
        if request.path.contains("/blobs/") {
            return redirect(stream, &format!("http://{elsewhere}{}", request.path));
        }
        image.answer(request, stream);
    });
    back.set(registry.host.clone()).unwrap();
    let (_dir, store) = store();
    pull(&store, &registry.host, password(&registry.host))
        .await
        .unwrap();
    assert_saw_no_secret(&bounce);
    let returned = registry.requests();
    let mut returned = returned
        .iter()
        .filter(|request| request.path.starts_with("/back"));
    assert!(returned.all(|request| !has_login(request)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_challenge_of_where_a_redirect_led_is_not_answered() {
    let thief = Server::start(|_, stream| reply(stream, "200 OK", &[], br#"{"token":"t"}"#));
    for ask in [
        format!("Bearer realm=\"http://{}/token\",service=\"x\"", thief.host),
        "Basic realm=\"give me\"".to_owned(),
    ] {
        let cdn = Server::start(move |_, stream| challenge(stream, &ask));
        let (elsewhere, image) = (cdn.host.clone(), image());
        let registry = Server::start(move |request, stream| {
            if request.path.contains("/blobs/") {
                return redirect(stream, &format!("http://{elsewhere}{}", request.path));
            }
            image.answer(request, stream);
        });
        let (dir, store) = store();
        for credentials in [password(&registry.host), identity(&registry.host)] {
            let error = pull(&store, &registry.host, credentials).await.unwrap_err();
            assert!(error.contains("answered 401"), "{error}");
        }
        assert_eq!(thief.requests().len(), 0);
        assert_saw_no_secret(&cdn);
        assert_clean(dir.path());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_service_that_redirects_gets_no_further_secret() {
    let thief = Server::start(|_, stream| reply(stream, "200 OK", &[], br#"{"token":"t"}"#));
    let elsewhere = thief.host.clone();
    let tokens = Server::start(move |_, stream| redirect(stream, &format!("http://{elsewhere}/")));
    let realm = format!("Bearer realm=\"http://{}/\",service=\"x\"", tokens.host);
    let registry = Server::start(move |_, stream| challenge(stream, &realm));
    let (_dir, store) = store();
    let error = pull(&store, &registry.host, password(&registry.host))
        .await
        .unwrap_err();
    assert!(error.contains("refused the credentials"), "{error}");
    assert_eq!(thief.requests().len(), 1);
    let error = pull(&store, &registry.host, identity(&registry.host))
        .await
        .unwrap_err();
    assert!(error.contains("it answered 307"), "{error}");
    assert_eq!(thief.requests().len(), 1, "a form with a secret went on");
    assert_saw_no_secret(&thief);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_realm_at_a_metadata_service_or_in_plain_text() {
    for (realm, says) in [
        ("http://169.254.169.254/latest/api/token", "link-local"),
        ("https://169.254.169.254/latest/api/token", "link-local"),
        ("https://[fe80::1]/", "link-local"),
        ("https://[::ffff:169.254.169.254]/", "link-local"),
        ("http://example.invalid/", "neither to TLS nor"),
        ("https://u:p@example.invalid/", "carries a user or password"),
        ("gopher://127.0.0.1/", "neither to TLS nor"),
    ] {
        let ask = format!("Bearer realm=\"{realm}\"");
        let registry = Server::start(move |_, stream| challenge(stream, &ask));
        let (_dir, store) = store();
        let error = pull(&store, &registry.host, password(&registry.host))
            .await
            .unwrap_err();
        assert!(error.contains(says), "{realm}: {error}");
        let (to, says) = (realm.to_owned(), says);
        let registry = Server::start(move |_, stream| redirect(stream, &to));
        let error = pull(&store, &registry.host, password(&registry.host))
            .await
            .unwrap_err();
        assert!(error.contains(says), "{realm}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_not_shown_before_it_is_asked_for() {
    let image = image();
    let registry = Server::start(move |request, stream| image.answer(request, stream));
    let (_dir, store) = store();
    pull(&store, &registry.host, password(&registry.host))
        .await
        .unwrap();
    assert_saw_no_secret(&registry);
}

#[tokio::test(flavor = "multi_thread")]
async fn giant_answers_of_a_token_service() {
    type Answer = fn(&Request, &mut TcpStream);
    let answers: [(Answer, &str); 5] = [
        (
            |_, stream| {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"token\":\"");
                while stream.write_all(&[b'a'; 65536]).is_ok() {}
            },
            "more than 1048576 bytes",
        ),
        (
            |_, stream| {
                let body = format!(r#"{{"token":"{}"}}"#, "a".repeat(100_000));
                reply(stream, "200 OK", &[], body.as_bytes());
            },
            "gave no token",
        ),
        (
            |_, stream| {
                let body = format!(r#"{{"token":{}"#, "[".repeat(500_000));
                reply(stream, "200 OK", &[], body.as_bytes());
            },
            "gave no token",
        ),
        (
            |_, stream| {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
                while stream.write_all(b"X-Header: x\r\n").is_ok() {}
            },
            "did not speak HTTP",
        ),
        (
            |_, stream| {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nX-Header: ");
                while stream.write_all(&[b'a'; 65536]).is_ok() {}
            },
            "did not speak HTTP",
        ),
    ];
    for (answer, says) in answers {
        let tokens = Server::start(answer);
        let realm = format!("Bearer realm=\"http://{}/\"", tokens.host);
        let registry = Server::start(move |_, stream| challenge(stream, &realm));
        let (_dir, store) = store();
        let error = pull(&store, &registry.host, Credentials::default())
            .await
            .unwrap_err();
        assert!(error.contains(says), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn giant_challenges() {
    for ask in [
        format!("Bearer realm=\"{}\"", "a".repeat(7_000)),
        format!("Bearer {}", "a=b,".repeat(1_500)),
        "Basic,".repeat(1_000),
        format!(
            "Bearer realm=\"http://127.0.0.1:1/\",scope=\"{}\"",
            "s".repeat(4_000)
        ),
    ] {
        let registry = Server::start(move |_, stream| challenge(stream, &ask));
        let (_dir, store) = store();
        pull(&store, &registry.host, Credentials::default())
            .await
            .unwrap_err();
        assert!(registry.requests().len() <= 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_document_as_index_and_as_manifest() {
    let image = image();
    let mut both: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap();
    both.as_object_mut().unwrap().remove("mediaType");
    both["manifests"] = serde_json::json!([{"mediaType": MANIFEST, "size": image.manifest.len(),
        "digest": Digest::of(&image.manifest), "platform": {"os": "linux", "architecture": "amd64"}}]);
    let both = both.to_string().into_bytes();
    for kind in [MANIFEST, INDEX, "application/json"] {
        let (both, image) = (both.clone(), image.clone());
        let server = Server::start(move |request, stream| {
            if request.path.ends_with("/manifests/1") {
                return reply(stream, "200 OK", &[("Content-Type", kind)], &both);
            }
            image.answer(request, stream);
        });
        let (dir, store) = store();
        let error = pull(&store, &server.host, Credentials::default())
            .await
            .unwrap_err();
        assert!(error.contains("ambiguous"), "{error}");
        assert_clean(dir.path());
    }
    // A manifest that is served as an index, and one that is no image at all.
    for (kind, says) in [
        (INDEX, "ambiguous"),
        (
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            "schema 1",
        ),
        ("application/vnd.oci.artifact.manifest.v1+json", "ambiguous"),
    ] {
        let image = image.clone();
        let server = Server::start(move |_, stream| {
            reply(stream, "200 OK", &[("Content-Type", kind)], &image.manifest);
        });
        let (_dir, store) = store();
        let error = pull(&store, &server.host, Credentials::default())
            .await
            .unwrap_err();
        assert!(error.contains(says), "{kind}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_in_a_manifest_are_not_fetched() {
    let elsewhere = Server::start(|_, stream| reply(stream, "200 OK", &[], b""));
    let image = image();
    let text = String::from_utf8(image.manifest.clone()).unwrap();
    let url = format!("http://{}/layer", elsewhere.host);
    let mut with_urls: serde_json::Value = serde_json::from_str(&text).unwrap();
    with_urls["layers"][0]["urls"] = serde_json::json!([url]);
    let with_urls = with_urls.to_string();
    let foreign = text.replace(
        "image.layer.v1.tar+gzip",
        "image.layer.nondistributable.v1.tar+gzip",
    );
    for manifest in [with_urls, foreign] {
        let server = Server::start(move |_, stream| {
            reply(
                stream,
                "200 OK",
                &[("Content-Type", MANIFEST)],
                manifest.as_bytes(),
            );
        });
        let (_dir, store) = store();
        let error = pull(&store, &server.host, Credentials::default())
            .await
            .unwrap_err();
        assert!(error.contains("foreign layer"), "{error}");
    }
    assert_eq!(elsewhere.requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn deep_documents() {
    let deep = "[".repeat(1_000_000);
    let object = r#"{"config":"#.repeat(300_000);
    for document in [deep, object] {
        let server = Server::start(move |_, stream| {
            reply(
                stream,
                "200 OK",
                &[("Content-Type", MANIFEST)],
                document.as_bytes(),
            );
        });
        let (_dir, store) = store();
        let error = pull(&store, &server.host, Credentials::default())
            .await
            .unwrap_err();
        assert!(error.contains("manifest is not valid"), "{error}");
    }
    // The same in the config, which is fetched by its digest.
    let mut image = image();
    let config = format!(r#"{{"os":"linux","x":{}"#, "[".repeat(1_000_000)).into_bytes();
    let text = String::from_utf8(image.manifest.clone()).unwrap();
    let text = text.replace(
        &Digest::of(&image.config).to_string(),
        &Digest::of(&config).to_string(),
    );
    let size = |length: usize| format!("\"size\":{length}");
    let text = text.replace(&size(image.config.len()), &size(config.len()));
    (image.manifest, image.config) = (text.into_bytes(), config);
    let server = Server::start(move |request, stream| image.answer(request, stream));
    let (dir, store) = store();
    let error = pull(&store, &server.host, Credentials::default())
        .await
        .unwrap_err();
    assert!(error.contains("config is not valid"), "{error}");
    assert_clean(dir.path());
}

#[test]
fn names_that_would_mean_another_place() {
    let digest = Digest::of(b"x");
    for name in [
        "reg.lan/a/../b",
        "reg.lan/../v2/secret/b",
        "reg.lan/a/..:1",
        "reg.lan/a/b:..",
        "reg.lan/a/b:../../other/manifests/1",
        "reg.lan/a/b:1/../2",
        "reg.lan/A/b",
        "reg.lan/a/%2e%2e/b",
        "reg.lan/a%2fb",
        "reg.lan/a/b:%31",
        "reg.lan/a/b:1%00",
        "reg.lan/a/b:1?x=y",
        "reg.lan/a/b:1#x",
        "reg.lan/a\\..\\b",
        "reg.lan/a/b\n:1",
        "reg.lan/a/b:1\r\nX-Evil: 1",
        "reg.lan/a//b",
        "reg.lan/./b",
        "reg.lan@evil.lan/a/b",
        "user:pass@reg.lan/a/b",
        "reg.lan/a/\u{ff0e}\u{ff0e}/b",
        "reg.lan/a/b\u{202e}:1",
        "../reg.lan/a",
        "reg.lan:5000:5000/a/b",
        "reg..lan/a/b",
        &format!("reg.lan/a/b@{digest}/../x"),
        &format!("reg.lan/a/b@{}", digest.to_string().to_uppercase()),
    ] {
        assert!(Reference::parse(name).is_err(), "{name:?} was taken");
    }
}
