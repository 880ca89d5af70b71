//! The files of NVIDIA's driver that programs load: they must be of the same version as the kernel
//! module, so they are the host's and not the image's.
//!
//! A library has several names, of which all but one are links. Each name is a mount of the file at
//! the end, so that nothing in the image has to be changed.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, openat2};

use super::{below, names};
use crate::spec::{Mount, MountKind};

/// Where distributions put them.
const DIRS: [&str; 8] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu/nvidia/current",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu/nvidia/current",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/nvidia/lib64",
    "/usr/local/nvidia/lib",
];
/// Libraries for computing, coding video and looking after processors; those for screens stay out.
const LIBRARIES: [&str; 17] = [
    "libcuda.so",
    "libcudadebugger.so",
    "libnvcuvid.so",
    "libnvidia-allocator.so",
    "libnvidia-cfg.so",
    "libnvidia-compiler.so",
    "libnvidia-encode.so",
    "libnvidia-fatbinaryloader.so",
    "libnvidia-gpucomp.so",
    "libnvidia-ml.so",
    "libnvidia-nvvm.so",
    "libnvidia-opencl.so",
    "libnvidia-opticalflow.so",
    "libnvidia-pkcs11.so",
    "libnvidia-pkcs11-openssl3.so",
    "libnvidia-ptxjitcompiler.so",
    "libnvoptix.so",
];
const PROGRAMS: [&str; 4] = [
    "/usr/bin/nvidia-smi",
    "/usr/bin/nvidia-debugdump",
    "/usr/bin/nvidia-cuda-mps-control",
    "/usr/bin/nvidia-cuda-mps-server",
];
/// Fewer than a container may have mounts, so that volumes have room.
const MAX_FILES: usize = 128;

/// Whether it is one of the libraries' names: the bare one or one with a version.
fn is_library(name: &str) -> bool {
    LIBRARIES.iter().any(|library| {
        let version = name.strip_prefix(library);
        version.is_some_and(|rest| {
            rest.is_empty()
                || rest.strip_prefix('.').is_some_and(|version| {
                    let wanted = |byte: u8| byte.is_ascii_digit() || byte == b'.';
                    !version.is_empty() && version.bytes().all(wanted)
                })
        })
    })
}

/// A mount for each name of each file that is there.
pub(super) fn mounts(root: &Path) -> Vec<Mount> {
    let libraries = DIRS.iter().flat_map(|dir| {
        let found = names(&below(root, Path::new(dir)));
        let wanted = found.into_iter().filter(|name| is_library(name));
        wanted.map(|name| Path::new(dir).join(name))
    });
    let programs = PROGRAMS.iter().map(PathBuf::from);
    libraries
        .chain(programs)
        .filter_map(|target| {
            Some(Mount {
                kind: MountKind::Bind {
                    source: file(root, &target)?,
                    cover: Vec::new(),
                    recursive: false,
                },
                target,
                read_only: true,
            })
        })
        .take(MAX_FILES)
        .collect()
}

/// The file that `path` leads to within `root`, by a path without links; None for anything else.
fn file(root: &Path, path: &Path) -> Option<PathBuf> {
    let open = |dir: &OwnedFd| {
        let name = path.strip_prefix("/").ok()?;
        let name = CString::new(name.as_os_str().as_bytes()).ok()?;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        openat2(dir, &name, flags, Mode::empty(), resolve).ok()
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(CWD, root, flags, Mode::empty()).ok()?;
    let found = open(&dir)?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&found).ok()?.st_mode);
    if !kind.is_file() {
        return None;
    }
    let name = |fd: &OwnedFd| std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok();
    let (top, whole) = (name(&dir)?, name(&found)?);
    Some(Path::new("/").join(whole.strip_prefix(top).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_a_version_or_none() {
        for name in ["libcuda.so", "libcuda.so.1", "libnvidia-ml.so.550.54.15"] {
            assert!(is_library(name), "{name}");
        }
        for name in [
            "libcuda.so.old",
            "libcuda.so.",
            "libcudart.so.12",
            "libcuda.a",
            "libnvidia-glcore.so.550.54.15",
        ] {
            assert!(!is_library(name), "{name}");
        }
    }
}
