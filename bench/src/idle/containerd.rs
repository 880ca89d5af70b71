//! containerd with a shim for each container, in a temporary directory of its own: what each costs.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

/// How long the daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

/// A daemon that ends with this.
struct Containerd {
    child: Child,
    socket: PathBuf,
    ids: Vec<String>,
}

impl Containerd {
    fn start(dir: &Path) -> anyhow::Result<Self> {
        let config = dir.join("containerd.toml");
        let socket = dir.join("containerd.sock");
        let path = |name: &str| dir.join(name).display().to_string();
        let text = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = \
             [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = {:?}\n",
            path("containerd-root"),
            path("containerd-state"),
            socket.display().to_string()
        );
        std::fs::write(&config, text)?;
        let child = Command::new("containerd")
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("not installed")?;
        let daemon = Self {
            child,
            socket,
            ids: Vec::new(),
        };
        let deadline = Instant::now() + PATIENCE;
        while daemon.ctr(&["version"]).is_err() {
            ensure!(Instant::now() < deadline, "containerd does not answer");
            std::thread::sleep(PAUSE);
        }
        Ok(daemon)
    }

    fn ctr(&self, args: &[&str]) -> anyhow::Result<String> {
        let output = Command::new("ctr")
            .arg("--address")
            .arg(&self.socket)
            .args(args)
            .stdin(Stdio::null())
            .output()?;
        if !output.status.success() {
            bail!("ctr: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        for id in &self.ids {
            // What is gone already needs no removal.
            let _ = self.ctr(&["task", "delete", "--force", id]);
            let _ = self.ctr(&["container", "delete", id]);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts `count` containers that wait; what the shim of each costs, in KiB.
pub(super) fn shims(dir: &Path, rootfs: &Path, count: usize) -> anyhow::Result<Vec<f64>> {
    let mut daemon = Containerd::start(dir)?;
    let rootfs = rootfs.to_str().context("a path that is not UTF-8")?;
    for number in 0..count {
        let id = format!("bench-{}-{number}", std::process::id());
        daemon.ids.push(id.clone());
        let program = crate::root::WAIT;
        daemon.ctr(&["run", "--detach", "--rootfs", rootfs, &id, program])?;
    }
    let running = daemon.ctr(&["task", "list"])?;
    let running = running.lines().filter(|line| line.contains("RUNNING"));
    ensure!(running.count() == count, "not all run");
    let socket = daemon.socket.display().to_string();
    let samples = shim_pids(&socket)?
        .into_iter()
        .map(super::pss_kb)
        .collect::<anyhow::Result<Vec<_>>>()?;
    ensure!(samples.len() == count, "{} shims run", samples.len());
    Ok(samples)
}

/// Processes whose arguments name our daemon's socket and the shim's program.
fn shim_pids(socket: &str) -> anyhow::Result<Vec<i32>> {
    let mut pids = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let line = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        if line.contains("containerd-shim") && line.contains(socket) {
            pids.push(pid);
        }
    }
    Ok(pids)
}
