//! The container that every subject starts: a root with one static program that exits 0, and an OCI
//! configuration that asks the peers for what our keeper does by itself.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::bail;
use serde_json::{Value, json};

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
    /// The program's bytes.
    pub(super) program: Vec<u8>,
}

impl Bundle {
    pub(super) fn make() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let program = program()?;
        let rootfs = dir.path().join("rootfs");
        for name in ["dev", "proc", "sys", "etc", "tmp"] {
            std::fs::create_dir_all(rootfs.join(name))?;
        }
        let path = rootfs.join("true");
        std::fs::write(&path, &program)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
        Ok(Self { dir, program })
    }

    /// The root's files.
    pub(super) fn rootfs(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }

    /// Writes a bundle directory around the same root; with limits for a peer that can keep them.
    pub(super) fn for_peer(&self, name: &str, limits: bool) -> anyhow::Result<PathBuf> {
        let bundle = self.dir.path().join(name);
        std::fs::create_dir(&bundle)?;
        let config = config(&self.rootfs(), limits);
        std::fs::write(
            bundle.join("config.json"),
            serde_json::to_vec_pretty(&config)?,
        )?;
        Ok(bundle)
    }
}

/// A static ELF executable of one segment, whose code is `exit(0)`.
fn program() -> anyhow::Result<Vec<u8>> {
    let (machine, code): (u16, &[u8]) = match std::env::consts::ARCH {
        // mov eax, 60; xor edi, edi; syscall
        "x86_64" => (62, &[0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05]),
        // mov x8, #93; mov x0, #0; svc #0
        "aarch64" => (
            183,
            &[0xa8, 0x0b, 0x80, 0xd2, 0, 0, 0x80, 0xd2, 0x01, 0, 0, 0xd4],
        ),
        other => bail!("no static program for {other}"),
    };
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let size = HEADERS + code.len() as u64;
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut put = |bytes: &[u8]| elf.extend_from_slice(bytes);
    put(&2_u16.to_le_bytes()); // executable
    put(&machine.to_le_bytes());
    put(&1_u32.to_le_bytes());
    put(&(BASE + HEADERS).to_le_bytes()); // entry
    put(&64_u64.to_le_bytes()); // program headers
    put(&0_u64.to_le_bytes());
    put(&0_u32.to_le_bytes());
    for half in [64_u16, 56, 1, 0, 0, 0] {
        put(&half.to_le_bytes());
    }
    put(&1_u32.to_le_bytes()); // PT_LOAD
    put(&5_u32.to_le_bytes()); // read, execute
    for word in [0, BASE, BASE, size, size, 0x1000] {
        put(&word.to_le_bytes());
    }
    put(code);
    Ok(elf)
}

fn config(rootfs: &Path, limits: bool) -> Value {
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
            "args": ["/true"],
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
    if limits {
        config["linux"]["resources"] = resources;
    }
    config
}
