//! Mirrors: asked first, verified by digest, left when they fail, and not believed about tags
//! unless the operator says so.

use std::io::Write;

use gantry_image::{
    Credentials, DEFAULT_REGISTRY, Digest, Image, Mirror, PullError, PullOptions, Reference,
    RegistryConfig, Store, StoreConfig,
};

use crate::fixture::{Layout, Registry, Scratch};
use crate::server::{FakeImage, Request, Server, reply, tar_of};

fn store(mirrors: &[String]) -> (Scratch, Store) {
    let mirrors = mirrors.iter().map(|text| text.parse::<Mirror>().unwrap());
    let registry = RegistryConfig {
        mirrors: mirrors.collect(),
        ..RegistryConfig::default()
    };
    let config = StoreConfig {
        registry,
        ..StoreConfig::default()
    };
    let dir = Scratch::new();
    let store = Store::open_with(dir.path(), config).unwrap();
    (dir, store)
}

async fn pull(store: &Store, name: &str) -> Result<Image, PullError> {
    let reference = Reference::parse(name).unwrap();
    store.pull(&reference, PullOptions::default()).await
}

fn image(content: &[u8]) -> FakeImage {
    FakeImage::new(&[tar_of(&[("a", content)]), tar_of(&[("b", content)])])
}

fn serve(image: &FakeImage) -> Server {
    let image = image.clone();
    Server::start(move |request, stream| image.answer(request, stream))
}

fn file(image: &Image, name: &str) -> Vec<u8> {
    let mut layers = image.layers.iter();
    layers
        .find_map(|layer| std::fs::read(layer.join(name)).ok())
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_registry_through_a_mirror() {
    let registry = Registry::start();
    let layout = Layout::new(registry.scratch(), "image");
    layout.layer(|root| std::fs::write(root.join("file"), "content").unwrap());
    registry.push(&layout, "library/thing:1");
    registry.push(&layout, "hub/library/thing:1");
    // Docker's registry-mirrors, and one whose images lie below a path.
    for mirror in [
        format!("{DEFAULT_REGISTRY}={},tags", registry.host),
        format!(
            "{DEFAULT_REGISTRY}/library=http://{}/hub,tags",
            registry.host
        ),
    ] {
        let (_dir, store) = store(&[mirror]);
        let image = pull(&store, "thing:1").await.unwrap();
        assert_eq!(file(&image, "file"), b"content");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_is_what_the_registry_says() {
    let (stale, current) = (image(b"stale"), image(b"current"));
    let (mirror, origin) = (serve(&stale), serve(&current));
    let (_dir, plain) = store(&[format!("{}={}", origin.host, mirror.host)]);
    let pulled = pull(&plain, &format!("{}/a/b:1", origin.host))
        .await
        .unwrap();
    assert_eq!(file(&pulled, "a"), b"current");
    // The mirror was asked for what has a digest, and had nothing of it.
    assert_eq!(mirror.count("/manifests/"), 0);
    assert!(mirror.count("/blobs/") >= 1);

    let (_dir, believing) = store(&[format!("{}={},tags", origin.host, mirror.host)]);
    let before = origin.requests().len();
    let pulled = pull(&believing, &format!("{}/a/b:1", origin.host))
        .await
        .unwrap();
    assert_eq!(file(&pulled, "a"), b"stale");
    assert_eq!(origin.requests().len(), before, "the registry was asked");
    // By digest the mirror has to have the right thing.
    let digest = Digest::of(&current.manifest);
    let pulled = pull(&believing, &format!("{}/a/b@{digest}", origin.host))
        .await
        .unwrap();
    assert_eq!(file(&pulled, "a"), b"current");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_fails_is_left() {
    let image = image(b"x");
    let origin = serve(&image);
    let layer = Digest::of(&image.layers[0]).to_string();
    let name = format!("{}/a/b:1", origin.host);
    let dead = format!("{}=127.0.0.1:1,tags", origin.host);
    let (other, cut) = (image.clone(), layer.clone());
    // Right about everything but the bytes of a layer.
    let lying = Server::start(move |request, stream| {
        if request.path.ends_with(&cut) {
            return reply(stream, "200 OK", &[], &vec![7; other.layers[0].len()]);
        }
        other.answer(request, stream);
    });
    let (other, cut) = (image.clone(), layer.clone());
    // Breaks off in the middle of a layer, always.
    let breaking = Server::start(move |request, stream| {
        if !request.path.ends_with(&cut) {
            return other.answer(request, stream);
        }
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
            other.layers[0].len()
        );
        let _ = stream.write_all(head.as_bytes());
        let _ = stream.write_all(&other.layers[0][..20]);
    });
    let broken = Server::start(|_, stream| reply(stream, "500 Oh", &[], b""));
    let page = [("Content-Type", "text/html")];
    let portal = Server::start(move |_, stream| reply(stream, "200 OK", &page, b"<html>log in"));
    let manifest = image.manifest.clone();
    // Another manifest under the digest's name.
    let forged = Server::start(move |_, stream| {
        let mut forged = manifest.clone();
        forged.push(b' ');
        reply(stream, "200 OK", &[], &forged);
    });
    let entry = |server: &Server| format!("{}={},tags", origin.host, server.host);
    for mirrors in [
        vec![dead.clone()],
        vec![entry(&lying)],
        vec![entry(&breaking)],
        vec![entry(&broken)],
        vec![entry(&portal)],
        vec![
            dead.clone(),
            entry(&broken),
            entry(&lying),
            entry(&breaking),
        ],
    ] {
        let (_dir, store) = store(&mirrors);
        let before = origin.requests().len();
        let pulled = pull(&store, &name)
            .await
            .unwrap_or_else(|error| panic!("{mirrors:?}: {}", error.message()));
        assert_eq!(file(&pulled, "a"), b"x");
        assert!(origin.requests().len() > before, "{mirrors:?}");
    }
    let pinned = format!("{}/a/b@{}", origin.host, Digest::of(&image.manifest));
    let (_dir, store) = store(&[entry(&forged)]);
    assert_eq!(file(&pull(&store, &pinned).await.unwrap(), "b"), b"x");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_says_why_it_failed() {
    let broken = Server::start(|_, stream| reply(stream, "500 Oh", &[], b""));
    let origin = Server::start(|_, stream| reply(stream, "404 Not Found", &[], b"{}"));
    let mirrors = [
        format!("{}=127.0.0.1:1,tags", origin.host),
        format!("{}={},tags", origin.host, broken.host),
        format!("{}=http://mirror.invalid:5000,tags", origin.host),
    ];
    let (_dir, store) = store(&mirrors);
    let error = pull(&store, &format!("{}/a/b:1", origin.host))
        .await
        .unwrap_err();
    assert!(error.is_permanent(), "the registry itself says no");
    let message = error.message();
    for part in [
        format!("image a/b:1 not found at {}", origin.host),
        "registry 127.0.0.1:1 refused the connection".into(),
        "registry mirror.invalid:5000 is not spoken to over plain HTTP".into(),
        format!("registry {} answered 500", broken.host),
    ] {
        assert!(message.contains(&part), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_gets_its_own_login() {
    let image = image(b"x");
    let wants = |image: FakeImage| {
        move |request: &Request, stream: &mut std::net::TcpStream| {
            if request.headers.contains_key("authorization") {
                return image.answer(request, stream);
            }
            let challenge = [("WWW-Authenticate", "Basic realm=\"x\"")];
            reply(stream, "401 Unauthorized", &challenge, b"{}");
        }
    };
    // The mirror has everything but the layers.
    let bare = FakeImage {
        layers: Vec::new(),
        ..image.clone()
    };
    let (mirror, origin) = (Server::start(wants(bare)), Server::start(wants(image)));
    let (_dir, store) = store(&[format!("{}={},tags", origin.host, mirror.host)]);
    let config = serde_json::json!({"auths": {
        &mirror.host: {"username": "m", "password": "m"},
        &origin.host: {"username": "o", "password": "o"},
    }});
    let options = PullOptions {
        credentials: Credentials::from_config(config.to_string().as_bytes()).unwrap(),
        ..PullOptions::default()
    };
    let reference = Reference::parse(&format!("{}/a/b:1", origin.host)).unwrap();
    store.pull(&reference, options).await.unwrap();
    for (server, login) in [(&mirror, "Basic bTpt"), (&origin, "Basic bzpv")] {
        let requests = server.requests();
        let shown: Vec<_> = requests
            .iter()
            .filter_map(|request| request.headers.get("authorization"))
            .collect();
        assert!(
            !shown.is_empty() && shown.iter().all(|header| *header == login),
            "{shown:?}"
        );
    }
}
