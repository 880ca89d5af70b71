//! The cache: shared, bounded, asked about, and never in the way.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use gantry_fetch::Item;

use crate::fixture::{Node, cached, item, put, sh, wait_until};
use crate::server::{Server, send, status, whole};

/// Content and tag that a test changes; answers conditions as a server should.
#[derive(Clone)]
struct Served(Arc<Mutex<(Vec<u8>, &'static str)>>);

impl Served {
    fn start(content: &[u8], tag: &'static str) -> (Self, Server) {
        let served = Self(Arc::new(Mutex::new((content.to_vec(), tag))));
        let answers = served.clone();
        let server = Server::start(move |request, stream| {
            let (content, tag) = answers.0.lock().unwrap().clone();
            match tag {
                "down" => status(stream, "503 Service Unavailable"),
                "gone" => status(stream, "404 Not Found"),
                "" => {
                    let headers = [format!("content-length: {}", content.len())];
                    send(stream, "200 OK", &headers, &content);
                }
                "endless" => send(stream, "200 OK", &[], &content),
                tag if request.header("if-none-match") == Some(tag) => {
                    send(stream, "304 Not Modified", &[], b"");
                }
                tag => whole(stream, &content, tag),
            }
        });
        (served, server)
    }

    fn set(&self, content: &[u8], tag: &'static str) {
        *self.0.lock().unwrap() = (content.to_vec(), tag);
    }
}

fn entries(node: &Node) -> Vec<PathBuf> {
    let files = fs::read_dir(node.dir.path().join("fetch/cache")).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "data")
    });
    files.sort();
    files
}

#[test]
fn the_second_task_gets_it_without_a_download_and_never_an_old_one() {
    let (served, server) = Served::start(b"one", "\"1\"");
    let node = Node::new(&[&server.host]);
    let run = || node.run(&[cached(server.url("/f"))]);
    let sent = |conditional: bool| {
        let requests = server.requests();
        requests
            .iter()
            .filter(|r| r.header("if-none-match").is_some() == conditional)
            .count()
    };
    run().unwrap();
    run().unwrap();
    assert_eq!(
        (sent(false), sent(true), node.text("f").as_str()),
        (1, 1, "one")
    );
    served.set(b"two", "\"2\"");
    run().unwrap();
    assert_eq!((node.text("f").as_str(), entries(&node).len()), ("two", 1));
    // It cannot be asked: what was fetched before is better than nothing.
    served.set(b"", "down");
    run().unwrap();
    assert_eq!(node.text("f"), "two");
    // It says that there is none.
    served.set(b"", "gone");
    assert!(run().unwrap_err().ends_with("status 404"));
}

#[test]
fn a_server_without_tags_is_believed_by_the_size() {
    let (served, server) = Served::start(b"one", "");
    let node = Node::new(&[&server.host]);
    let run = || node.run(&[cached(server.url("/f"))]).unwrap();
    run();
    served.set(b"three", "");
    run();
    assert_eq!(node.text("f"), "three");
}

#[test]
fn a_checksum_needs_no_server() {
    let (served, server) = Served::start(b"one", "\"1\"");
    let node = Node::new(&[&server.host]);
    let digest = gantry_intake::Digest::of(b"one").to_string();
    let wanted = Item {
        sha256: Some(digest),
        ..cached(server.url("/f"))
    };
    node.run(std::slice::from_ref(&wanted)).unwrap();
    let asked = server.requests().len();
    node.run(std::slice::from_ref(&wanted)).unwrap();
    assert_eq!(server.requests().len(), asked);
    let other = gantry_intake::Digest::of(b"two").to_string();
    let wanted = Item {
        sha256: Some(other),
        ..wanted
    };
    assert!(
        node.run(std::slice::from_ref(&wanted))
            .unwrap_err()
            .contains("the digest")
    );
    served.set(b"two", "\"2\"");
    node.run(&[wanted]).unwrap();
    assert_eq!(node.text("f"), "two");
}

#[test]
fn only_the_content_of_a_cached_archive_is_in_the_sandbox() {
    let dir = tempfile::tempdir().unwrap();
    sh(dir.path(), "mkdir d; printf x >d/f; tar czf t.tgz d");
    let archive = fs::read(dir.path().join("t.tgz")).unwrap();
    let (_, server) = Served::start(&archive, "\"1\"");
    let node = Node::new(&[&server.host]);
    for _ in 0..2 {
        node.run(&[cached(server.url("/t.tgz"))]).unwrap();
        assert_eq!(node.text("d/f"), "x");
        assert!(!node.sandbox().join("t.tgz").exists());
    }
    node.run(&[item(server.url("/t.tgz"))]).unwrap();
    assert!(node.sandbox().join("t.tgz").exists());
}

#[test]
fn many_at_once_share_one_download_and_some_of_them_go_away() {
    let (open, count) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let (gate, asked) = (Arc::clone(&open), Arc::clone(&count));
    let server = Server::start(move |_, stream| {
        asked.fetch_add(1, Ordering::Relaxed);
        wait_until("the gate opens", || gate.load(Ordering::Relaxed));
        whole(stream, &[5; 1_000_000], "\"1\"");
    });
    let node = Node::new(&[&server.host]);
    let items = [cached(server.url("/f"))];
    let job = || {
        let (fetcher, items) = (node.fetcher.clone(), items.clone());
        node.runtime
            .spawn(async move { fetcher.fetch(&items, "", None).await })
    };
    let (first, jobs) = (job(), [job(), job(), job(), job()]);
    wait_until("one asked", || count.load(Ordering::Relaxed) > 0);
    // Whoever began it goes away; the others still get it.
    first.abort();
    open.store(true, Ordering::Relaxed);
    for job in jobs {
        let fetched = node.runtime.block_on(job).unwrap().unwrap();
        put(
            &node.sandbox(),
            &fetched,
            gantry_fetch::Bounds::default(),
            None,
        )
        .unwrap();
        assert_eq!(fs::read(node.sandbox().join("f")).unwrap(), [5; 1_000_000]);
    }
    // The one that went away may have been the only one for a moment.
    assert!(count.load(Ordering::Relaxed) <= 2);
    assert_eq!(entries(&node).len(), 1);
}

#[test]
fn users_do_not_share_an_entry() {
    let (_, server) = Served::start(b"one", "\"1\"");
    let node = Node::new(&[&server.host]);
    for user in ["", "web"] {
        node.fetch_by(user, &[cached(server.url("/f"))], None)
            .unwrap();
    }
    let requests = server.requests();
    assert_eq!(
        (requests.len(), requests[1].header("if-none-match")),
        (2, None)
    );
    assert_eq!(entries(&node).len(), 2);
}

#[test]
fn what_does_not_fit_or_has_no_size_is_fetched_without_the_cache() {
    let (served, server) = Served::start(&[1; 600], "\"1\"");
    let node = Node::with(&[&server.host], |config| config.cache_bytes = 1_000);
    let run = |path: &str| node.run(&[cached(server.url(path))]).unwrap();
    run("/a");
    run("/b");
    assert_eq!(entries(&node).len(), 1, "the older one went");
    served.set(&[2; 2_000], "\"2\"");
    run("/c");
    assert_eq!(fs::read(node.sandbox().join("c")).unwrap(), [2; 2_000]);
    served.set(&[3; 100], "endless");
    run("/d");
    assert_eq!(fs::read(node.sandbox().join("d")).unwrap(), [3; 100]);
    assert_eq!(entries(&node).len(), 1);
    // One that is in use does not go: the next one is fetched beside the cache.
    served.set(&[4; 600], "\"4\"");
    let held = node.fetch(&[cached(server.url("/b"))]).unwrap();
    run("/e");
    assert_eq!(fs::read(node.sandbox().join("e")).unwrap(), [4; 600]);
    put(
        &node.sandbox(),
        &held,
        gantry_fetch::Bounds::default(),
        None,
    )
    .unwrap();
    assert_eq!(fs::read(node.sandbox().join("b")).unwrap(), [4; 600]);
}

#[test]
fn whatever_happens_to_the_directory_the_file_is_fetched() {
    let (_, server) = Served::start(b"one", "\"1\"");
    let node = Node::new(&[&server.host]);
    let run = || {
        let _ = fs::remove_file(node.sandbox().join("f"));
        node.run(&[cached(server.url("/f"))]).unwrap();
        assert_eq!(node.text("f"), "one");
    };
    run();
    for entry in entries(&node) {
        fs::remove_file(entry).unwrap();
    }
    run();
    run();
    fs::remove_dir_all(node.dir.path().join("fetch/cache")).unwrap();
    run();
    fs::write(node.dir.path().join("fetch/cache"), "a file now").unwrap();
    run();
}

/// Ends of a former life: between any two writes there may have been a crash.
#[test]
fn it_survives_a_restart_and_what_a_crash_tore_is_fetched_again() {
    let (_, server) = Served::start(b"one", "\"1\"");
    let node = Node::new(&[&server.host]);
    node.run(&[cached(server.url("/f"))]).unwrap();
    let node = node.restarted(&[&server.host]);
    node.run(&[cached(server.url("/f"))]).unwrap();
    let last = |server: &Server| server.requests().pop().unwrap();
    assert_eq!(last(&server).header("if-none-match"), Some("\"1\""));
    // The same size, other bytes: as after a power cut.
    fs::write(&entries(&node)[0], "\0\0\0").unwrap();
    let node = node.restarted(&[&server.host]);
    node.run(&[cached(server.url("/f"))]).unwrap();
    assert_eq!(
        (
            last(&server).header("if-none-match"),
            node.text("f").as_str()
        ),
        (None, "one")
    );
    // Half a download, and half a direct one.
    let fetch = node.dir.path().join("fetch");
    fs::write(fetch.join("cache/0-9.part"), "x").unwrap();
    fs::write(fetch.join("parts/0"), "x").unwrap();
    let node = node.restarted(&[&server.host]);
    assert_eq!(fs::read_dir(fetch.join("cache")).unwrap().count(), 2);
    assert_eq!(fs::read_dir(fetch.join("parts")).unwrap().count(), 0);
    drop(node);
}

#[test]
fn no_credential_is_on_the_disk() {
    let (_, server) = Served::start(b"one", "\"1\"");
    let node = Node::new(&[&server.host]);
    let uri = format!("http://me:hunter2@{}/f?token=hunter2", server.host);
    node.run(&[cached(uri)]).unwrap();
    for file in fs::read_dir(node.dir.path().join("fetch/cache")).unwrap() {
        let path = file.unwrap().path();
        let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
        assert!(!text.contains("hunter2") && !path.display().to_string().contains("hunter2"));
    }
}
