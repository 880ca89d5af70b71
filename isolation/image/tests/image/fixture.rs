//! A registry, image layouts, and a view of stacked layers as a container would see them.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Runs a program and returns what it printed.
pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|error| panic!("{program} cannot be run, is it installed? {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Waits until `condition` holds.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not within 20 s");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A directory that is gone when dropped, even if a store's background sync still writes into it.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap().keep())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(5);
        while std::fs::remove_dir_all(&self.0).is_err()
            && self.0.exists()
            && Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Debian's registry on a loopback port of its own; dropping it stops it.
pub(crate) struct Registry {
    pub(crate) host: String,
    dir: Scratch,
    child: Option<Child>,
}

impl Registry {
    pub(crate) fn start() -> Self {
        let dir = Scratch::new();
        let host = {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().to_string()
        };
        let mut registry = Self {
            host,
            dir,
            child: None,
        };
        registry.restart("", "");
        registry
    }

    /// Starts it (again) over the same images, with more lines below `http:` and at the top.
    pub(crate) fn restart(&mut self, http: &str, top: &str) {
        self.stop();
        let config = self.dir.path().join("config.yml");
        let storage = self.dir.path().join("storage");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp:\n  addr: \"{}\"\n{http}{top}",
            storage.display(),
            self.host
        );
        std::fs::write(&config, text).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is installed");
        self.child = Some(child);
        until("the registry listens", || {
            TcpStream::connect(&self.host).is_ok()
        });
    }

    pub(crate) fn scratch(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Pushes a layout's image and returns the reference to pull.
    pub(crate) fn push(&self, layout: &Layout, name: &str) -> String {
        let target = format!("docker://{}/{name}", self.host);
        run(
            "skopeo",
            &[
                "copy",
                "-q",
                "--dest-tls-verify=false",
                &format!("oci:{}", layout.image()),
                &target,
            ],
        );
        format!("{}/{name}", self.host)
    }

    /// The file in which the registry keeps a blob.
    pub(crate) fn blob_file(&self, hex: &str) -> PathBuf {
        let blobs = self
            .dir
            .path()
            .join("storage/docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(hex).join("data")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}

/// An image being built by umoci.
pub(crate) struct Layout {
    dir: PathBuf,
}

impl Layout {
    pub(crate) fn new(scratch: &Path, name: &str) -> Self {
        let layout = Self {
            dir: scratch.join(name),
        };
        run(
            "umoci",
            &["init", "--layout", &layout.dir.display().to_string()],
        );
        run("umoci", &["new", "--image", &layout.image()]);
        layout
    }

    pub(crate) fn image(&self) -> String {
        format!("{}:latest", self.dir.display())
    }

    /// Adds a layer with whatever `change` does to the root filesystem.
    pub(crate) fn layer(&self, change: impl FnOnce(&Path)) {
        let bundle = self.dir.with_extension("bundle");
        let path = bundle.display().to_string();
        run("umoci", &["unpack", "--image", &self.image(), &path]);
        change(&bundle.join("rootfs"));
        run("umoci", &["repack", "--image", &self.image(), &path]);
        std::fs::remove_dir_all(bundle).unwrap();
    }

    /// Adds a layer that puts `source` at `target` and hides what was below it.
    pub(crate) fn insert_opaque(&self, source: &Path, target: &str) {
        run(
            "umoci",
            &[
                "insert",
                "--image",
                &self.image(),
                "--opaque",
                &source.display().to_string(),
                target,
            ],
        );
    }

    pub(crate) fn config(&self, flags: &[&str]) {
        run(
            "umoci",
            &[&["config", "--image", &self.image()], flags].concat(),
        );
    }

    /// What umoci says is in the image: the second opinion.
    pub(crate) fn listing(&self) -> String {
        let bundle = self.dir.with_extension("truth");
        run(
            "umoci",
            &[
                "unpack",
                "--image",
                &self.image(),
                &bundle.display().to_string(),
            ],
        );
        let listing = list(&bundle.join("rootfs"));
        std::fs::remove_dir_all(bundle).unwrap();
        listing
    }
}

/// Name, type, mode, owner, size of files, link target and time of everything in a directory.
pub(crate) fn list(dir: &Path) -> String {
    let script = format!("cd '{}' && {LIST}", dir.display());
    run("sh", &["-c", &script])
}

const LIST: &str = "find . -mindepth 1 \\( -type d -printf '%P %y %m %U:%G\\n' \\) -o -printf '%P %y %m %U:%G %s %l %T@\\n' | LC_ALL=C sort; \
     find . -type f -print0 | LC_ALL=C sort -z | xargs -0r sha256sum; getcap -r . 2>/dev/null || true";

/// The same of layers stacked by overlayfs, in a mount namespace that is gone afterwards.
pub(crate) fn list_stacked(layers: &[PathBuf], scratch: &Path) -> String {
    let dir = tempfile::tempdir_in(scratch).unwrap();
    for name in ["upper", "work", "merged"] {
        std::fs::create_dir(dir.path().join(name)).unwrap();
    }
    let lower: Vec<String> = layers
        .iter()
        .map(|layer| layer.display().to_string())
        .collect();
    let script = format!(
        "cd '{}' && mount -t overlay overlay -o 'lowerdir={},upperdir=upper,workdir=work' merged && cd merged && {LIST}",
        dir.path().display(),
        lower.join(":")
    );
    run("unshare", &["-m", "sh", "-ec", &script])
}
