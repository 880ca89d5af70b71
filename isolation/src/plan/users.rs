//! What all processes of one container have in common, and the steps that make them so: ids,
//! privileges, confinement.
//!
//! It decides the order in which privileges go. Whatever needs the host's root comes before the user
//! namespace is entered; a filter that may be loaded without privileges comes last, so that it need
//! not allow what the steps before it do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{HostFacts, InRoot, PlanError, Step, c, c_path, capabilities};
use crate::caps::CapSet;
use crate::seccomp::{Program, Seccomp};
use crate::spec::{
    ContainerSpec, Landlock, MountKind, Namespaces, Root, Sharing, SpecError, TimeOffsets,
};

/// How many users and groups a user namespace has: all that 16 bits hold, which is what images use.
pub(crate) const USERS: u32 = 1 << 16;

/// What all processes of one container have in common, from the first to those that join it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inherited {
    /// First number of the host of its users; None: they are the host's.
    pub(crate) users: Option<u32>,
    groups: Vec<u32>,
    no_new_privileges: bool,
    time: bool,
    landlock: Option<Landlock>,
    filter: Option<Arc<Program>>,
    keyless: bool,
}

/// A file, or all below a directory, that Landlock lets through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LandlockRule {
    /// Which.
    pub(crate) at: InRoot,
    /// Whether it may be changed.
    pub(crate) write: bool,
}

impl Inherited {
    /// Of a container with these ids and this filter of system calls.
    pub(crate) fn new(
        spec: &ContainerSpec,
        users: Option<u32>,
        filter: Option<Arc<Program>>,
    ) -> Self {
        Self {
            users,
            groups: spec.groups.clone(),
            no_new_privileges: spec.no_new_privileges,
            time: spec.namespaces.time.is_some(),
            landlock: spec.landlock.clone(),
            filter,
            keyless: spec.seccomp == Seccomp::Default,
        }
    }

    /// Whether nothing can be left in the user namespace for whoever has it next: keys of a user
    /// live as long as the namespace (`user-keyring(7)`), and only the built-in filter is known to
    /// let nobody make one.
    pub(crate) fn clean(&self) -> bool {
        self.keyless
    }

    /// Enters the container, as one of its users for files.
    pub(super) fn enter(&self, steps: &mut Vec<Step>) {
        steps.push(Step::EnterContainer { time: self.time });
        steps.extend(self.users.map(Step::ActAs));
    }

    /// The user is known.
    pub(super) fn groups(&self, steps: &mut Vec<Step>) {
        if !self.groups.is_empty() {
            steps.push(Step::Groups(self.groups.clone()));
        }
        steps.push(Step::OwnStreams);
    }

    /// Everything is mounted, and the root's descriptor still leads to it.
    pub(super) fn landlock(
        &self,
        host: &HostFacts,
        steps: &mut Vec<Step>,
    ) -> Result<(), PlanError> {
        let Some(wanted) = &self.landlock else {
            return Ok(());
        };
        let version = host.landlock.ok_or(PlanError::NoLandlock)?;
        let rule = |write| {
            move |path: &PathBuf| {
                let at = InRoot::new(path)?;
                Ok(LandlockRule { at, write })
            }
        };
        let read_only = wanted.read_only.iter().map(rule(false));
        let rules = read_only.chain(wanted.read_write.iter().map(rule(true)));
        steps.push(Step::LandlockRules {
            version,
            rules: rules.collect::<Result<_, SpecError>>()?,
        });
        Ok(())
    }

    /// The last steps before exec: privileges go. Confinement takes `CAP_SYS_ADMIN` or
    /// no_new_privs: without the latter it must come while root still has the former.
    pub(super) fn settle(&self, host: &HostFacts, wanted: CapSet, steps: &mut Vec<Step>) {
        if self.users.is_some() {
            steps.push(Step::EnterUsers);
        }
        let credentials = Step::Credentials(capabilities(host, wanted));
        if self.no_new_privileges {
            steps.extend([credentials, Step::NoNewPrivileges]);
            self.confine(steps);
        } else {
            self.confine(steps);
            steps.push(credentials);
        }
    }

    fn confine(&self, steps: &mut Vec<Step>) {
        if self.landlock.is_some() {
            steps.push(Step::Confine);
        }
        steps.extend(self.filter.clone().map(Step::Filter));
    }
}

/// Text of `/proc/self/timens_offsets`: seconds may be negative, nanoseconds may not.
pub(super) fn time(offsets: TimeOffsets) -> Result<Step, SpecError> {
    const SECOND_NS: i64 = 1_000_000_000;
    let line = |clock: &str, ns: i64| {
        let (seconds, rest) = (ns.div_euclid(SECOND_NS), ns.rem_euclid(SECOND_NS));
        format!("{clock} {seconds} {rest}\n")
    };
    let monotonic = line("monotonic", offsets.monotonic_ns);
    let boottime = line("boottime", offsets.boottime_ns);
    Ok(Step::Time(c(monotonic + &boottime)?))
}

/// Whether a container has a PID namespace of its own: where it has not, there is no PID 1 of its
/// own either.
pub(crate) fn own_processes(namespaces: &Namespaces) -> bool {
    namespaces.pid == Sharing::Own
}

/// Where the host's root is found as a layer once it is mapped: by `ROOT_VIEW_FD` of `child`.
pub(super) const MAPPED_ROOT: &str = "/proc/self/fd/8";

/// Makes the layers of the root and of image volumes appear with the container's ids. One view of
/// the directory that several are in serves them all: views are mounts, of which a host has one
/// lock, and an image has up to hundreds of layers.
pub(super) fn map_layers(spec: &ContainerSpec, steps: &mut Vec<Step>) -> Result<(), SpecError> {
    let host_root = PathBuf::from("/");
    let mut siblings: BTreeMap<&Path, BTreeSet<&Path>> = BTreeMap::new();
    for layer in layers(spec, &host_root) {
        let above = layer.parent().unwrap_or(layer);
        siblings.entry(above).or_default().insert(layer);
    }
    for (above, layers) in siblings {
        // The root's own file system is not what is mounted on it.
        if layers.len() > 1 && above != host_root {
            let names = layers
                .iter()
                .filter_map(|layer| layer.file_name())
                .map(|name| c(name.as_encoded_bytes()))
                .collect::<Result<Vec<_>, _>>()?;
            let path = c_path(above)?;
            steps.push(Step::MapTree { path, names });
            continue;
        }
        for layer in layers {
            if layer == host_root {
                steps.push(Step::MapRoot);
                continue;
            }
            let path = c_path(layer)?;
            let names = Vec::new();
            steps.push(Step::MapTree { path, names });
        }
    }
    Ok(())
}

fn layers<'a>(spec: &'a ContainerSpec, host_root: &'a Path) -> Vec<&'a Path> {
    let mut all: Vec<&Path> = match &spec.root {
        Root::Layers(own) => own.iter().map(PathBuf::as_path).collect(),
        Root::Host { .. } => vec![host_root],
    };
    for mount in &spec.mounts {
        if let MountKind::Image { layers } = &mount.kind {
            all.extend(layers.iter().map(PathBuf::as_path));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mapped_root_is_where_steps_leave_it() {
        let number = crate::child::ROOT_VIEW_FD;
        assert_eq!(MAPPED_ROOT, format!("/proc/self/fd/{number}"));
    }

    #[test]
    fn offsets_before_zero_keep_nanoseconds_above_it() {
        let step = time(TimeOffsets {
            monotonic_ns: -1_500_000_000,
            boottime_ns: 86_400_000_000_001,
        });
        let text = c("monotonic -2 500000000\nboottime 86400 1\n").unwrap();
        assert_eq!(step, Ok(Step::Time(text)));
    }
}
