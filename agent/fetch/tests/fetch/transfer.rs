//! Servers: what they are asked, where they may lead, how they break, and what is said of it.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gantry_fetch::{Item, Progress, ProgressFn};

use crate::fixture::{Node, item, wait_until};
use crate::server::{Server, redirect, send, status, whole};

/// 3 MB that are different everywhere.
fn content() -> &'static [u8] {
    static CONTENT: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    CONTENT.get_or_init(|| (0..750_000_u32).flat_map(u32::to_le_bytes).collect())
}

fn sha256(bytes: &[u8]) -> String {
    gantry_intake::Digest::of(bytes).to_string()
}

#[test]
fn a_file_from_a_server_with_progress() {
    let server = Server::of(content());
    let node = Node::new(&[&server.host]);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&seen);
    let progress: ProgressFn = Arc::new(move |p: &Progress| told.lock().unwrap().push(p.clone()));
    let uri = format!("http://me:secret@{}/dir/f.bin?sig=secret", server.host);
    let fetched = node.fetch_by("", &[item(&uri)], Some(&progress)).unwrap();
    crate::fixture::put(&node.sandbox(), &fetched, Default::default(), None).unwrap();
    assert_eq!(
        std::fs::read(node.sandbox().join("f.bin")).unwrap(),
        content()
    );
    let last = seen.lock().unwrap().last().unwrap().clone();
    assert_eq!((last.received, last.of), (3_000_000, Some(3_000_000)));
    assert_eq!(
        last.to_string(),
        format!("Fetching '{}?…': 3 of 3 MB", server.url("/dir/f.bin"))
    );
    let request = &server.requests()[0];
    assert_eq!(request.path, "/dir/f.bin?sig=secret");
    assert_eq!(request.header("authorization"), Some("Basic bWU6c2VjcmV0"));
    // Nothing is left of a download that was placed.
    let parts = node.dir.path().join("fetch/parts");
    assert_eq!(std::fs::read_dir(parts).unwrap().count(), 0);
}

#[test]
fn a_checksum_is_compared() {
    let server = Server::of(b"content");
    let node = Node::new(&[&server.host]);
    let with = |uri: &str, sha256: &str| Item {
        sha256: Some(sha256.into()),
        ..item(uri)
    };
    let (right, wrong) = (sha256(b"content"), sha256(b"other"));
    let local = node.file("local", b"content");
    for uri in [server.url("/f"), local] {
        for fine in [
            &right,
            right.strip_prefix("sha256:").unwrap(),
            &right.to_uppercase(),
        ] {
            node.run(&[with(&uri, fine)]).unwrap();
        }
        let error = node.run(&[with(&uri, &wrong)]).unwrap_err();
        assert!(error.ends_with(&format!("its content has the digest {right}, not {wrong}")));
        let asked = server.requests().len();
        let error = node.run(&[with(&uri, "md5:1234")]).unwrap_err();
        assert!(error.contains("its checksum is none"), "{error}");
        assert_eq!(server.requests().len(), asked);
    }
}

/// Sends `content` from where it is asked for, and breaks off after at most `piece` bytes.
fn breaking(
    content: &'static [u8],
    piece: usize,
    tag: impl Fn(usize) -> String + Send + Sync + 'static,
) -> Server {
    let count = AtomicUsize::new(0);
    Server::start(move |request, stream| {
        let tag = tag(count.fetch_add(1, Ordering::Relaxed));
        let same = request.header("if-range") == Some(tag.as_str());
        let from = request.from().filter(|_| same).unwrap_or(0);
        let rest = &content[from..];
        let mut headers = vec![
            format!("content-length: {}", rest.len()),
            format!("etag: {tag}"),
        ];
        let line = if from > 0 {
            let (last, all) = (content.len() - 1, content.len());
            headers.push(format!("content-range: bytes {from}-{last}/{all}"));
            "206 Partial Content"
        } else {
            "200 OK"
        };
        send(stream, line, &headers, &rest[..rest.len().min(piece)]);
    })
}

#[test]
fn a_broken_download_goes_on_where_it_stopped() {
    let server = breaking(content(), 1_000_000, |_| "\"v1\"".into());
    let node = Node::new(&[&server.host]);
    node.run(&[Item {
        sha256: Some(sha256(content())),
        ..item(server.url("/f"))
    }])
    .unwrap();
    let requests = server.requests();
    assert!((3..6).contains(&requests.len()), "{}", requests.len());
    let asked: Vec<_> = requests.iter().map(crate::server::Request::from).collect();
    assert!(
        asked[0].is_none() && asked[1..].iter().all(Option::is_some),
        "{asked:?}"
    );
    assert_eq!(requests[1].header("if-range"), Some("\"v1\""));
}

#[test]
fn a_file_that_changed_meanwhile_begins_anew() {
    // The first part is of another version.
    let server = Server::start(move |request, stream| {
        if request.from().is_none() {
            let headers = [
                "content-length: 3000000".to_owned(),
                "etag: \"old\"".to_owned(),
            ];
            send(stream, "200 OK", &headers, &[7; 100_000]);
        } else {
            assert_eq!(request.header("if-range"), Some("\"old\""));
            whole(stream, content(), "\"new\"");
        }
    });
    let node = Node::new(&[&server.host]);
    node.run(&[item(server.url("/f"))]).unwrap();
    assert_eq!(std::fs::read(node.sandbox().join("f")).unwrap(), content());
}

#[test]
fn without_a_tag_a_broken_file_begins_anew_unless_a_checksum_says_what_it_is() {
    let serve = || {
        let count = AtomicUsize::new(0);
        Server::start(move |request, stream| {
            let from = request.from().unwrap_or(0);
            let rest = &content()[from..];
            let first = count.fetch_add(1, Ordering::Relaxed) == 0;
            let length = if first { 100_000 } else { rest.len() };
            let mut headers = vec![format!("content-length: {}", rest.len())];
            let all = content().len();
            headers.push(format!("content-range: bytes {from}-{}/{all}", all - 1));
            let line = if from > 0 {
                "206 Partial Content"
            } else {
                "200 OK"
            };
            send(stream, line, &headers, &rest[..length]);
        })
    };
    for (pinned, resumed) in [(None, false), (Some(sha256(content())), true)] {
        let server = serve();
        let node = Node::new(&[&server.host]);
        node.run(&[Item {
            sha256: pinned,
            ..item(server.url("/f"))
        }])
        .unwrap();
        assert_eq!(std::fs::read(node.sandbox().join("f")).unwrap(), content());
        assert_eq!(server.requests()[1].from().is_some(), resumed);
    }
}

#[test]
fn a_server_that_sends_wrong_parts_is_asked_for_all() {
    let server = Server::start(|request, stream| {
        let count = content().len();
        match (request.from(), request.header("if-range")) {
            (Some(_), _) => {
                let headers = [
                    format!("content-length: {count}"),
                    format!("content-range: bytes 0-{}/{count}", count - 1),
                ];
                send(stream, "206 Partial Content", &headers, content());
            }
            (None, _) if request.header("x").is_none() => {
                static FIRST: AtomicUsize = AtomicUsize::new(0);
                let is_first = FIRST.fetch_add(1, Ordering::Relaxed) == 0;
                let headers = [format!("content-length: {count}"), "etag: \"v\"".into()];
                let sent = if is_first { 50_000 } else { count };
                send(stream, "200 OK", &headers, &content()[..sent]);
            }
            _ => {}
        }
    });
    let node = Node::new(&[&server.host]);
    node.run(&[item(server.url("/f"))]).unwrap();
    assert_eq!(std::fs::read(node.sandbox().join("f")).unwrap(), content());
}

#[test]
fn a_server_that_only_breaks_is_given_up() {
    let server = Server::start(|_, stream| {
        send(stream, "200 OK", &["content-length: 100".into()], b"some");
    });
    let node = Node::new(&[&server.host]);
    let error = node.run(&[item(server.url("/f"))]).unwrap_err();
    assert!(
        error.contains(&server.host) && error.contains("broke off"),
        "{error}"
    );
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let node = Node::new(&["127.0.0.1"]);
    let error = node
        .run(&[item(format!("http://me:secret@{nobody}/f"))])
        .unwrap_err();
    let want = format!("fetching 'http://{nobody}/f': {nobody} refused the connection");
    assert!(error.starts_with(&want), "{error}");
}

#[test]
fn statuses_that_pass_and_those_that_do_not() {
    let server = Server::start(|request, stream| match request.path.as_str() {
        "/gone" => status(stream, "404 Not Found"),
        "/busy" => {
            static COUNT: AtomicUsize = AtomicUsize::new(0);
            if COUNT.fetch_add(1, Ordering::Relaxed) < 2 {
                status(stream, "503 Service Unavailable");
            } else {
                whole(stream, b"at last", "\"v\"");
            }
        }
        _ => status(stream, "500 Internal Server Error"),
    });
    let node = Node::new(&[&server.host]);
    node.run(&[item(server.url("/busy"))]).unwrap();
    assert_eq!(node.text("busy"), "at last");
    let error = node.run(&[item(server.url("/gone"))]).unwrap_err();
    assert!(error.ends_with("answered with status 404"), "{error}");
    let before = server.requests().len();
    let error = node.run(&[item(server.url("/broken"))]).unwrap_err();
    assert!(error.ends_with("answered with status 500"), "{error}");
    assert_eq!(server.requests().len(), before + 4);
}

#[test]
fn a_server_that_drips_is_given_up_and_a_slow_one_is_not() {
    let (dripping, slow) = (Duration::from_millis(400), Duration::from_millis(10));
    let server = Server::start(move |request, stream| {
        let pause = if request.path == "/slow" {
            slow
        } else {
            dripping
        };
        send(stream, "200 OK", &["content-length: 300".into()], b"");
        for _ in 0..300 {
            if stream.write_all(b"x").is_err() {
                return;
            }
            std::thread::sleep(pause);
        }
    });
    let node = Node::with(&[&server.host], |config| {
        config.stall = Duration::from_secs(3);
    });
    node.run(&[item(server.url("/slow"))]).unwrap();
    // Seven bytes in three seconds are enough; then make it need more than it gets.
    let node = Node::with(&[&server.host], |config| {
        config.stall = Duration::from_millis(300);
    });
    let began = Instant::now();
    let error = node.run(&[item(server.url("/drip"))]).unwrap_err();
    assert!(error.contains("less than a byte a second"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[test]
fn more_than_a_node_fetches() {
    let server = Server::start(|request, stream| match request.path.as_str() {
        "/said" => whole(stream, &[0; 2_000], "\"v\""),
        _ => send(stream, "200 OK", &[], &[0; 200_000]),
    });
    let node = Node::with(&[&server.host], |config| config.max_bytes = 1_000);
    for path in ["/said", "/unsaid"] {
        let error = node.run(&[item(server.url(path))]).unwrap_err();
        assert!(error.contains("larger than the 1000 bytes"), "{error}");
    }
}

#[test]
fn nothing_of_this_machine_is_fetched_unless_listed() {
    let server = Server::of(b"secret of the node");
    let port = server.host.rsplit(':').next().unwrap();
    let node = Node::new(&[]);
    for host in [
        "127.0.0.1",
        "localhost",
        "LOCALHOST.",
        "a.localhost",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
        "[::]",
        "169.254.169.254",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "100.100.100.200",
    ] {
        let error = node
            .run(&[item(format!("http://{host}:{port}/f"))])
            .unwrap_err();
        assert!(
            error.contains("does not fetch unless its operator"),
            "{host}: {error}"
        );
    }
    assert_eq!(server.requests().len(), 0);
    // Another port of a listed host is not listed.
    let node = Node::new(&["127.0.0.1:1"]);
    assert!(node.run(&[item(server.url("/f"))]).is_err());
    assert_eq!(server.requests().len(), 0);
}

/// A name that leads to this machine (here by the node's own name in /etc/hosts) is found out when
/// it is looked up.
#[test]
fn a_name_that_means_this_machine_is_not_fetched_from() {
    let server = Server::of(b"secret of the node");
    let port = server.host.rsplit(':').next().unwrap();
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap();
    let names = hosts
        .lines()
        .filter(|line| line.starts_with("127.") || line.starts_with("::1"));
    let names = names.flat_map(|line| line.split_whitespace().skip(1).map(str::to_owned));
    let node = Node::new(&[]);
    for name in names {
        let error = node
            .run(&[item(format!("http://{name}:{port}/f"))])
            .unwrap_err();
        assert!(error.starts_with("fetching"), "{name}: {error}");
    }
    assert_eq!(server.requests().len(), 0);
}

#[test]
fn redirects_are_followed_within_bounds() {
    let inner = Server::of(b"the node's own");
    let inner_url = inner.url("/v2/apps");
    let other = Server::of(b"elsewhere");
    let (other_host, other_url) = (other.host.clone(), other.url("/x"));
    let server = Server::start(move |request, stream| match request.path.as_str() {
        "/same" => redirect(stream, "/end"),
        "/end" => whole(stream, b"here", "\"v\""),
        "/other" => redirect(stream, &other_url),
        "/api" => redirect(stream, &inner_url),
        "/file" => redirect(stream, "file:///etc/shadow"),
        "/login" => redirect(stream, "http://a:b@example.org/"),
        "/metadata" => redirect(stream, "http://169.254.169.254/latest"),
        _ => redirect(stream, "/round"),
    });
    let node = Node::new(&[&server.host, &other_host]);
    let at = |path: &str| format!("http://me:secret@{}{path}", server.host);
    node.run(&[item(at("/same"))]).unwrap();
    assert_eq!(node.text("same"), "here");
    let asked = |server: &Server| {
        let requests = server.requests();
        requests
            .last()
            .unwrap()
            .header("authorization")
            .map(str::to_owned)
    };
    assert_eq!(asked(&server).as_deref(), Some("Basic bWU6c2VjcmV0"));
    node.run(&[item(at("/other"))]).unwrap();
    assert_eq!(
        (node.text("other").as_str(), asked(&other)),
        ("elsewhere", None)
    );
    for (path, why) in [
        ("/api", "redirects to a place that is this machine itself"),
        ("/file", "is neither http nor https"),
        ("/login", "carries a user or password"),
        ("/metadata", "is a link-local or otherwise special address"),
        ("/round", "more redirects than are followed"),
    ] {
        let error = node.run(&[item(at(path))]).unwrap_err();
        assert!(
            error.contains(why) && !error.contains("secret"),
            "{path}: {error}"
        );
    }
    assert_eq!(inner.requests().len(), 0);
}

#[test]
fn what_is_refused_by_its_words_is_refused_before_anything_is_fetched() {
    let server = Server::of(b"x");
    let node = Node::with(&[&server.host], |config| config.frameworks_home = None);
    for (uri, why) in [
        ("ftp://a.org/x", "the scheme 'ftp' is not supported"),
        ("hdfs://a/x", "the scheme 'hdfs' is not supported"),
        ("a/b", "no home of frameworks"),
        ("file://elsewhere/x", "another machine"),
        ("", "is empty"),
        ("http://a.org/", "names no file"),
    ] {
        let error = node.run(&[item(server.url("/f")), item(uri)]).unwrap_err();
        assert!(error.contains(why), "{uri}: {error}");
    }
    let many = vec![item(server.url("/f")); 257];
    let error = node.run(&many).unwrap_err();
    assert!(error.contains("no more than 256"), "{error}");
    assert_eq!(server.requests().len(), 0);
}

/// Dropping the future is what a kill does.
#[test]
fn a_fetch_that_is_dropped_stops_its_download() {
    let gone = Arc::new(AtomicUsize::new(0));
    let noticed = Arc::clone(&gone);
    let server = Server::start(move |_, stream| {
        send(
            stream,
            "200 OK",
            &["content-length: 1000000".into()],
            b"some",
        );
        // Returns when the other end closes.
        let _ = stream.read(&mut [0; 1]);
        noticed.fetch_add(1, Ordering::Relaxed);
    });
    let node = Node::new(&[&server.host]);
    for cache in [false, true] {
        let before = gone.load(Ordering::Relaxed);
        let (fetcher, asked) = (node.fetcher.clone(), server.requests().len());
        let items = [Item {
            cache,
            ..item(server.url("/f"))
        }];
        let job = node
            .runtime
            .spawn(async move { fetcher.fetch(&items, "", None).await.is_ok() });
        wait_until("it asked", || server.requests().len() > asked);
        job.abort();
        wait_until("it hung up", || gone.load(Ordering::Relaxed) > before);
    }
    let left = |dir: &str| {
        std::fs::read_dir(node.dir.path().join(dir))
            .unwrap()
            .count()
    };
    wait_until("nothing is left", || {
        left("fetch/cache") + left("fetch/parts") == 0
    });
}
