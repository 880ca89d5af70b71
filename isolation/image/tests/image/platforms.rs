//! One name, several machines: which image a pull takes, and what becomes of one that does not run
//! here; and the shapes of indexes, layers and compressions that other tools write.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use gantry_image::{
    ArchiveFormat, Digest, Image, PullError, PullOptions, Reference, Store, Trouble,
};
use serde_json::{Value, json};

use crate::fixture::{Scratch, run};
use crate::server::{FakeImage, INDEX, MANIFEST, Server, gzip, reply, tar_of};

/// An image of one file that says its machine.
fn image(architecture: &str) -> FakeImage {
    let tar = tar_of(&[("file", architecture.as_bytes())]);
    FakeImage::with(&[gzip(&tar)], &[Digest::of(&tar)], architecture)
}

fn entry(image: &FakeImage, architecture: &str, variant: &str) -> Value {
    json!({"mediaType": MANIFEST, "digest": Digest::of(&image.manifest), "size": image.manifest.len(),
        "platform": {"os": "linux", "architecture": architecture, "variant": variant}})
}

fn index(entries: &[Value]) -> Vec<u8> {
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
    index.to_string().into_bytes()
}

fn nest(index: &[u8]) -> Value {
    json!({"mediaType": INDEX, "digest": Digest::of(index), "size": index.len()})
}

/// Serves the first of these indexes for every tag, and all that is known by digest.
fn serve(indexes: Vec<Vec<u8>>, images: Vec<FakeImage>) -> Server {
    Server::start(move |request, stream| {
        let wanted = request.path.rsplit('/').next().unwrap_or_default();
        let is_tag = request.path.contains("/manifests/") && !wanted.starts_with("sha256:");
        let named = |index: &&Vec<u8>| wanted == Digest::of(index).to_string();
        let found = match is_tag {
            true => indexes.first(),
            false => indexes.iter().find(named),
        };
        if let Some(index) = found {
            return reply(stream, "200 OK", &[("Content-Type", INDEX)], index);
        }
        let has = |image: &&FakeImage| {
            let blobs = image.layers.iter().chain([&image.config, &image.manifest]);
            blobs
                .into_iter()
                .any(|blob| wanted == Digest::of(blob).to_string())
        };
        match images.iter().find(has) {
            Some(image) => image.answer(request, stream),
            None => reply(stream, "404 Not Found", &[], b"{}"),
        }
    })
}

fn reference(server: &Server) -> Reference {
    Reference::parse(&format!("{}/a/b:1", server.host)).unwrap()
}

async fn pull(store: &Store, server: &Server, platform: &str) -> Result<Image, PullError> {
    let options = PullOptions {
        platform: (!platform.is_empty()).then(|| platform.parse().unwrap()),
        ..PullOptions::default()
    };
    store.pull(&reference(server), options).await
}

fn file(image: &Image) -> String {
    fs::read_to_string(image.layers[0].join("file")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_for_another_machine_is_kept_and_never_run() {
    let (amd, arm) = (image("amd64"), image("arm64"));
    let list = index(&[entry(&arm, "arm64", "v8"), entry(&amd, "amd64", "")]);
    let server = serve(vec![list], vec![amd.clone(), arm.clone()]);
    let dir = Scratch::new();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let here = pull(&store, &server, "").await.unwrap();
    assert_eq!(file(&here), "amd64");
    let there = pull(&store, &server, "linux/arm64").await.unwrap();
    assert_eq!(file(&there), "arm64");
    // The tag still means what runs here.
    let name = reference(&server);
    assert_eq!(store.local(&name).await, Some(here));
    let pinned = name.pinned(there.digest);
    assert_eq!(store.local(&pinned).await, None);
    let error = store
        .pull(&pinned, PullOptions::default())
        .await
        .unwrap_err();
    assert_eq!(error.trouble(), Trouble::Platform, "{}", error.message());
    assert!(
        error
            .message()
            .contains("for linux/arm64, not for linux/amd64")
    );

    let list = store.list().await.unwrap();
    let of = |digest| list.iter().find(|image| image.digest == digest).unwrap();
    let (kept, own) = (of(there.digest), of(Digest::of(&amd.manifest)));
    assert_eq!(
        (kept.platform.as_str(), kept.runs_here),
        ("linux/arm64", false)
    );
    assert_eq!(
        (own.platform.as_str(), own.runs_here),
        ("linux/amd64", true)
    );
    assert!(kept.complete && kept.layers == 1);

    let path = dir.path().join("arm.tar");
    let export = store.export(&pinned, ArchiveFormat::Oci).await.unwrap();
    export.write(fs::File::create(&path).unwrap()).unwrap();
    let source = format!("oci-archive:{}", path.display());
    let inspected = run("skopeo", &["--override-arch", "arm64", "inspect", &source]);
    assert!(
        inspected.contains("\"Architecture\": \"arm64\""),
        "{inspected}"
    );

    // Whoever wants a machine that is not there hears which are.
    let error = pull(&store, &server, "linux/s390x").await.unwrap_err();
    assert_eq!(error.trouble(), Trouble::Platform);
    let has = "which has: linux/arm64/v8, linux/amd64";
    assert!(error.message().contains(has), "{}", error.message());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_in_an_index_is_followed_but_not_for_ever() {
    let amd = image("amd64");
    let inner = index(&[
        entry(&amd, "amd64", ""),
        entry(&image("arm64"), "arm64", ""),
    ]);
    let mut indexes = vec![inner];
    for _ in 0..6 {
        let outer = index(&[nest(&indexes[0])]);
        indexes.insert(0, outer);
    }
    for (deep, taken) in [(0, true), (1, true), (3, true), (4, false), (6, false)] {
        let from = indexes.len() - 1 - deep;
        let server = serve(indexes[from..].to_vec(), vec![amd.clone()]);
        let dir = Scratch::new();
        let store = Store::open(dir.path()).unwrap();
        match pull(&store, &server, "").await {
            Ok(image) => assert!(taken && file(&image) == "amd64", "{deep}"),
            Err(error) => {
                let message = error.message();
                assert!(
                    !taken && message.contains("one inside the other"),
                    "{message}"
                );
            }
        }
    }
}

/// A registry of one image whose layer is `blob`.
async fn unpacked(dir: &Path, blob: &[u8], tar: &[u8]) -> Result<Image, PullError> {
    let mut image = FakeImage::with(&[blob.to_vec()], &[Digest::of(tar)], "amd64");
    if blob == tar {
        let manifest = String::from_utf8(image.manifest).unwrap();
        image.manifest = manifest.replace("v1.tar+gzip", "v1.tar").into_bytes();
    }
    let server = Server::start(move |request, stream| image.answer(request, stream));
    let store = Store::open(dir).unwrap();
    pull(&store, &server, "").await
}

/// zstd:chunked is frames of zstd between frames that decoders skip, as eStargz is members of gzip.
#[tokio::test(flavor = "multi_thread")]
async fn layers_in_pieces_and_layers_of_nothing() {
    let tar = tar_of(&[("file", &[7; 100_000]), ("other", b"other")]);
    let mut chunked = Vec::new();
    let mut members = Vec::new();
    for piece in tar.chunks(30_000) {
        chunked.extend(zstd::encode_all(piece, 3).unwrap());
        chunked.extend(0x184d_2a50_u32.to_le_bytes());
        chunked.extend(5_u32.to_le_bytes());
        chunked.write_all(b"table").unwrap();
        members.extend(gzip(piece));
    }
    let empty = tar_of(&[]);
    for (what, blob, tar) in [
        ("zstd frames", chunked, &tar),
        ("gzip members", members, &tar),
        ("plain", tar.clone(), &tar),
        ("nothing", gzip(&empty), &empty),
    ] {
        let dir = Scratch::new();
        let image = unpacked(dir.path(), &blob, tar).await;
        let image = image.unwrap_or_else(|error| panic!("{what}: {}", error.message()));
        let names = fs::read_dir(&image.layers[0]).unwrap().count();
        assert_eq!(names, if what == "nothing" { 0 } else { 2 }, "{what}");
    }
}
