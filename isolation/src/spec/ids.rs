//! User and group numbers: which ones of the host stand behind the container's, and which the
//! command gets besides its user's.

use serde::{Deserialize, Serialize};

use super::{ContainerId, MAX_USER, SpecError, bound};

/// Supplementary groups that a spec may add to those of the image.
pub const MAX_GROUPS: usize = 64;

/// Which numbers of the host stand behind the container's users and groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ids {
    /// The same: root inside is root outside, with fewer capabilities.
    #[default]
    Host,
    /// A user namespace over 65,536 numbers above 2^20 that no other container of the keeper has.
    /// The root, the sandbox and volumes are id-mapped mounts, so numbers on disk are the
    /// container's own. The other namespaces stay the host root's: a capability over them, such as
    /// `CAP_SYS_ADMIN` or `CAP_NET_ADMIN`, is worth nothing inside.
    Private,
    /// The numbers of a running container of the same keeper, as a task group shares them.
    Of(ContainerId),
}

/// Whether added groups are numbers that the kernel takes.
pub(super) fn check_groups(groups: &[u32]) -> Result<(), SpecError> {
    bound("supplementary groups", groups.len(), MAX_GROUPS)?;
    match groups.iter().find(|group| **group > MAX_USER) {
        Some(group) => Err(SpecError::UserNumber(group.to_string())),
        None => Ok(()),
    }
}
