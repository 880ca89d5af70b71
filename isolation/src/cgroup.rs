//! Control groups: where each controller's tree is, and the files that make and limit one group.
//!
//! It decides the directories and file contents ([`Group`] is pure once [`Hierarchies`] is known);
//! the keeper's child writes them. One file per controller says what its settings are in either
//! version. Our own code writes them, not cgroups-rs: a child between clone and exec allocates
//! nothing, and on hybrid hosts that crate sees v1 alone. It serves where neither matters, for
//! statistics ([`usage`]).
//! Invariant: all of a container's directories are named `<parent>/<id>` in every tree (those that
//! filter devices of its own: `<parent>-devices/<id>`), or by the one path that `oci` was given.
//! Containers without CPUs of their own share `<parent>-cpuset`.

mod binds;
mod bpf;
mod change;
mod cpu;
mod cpuset;
mod devices;
mod establish;
mod freezer;
mod group;
mod hierarchies;
mod hugetlb;
mod io;
mod kill;
mod memory;
mod own;
mod parent;
mod path;
mod pids;
mod remove;
mod text;
mod unified;
mod usage;
mod view;
mod watch;

pub use binds::{PORTS_MAX, refuse_binds};
pub(crate) use bpf::Program;
pub(crate) use change::{Change, ChangeError, Update};
pub use devices::{DeviceFilter, DeviceKind, DeviceRule};
pub(crate) use establish::{Door, door, establish, establish_unified};
pub(crate) use freezer::Freezer;
pub(crate) use group::GroupFilter;
pub use group::{Group, GroupError};
pub use hierarchies::Hierarchies;
pub(crate) use hierarchies::is_pure_v2;
pub(crate) use hugetlb::name as huge_page_name;
pub(crate) use io::weight as io_weight;
use kill::gather;
pub(crate) use kill::{kill_group, kill_session, kill_stopped, members};
pub(crate) use own::OwnTree;
pub use parent::{CgroupError, limit_parent, parent_id, prepare, remove_parent};
pub(crate) use parent::{container_parents, prepare_one, prepare_parent};
pub use path::CgroupPath;
pub(crate) use remove::remove_group;
pub use text::{IoUsage, Pressure, Stall};
pub use unified::filter_devices;
pub(crate) use unified::make_unified;
pub use usage::{Usage, usage, usage_at};
pub(crate) use view::{ViewNames, links as view_links};
pub use watch::{Activity, Groups};

use std::borrow::Cow;
use std::fmt;

/// A value for a file of a controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    /// What asked for it, as `Limits` names it.
    pub(crate) limit: &'static str,
    /// Name of the file.
    pub(crate) file: Cow<'static, str>,
    /// What to write.
    pub(crate) value: String,
}

impl Setting {
    fn new(
        limit: &'static str,
        file: impl Into<Cow<'static, str>>,
        value: impl fmt::Display,
    ) -> Self {
        Self {
            limit,
            file: file.into(),
            value: value.to_string(),
        }
    }
}

/// Settings as a test reads them.
#[cfg(test)]
fn shown(settings: &[Setting]) -> String {
    let one = |setting: &Setting| format!("{}={}", setting.file, setting.value);
    settings.iter().map(one).collect::<Vec<_>>().join(" ")
}
