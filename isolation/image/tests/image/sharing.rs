//! Many pulls at once, pulls that are dropped, and what a crash leaves behind.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gantry_image::{Digest, OpenError, PullOptions, Reference, Store};

use crate::fixture::{Scratch, list_stacked, until};
use crate::hostile::assert_clean;
use crate::server::{FakeImage, Server, tar_of};

fn image() -> FakeImage {
    FakeImage::new(&[tar_of(&[("a", &[7; 300_000])]), tar_of(&[("b", b"b")])])
}

fn marks(store: &Path) -> Vec<String> {
    let entries = fs::read_dir(store.join("complete")).unwrap().flatten();
    let marks = entries.filter(|entry| !entry.file_name().to_string_lossy().ends_with(".new"));
    marks
        .filter_map(|entry| fs::read_to_string(entry.path()).ok())
        .map(|mark| mark.lines().next().unwrap_or_default().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_pulls_share_one_download() {
    let image = image();
    let server = Server::start(move |request, stream| image.answer(request, stream));
    let dir = Scratch::new();
    let store = Store::open(dir.path()).unwrap();
    let mut pulls = tokio::task::JoinSet::new();
    for number in 0..32 {
        // Two names, so that not only the pull but also the layers have to be shared.
        let reference = Reference::parse(&format!("{}/a/b:{}", server.host, number % 2)).unwrap();
        let store = store.clone();
        pulls.spawn(async move {
            store
                .pull(&reference, PullOptions::default())
                .await
                .unwrap()
        });
    }
    let images = pulls.join_all().await;
    assert!(images.iter().all(|image| *image == images[0]));
    assert_eq!(server.count("/manifests/"), 2);
    // The config is read once for each name, each layer once in all.
    assert_eq!(server.count("/blobs/"), 2 + 2);
    until("the layers are synced in the background", || {
        marks(dir.path()) == ["synced".to_owned(), "synced".to_owned()]
    });
}

/// A server that sends the first layer of `image` byte by byte until `go` says otherwise.
fn slow_server(image: FakeImage, go: impl Fn() -> bool + Send + Sync + 'static) -> Server {
    let large = Digest::of(&image.layers[0]).to_string();
    Server::start(move |request, stream| {
        if !request.path.ends_with(&large) {
            return image.answer(request, stream);
        }
        let blob = &image.layers[0];
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", blob.len());
        let _ = stream.write_all(head.as_bytes());
        let mut sent = 0;
        until("the rest may go", || {
            let _ = stream.write_all(&blob[sent..=sent]);
            sent += 1;
            go()
        });
        let _ = stream.write_all(&blob[sent..]);
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_wait_for_a_pull_hear_of_it_and_hold_up_no_other() {
    let heard: Vec<Arc<AtomicBool>> = (0..16).map(|_| Arc::default()).collect();
    let other_is_here = Arc::new(AtomicBool::new(false));
    let slow = {
        let (heard, other_is_here) = (heard.clone(), other_is_here.clone());
        slow_server(image(), move || {
            let all = heard.iter().all(|heard| heard.load(Ordering::SeqCst));
            all && other_is_here.load(Ordering::SeqCst)
        })
    };
    let quick_image = FakeImage::new(&[tar_of(&[("c", b"c")])]);
    let quick = Server::start(move |request, stream| quick_image.answer(request, stream));
    let dir = Scratch::new();
    let store = Store::open(dir.path()).unwrap();
    let reference = Reference::parse(&format!("{}/a/b:1", slow.host)).unwrap();
    let mut pulls = tokio::task::JoinSet::new();
    for heard in heard {
        let (store, reference) = (store.clone(), reference.clone());
        let options = PullOptions {
            progress: Some(Arc::new(move |_| heard.store(true, Ordering::SeqCst))),
            ..PullOptions::default()
        };
        pulls.spawn(async move { store.pull(&reference, options).await.unwrap() });
    }
    // While sixteen wait for one slow image, another image is pulled.
    let other = Reference::parse(&format!("{}/c/d:1", quick.host)).unwrap();
    store.pull(&other, PullOptions::default()).await.unwrap();
    other_is_here.store(true, Ordering::SeqCst);
    // The layer only comes to its end once all sixteen heard of it.
    pulls.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_pull_leaves_nothing_and_the_next_one_works() {
    let image = image();
    let stalled = Arc::new(AtomicBool::new(false));
    let (stall, large) = (
        Arc::clone(&stalled),
        Digest::of(&image.layers[0]).to_string(),
    );
    let served = image.clone();
    let server = Server::start(move |request, stream| {
        if request.path.ends_with(&large) && !stall.swap(true, Ordering::SeqCst) {
            let blob = &served.layers[0];
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", blob.len());
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(&blob[..blob.len() / 2]);
            let _ = std::io::Read::read(stream, &mut [0; 1]);
        } else {
            served.answer(request, stream);
        }
    });
    let dir = Scratch::new();
    let store = Store::open(dir.path()).unwrap();
    let reference = Reference::parse(&format!("{}/a/b:1", server.host)).unwrap();
    let pull = {
        let (store, reference) = (store.clone(), reference.clone());
        tokio::spawn(async move { store.pull(&reference, PullOptions::default()).await })
    };
    let tmp = dir.path().join("tmp");
    let busy = || stalled.load(Ordering::SeqCst) && fs::read_dir(&tmp).unwrap().next().is_some();
    tokio::task::block_in_place(|| until("the pull is in the middle of a layer", busy));
    pull.abort();
    assert!(pull.await.unwrap_err().is_cancelled());
    tokio::task::block_in_place(|| {
        until("the unfinished layer is removed", || {
            fs::read_dir(&tmp).unwrap().next().is_none()
        });
    });
    let image = store
        .pull(&reference, PullOptions::default())
        .await
        .unwrap();
    assert_eq!(fs::read(image.layers[1].join("a")).unwrap(), [7; 300_000]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_leaves_is_removed() {
    let image = image();
    let names: Vec<String> = [tar_of(&[("a", &[7; 300_000])]), tar_of(&[("b", b"b")])]
        .iter()
        .map(|tar| format!("sha256-{}", Digest::of(tar).hex()))
        .collect();
    let dir = Scratch::new();
    for sub in ["tmp/1-x/deep/er", "layers/junk", "complete"] {
        fs::create_dir_all(dir.path().join(sub)).unwrap();
    }
    // Unfinished: no mark at all, and a mark of a boot that is over.
    for name in &names {
        fs::create_dir(dir.path().join("layers").join(name)).unwrap();
    }
    fs::write(dir.path().join("complete").join(&names[0]), "another-boot").unwrap();
    fs::write(dir.path().join("complete").join(&names[1]), "").unwrap();
    fs::write(dir.path().join("complete/mark-without-layer"), "synced").unwrap();
    fs::write(dir.path().join("images.json"), "{\"images\":{").unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert_clean(dir.path());
    assert!(
        matches!(Store::open(dir.path()), Err(OpenError::Busy(_))),
        "opened twice"
    );

    let server = Server::start(move |request, stream| image.answer(request, stream));
    let reference = Reference::parse(&format!("{}/a/b:1", server.host)).unwrap();
    let image = store
        .pull(&reference, PullOptions::default())
        .await
        .unwrap();
    assert_eq!(image.layers.len(), 2);
    // A layer that vanished is fetched again, the other one is not.
    fs::remove_dir_all(&image.layers[0]).unwrap();
    let before = server.count("/blobs/");
    assert_eq!(
        store
            .pull(&reference, PullOptions::default())
            .await
            .unwrap(),
        image
    );
    assert_eq!(
        server.count("/blobs/") - before,
        2,
        "the config and one layer"
    );
}

/// The same layer twice in one image, and a layer that hides everything below it.
#[tokio::test(flavor = "multi_thread")]
async fn stacks_that_overlayfs_would_refuse() {
    let (a, b) = (tar_of(&[("a", b"a")]), tar_of(&[("b", b"b")]));
    let opaque = tar_of(&[(".wh..wh..opq", b""), ("c", b"c")]);
    for (tars, count) in [
        (vec![a.clone(), b.clone(), a.clone()], 2),
        (vec![a, opaque, b], 2),
    ] {
        let image = FakeImage::new(&tars);
        let server = Server::start(move |request, stream| image.answer(request, stream));
        let dir = Scratch::new();
        let store = Store::open(dir.path()).unwrap();
        let reference = Reference::parse(&format!("{}/a/b:1", server.host)).unwrap();
        let image = store
            .pull(&reference, PullOptions::default())
            .await
            .unwrap();
        assert_eq!(image.layers.len(), count);
    }
}

/// A tar of empty files and directories (with `/`) of these modes and owners.
fn empty_files(entries: &[(&str, u32, u64)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, mode, owner) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        header.set_mode(*mode);
        header.set_uid(*owner);
        header.set_gid(*owner);
        header.set_mtime(1_000_000_000);
        if name.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
        }
        builder.append_data(&mut header, name, &[][..]).unwrap();
    }
    builder.into_inner().unwrap()
}

/// A layer that uses a directory without listing it must not change how that directory looks.
#[tokio::test(flavor = "multi_thread")]
async fn unlisted_directories_look_as_in_the_layers_below() {
    let bottom = empty_files(&[
        ("home/", 0o711, 0),
        ("home/app/", 0o700, 1001),
        ("tmp/", 0o1777, 0),
        ("gone/", 0o700, 7),
        ("gone/sub/", 0o700, 7),
        ("hidden/", 0o700, 7),
        ("hidden/sub/", 0o700, 7),
        ("fresh/", 0o700, 7),
    ]);
    let middle = empty_files(&[
        ("home/app/file", 0o644, 1001),
        ("tmp/x/y", 0o644, 0),
        ("hidden/sub/f", 0o644, 0),
        ("fresh/.wh..wh..opq", 0, 0),
        ("fresh/f", 0o644, 0),
        ("new/f", 0o644, 0),
        ("gone/sub/f", 0o644, 0),
    ]);
    let top = empty_files(&[
        ("home/app/other", 0o600, 1001),
        (".wh.gone", 0, 0),
        ("hidden", 0o644, 0),
    ]);
    let image = FakeImage::new(&[bottom, middle, top]);
    let server = Server::start(move |request, stream| image.answer(request, stream));
    let dir = Scratch::new();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let reference = Reference::parse(&format!("{}/a/b:1", server.host)).unwrap();
    let image = store
        .pull(&reference, PullOptions::default())
        .await
        .unwrap();
    assert_eq!(image.layers.len(), 4, "{:?}", image.layers);
    let listing = list_stacked(&image.layers, dir.path());
    let directories: Vec<&str> = listing
        .lines()
        .filter(|line| line.contains(" d "))
        .collect();
    assert_eq!(
        directories,
        [
            "fresh d 755 0:0",
            "home d 711 0:0",
            "home/app d 700 1001:1001",
            "new d 755 0:0",
            "tmp d 1777 0:0",
            "tmp/x d 755 0:0",
        ]
    );
    let patched = fs::metadata(image.layers[0].join("home/app")).unwrap();
    assert_eq!(
        std::os::unix::fs::MetadataExt::mtime(&patched),
        1_000_000_000
    );
    // The image stays whole without the registry, and only with the directory on top.
    assert_eq!(store.local(&reference).await, Some(image.clone()));
    fs::remove_dir_all(&image.layers[0]).unwrap();
    assert_eq!(store.local(&reference).await, None);
    assert_eq!(
        store
            .pull(&reference, PullOptions::default())
            .await
            .unwrap(),
        image
    );
}
