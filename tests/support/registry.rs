//! A real registry (Debian's `docker-registry`) on an ephemeral loopback port, and real images made
//! with `umoci` and pushed with `skopeo`.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::kernel::run;
use crate::poll::until;

/// A running registry; dropping it stops it.
pub struct Registry {
    /// `127.0.0.1:port`.
    pub host: String,
    dir: tempfile::TempDir,
    child: Option<Child>,
}

impl Registry {
    /// Starts the registry and waits until it accepts connections.
    pub fn start() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("gantry-registry-")
            .tempdir()
            .expect("a dir");
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let host = listener.local_addr().expect("an address").to_string();
        drop(listener);
        let config = dir.path().join("config.yml");
        let storage = dir.path().join("storage");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem:\n    \
             rootdirectory: {}\nhttp:\n  addr: {host}\n",
            storage.display()
        );
        std::fs::write(&config, text).expect("the config is written");
        let mut registry = Self {
            host,
            dir,
            child: None,
        };
        registry.resume();
        registry
    }

    /// Kills it, as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again over the same images, where it was.
    pub fn resume(&mut self) {
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(self.dir.path().join("config.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is installed (make test installs it)");
        self.child = Some(child);
        until("the registry accepts connections", || {
            TcpStream::connect(&self.host)
                .map(drop)
                .map_err(|e| e.to_string())
        });
    }

    /// A scratch directory that lives as long as the registry.
    pub fn scratch(&self) -> &Path {
        self.dir.path()
    }

    /// Pushes the image `tag` of an OCI layout as `name` and returns its reference.
    pub fn push(&self, layout: &Layout, name: &str) -> String {
        let reference = format!("{}/{name}", self.host);
        let source = format!("oci:{}", layout.tagged());
        let target = format!("docker://{reference}");
        run(
            "skopeo",
            &["copy", "-q", "--dest-tls-verify=false", &source, &target],
        );
        reference
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An image under construction in an OCI layout.
pub struct Layout {
    dir: PathBuf,
}

impl Layout {
    /// An empty image.
    pub fn new(dir: &Path, name: &str) -> Self {
        let layout = Self {
            dir: dir.join(name),
        };
        run(
            "umoci",
            &["init", "--layout", &layout.dir.to_string_lossy()],
        );
        run("umoci", &["new", "--image", &layout.tagged()]);
        layout
    }

    fn tagged(&self) -> String {
        format!("{}:latest", self.dir.display())
    }

    /// Adds one layer: whatever `change` does to the unpacked root filesystem.
    pub fn layer(&self, change: impl FnOnce(&Path)) {
        let bundle = self.dir.with_extension("bundle");
        let bundle_text = bundle.to_string_lossy().into_owned();
        run(
            "umoci",
            &["unpack", "--image", &self.tagged(), &bundle_text],
        );
        change(&bundle.join("rootfs"));
        run(
            "umoci",
            &["repack", "--image", &self.tagged(), &bundle_text],
        );
        std::fs::remove_dir_all(&bundle).expect("the bundle is removed");
    }

    /// Sets configuration, by `umoci config` flags.
    pub fn config(&self, flags: &[&str]) {
        let tagged = self.tagged();
        let mut args = vec!["config", "--image", &tagged];
        args.extend_from_slice(flags);
        run("umoci", &args);
    }
}

/// Copies a program of this machine and the libraries it needs into a root filesystem.
pub fn install_program(root: &Path, program: &str) {
    let mut files = vec![program.to_owned()];
    for line in run("ldd", &[program]).lines() {
        files.extend(
            line.split_whitespace()
                .find(|w| w.starts_with('/'))
                .map(str::to_owned),
        );
    }
    for file in files {
        let target = root.join(file.trim_start_matches('/'));
        std::fs::create_dir_all(target.parent().expect("a file has a parent")).expect("a folder");
        std::fs::copy(&file, &target).unwrap_or_else(|e| panic!("{file}: {e}"));
    }
}
