//! Nodes as they might be: trees with devices and files of the drivers' own shape.

use std::fs;
use std::os::unix::fs::symlink;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use super::*;
use crate::spec::MountKind;

struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn root(&self) -> &Path {
        self.0.path()
    }

    fn device(&self, path: &str, major: u32, minor: u32) {
        let path = below(self.root(), Path::new(path));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mode = Mode::from_raw_mode(0o666);
        let device = makedev(major, minor);
        mknodat(CWD, &path, FileType::CharacterDevice, mode, device).unwrap();
    }

    fn file(&self, path: &str, text: &str) {
        let path = below(self.root(), Path::new(path));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn link(&self, path: &str, to: &str) {
        symlink(to, below(self.root(), Path::new(path))).unwrap();
    }
}

fn ids(gpus: &[Gpu]) -> Vec<&str> {
    gpus.iter().map(|gpu| gpu.id.as_str()).collect()
}

fn sources(devices: &[Device]) -> Vec<&str> {
    devices
        .iter()
        .map(|device| device.source.to_str().unwrap())
        .collect()
}

/// Two processors, the driver's files with every kind of link, and things that are none of ours.
fn nvidia() -> Tree {
    let tree = Tree::new();
    for (name, minor) in [
        ("nvidia0", 0),
        ("nvidia10", 10),
        ("nvidiactl", 255),
        ("nvidia-uvm", 1),
        ("nvidia-caps/nvidia-cap1", 2),
        ("dri/renderD128", 128),
    ] {
        tree.device(&format!("/dev/{name}"), 195, minor);
    }
    tree.file("/dev/nvidia2", "no device");
    tree.link("/dev/nvidia3", "nvidia0");
    tree.file("/sys/class/drm/renderD128/device/vendor", "0x10de\n");
    let about = "Model: \t NVIDIA A100\nGPU UUID: \t GPU-aa\nDevice Minor: \t 10\n";
    let gpus = "/proc/driver/nvidia/gpus";
    tree.file(&format!("{gpus}/0000:65:00.0/information"), about);
    let lib = "/usr/lib/x86_64-linux-gnu";
    tree.file(&format!("{lib}/libcuda.so.550.54"), "cuda");
    tree.link(&format!("{lib}/libcuda.so.1"), "libcuda.so.550.54");
    tree.link(&format!("{lib}/libcuda.so"), "libcuda.so.1");
    tree.file("/etc/alternatives/ml", "ml");
    tree.link(&format!("{lib}/libnvidia-ml.so.1"), "/etc/alternatives/ml");
    tree.link(&format!("{lib}/libnvidia-cfg.so.1"), "/none");
    tree.file(&format!("{lib}/libc.so.6"), "c");
    tree.file("/usr/bin/nvidia-smi", "smi");
    tree
}

#[test]
fn a_node_without_any_offers_none() {
    let tree = Tree::new();
    assert_eq!(detect(tree.root()), []);
    assert_eq!(detect(&tree.root().join("none")), []);
    let id = GpuId::new("nvidia0");
    let error = mounts_and_devices(tree.root(), std::slice::from_ref(&id)).unwrap_err();
    assert_eq!(error.to_string(), "this node has no GPU nvidia0");
    let nothing = mounts_and_devices(tree.root(), &[]).unwrap();
    assert_eq!(nothing, (Vec::new(), Vec::new()));
}

#[test]
fn nvidias_are_named_by_their_devices_and_described_by_the_driver() {
    let tree = nvidia();
    let found = detect(tree.root());
    assert_eq!(ids(&found), ["nvidia0", "nvidia10"]);
    assert_eq!(found[0].model, None);
    assert_eq!(found[1].model.as_deref(), Some("NVIDIA A100"));
    assert_eq!(found[1].uuid.as_deref(), Some("GPU-aa"));
}

#[test]
fn a_container_gets_its_processor_what_all_share_and_the_drivers_files() {
    let tree = nvidia();
    let wanted = [GpuId::new("nvidia10"), GpuId::new("nvidia10")];
    let (devices, mounts) = mounts_and_devices(tree.root(), &wanted).unwrap();
    let nodes = ["/dev/nvidia-uvm", "/dev/nvidia10", "/dev/nvidiactl"];
    assert_eq!(sources(&devices), nodes);
    assert!(devices.iter().all(|device| device.source == device.target));
    assert!(
        devices
            .iter()
            .all(|device| device.access.to_string() == "rw")
    );
    let lib = "/usr/lib/x86_64-linux-gnu";
    let cuda = format!("{lib}/libcuda.so.550.54");
    let pairs: Vec<(String, String)> = mounts
        .iter()
        .map(|mount| {
            assert!(mount.read_only);
            let MountKind::Bind { source, .. } = &mount.kind else {
                panic!("{mount:?}");
            };
            let text = |path: &Path| path.to_str().unwrap().to_owned();
            (text(&mount.target), text(source))
        })
        .collect();
    let wanted = [
        (format!("{lib}/libcuda.so"), cuda.clone()),
        (format!("{lib}/libcuda.so.1"), cuda.clone()),
        (cuda.clone(), cuda),
        (
            format!("{lib}/libnvidia-ml.so.1"),
            "/etc/alternatives/ml".to_owned(),
        ),
        (
            "/usr/bin/nvidia-smi".to_owned(),
            "/usr/bin/nvidia-smi".to_owned(),
        ),
    ];
    assert_eq!(pairs, wanted);
}

#[test]
fn render_nodes_are_amds_or_anybodys() {
    let tree = Tree::new();
    for (name, minor) in [("dri/renderD129", 129), ("dri/renderD128", 128), ("kfd", 0)] {
        tree.device(&format!("/dev/{name}"), 226, minor);
    }
    tree.device("/dev/dri/card0", 226, 0);
    tree.file("/sys/class/drm/renderD128/device/vendor", "0x1002\n");
    tree.file("/sys/class/drm/renderD128/device/unique_id", "5ee\n");
    let found = detect(tree.root());
    assert_eq!(ids(&found), ["renderD128", "renderD129"]);
    assert_eq!(found[0].vendor, Vendor::Amd);
    assert_eq!(found[0].uuid.as_deref(), Some("5ee"));
    assert_eq!(found[1].vendor, Vendor::Other);
    let devices = |name: &str| {
        let (devices, mounts) = mounts_and_devices(tree.root(), &[GpuId::new(name)]).unwrap();
        assert_eq!(mounts, []);
        let sources = sources(&devices);
        sources.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(devices("renderD128"), ["/dev/dri/renderD128", "/dev/kfd"]);
    assert_eq!(devices("renderD129"), ["/dev/dri/renderD129"]);
}
