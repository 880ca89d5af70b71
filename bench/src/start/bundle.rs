//! What the peers are given: an OCI configuration that asks them for what our keeper does by itself,
//! and directories for an overlay of each container's own.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::root::{make_root, seccomp_profile};

/// Limits of every container, where the subject has a cgroup for it.
pub(super) const MEMORY_BYTES: u64 = 64 << 20;
pub(super) const PIDS_MAX: u64 = 64;
/// The weight that a process outside of any group has, as crun's do here.
pub(super) const CPU_SHARES: u64 = 1024;
pub(super) const CPU_QUOTA_US: u64 = 100_000;

/// Gantry's default set: Docker's without raw sockets.
const CAPABILITIES: [&str; 13] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_MKNOD",
    "CAP_AUDIT_WRITE",
    "CAP_SETFCAP",
];

/// The bundle, in a temporary directory of its own.
#[derive(Debug)]
pub(super) struct Bundle {
    dir: tempfile::TempDir,
    /// The programs' bytes.
    pub(super) programs: Vec<u8>,
}

/// What a peer's configuration asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wants {
    /// For a peer that can keep them.
    pub(super) limits: bool,
    /// The seccomp profile.
    pub(super) seccomp: bool,
}

/// A bundle directory of a peer's, with a root that an overlay can be mounted on.
#[derive(Debug)]
pub(super) struct PeerBundle {
    pub(super) dir: PathBuf,
    /// Where the overlay goes.
    pub(super) rootfs: PathBuf,
    /// The overlay's options.
    pub(super) overlay: String,
}

impl Bundle {
    pub(super) fn make() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let programs = make_root(&dir.path().join("rootfs"))?;
        Ok(Self { dir, programs })
    }

    /// The root's files.
    pub(super) fn rootfs(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }

    /// Makes a bundle directory over the same root, or finds it. Its overlay's upper directory is its own.
    pub(super) fn for_peer(
        &self,
        name: &str,
        program: &str,
        wants: Wants,
    ) -> anyhow::Result<PeerBundle> {
        let dir = self.dir.path().join(name);
        let [upper, work, rootfs] = ["upper", "work", "rootfs"].map(|part| dir.join(part));
        if !dir.exists() {
            for part in [&dir, &upper, &work, &rootfs] {
                std::fs::create_dir(part)?;
            }
            let config = config(&rootfs, program, wants)?;
            std::fs::write(dir.join("config.json"), serde_json::to_vec_pretty(&config)?)?;
        }
        let overlay = format!(
            "lowerdir={},upperdir={},workdir={}",
            self.rootfs().display(),
            upper.display(),
            work.display()
        );
        Ok(PeerBundle {
            dir,
            rootfs,
            overlay,
        })
    }
}

fn config(rootfs: &Path, program: &str, wants: Wants) -> anyhow::Result<Value> {
    let mount = |to: &str, kind: &str, options: &[&str]| json!({"destination": to, "type": kind, "source": kind, "options": options});
    let resources = json!({
        "memory": {"limit": MEMORY_BYTES},
        "pids": {"limit": PIDS_MAX},
        "cpu": {"shares": CPU_SHARES, "quota": CPU_QUOTA_US, "period": 100_000},
    });
    let kinds = ["pid", "network", "ipc", "uts", "mount", "cgroup"];
    let namespaces: Vec<Value> = kinds.iter().map(|kind| json!({"type": kind})).collect();
    let mut config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": [program],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": {
                "bounding": CAPABILITIES,
                "effective": CAPABILITIES,
                "permitted": CAPABILITIES,
            },
            "noNewPrivileges": true,
        },
        "root": {"path": rootfs, "readonly": false},
        "hostname": "bench",
        "mounts": [
            mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666",
                "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        ],
        "linux": {
            "namespaces": namespaces,
            "maskedPaths": ["/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys",
                "/proc/latency_stats", "/proc/timer_list", "/proc/sched_debug", "/proc/scsi",
                "/sys/firmware", "/sys/devices/virtual/powercap"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys",
                "/proc/sysrq-trigger"],
        },
    });
    if wants.seccomp {
        config["linux"]["seccomp"] = seccomp_profile()?;
    }
    if wants.limits {
        config["linux"]["resources"] = resources;
    }
    Ok(config)
}
