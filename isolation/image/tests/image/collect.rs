//! Removing images: what is in use stays, what is not goes in the right order, and a crash between
//! two steps costs nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gantry_image::{Headroom, Image, Prune, PullOptions, Reference, Store, StoreError};

use crate::fixture::{Scratch, run, until};
use crate::server::{FakeImage, Server, tar_of};

/// More than any disk has.
const EVERYTHING: Headroom = Headroom {
    free_bytes: u64::MAX,
    free_percent: 0,
    min_age: Duration::ZERO,
};

/// Images `a/0` … of a layer that all have and one of their own.
fn server(images: usize) -> Server {
    let common = tar_of(&[("common", &[1; 1 << 20])]);
    let images: Vec<FakeImage> = (0..images)
        .map(|number| {
            let own = vec![u8::try_from(number).unwrap(); 1 << 20];
            FakeImage::new(&[common.clone(), tar_of(&[("own", &own)])])
        })
        .collect();
    Server::start(move |request, stream| {
        let number = request.path.split('/').nth(3).unwrap();
        images[number.parse::<usize>().unwrap()].answer(request, stream);
    })
}

fn reference(server: &Server, number: usize) -> Reference {
    Reference::parse(&format!("{}/a/{number}:1", server.host)).unwrap()
}

async fn pull(store: &Store, server: &Server, number: usize) -> Image {
    let reference = reference(server, number);
    let pulled = store.pull(&reference, PullOptions::default()).await;
    pulled.unwrap()
}

fn count(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().count()
}

/// A just-dropped store may have its lock a moment longer.
fn reopen(dir: &Path) -> Store {
    let mut store = None;
    until("the store can be opened again", || {
        store = Store::open(dir).ok();
        store.is_some()
    });
    store.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_stays_over_a_restart_and_goes_when_released() {
    let (server, dir) = (server(2), Scratch::new());
    let store = Store::open(dir.path()).unwrap();
    let image = pull(&store, &server, 0).await;
    let report = store.collect(EVERYTHING).await.unwrap();
    assert_eq!(report.layers, 0, "somebody has the image: {report:?}");
    store.hold("task-1", &image).unwrap();
    let layers = image.layers.clone();
    drop(image);
    drop(pull(&store, &server, 1).await);
    let report = store.collect(EVERYTHING).await.unwrap();
    assert_eq!((report.layers, report.images.len()), (1, 2), "{report:?}");
    assert!(report.bytes >= 1 << 20, "{report:?}");
    drop(store);

    let store = tokio::task::block_in_place(|| reopen(dir.path()));
    assert_eq!(store.holders().into_iter().collect::<Vec<_>>(), ["task-1"]);
    let report = store.collect(EVERYTHING).await.unwrap();
    assert_eq!(report.layers, 0);
    assert!(layers.iter().all(|layer| layer.is_dir()));
    let refused = store.remove(&reference(&server, 0), false).await;
    assert!(matches!(refused, Err(StoreError::InUse(_))), "{refused:?}");
    // By force the name goes, the layers stay as long as they are needed.
    let report = store.remove(&reference(&server, 0), true).await.unwrap();
    assert_eq!((report.layers, report.images.len()), (0, 2));
    assert!(layers.iter().all(|layer| layer.is_dir()));
    store.release("task-1").unwrap();
    let report = store.prune(Prune::Untagged).await.unwrap();
    assert_eq!(report.layers, 2, "{report:?}");
    for name in ["layers", "complete", "blobs", "held", "recipes", "tmp"] {
        assert_eq!(count(&dir.path().join(name)), 0, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_removed_one_by_one() {
    let (server, dir) = (server(2), Scratch::new());
    let store = Store::open(dir.path()).unwrap();
    drop(pull(&store, &server, 0).await);
    drop(pull(&store, &server, 1).await);
    let other = Reference::parse(&format!("{}/a/0:other", server.host)).unwrap();
    drop(store.pull(&other, PullOptions::default()).await.unwrap());
    let list = store.list().await.unwrap();
    assert_eq!((list.len(), list[0].names.len()), (2, 3), "{list:?}");
    assert!(list.iter().all(|image| image.complete && !image.in_use));
    assert!(list[0].own_bytes >= 1 << 20 && list[0].size_bytes >= 2 << 20);
    assert!(list[0].own_bytes < 2 << 20, "{list:?}");
    let details = store.inspect(&other).await.unwrap();
    assert_eq!(details.parts.len(), 2);
    assert_eq!(details.parts[0].images, 2);
    assert_eq!(details.config["os"], "linux");

    let report = store.remove(&other, false).await.unwrap();
    assert_eq!((report.layers, report.images.len()), (0, 1));
    let report = store.remove(&reference(&server, 0), false).await.unwrap();
    assert_eq!((report.layers, report.images.len()), (1, 2), "{report:?}");
    let gone = store.remove(&other, false).await;
    assert!(matches!(gone, Err(StoreError::Unknown(_))), "{gone:?}");
    assert!(store.local(&reference(&server, 1)).await.is_some());
    // Tags are no leftovers.
    assert_eq!(store.prune(Prune::Untagged).await.unwrap().layers, 0);
    assert_eq!(store.prune(Prune::Unused).await.unwrap().layers, 2);
    assert_eq!(store.list().await.unwrap(), []);
}

/// A file system of its own, so that nobody else changes the free space.
struct Disk(
    PathBuf,
    #[expect(dead_code, reason = "removed when dropped")] Scratch,
);

impl Disk {
    fn new() -> Self {
        let scratch = Scratch::new();
        let path = scratch.path().join("disk");
        fs::create_dir(&path).unwrap();
        let text = path.display().to_string();
        run("mount", &["-t", "tmpfs", "-o", "size=1g", "tmpfs", &text]);
        Self(path, scratch)
    }

    fn free_bytes(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.0).unwrap();
        stat.f_bavail * stat.f_frsize
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run("umount", &["-l", &self.0.display().to_string()]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_least_recently_used_go_until_there_is_room() {
    let (server, disk) = (server(4), Disk::new());
    let store = Store::open(&disk.0.join("store")).unwrap();
    for number in 0..4 {
        drop(pull(&store, &server, number).await);
    }
    // Used again: image 0 is the youngest now, and 1 is running.
    assert!(store.local(&reference(&server, 0)).await.is_some());
    let running = store.local(&reference(&server, 1)).await.unwrap();
    let policy = |more: u64| Headroom {
        free_bytes: disk.free_bytes() + more,
        ..EVERYTHING
    };
    let report = store.collect(policy(0)).await.unwrap();
    assert_eq!(report.images, Vec::<String>::new(), "there was room");
    let young = Headroom {
        min_age: Duration::from_secs(3600),
        ..policy(1)
    };
    assert_eq!(
        store.collect(young).await.unwrap().layers,
        0,
        "all are young"
    );
    let report = store.collect(policy(1)).await.unwrap();
    let name = reference(&server, 2).to_string();
    assert!(report.images.contains(&name), "{report:?}");
    assert_eq!((report.images.len(), report.layers), (2, 1), "{report:?}");
    let report = store.collect(policy(3 << 19)).await.unwrap();
    assert_eq!((report.images.len(), report.layers), (4, 2), "{report:?}");
    assert_eq!(
        fs::read(running.layers[0].join("own")).unwrap(),
        [1; 1 << 20]
    );
    assert_eq!(store.list().await.unwrap().len(), 1);
}

/// Pulls of images with a common layer, and collections of everything, all at once.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_held_is_ever_removed() {
    const IMAGES: usize = 4;
    let (server, dir) = (Arc::new(server(IMAGES)), Scratch::new());
    let store = Store::open(dir.path()).unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let mut pulls = tokio::task::JoinSet::new();
    for number in 0..IMAGES {
        let (store, server) = (store.clone(), Arc::clone(&server));
        pulls.spawn(async move {
            for round in 0..25 {
                let image = pull(&store, &server, number).await;
                let id = format!("task-{number}");
                store.hold(&id, &image).unwrap();
                let layers = image.layers.clone();
                drop(image);
                tokio::task::yield_now().await;
                let own = fs::read(layers[0].join("own"));
                assert_eq!(
                    own.unwrap()[0],
                    u8::try_from(number).unwrap(),
                    "round {round}"
                );
                assert_eq!(fs::read(layers[1].join("common")).unwrap()[0], 1);
                store.release(&id).unwrap();
            }
        });
    }
    let collecting = {
        let (store, done) = (store.clone(), Arc::clone(&done));
        tokio::spawn(async move {
            let mut removed = 0;
            while !done.load(Ordering::SeqCst) {
                removed += store.collect(EVERYTHING).await.unwrap().layers;
                removed += store.prune(Prune::Unused).await.unwrap().layers;
            }
            removed
        })
    };
    pulls.join_all().await;
    done.store(true, Ordering::SeqCst);
    let removed = collecting.await.unwrap();
    assert!(
        removed >= 10,
        "only {removed} layers were removed meanwhile"
    );
    store.prune(Prune::Unused).await.unwrap();
    for name in ["layers", "complete", "blobs", "held", "recipes", "tmp"] {
        assert_eq!(count(&dir.path().join(name)), 0, "{name}");
    }
}

/// Each step of a removal, as a crash after it would leave the disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_two_steps_of_a_removal_costs_nothing() {
    let server = server(1);
    for step in ["names", "mark", "rename"] {
        let dir = Scratch::new();
        let store = Store::open(dir.path()).unwrap();
        let image = pull(&store, &server, 0).await;
        let layer = image.layers[0].clone();
        drop(image);
        until("the layers are synced", || {
            let marks = fs::read_dir(dir.path().join("complete")).unwrap().flatten();
            let synced = |path: PathBuf| fs::read_to_string(path).unwrap().starts_with("synced");
            marks.map(|mark| mark.path()).all(synced)
        });
        drop(store);
        fs::write(dir.path().join("images.json"), r#"{"images":{}}"#).unwrap();
        let name = layer.file_name().unwrap().to_owned();
        if step != "names" {
            fs::remove_file(dir.path().join("complete").join(&name)).unwrap();
        }
        if step == "rename" {
            fs::rename(&layer, dir.path().join("tmp").join("7-x")).unwrap();
        }
        let store = tokio::task::block_in_place(|| reopen(dir.path()));
        assert_eq!(layer.exists(), step == "names");
        assert_eq!(count(&dir.path().join("tmp")), 0);
        let image = pull(&store, &server, 0).await;
        assert_eq!(fs::read(image.layers[0].join("own")).unwrap(), [0; 1 << 20]);
        drop(image);
        assert_eq!(
            store.prune(Prune::Unused).await.unwrap().layers,
            2,
            "{step}"
        );
        assert_eq!(count(&dir.path().join("layers")), 0);
    }
}
