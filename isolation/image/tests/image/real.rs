//! Debian's docker-registry, images by umoci, pushed by skopeo.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::sync::{Arc, Mutex};

use gantry_image::{LayerState, Progress, PullOptions, Reference, Store};

use crate::fixture::{Layout, Registry, list_stacked, run};

/// Four layers: files, a whiteout of a file and of a directory, an opaque directory, a user.
pub(crate) fn varied(registry: &Registry, name: &str) -> Layout {
    let layout = Layout::new(registry.scratch(), name);
    layout.layer(|root| {
        for dir in ["etc", "usr/lib", "data/old", "opaque", "tmp", "home/app"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        symlink("usr/lib", root.join("lib")).unwrap();
        symlink("/etc/name", root.join("absolute")).unwrap();
        for (file, content) in [
            (
                "etc/passwd",
                "root:x:0:0::/:/bin/sh\napp:x:1001:1002::/home/app:/bin/sh\n",
            ),
            ("etc/name", "first"),
            ("etc/gone", "gone"),
            ("data/old/a", "a"),
            ("data/kept", "kept"),
            ("opaque/hidden", "hidden"),
            ("usr/lib/lib.so", "lib"),
        ] {
            fs::write(root.join(file), content).unwrap();
        }
        fs::write(root.join("su"), "su").unwrap();
        fs::set_permissions(root.join("su"), fs::Permissions::from_mode(0o4755)).unwrap();
        fs::hard_link(root.join("su"), root.join("su2")).unwrap();
        chown(root.join("home/app"), Some(1001), Some(1002)).unwrap();
    });
    layout.layer(|root| {
        fs::write(root.join("etc/name"), "second").unwrap();
        fs::remove_file(root.join("etc/gone")).unwrap();
        fs::remove_dir_all(root.join("data/old")).unwrap();
        fs::write(root.join("home/app/file"), "mine").unwrap();
        chown(root.join("home/app/file"), Some(1001), Some(1002)).unwrap();
    });
    let fresh = registry.scratch().join(format!("{name}-fresh"));
    fs::create_dir(&fresh).unwrap();
    fs::write(fresh.join("seen"), "seen").unwrap();
    layout.insert_opaque(&fresh, "/opaque");
    layout.layer(|root| fs::write(root.join("top"), "top").unwrap());
    layout.config(&[
        "--config.user=app",
        "--config.workingdir=/home/app",
        "--config.entrypoint=/bin/echo",
        "--config.entrypoint=-n",
        "--config.cmd=hello world",
        "--config.env=COLOUR=red",
        "--config.exposedports=80/tcp",
        "--config.label=a=b",
        "--config.stopsignal=SIGQUIT",
    ]);
    layout
}

fn assert_config(config: &gantry_image::ImageConfig) {
    assert_eq!(config.entrypoint, ["/bin/echo", "-n"]);
    assert_eq!(config.cmd, ["hello world"]);
    assert!(
        config.env.contains(&"COLOUR=red".to_owned()),
        "{:?}",
        config.env
    );
    assert_eq!(config.working_dir.as_deref(), Some("/home/app"));
    assert_eq!(config.user.as_deref(), Some("app"));
    assert_eq!(config.stop_signal.as_deref(), Some("SIGQUIT"));
    assert_eq!(config.exposed, ["80/tcp"]);
    assert_eq!(config.labels.get("a").map(String::as_str), Some("b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_several_layers() {
    let mut registry = Registry::start();
    let layout = varied(&registry, "varied");
    let name = registry.push(&layout, "team/varied:1.0");
    let dir = registry.scratch().join("store");
    let store = Store::open(&dir).unwrap();
    let reference = Reference::parse(&name).unwrap();
    assert_eq!(store.local(&reference).await, None);

    let reports = Arc::new(Mutex::new(Vec::<Progress>::new()));
    let seen = Arc::clone(&reports);
    let options = PullOptions {
        progress: Some(Arc::new(move |report: &Progress| {
            seen.lock().unwrap().push(report.clone());
        })),
        ..PullOptions::default()
    };
    let image = store.pull(&reference, options).await.unwrap();

    assert!(image.layers.len() >= 4);
    assert_eq!(
        list_stacked(&image.layers, registry.scratch()),
        layout.listing()
    );
    assert_config(&image.config);
    {
        let reports = reports.lock().unwrap();
        let last = reports.last().unwrap();
        assert!(
            reports.len() >= 2 && last.done_bytes() == last.total_bytes(),
            "{last:?}"
        );
        assert!(
            last.layers
                .iter()
                .all(|layer| layer.state == LayerState::Done),
            "{last:?}"
        );
    }

    // From here on without the registry: by tag, by digest (even forced), and after a restart.
    registry.stop();
    let pinned = reference.pinned(image.digest);
    let forced = || PullOptions {
        force: true,
        ..PullOptions::default()
    };
    assert_eq!(
        store
            .pull(&reference, PullOptions::default())
            .await
            .unwrap(),
        image
    );
    assert_eq!(store.pull(&pinned, forced()).await.unwrap(), image);
    let error = store
        .pull(&reference, forced())
        .await
        .unwrap_err()
        .message();
    assert!(error.contains("refused the connection"), "{error}");
    drop(store);
    let store = reopen(&dir).await;
    assert_eq!(store.local(&reference).await, Some(image));
}

/// The background sync may hold the old store for a moment.
async fn reopen(dir: &std::path::Path) -> Store {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        match Store::open(dir) {
            Ok(store) => return store,
            Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_image_fetches_only_what_is_new() {
    let registry = Registry::start();
    let layout = varied(&registry, "base");
    let first = Reference::parse(&registry.push(&layout, "base:1")).unwrap();
    layout.layer(|root| fs::write(root.join("more"), "more").unwrap());
    let second = Reference::parse(&registry.push(&layout, "other/derived:1")).unwrap();
    let store = Store::open(&registry.scratch().join("store")).unwrap();
    let one = store.pull(&first, PullOptions::default()).await.unwrap();
    let last = Arc::new(Mutex::new(None));
    let seen = Arc::clone(&last);
    let progress: gantry_image::ProgressFn =
        Arc::new(move |report: &Progress| *seen.lock().unwrap() = Some(report.clone()));
    let options = PullOptions {
        progress: Some(progress),
        ..PullOptions::default()
    };
    let two = store.pull(&second, options).await.unwrap();
    let layers = |image: &gantry_image::Image| -> Vec<_> {
        let is_patch = |path: &&std::path::PathBuf| path.display().to_string().contains("patch-");
        image
            .layers
            .iter()
            .filter(|path| !is_patch(path))
            .cloned()
            .collect()
    };
    assert_eq!(layers(&two)[1..], layers(&one)[..]);
    let states: Vec<LayerState> = last
        .lock()
        .unwrap()
        .take()
        .unwrap()
        .layers
        .iter()
        .map(|layer| layer.state)
        .collect();
    let present = LayerState::Present;
    assert_eq!(
        states,
        [present, present, present, present, LayerState::Done]
    );
    assert_eq!(
        list_stacked(&two.layers, registry.scratch()),
        layout.listing()
    );
}

/// Docker's schema 2, as skopeo converts it, has the same content under another manifest.
#[tokio::test(flavor = "multi_thread")]
async fn docker_schema_2() {
    let registry = Registry::start();
    let layout = varied(&registry, "docker");
    let target = format!("docker://{}/docker:2", registry.host);
    let source = format!("oci:{}", layout.image());
    run(
        "skopeo",
        &[
            "copy",
            "-q",
            "-f",
            "v2s2",
            "--dest-tls-verify=false",
            &source,
            &target,
        ],
    );
    let reference = Reference::parse(&format!("{}/docker:2", registry.host)).unwrap();
    let store = Store::open(&registry.scratch().join("store")).unwrap();
    let image = store
        .pull(&reference, PullOptions::default())
        .await
        .unwrap();
    assert_eq!(
        list_stacked(&image.layers, registry.scratch()),
        layout.listing()
    );
    assert_eq!(image.config.user.as_deref(), Some("app"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there() {
    let registry = Registry::start();
    let layout = varied(&registry, "there");
    registry.push(&layout, "there:1");
    let store = Store::open(&registry.scratch().join("store")).unwrap();
    let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    for name in [
        "there:2".to_owned(),
        "elsewhere:1".to_owned(),
        format!("there@{digest}"),
    ] {
        let reference = Reference::parse(&format!("{}/{name}", registry.host)).unwrap();
        let error = store
            .pull(&reference, PullOptions::default())
            .await
            .unwrap_err();
        let message = error.message();
        assert!(
            message.contains("not found at 127.0.0.1:") && message.contains(&name),
            "{message}"
        );
        assert!(error.is_permanent());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupted_blob_is_refused() {
    let registry = Registry::start();
    let layout = varied(&registry, "corrupt");
    let name = registry.push(&layout, "corrupt:1");
    let inspected = run(
        "skopeo",
        &[
            "inspect",
            "--raw",
            "--tls-verify=false",
            &format!("docker://{name}"),
        ],
    );
    let manifest: serde_json::Value = serde_json::from_str(&inspected).unwrap();
    let hex = |value: &serde_json::Value| {
        value
            .as_str()
            .unwrap()
            .trim_start_matches("sha256:")
            .to_owned()
    };
    let dir = registry.scratch().join("store");
    let reference = Reference::parse(&name).unwrap();
    let digests = [
        &manifest["layers"][1]["digest"],
        &manifest["config"]["digest"],
    ];
    for digest in digests.map(hex) {
        let file = registry.blob_file(&digest);
        let good = fs::read(&file).unwrap();
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 0x40;
        fs::write(&file, bad).unwrap();
        let store = reopen(&dir).await;
        let error = store
            .pull(&reference, PullOptions::default())
            .await
            .unwrap_err()
            .message();
        assert!(
            error.contains("wrong content") || error.contains("could not be read"),
            "{error}"
        );
        assert_eq!(store.local(&reference).await, None);
        drop(store);
        fs::write(&file, good).unwrap();
    }
    let store = reopen(&dir).await;
    let image = store
        .pull(&reference, PullOptions::default())
        .await
        .unwrap();
    assert_eq!(
        list_stacked(&image.layers, registry.scratch()),
        layout.listing()
    );
}

/// What skopeo compresses with zstd is the same image.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_zstd_layers() {
    let registry = Registry::start();
    let layout = varied(&registry, "zstd");
    let host = &registry.host;
    let (from, to) = (
        format!("oci:{}", layout.image()),
        format!("docker://{host}/team/zstd:1"),
    );
    let flags = ["--dest-tls-verify=false", "--dest-compress-format=zstd"];
    let args = [
        &["copy", "-q"][..],
        &flags,
        &["--dest-compress", &from, &to],
    ];
    run("skopeo", &args.concat());
    let manifest = run("skopeo", &["inspect", "--raw", "--tls-verify=false", &to]);
    assert!(manifest.contains("tar+zstd"), "{manifest}");
    let store = Store::open(&registry.scratch().join("store")).unwrap();
    let reference = Reference::parse(&format!("{host}/team/zstd:1")).unwrap();
    let image = store
        .pull(&reference, PullOptions::default())
        .await
        .unwrap();
    assert_eq!(
        list_stacked(&image.layers, registry.scratch()),
        layout.listing()
    );
}
