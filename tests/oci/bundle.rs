//! A bundle around a static busybox, and the runtime with a state directory of its own. Dropped, it
//! looks for what containers left.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use gantry_tests::node::gantry_binary;
use serde_json::{Value, json};

/// Programs that tests run inside.
const APPLETS: [&str; 14] = [
    "sh", "cat", "sleep", "echo", "id", "true", "false", "ps", "env", "touch", "tty", "stty", "ls",
    "grep",
];

/// Mounts cgroup2 where the runtime looks, for it and its children alone.
const VIEW: &str =
    "umount -l /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec \"$@\"";

/// Fills a root file system.
pub(crate) fn fill(rootfs: &Path) {
    for dir in ["bin", "proc", "sys", "dev", "etc", "tmp"] {
        std::fs::create_dir_all(rootfs.join(dir)).unwrap();
    }
    std::fs::copy("/bin/busybox", rootfs.join("bin/busybox"))
        .expect("busybox-static is installed (make test installs it)");
    for applet in APPLETS {
        symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
    }
    std::fs::write(rootfs.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
}

/// The runtime under a name that engines can run.
pub(crate) fn link(dir: &Path) -> PathBuf {
    let path = dir.join("gantry-oci");
    symlink(gantry_binary(), &path).unwrap();
    path
}

/// One bundle and one container of it.
pub(crate) struct Bundle {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) id: String,
    pub(crate) config: Value,
    /// Whether the runtime sees a host that has nothing but the v2 tree of cgroups.
    pub(crate) in_v2_view: bool,
}

impl Bundle {
    /// As `spec` writes it, without a terminal, running `args`.
    pub(crate) fn new(name: &str, args: &[&str]) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("gantry-oci-")
            .tempdir()
            .unwrap();
        fill(&dir.path().join("rootfs"));
        let id = format!("{name}-{}", std::process::id());
        let mut bundle = Self {
            dir,
            id,
            config: Value::Null,
            in_v2_view: false,
        };
        let made = bundle
            .command(&["spec", "--bundle"])
            .arg(bundle.dir.path())
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let text = std::fs::read(bundle.dir.path().join("config.json")).unwrap();
        bundle.config = serde_json::from_slice(&text).unwrap();
        bundle.config["process"]["terminal"] = json!(false);
        bundle.config["process"]["args"] = json!(args);
        bundle.write();
        bundle
    }

    /// Writes the configuration after it was changed.
    pub(crate) fn write(&self) {
        let text = serde_json::to_vec(&self.config).unwrap();
        std::fs::write(self.dir.path().join("config.json"), text).unwrap();
    }

    /// A path in the test's directory.
    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_string_lossy().into_owned()
    }

    /// The runtime with these words.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = if self.in_v2_view {
            let mut command = Command::new("unshare");
            command.args(["-m", "--propagation", "private", "sh", "-c", VIEW, "sh"]);
            command.arg(gantry_binary());
            command
        } else {
            Command::new(gantry_binary())
        };
        command
            .args(["oci", "--root"])
            .arg(self.dir.path().join("state"));
        command.args(words).current_dir(self.dir.path());
        command
    }

    /// Runs it to its end. Not with pipes that a container would keep open.
    pub(crate) fn run(&self, words: &[&str]) -> Output {
        self.command(words).stdin(Stdio::null()).output().unwrap()
    }

    /// Runs it; it must succeed. Its stdout.
    pub(crate) fn ok(&self, words: &[&str]) -> String {
        let out = self.run(words);
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{words:?}: {}: {stderr}", out.status);
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    /// Makes the container, its output going to a file.
    pub(crate) fn create(&self) {
        let out = std::fs::File::create(self.dir.path().join("out")).unwrap();
        let status = self
            .command(&["create", "--pid-file", &self.path("pid"), &self.id])
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .status()
            .unwrap();
        assert!(status.success(), "{}", self.output());
    }

    /// What the container wrote.
    pub(crate) fn output(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("out")).unwrap_or_default()
    }

    /// `state`, parsed.
    pub(crate) fn state(&self) -> Value {
        serde_json::from_str(&self.ok(&["state", &self.id])).unwrap()
    }

    /// Waits until the status is this.
    pub(crate) fn await_status(&self, wanted: &str) {
        gantry_tests::poll::until(wanted, || {
            let state = self.state();
            if state["status"] == wanted {
                Ok(())
            } else {
                Err(state.to_string())
            }
        });
    }

    /// What is left of the container on this machine.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut look = vec![PathBuf::from("/sys/fs/cgroup")];
        while let Some(dir) = look.pop() {
            for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
                if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    continue;
                }
                if entry.file_name().to_string_lossy() == self.id {
                    found.push(entry.path().display().to_string());
                }
                look.push(entry.path());
            }
        }
        let state = self.dir.path().join("state").join(&self.id);
        found.extend(state.exists().then(|| state.display().to_string()));
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let here = self.dir.path().to_string_lossy().into_owned();
        found.extend(
            mounts
                .lines()
                .filter(|line| line.contains(&here))
                .map(str::to_owned),
        );
        found
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = self.run(&["delete", "--force", &self.id]);
    }
}
