//! containerd with our runtime, through `ctr`.

use std::process::{Child, Command, Output, Stdio};

use gantry_tests::kernel::run;
use gantry_tests::poll::until;

use crate::bundle::{fill, link};

struct Containerd {
    dir: tempfile::TempDir,
    child: Child,
}

impl Containerd {
    fn start() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("gantry-ctr-")
            .tempdir()
            .unwrap();
        let at = dir.path().display();
        let config = format!(
            "version = 2\nroot = \"{at}/root\"\nstate = \"{at}/state\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = \"{at}/c.sock\"\n[ttrpc]\naddress = \"{at}/t.sock\"\n"
        );
        let file = dir.path().join("config.toml");
        std::fs::write(&file, config).unwrap();
        let child = Command::new("containerd")
            .arg("--config")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("containerd is installed (make test installs it)");
        let containerd = Self { dir, child };
        until("containerd answers", || {
            let out = containerd.ctr(&["version"]);
            if out.status.success() {
                Ok(())
            } else {
                Err(String::from_utf8_lossy(&out.stderr).into_owned())
            }
        });
        containerd
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_string_lossy().into_owned()
    }

    fn ctr(&self, words: &[&str]) -> Output {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.dir.path().join("c.sock"));
        command.args(words).stdin(Stdio::null()).output().unwrap()
    }

    fn ok(&self, words: &[&str]) -> String {
        let out = self.ctr(words);
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{words:?}: {}: {stderr}", out.status);
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    /// An image of one layer in an OCI archive.
    fn import(&self) {
        let layout = self.path("layout");
        let image = format!("{layout}:tiny");
        run("umoci", &["init", "--layout", &layout]);
        run("umoci", &["new", "--image", &image]);
        let bundle = self.path("unpacked");
        run("umoci", &["unpack", "--image", &image, &bundle]);
        fill(&self.dir.path().join("unpacked/rootfs"));
        run("umoci", &["repack", "--image", &image, &bundle]);
        let archive = self.path("image.tar");
        let target = format!("oci-archive:{archive}:tiny:latest");
        run("skopeo", &["copy", "-q", &format!("oci:{image}"), &target]);
        self.ok(&["images", "import", "--snapshotter", "native", &archive]);
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        for id in ["c1", "c2"] {
            let _ = self.ctr(&["task", "delete", "--force", id]);
            let _ = self.ctr(&["container", "delete", id]);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn containerd_runs_looks_into_and_ends_containers() {
    let containerd = Containerd::start();
    containerd.import();
    let runtime = link(containerd.dir.path()).to_string_lossy().into_owned();
    let states = containerd.path("runc");
    let common = [
        "--snapshotter",
        "native",
        "--runc-binary",
        &runtime,
        "--runc-root",
        &states,
    ];
    let with = |first: &[&str], last: &[&str]| -> Output {
        containerd.ctr(&[first, &common[..], last].concat())
    };
    let out = with(
        &["run", "--rm"],
        &["tiny:latest", "c1", "sh", "-c", "echo hi; exit 5"],
    );
    assert_eq!(String::from_utf8_lossy(&out.stdout), "hi\n", "{out:?}");
    assert_eq!(out.status.code(), Some(5));
    let out = with(&["run", "-d"], &["tiny:latest", "c2", "sleep", "1000"]);
    assert!(out.status.success(), "{out:?}");
    let inside = containerd.ok(&["task", "exec", "--exec-id", "e", "c2", "ps"]);
    assert!(inside.contains("sleep 1000"), "{inside}");
    containerd.ok(&["task", "pause", "c2"]);
    assert!(containerd.ok(&["task", "list"]).contains("PAUSED"));
    containerd.ok(&["task", "resume", "c2"]);
    assert!(
        containerd
            .ok(&["task", "metrics", "c2"])
            .contains("pids.current")
    );
    containerd.ok(&["task", "kill", "--signal", "KILL", "c2"]);
    until("the task stops", || {
        match containerd.ok(&["task", "list"]) {
            text if text.contains("STOPPED") => Ok(()),
            text => Err(text),
        }
    });
    // The status of a killed process is told in words.
    let deleted = containerd.ctr(&["task", "delete", "c2"]);
    let words = String::from_utf8_lossy(&deleted.stderr);
    assert!(words.contains("exit code 137"), "{deleted:?}");
    containerd.ok(&["container", "delete", "c2"]);
    let left = std::fs::read_dir(&states).map_or(0, |dir| {
        dir.flatten()
            .flat_map(|namespace| std::fs::read_dir(namespace.path()))
            .flatten()
            .count()
    });
    assert_eq!(left, 0);
}
