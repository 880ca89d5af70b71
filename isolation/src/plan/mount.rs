//! What is mounted in the root, ready for the child: new file systems, parts of the host, layers of
//! images, secrets; and which paths are masked or protected.

use std::ffi::{CStr, CString};
use std::fmt;
use std::path::{Path, PathBuf};

use super::{GuardHow, HostFacts, InRoot, Step, c, c_path};
use crate::spec::{ContainerSpec, Mount, MountKind, SANDBOX_TARGET, SpecError};
use crate::sys::mount_attr;

/// What every mount that holds data gets.
pub(crate) const PLAIN: u64 = mount_attr::NOSUID | mount_attr::NODEV;
/// What the kernel hands out memory in, at least.
const PAGE_BYTES: usize = 4096;

/// Where a mount comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A file system of its own.
    New {
        /// Its type, such as `tmpfs`.
        kind: CString,
        /// Its parameters; one without a value is a flag.
        options: Vec<(CString, Option<CString>)>,
    },
    /// A directory or file of the host.
    Bind {
        /// Which.
        path: CString,
        /// Whether what is mounted below comes along.
        recursive: bool,
        /// Whether symbolic links on the way are followed. Only for whoever could name the end of
        /// the way as well.
        links: bool,
    },
    /// Directories of the host as one, read-only.
    Layers {
        /// Topmost first; more than one.
        lower: Vec<CString>,
        /// The whole option text, for kernels that do not take layers one by one.
        options: Option<CString>,
    },
}

/// Mount attributes to add and to take away ([`mount_attr`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// Added.
    pub(crate) set: u64,
    /// Taken away; a time attribute is only set where `ATIME` is cleared.
    pub(crate) clear: u64,
}

/// One mount at a path of the root; the path is made when missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountStep {
    /// What.
    pub(crate) source: Source,
    /// Where.
    pub(crate) at: InRoot,
    /// Whether symbolic links of the root on the way are followed, within the root. Not for the
    /// kernel's file systems, whose place nobody else may choose (CVE-2019-19921).
    pub(crate) links: bool,
    /// Attributes of the mount itself.
    pub(crate) own: Attributes,
    /// Attributes of it and of every mount below.
    pub(crate) all: Attributes,
    /// `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED` or `MS_UNBINDABLE`; 0 leaves it.
    pub(crate) propagation: u64,
    /// Whether its files appear with the container's ids.
    pub(crate) mapped: bool,
}

impl MountStep {
    fn plain(source: Source, at: &Path, read_only: bool) -> Result<Self, SpecError> {
        let read_only = if read_only { mount_attr::RDONLY } else { 0 };
        let set = PLAIN | read_only;
        Ok(Self {
            source,
            at: InRoot::new(at)?,
            links: true,
            own: Attributes::default(),
            all: Attributes { set, clear: 0 },
            propagation: 0,
            mapped: false,
        })
    }

    /// An empty tmpfs; `mode` is octal.
    pub(super) fn tmpfs(
        at: &Path,
        bytes: u64,
        mode: u32,
        read_only: bool,
    ) -> Result<Self, SpecError> {
        let options = vec![
            (c("size")?, Some(c(bytes.to_string())?)),
            (c("mode")?, Some(c(format!("{mode:04o}"))?)),
        ];
        let kind = c("tmpfs")?;
        Self::plain(Source::New { kind, options }, at, read_only)
    }

    /// With the container's ids, if so.
    fn with_ids(self, mapped: bool) -> Self {
        Self { mapped, ..self }
    }

    fn bind(path: &Path, at: &Path, read_only: bool, recursive: bool) -> Result<Self, SpecError> {
        let source = Source::Bind {
            path: c_path(path)?,
            recursive,
            links: false,
        };
        Self::plain(source, at, read_only)
    }
}

impl fmt::Display for MountStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::New { kind, options } => {
                write!(f, "mount {}", kind.to_string_lossy())?;
                let size = options.iter().find(|(key, _)| key.as_c_str() == c"size");
                if let Some((_, Some(size))) = size {
                    write!(f, " of {} bytes", size.to_string_lossy())?;
                }
            }
            Source::Bind { path, .. } => write!(f, "mount {}", path.to_string_lossy())?,
            Source::Layers { lower, .. } => {
                f.write_str("mount the layers ")?;
                show_layers(lower, f)?;
            }
        }
        write!(f, " at {}", self.at)?;
        if (self.own.set | self.all.set) & mount_attr::RDONLY != 0 {
            f.write_str(", read-only")?;
        }
        Ok(())
    }
}

/// Layers as overlayfs writes them.
pub(super) fn show_layers(lower: &[CString], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (index, path) in lower.iter().enumerate() {
        let between = if index == 0 { "" } else { ":" };
        write!(f, "{between}{}", path.to_string_lossy())?;
    }
    Ok(())
}

/// Layers as strings and, for kernels that take only one, all of them in one text that ends with
/// `rest`.
pub(super) fn layers(
    host: &HostFacts,
    layers: &[PathBuf],
    rest: &str,
) -> Result<(Vec<CString>, Option<CString>), SpecError> {
    let lower = layers
        .iter()
        .map(|path| c_path(path))
        .collect::<Result<Vec<_>, _>>()?;
    if host.layer_by_layer {
        return Ok((lower, None));
    }
    // mount(2) takes one page of text in which ':', ',' and '\\' mean something.
    let special = |b: &u8| matches!(b, b':' | b',' | b'\\');
    if lower.iter().any(|path| path.as_bytes().iter().any(special)) {
        return Err(SpecError::Character("a layer's path (for this kernel)"));
    }
    let joined = lower
        .iter()
        .map(CString::as_c_str)
        .map(CStr::to_bytes)
        .collect::<Vec<_>>()
        .join(&b':');
    let options = c([b"lowerdir=", joined.as_slice(), rest.as_bytes()].concat())?;
    Ok((lower, Some(options)))
}

/// The sandbox and the volumes.
pub(super) fn volumes(
    host: &HostFacts,
    spec: &ContainerSpec,
    mapped: bool,
    steps: &mut Vec<Step>,
) -> Result<(), SpecError> {
    // First: a volume's target may lie in the sandbox.
    if let Some(sandbox) = &spec.sandbox {
        let at = Path::new(SANDBOX_TARGET);
        let step = MountStep::bind(sandbox, at, false, true)?;
        steps.push(Step::Mount(step.with_ids(mapped)));
    }
    for mount in &spec.mounts {
        volume(host, spec, mount, mapped, steps)?;
    }
    Ok(())
}

fn volume(
    host: &HostFacts,
    spec: &ContainerSpec,
    mount: &Mount,
    mapped: bool,
    steps: &mut Vec<Step>,
) -> Result<(), SpecError> {
    let (at, read_only) = (mount.target.as_path(), mount.read_only);
    match &mount.kind {
        MountKind::Bind {
            source,
            cover,
            recursive,
        } => {
            let step = MountStep::bind(source, at, read_only, *recursive)?;
            steps.push(Step::Mount(step.with_ids(mapped)));
            // At once: a later volume's mount point must not be made in what is covered.
            for path in cover {
                let within = path.strip_prefix(source).unwrap_or(path);
                steps.push(Step::Cover {
                    path: c_path(path)?,
                    within: c_path(within)?,
                });
            }
        }
        MountKind::Tmpfs { bytes, mode } => {
            let step = MountStep::tmpfs(at, *bytes, *mode, read_only)?;
            steps.push(Step::Mount(step));
        }
        MountKind::Image { layers: paths } => steps.push(Step::Mount(match paths.as_slice() {
            // overlayfs wants two at least. Layers have the container's ids where they are.
            [only] => MountStep::bind(only, at, true, false)?,
            several => {
                let (lower, options) = layers(host, several, "")?;
                MountStep::plain(Source::Layers { lower, options }, at, true)?
            }
        })),
        MountKind::Secret { content } => {
            if !steps
                .iter()
                .any(|step| matches!(step, Step::Secrets { .. }))
            {
                steps.push(secrets(spec)?);
            }
            let earlier = |step: &&Step| matches!(step, Step::Secret { .. });
            let number = steps.iter().filter(earlier).count();
            steps.push(Step::Secret {
                at: InRoot::new(at)?,
                name: c(number.to_string())?,
                content: content.clone(),
            });
        }
    }
    Ok(())
}

/// The memory that holds all secrets of the container.
fn secrets(spec: &ContainerSpec) -> Result<Step, SpecError> {
    let sizes = spec.mounts.iter().filter_map(|mount| match &mount.kind {
        MountKind::Secret { content } => Some(content.bytes().len()),
        _ => None,
    });
    let pages: usize = sizes.map(|size| size.div_ceil(PAGE_BYTES)).sum();
    Ok(Step::Secrets {
        size: c((pages.max(1) * PAGE_BYTES).to_string())?,
    })
}

/// The command's user gets the secrets, once it is known who that is.
pub(super) fn secret_owner(steps: &mut Vec<Step>) {
    let names: Vec<CString> = steps
        .iter()
        .filter_map(|step| match step {
            Step::Secret { name, .. } => Some(name.clone()),
            _ => None,
        })
        .collect();
    if !names.is_empty() {
        steps.push(Step::SecretOwner(names));
    }
}

/// What is masked and protected once everything is mounted. What is protected comes first: it is
/// mounted over itself, and a mask below must end up on top.
pub(super) fn guards(
    host: &HostFacts,
    spec: &ContainerSpec,
    steps: &mut Vec<Step>,
) -> Result<(), SpecError> {
    let usual = |read_only: bool| {
        let wanted = move |how| (how == GuardHow::ReadOnly) == read_only;
        let guards = host.guarded.iter().filter(move |guard| wanted(guard.how));
        guards.cloned().map(Step::Guard)
    };
    match &spec.read_only_paths {
        None => steps.extend(usual(true)),
        Some(paths) => {
            for path in paths {
                steps.push(Step::Protect(InRoot::new(path)?));
            }
        }
    }
    match &spec.masked_paths {
        None => steps.extend(usual(false)),
        Some(paths) => {
            for path in paths {
                steps.push(Step::Mask(InRoot::new(path)?));
            }
        }
    }
    Ok(())
}
