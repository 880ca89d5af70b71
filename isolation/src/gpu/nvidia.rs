//! NVIDIA's driver: `/dev/nvidia<minor>` and what it tells in `/proc/driver/nvidia`.
//!
//! `/dev/nvidia-caps` is deliberately given to nobody: its nodes are the right to cut processors
//! into instances, or to watch every user's.

use std::path::{Path, PathBuf};

use super::{Gpu, GpuId, Vendor, below, is_device, names, numbered};

/// Devices that every user of the driver opens; `-modeset` and `-uvm-tools` where they are there.
const SHARED: [&str; 4] = [
    "nvidiactl",
    "nvidia-modeset",
    "nvidia-uvm",
    "nvidia-uvm-tools",
];
const INFORMATION: &str = "/proc/driver/nvidia/gpus";

/// What `/proc/driver/nvidia/gpus/<address>/information` says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Information {
    minor: Option<u32>,
    model: Option<String>,
    uuid: Option<String>,
}

/// Lines of `Key:  value`.
fn parse(text: &str) -> Information {
    let mut found = Information::default();
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else {
            continue;
        };
        let value = value.trim();
        match key.trim() {
            "Device Minor" => found.minor = value.parse().ok(),
            "Model" => found.model = Some(value.to_owned()),
            // Question marks stand there until the processor was first used.
            "GPU UUID" if !value.contains('?') => found.uuid = Some(value.to_owned()),
            _ => {}
        }
    }
    found
}

/// Its processors, by number.
pub(super) fn detect(root: &Path) -> Vec<Gpu> {
    let dir = below(root, Path::new(INFORMATION));
    let told: Vec<Information> = names(&dir)
        .iter()
        .filter_map(|name| std::fs::read_to_string(dir.join(name).join("information")).ok())
        .map(|text| parse(&text))
        .collect();
    let mut minors: Vec<u32> = names(&below(root, Path::new("/dev")))
        .iter()
        .filter_map(|name| numbered(name, "nvidia"))
        .collect();
    minors.sort_unstable();
    let gpu = |minor: u32| {
        let name = format!("nvidia{minor}");
        let about = told.iter().find(|about| about.minor == Some(minor));
        Gpu {
            node: Path::new("/dev").join(&name),
            id: GpuId(name),
            vendor: Vendor::Nvidia,
            model: about.and_then(|about| about.model.clone()),
            uuid: about.and_then(|about| about.uuid.clone()),
        }
    };
    minors
        .into_iter()
        .map(gpu)
        .filter(|gpu| is_device(root, &gpu.node))
        .collect()
}

/// Devices that all its processors share.
pub(super) fn shared(root: &Path) -> Vec<PathBuf> {
    SHARED
        .iter()
        .map(|name| Path::new("/dev").join(name))
        .filter(|path| is_device(root, path))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_driver_tells_is_read() {
        let text = "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 312\n\
                    GPU UUID: \t GPU-5a1c7d3e-0000-1111-2222-333344445555\nBus Type: \t PCIe\n\
                    Device Minor: \t 3\nGPU Excluded:\t No\n";
        let found = parse(text);
        assert_eq!(found.minor, Some(3));
        assert_eq!(found.model.as_deref(), Some("NVIDIA H100 80GB HBM3"));
        let uuid = "GPU-5a1c7d3e-0000-1111-2222-333344445555";
        assert_eq!(found.uuid.as_deref(), Some(uuid));
        let unused = parse("GPU UUID: GPU-????????-????\nDevice Minor: x\nno colon\n");
        assert_eq!(unused, Information::default());
    }
}
