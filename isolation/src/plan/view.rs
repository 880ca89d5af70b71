//! What a container sees at `/sys/fs/cgroup`: its own groups, read-only.
//!
//! Each is a mount whose root is the container's group, so there is no way to the one above. They are
//! mounted before paths are masked and protected, so that a spec can take them away.

use std::ffi::CString;
use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;

use super::{c, c_path};
use crate::cgroup::{Group, Hierarchies, ViewNames};
use crate::spec::SpecError;

/// What is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CgroupView {
    /// v2: the group itself, by its path on the host.
    Unified(CString),
    /// v1: one directory for each tree.
    Trees {
        /// The directories, empty.
        top: Rc<CgroupTop>,
        /// Which of them shows which path of the host.
        groups: Vec<(CString, CString)>,
    },
}

/// Directories and links of a view that holds several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CgroupTop {
    /// Names.
    pub(crate) dirs: Vec<CString>,
    /// Names, and what they lead to.
    pub(crate) links: Vec<(CString, CString)>,
}

impl CgroupTop {
    /// With these names.
    pub(crate) fn new(names: &ViewNames) -> Result<Self, SpecError> {
        let dirs = names.dirs.iter().map(c).collect::<Result<_, _>>()?;
        let link = |(name, to): &(String, String)| Ok((c(name)?, c(to)?));
        let links = names.links.iter().map(link).collect::<Result<_, _>>()?;
        Ok(Self { dirs, links })
    }
}

impl CgroupView {
    /// Of a container with these groups; None where it has none to see.
    pub(super) fn new(
        hosts: &Hierarchies,
        top: &Rc<CgroupTop>,
        group: &Group,
    ) -> Result<Option<Self>, SpecError> {
        if hosts.pure_v2 {
            let dir = group.unified.as_deref().map(c_path).transpose()?;
            return Ok(dir.map(Self::Unified));
        }
        let shown = |(name, dir): &(String, PathBuf)| Ok((c(name)?, c_path(dir)?));
        let groups: Vec<_> = group.shown.iter().map(shown).collect::<Result<_, _>>()?;
        let top = Rc::clone(top);
        Ok((!groups.is_empty()).then_some(Self::Trees { top, groups }))
    }
}

impl fmt::Display for CgroupView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("mount its own cgroups")?;
        match self {
            Self::Unified(_) => Ok(()),
            Self::Trees { groups, .. } => {
                let mut names = groups.iter().map(|(name, _)| name.to_string_lossy());
                names.try_for_each(|name| write!(f, " {name}"))
            }
        }
    }
}
