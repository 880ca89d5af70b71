//! podman with our runtime.

use std::process::{Command, Output};

use crate::bundle::{fill, link};

struct Podman {
    dir: tempfile::TempDir,
}

impl Podman {
    fn run(&self, words: &[&str]) -> Output {
        let path = |name: &str| self.dir.path().join(name);
        Command::new("podman")
            .arg("--root")
            .arg(path("root"))
            .arg("--runroot")
            .arg(path("run"))
            .arg("--runtime")
            .arg(path("gantry-oci"))
            .args(["--cgroup-manager", "cgroupfs", "--storage-driver", "vfs"])
            .args(["--events-backend", "file"])
            .args(words)
            .output()
            .expect("podman is installed (make test installs it)")
    }

    fn ok(&self, words: &[&str]) -> String {
        let out = self.run(words);
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{words:?}: {}: {stderr}", out.status);
        String::from_utf8_lossy(&out.stdout).into_owned()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.run(&["rm", "--all", "--force", "--time", "0"]);
    }
}

#[test]
fn podman_runs_looks_into_and_ends_containers() {
    let podman = Podman {
        dir: tempfile::Builder::new()
            .prefix("gantry-podman-")
            .tempdir()
            .unwrap(),
    };
    link(podman.dir.path());
    let rootfs = podman.dir.path().join("rootfs");
    fill(&rootfs);
    let tar = podman
        .dir
        .path()
        .join("image.tar")
        .to_string_lossy()
        .into_owned();
    gantry_tests::kernel::run("tar", &["-C", &rootfs.to_string_lossy(), "-cf", &tar, "."]);
    podman.ok(&["import", &tar, "tiny"]);
    let out = podman.run(&[
        "run",
        // Its default may be more than this machine has, which no runtime then gives.
        "--ulimit",
        "nofile=1024:1024",
        "--ulimit",
        "nproc=1024:1024",
        "--rm",
        "--network",
        "none",
        "tiny",
        "sh",
        "-c",
        "echo hi; exit 4",
    ]);
    assert_eq!(String::from_utf8_lossy(&out.stdout), "hi\n");
    assert_eq!(out.status.code(), Some(4), "{out:?}");
    let script = "echo began; sleep 1000";
    podman.ok(&[
        "run",
        "--ulimit",
        "nofile=1024:1024",
        "--ulimit",
        "nproc=1024:1024",
        "-d",
        "--name",
        "c",
        "--network",
        "none",
        "tiny",
        "sh",
        "-c",
        script,
    ]);
    assert!(podman.ok(&["exec", "c", "ps"]).contains("sleep 1000"));
    gantry_tests::poll::until("the log", || match podman.ok(&["logs", "c"]) {
        text if text == "began\n" => Ok(()),
        text => Err(text),
    });
    podman.ok(&["pause", "c"]);
    podman.ok(&["unpause", "c"]);
    podman.ok(&["kill", "c"]);
    assert_eq!(podman.ok(&["wait", "c"]), "137\n");
    podman.ok(&["rm", "c"]);
}
