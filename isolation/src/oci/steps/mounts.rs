//! Mounts of a configuration as steps. Bind sources are opened, cloned and given their attributes
//! here: by the time they are attached they are as they will be.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::mount::{MountPropagationFlags as Propagation, OpenTreeFlags, open_tree};

use super::{Kept, c, inside, oci};
use crate::cgroup::{OwnTree, view_links};
use crate::oci::config::{Config, Mount};
use crate::oci::error::{OciError, call};
use crate::oci::groups::Groups;
use crate::oci::options::{self, Options, attr};
use crate::plan::{CgroupTop, CgroupTree, InRoot, InsideTree, OciMount, OciStep, Shown, Step};
use crate::sys;

/// What below `/proc` may be covered: files that show the container's own share of the machine.
const PROC_FILES: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// What the mounts of one configuration have in common.
pub(super) struct Context<'a> {
    pub(super) config: &'a Config,
    pub(super) bundle: &'a Path,
    pub(super) rootfs: &'a Path,
    pub(super) trees: &'a [OwnTree],
    pub(super) groups: &'a Groups,
    pub(super) propagation: Propagation,
    pub(super) users: bool,
    pub(super) own_cgroups: bool,
    /// The PID namespace for procfs, where the one who mounts it is in another.
    pub(super) pids: Option<i32>,
}

impl Context<'_> {
    /// Where a mount goes. As with runc it may be named as the host sees it.
    fn destination(&self, mount: &Mount) -> Result<InRoot, OciError> {
        let path = Path::new(&mount.destination);
        let below = path.strip_prefix(self.rootfs).ok().and_then(Path::to_str);
        inside(below.unwrap_or(&mount.destination))
    }

    /// The place in the container that a path of the host names before the change of root.
    fn below_root(&self, source: &Path) -> Option<InRoot> {
        let root = self.config.root.as_ref()?;
        let named = self.bundle.join(&root.path);
        let below = source
            .strip_prefix(self.rootfs)
            .or_else(|_| source.strip_prefix(&named))
            .ok()?;
        inside(below.to_str()?).ok()
    }
}

/// `linux.rootfsPropagation`.
pub(super) fn propagation(text: &str) -> Result<Propagation, OciError> {
    let all = Propagation::REC;
    Ok(match text {
        "" | "rslave" => Propagation::DOWNSTREAM | all,
        "slave" => Propagation::DOWNSTREAM,
        "private" => Propagation::PRIVATE,
        "rprivate" => Propagation::PRIVATE | all,
        "shared" => Propagation::SHARED,
        "rshared" => Propagation::SHARED | all,
        "unbindable" => Propagation::UNBINDABLE,
        "runbindable" => Propagation::UNBINDABLE | all,
        _ => {
            return Err(OciError::Refused(format!(
                "rootfsPropagation={text} is not supported"
            )));
        }
    })
}

/// How the mounts of the host are taken over: a root that shares what is mounted in it does so from
/// its own tree, never from the host's.
pub(super) fn host_propagation(wanted: Propagation) -> Propagation {
    if wanted.contains(Propagation::PRIVATE) {
        Propagation::PRIVATE | Propagation::REC
    } else {
        Propagation::DOWNSTREAM | Propagation::REC
    }
}

/// How a tree of the host is cut off from where it came from.
fn detach(tree: &OwnedFd, wanted: Propagation, recursive: bool) -> Result<(), rustix::io::Errno> {
    if wanted.contains(Propagation::SHARED) {
        return Ok(());
    }
    let kind = if wanted.contains(Propagation::PRIVATE) {
        Propagation::PRIVATE
    } else {
        Propagation::DOWNSTREAM
    };
    sys::mount_change(tree.as_fd(), 0, 0, u64::from(kind.bits()), recursive)
}

fn clone_tree(path: &Path, recursive: bool) -> Result<OwnedFd, OciError> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(CWD, path, flags).map_err(call(format!("mount {}", path.display())))
}

/// The root as a detached tree. It may not be shared when it becomes the root (pivot_root(2)).
pub(super) fn root_tree(rootfs: &Path, wanted: Propagation) -> Result<OwnedFd, OciError> {
    let tree = clone_tree(rootfs, true)?;
    let private = if wanted.contains(Propagation::SHARED) {
        Propagation::PRIVATE
    } else {
        wanted
    };
    detach(&tree, private, true).map_err(call(format!("mount {}", rootfs.display())))?;
    Ok(tree)
}

/// The steps, and which mounts are made read-only once `/dev` is filled.
pub(super) fn steps(
    context: &Context<'_>,
    kept: &mut Kept,
    steps: &mut Vec<Step>,
) -> Result<Vec<InRoot>, OciError> {
    let mut read_only = Vec::new();
    for mount in &context.config.mounts {
        let options = options::parse(&mount.options);
        let mut made = if mount.kind == "bind" || options.bind {
            bind(context, mount, &options, kept)?
        } else if mount.kind == "cgroup" || mount.kind == "cgroup2" {
            cgroup(context, mount, &options, kept)?
        } else {
            file_system(context, mount, &options)?
        };
        check_place(&made, mount)?;
        // Devices and the targets of later mounts are still to be made in it.
        if mount.kind == "tmpfs" && made.attributes & attr::RDONLY != 0 {
            made.attributes &= !attr::RDONLY;
            read_only.push(made.at.clone());
        }
        steps.push(oci(OciStep::Mount(Box::new(made))));
    }
    Ok(read_only)
}

/// Nothing may stand in for the kernel's files below `/proc` (CVE-2019-16884, CVE-2023-28642).
fn check_place(mount: &OciMount, wanted: &Mount) -> Result<(), OciError> {
    let at = mount.at.to_string();
    if at == "/" {
        return Err(OciError::Refused(format!(
            "mount destination {:?} is the root",
            wanted.destination
        )));
    }
    let below = Path::new(&at).starts_with("/proc");
    let allowed = !below
        || PROC_FILES.contains(&at.as_str())
        || (at == "/proc" && (wanted.kind == "proc" || is_procfs(&wanted.source)));
    if allowed {
        return Ok(());
    }
    Err(OciError::Refused(format!(
        "\"{at}\" cannot be mounted because it is inside /proc"
    )))
}

fn is_procfs(source: &str) -> bool {
    rustix::fs::statfs(source).is_ok_and(|fs| u64::try_from(fs.f_type) == Ok(0x9fa0))
}

fn propagation_flags(options: &Options) -> Vec<u32> {
    options.propagation.iter().map(Propagation::bits).collect()
}

fn bind(
    context: &Context<'_>,
    mount: &Mount,
    options: &Options,
    kept: &mut Kept,
) -> Result<OciMount, OciError> {
    let source = if mount.source.starts_with('/') {
        PathBuf::from(&mount.source)
    } else {
        context.bundle.join(&mount.source)
    };
    if let Some(from) = context.below_root(&source) {
        return own_tree(context, mount, options, from, kept);
    }
    let words = || format!("mount {} at {}", source.display(), mount.destination);
    let tree = clone_tree(&source, options.recursive).map_err(|error| match error {
        OciError::Call { source, .. } => call(words())(source),
        other => other,
    })?;
    detach(&tree, context.propagation, true).map_err(call(words()))?;
    if options.set != 0 || options.clear != 0 {
        let change = sys::mount_change;
        change(tree.as_fd(), options.set, options.clear, 0, false).map_err(call(words()))?;
    }
    if options.set_all != 0 || options.clear_all != 0 {
        let change = sys::mount_change;
        change(tree.as_fd(), options.set_all, options.clear_all, 0, true).map_err(call(words()))?;
    }
    if options.idmap.is_some() || !mount.uid_mappings.is_empty() {
        let users = super::super::idmap::namespace(context.config, mount)?;
        let recursive = options.idmap == Some(true);
        sys::users::map_mount_ids(tree.as_fd(), users.as_fd(), recursive)
            .map_err(call(format!("map the ids of {}", words())))?;
    }
    let stat = rustix::fs::fstat(&tree).map_err(call(words()))?;
    Ok(OciMount {
        source: source.display().to_string(),
        shown: Shown::Tree {
            is_dir: FileType::from_raw_mode(stat.st_mode).is_dir(),
            tree: kept.keep(tree),
        },
        at: context.destination(mount)?,
        attributes: 0,
        strict: false,
        propagation: propagation_flags(options),
        copy_up: false,
        keep_mode: false,
    })
}

/// A part of the root: an earlier mount may have to be there first.
fn own_tree(
    context: &Context<'_>,
    mount: &Mount,
    options: &Options,
    from: InRoot,
    kept: &mut Kept,
) -> Result<OciMount, OciError> {
    let users = if options.idmap.is_some() || !mount.uid_mappings.is_empty() {
        let users = super::super::idmap::namespace(context.config, mount)?;
        Some((kept.keep(users), options.idmap == Some(true)))
    } else {
        None
    };
    Ok(OciMount {
        source: mount.source.clone(),
        shown: Shown::Inside(InsideTree {
            from,
            recursive: options.recursive,
            changes: [
                (options.set, options.clear, false),
                (options.set_all, options.clear_all, true),
            ],
            users,
        }),
        at: context.destination(mount)?,
        attributes: 0,
        strict: false,
        propagation: propagation_flags(options),
        copy_up: false,
        keep_mode: false,
    })
}

fn file_system(
    context: &Context<'_>,
    mount: &Mount,
    options: &Options,
) -> Result<OciMount, OciError> {
    let at = context.destination(mount)?;
    let mut parameters = Vec::new();
    if !mount.source.is_empty() {
        parameters.push((c("source")?, Some(c(&mount.source)?)));
    }
    let kernels = matches!(
        mount.kind.as_str(),
        "proc" | "sysfs" | "tmpfs" | "devpts" | "mqueue" | "ramfs"
    );
    // Of a disk, the file system itself must be read-only as well: another mount may share it.
    if !kernels && options.set & attr::RDONLY != 0 {
        parameters.push((c("ro")?, None));
    }
    for (key, value) in &options.data {
        let value = value.as_deref().map(c).transpose()?;
        parameters.push((c(key)?, value));
    }
    // Group 5 may have no id in a user namespace; runc leaves it to the configuration, too.
    let mode = options.data.iter().any(|(key, _)| key == "mode");
    let top = at.parts.len() == 1;
    let own = matches!(mount.kind.as_str(), "proc" | "sysfs") || (at.path.as_c_str() == c"dev");
    let _ = context.users;
    Ok(OciMount {
        source: if mount.source.is_empty() {
            mount.kind.clone()
        } else {
            mount.source.clone()
        },
        shown: Shown::New {
            kind: c(&mount.kind)?,
            options: parameters,
            pids: context.pids.filter(|_| mount.kind == "proc"),
        },
        at,
        attributes: options.set | options.set_all,
        strict: own && top,
        propagation: propagation_flags(options),
        copy_up: options.copy_up && mount.kind == "tmpfs",
        keep_mode: mount.kind == "tmpfs" && !mode,
    })
}

/// What a container sees of cgroups: on v2 the tree, on v1 one directory for each. Where the
/// container has no cgroup namespace, only its own groups (CVE-2023-25809).
fn cgroup(
    context: &Context<'_>,
    mount: &Mount,
    options: &Options,
    kept: &mut Kept,
) -> Result<OciMount, OciError> {
    let at = context.destination(mount)?;
    let shown = if context.groups.pure_v2() {
        if context.own_cgroups {
            Shown::New {
                kind: c("cgroup2")?,
                options: Vec::new(),
                pids: None,
            }
        } else {
            let own = context.groups.unified();
            let own =
                own.ok_or_else(|| OciError::Refused("this host has no cgroups".to_owned()))?;
            let tree = clone_tree(&own, false)?;
            sys::mount_change(tree.as_fd(), options.set, options.clear, 0, false)
                .map_err(call("mount the cgroups"))?;
            Shown::Tree {
                tree: kept.keep(tree),
                is_dir: true,
            }
        }
    } else {
        let mut top = CgroupTop::default();
        for name in context.trees.iter().map(OwnTree::name) {
            top.dirs.push(c(&name)?);
            for (link, to) in view_links(&name) {
                top.links.push((c(&link)?, c(&to)?));
            }
        }
        let trees = v1_trees(context, kept)?;
        Shown::Cgroups { top, trees }
    };
    Ok(OciMount {
        source: "cgroup".to_owned(),
        shown,
        at,
        attributes: options.set | options.set_all,
        strict: false,
        propagation: propagation_flags(options),
        copy_up: false,
        keep_mode: false,
    })
}

fn v1_trees(context: &Context<'_>, kept: &mut Kept) -> Result<Vec<CgroupTree>, OciError> {
    let mut trees = Vec::new();
    for tree in context.trees {
        let own = if context.own_cgroups {
            None
        } else {
            match context.groups.dir_in(&tree.mount) {
                Some(dir) => Some(kept.keep(clone_tree(&dir, false)?)),
                None => None,
            }
        };
        let controllers = Some(tree.controllers.as_str()).filter(|list| !list.is_empty());
        trees.push(CgroupTree {
            name: c(tree.name())?,
            controllers: controllers.map(c).transpose()?,
            own,
        });
    }
    Ok(trees)
}

/// Opens a host file without following the last link.
pub(super) fn open_node(path: &Path) -> Result<OwnedFd, OciError> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let node = rustix::fs::open(path, flags, Mode::empty())
        .map_err(call(format!("open {}", path.display())))?;
    let clone = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(&node, c"", clone).map_err(call(format!("mount {}", path.display())))
}
