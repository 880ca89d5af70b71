//! A node with a fetcher, and a sandbox to place things in.

use std::error::Error as _;
use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use gantry_fetch::{
    Bounds, Config, FetchError, Fetched, Fetcher, Item, Owner, Place, ProgressFn, place,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Whose tasks' files are.
pub(crate) const OWNER: Owner = Owner {
    uid: 12_345,
    gid: 23_456,
};

pub(crate) struct Node {
    pub(crate) dir: TempDir,
    pub(crate) fetcher: Fetcher,
    pub(crate) runtime: Runtime,
}

impl Node {
    /// `hosts` may be fetched from although they are this machine.
    pub(crate) fn new(hosts: &[&str]) -> Self {
        Self::with(hosts, |_| {})
    }

    pub(crate) fn with(hosts: &[&str], change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        for part in ["sandbox", "files"] {
            fs::create_dir(dir.path().join(part)).unwrap();
        }
        let mut config = Config {
            hosts: hosts.iter().map(|&host| host.to_owned()).collect(),
            local: vec![dir.path().join("files")],
            frameworks_home: Some(dir.path().join("files")),
            ..Config::default()
        };
        change(&mut config);
        let fetcher = Fetcher::open(&dir.path().join("fetch"), config).unwrap();
        Self {
            dir,
            fetcher,
            runtime: Runtime::new().unwrap(),
        }
    }

    /// The same node after a restart.
    pub(crate) fn restarted(self, hosts: &[&str]) -> Self {
        let config = Config {
            hosts: hosts.iter().map(|&host| host.to_owned()).collect(),
            ..Config::default()
        };
        let Self { dir, fetcher, .. } = self;
        drop(fetcher);
        let fetcher = Fetcher::open(&dir.path().join("fetch"), config).unwrap();
        Self {
            dir,
            fetcher,
            runtime: Runtime::new().unwrap(),
        }
    }

    pub(crate) fn sandbox(&self) -> PathBuf {
        self.dir.path().join("sandbox")
    }

    /// A file of the node that tasks may have; its name is one below the home of frameworks.
    pub(crate) fn file(&self, name: &str, content: &[u8]) -> String {
        fs::write(self.dir.path().join("files").join(name), content).unwrap();
        name.to_owned()
    }

    pub(crate) fn fetch(&self, items: &[Item]) -> Result<Vec<Fetched>, String> {
        self.fetch_by("", items, None)
    }

    pub(crate) fn fetch_by(
        &self,
        user: &str,
        items: &[Item],
        progress: Option<&ProgressFn>,
    ) -> Result<Vec<Fetched>, String> {
        let fetched = self.fetcher.fetch(items, user, progress);
        self.runtime
            .block_on(fetched)
            .map_err(|error| words(&error))
    }

    /// Fetches and places.
    pub(crate) fn run(&self, items: &[Item]) -> Result<(), String> {
        self.run_within(items, Bounds::default(), None)
    }

    pub(crate) fn run_within(
        &self,
        items: &[Item],
        bounds: Bounds,
        limit_bytes: Option<u64>,
    ) -> Result<(), String> {
        let fetched = self.fetch(items)?;
        put(&self.sandbox(), &fetched, bounds, limit_bytes)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        fs::read_to_string(self.sandbox().join(name)).unwrap()
    }
}

pub(crate) fn put(
    sandbox: &Path,
    fetched: &[Fetched],
    bounds: Bounds,
    limit_bytes: Option<u64>,
) -> Result<(), String> {
    let sandbox = File::open(sandbox).unwrap();
    let cancel = AtomicBool::new(false);
    let to = Place {
        sandbox: sandbox.as_fd(),
        owner: OWNER,
        limit_bytes,
        bounds,
        cancel: &cancel,
    };
    place(fetched, &to).map_err(|error| words(&error))
}

/// The whole chain, as the agent says it.
pub(crate) fn words(error: &FetchError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// Extracted, as Marathon's default is.
pub(crate) fn item(uri: impl Into<String>) -> Item {
    Item {
        uri: uri.into(),
        extract: true,
        ..Item::default()
    }
}

pub(crate) fn cached(uri: impl Into<String>) -> Item {
    Item {
        cache: true,
        ..item(uri)
    }
}

/// Runs a tool in `dir`; it must succeed.
pub(crate) fn sh(dir: &Path, script: &str) {
    let done = Command::new("sh")
        .args(["-ec", script])
        .current_dir(dir)
        .output();
    let done = done.unwrap();
    assert!(
        done.status.success(),
        "{script}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
}

/// Everything below `dir` belongs to the task, and nothing has a set-id bit or is a device.
pub(crate) fn assert_owned(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let metadata = path.symlink_metadata().unwrap();
        assert_eq!(
            (metadata.uid(), metadata.gid()),
            (OWNER.uid, OWNER.gid),
            "{path:?}"
        );
        assert_eq!(metadata.permissions().mode() & 0o7000, 0, "{path:?}");
        let kind = metadata.file_type();
        assert!(
            kind.is_file() || kind.is_dir() || kind.is_symlink(),
            "{path:?}"
        );
        if kind.is_dir() {
            assert_owned(&path);
        }
    }
}

/// Polls until `is_so`, for half a minute.
pub(crate) fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < until, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
