//! What the keeper finds out about its host once, at its start, so that no start pays for it.

use std::ffi::CString;
use std::os::fd::AsFd;
use std::rc::Rc;

use rustix::mount::{FsOpenFlags, fsconfig_set_string, fsopen};

use crate::cgroup::{DeviceFilter, Hierarchies, Program};
use crate::child::cgroups::make_shared_top;
use crate::plan::{CgroupTop, GUARDS, Guard, GuardBase, GuardHow, HostFacts};
use crate::sys::confine;

/// Looks.
pub(crate) fn facts(cgroup_parent: &str) -> HostFacts {
    let hierarchies = Hierarchies::detect();
    let usual = hierarchies
        .device_programs
        .then(|| Program::load(&DeviceFilter::default()).ok());
    // Names of our own tree, which cannot have a NUL in them.
    let cgroup_top = CgroupTop::new(&hierarchies.view_names()).unwrap_or_default();
    let several = !cgroup_top.dirs.is_empty();
    let shared = several.then(|| make_shared_top(&cgroup_top).ok()).flatten();
    HostFacts {
        hierarchies,
        cgroup_top: Rc::new(cgroup_top),
        shared_cgroup_top: shared.map(Rc::new),
        device_program: usual.flatten().map(Rc::new),
        cgroup_parent: cgroup_parent.to_owned(),
        layer_by_layer: overlay_takes_single_layers(),
        landlock: confine::landlock_version().ok(),
        guarded: GUARDS.iter().filter_map(|guard| present(*guard)).collect(),
    }
}

/// Whether overlayfs knows `lowerdir+` (Linux 6.7).
fn overlay_takes_single_layers() -> bool {
    let Ok(context) = fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC) else {
        return false;
    };
    fsconfig_set_string(context.as_fd(), c"lowerdir+", c"/").is_ok()
}

/// A path that this kernel does not have needs no guard. One that appears later would be missed; the
/// list's entries come with the kernel's configuration, not with time.
fn present((base, path, how): (GuardBase, &str, GuardHow)) -> Option<Guard> {
    let tree = match base {
        GuardBase::Proc => "/proc",
        GuardBase::Sys => "/sys",
    };
    let found = std::fs::symlink_metadata(format!("{tree}/{path}")).ok()?;
    // A directory where a file is usual, or the other way round, is still covered.
    let how = match how {
        GuardHow::ReadOnly => GuardHow::ReadOnly,
        _ if found.is_dir() => GuardHow::MaskDir,
        _ => GuardHow::MaskFile,
    };
    Some(Guard {
        base,
        path: CString::new(path).ok()?,
        how,
    })
}
