//! Render nodes of the kernel's own drivers: `/dev/dri/renderD<minor>`, and AMD's `/dev/kfd`.
//!
//! The nodes for screens, `card<n>`, are given to nobody: computing needs none, and their first user
//! owns the screen.

use std::path::{Path, PathBuf};

use super::{Gpu, GpuId, Vendor, below, is_device, names, numbered};

const DIR: &str = "/dev/dri";
const KFD: &str = "/dev/kfd";
/// Vendors' numbers on PCI.
const NVIDIA: &str = "0x10de";
const AMD: &str = "0x1002";

/// Processors with a render node, but NVIDIA's under its own driver, which are known by another.
pub(super) fn detect(root: &Path) -> Vec<Gpu> {
    let mut numbers: Vec<u32> = names(&below(root, Path::new(DIR)))
        .iter()
        .filter_map(|name| numbered(name, "renderD"))
        .collect();
    numbers.sort_unstable();
    let own_driver = is_device(root, Path::new("/dev/nvidiactl"));
    numbers
        .into_iter()
        .filter_map(|number| gpu(root, number, own_driver))
        .collect()
}

fn gpu(root: &Path, number: u32, own_driver: bool) -> Option<Gpu> {
    let name = format!("renderD{number}");
    let node = Path::new(DIR).join(&name);
    let about = below(root, Path::new("/sys/class/drm"))
        .join(&name)
        .join("device");
    let line = |file: &str| {
        let text = std::fs::read_to_string(about.join(file)).ok()?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    };
    let vendor = match line("vendor").as_deref() {
        Some(NVIDIA) if own_driver => return None,
        Some(AMD) => Vendor::Amd,
        _ => Vendor::Other,
    };
    is_device(root, &node).then(|| Gpu {
        node,
        id: GpuId(name),
        vendor,
        // amdgpu says both.
        model: line("product_name"),
        uuid: line("unique_id"),
    })
}

/// Devices that all of AMD's processors share: through this one programs are given to them, and it
/// lets a process use those alone whose render node it can open.
pub(super) fn shared_by_amd(root: &Path) -> Option<PathBuf> {
    let path = PathBuf::from(KFD);
    is_device(root, &path).then_some(path)
}
