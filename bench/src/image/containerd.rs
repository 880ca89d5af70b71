//! `ctr images pull` from a containerd of its own, with an empty directory for each turn; its start
//! is not counted.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::Context;

use super::tree::Tree;
use super::{Subject, output, remove, until, version};

pub(super) struct Containerd {
    dir: PathBuf,
    name: String,
    child: Option<Child>,
}

impl Containerd {
    pub(super) fn find(scratch: &Path) -> anyhow::Result<Self> {
        let containerd = version("containerd", &["--version"], 2)?;
        output("ctr", &["--version"])?;
        Ok(Self {
            dir: scratch.join("containerd"),
            name: format!("containerd {containerd}"),
            child: None,
        })
    }

    fn socket(&self) -> String {
        self.dir.join("sock").display().to_string()
    }

    fn ctr(&self, args: &[&str]) -> anyhow::Result<String> {
        output("ctr", &[&["--address", &self.socket()], args].concat())
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Subject for Containerd {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn clear(&mut self) -> anyhow::Result<()> {
        self.stop();
        remove(&self.dir)?;
        std::fs::create_dir(&self.dir)?;
        let config = self.dir.join("config.toml");
        let path = |name: &str| self.dir.join(name).display().to_string();
        let text = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = {:?}\n",
            path("root"),
            path("state"),
            self.socket()
        );
        std::fs::write(&config, text)?;
        let child = Command::new("containerd")
            .arg("--config")
            .arg(&config)
            .args(["--log-level", "error"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start containerd")?;
        self.child = Some(child);
        until("containerd answers", || self.ctr(&["version"]).is_ok())
    }

    fn pull(&mut self, image: &str) -> anyhow::Result<()> {
        self.ctr(&["images", "pull", "--plain-http", image])?;
        Ok(())
    }

    fn tree(&mut self, image: &str) -> anyhow::Result<Tree> {
        let mounted = self.dir.join("mounted");
        std::fs::create_dir(&mounted)?;
        let path = mounted.display().to_string();
        self.ctr(&["images", "mount", image, &path])?;
        let tree = Tree::read(&mounted);
        self.ctr(&["images", "unmount", "--rm", &path])?;
        tree
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        self.stop();
    }
}
