//! Why a spec is not well formed.

use std::path::PathBuf;

use super::{ContainerId, MAX_ID_BYTES, MAX_USER, Resource};

/// Why a spec is not well formed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SpecError {
    /// Not a usable id.
    #[error("id {0:?} is not 1 to {MAX_ID_BYTES} letters, digits, '.', '_' or '-'")]
    Id(String),
    /// Not an absolute path without `..`.
    #[error("{what} {path:?} is not an absolute path without '..'")]
    Path {
        /// Which field.
        what: &'static str,
        /// The value.
        path: PathBuf,
    },
    /// A target that the container's own mounts own.
    #[error("nothing may be mounted at {0:?}: /, /proc, /sys and /dev are the container's own")]
    Target(PathBuf),
    /// More than the bound.
    #[error("{what}: {got} is more than {max}")]
    TooMany {
        /// Which list or size.
        what: &'static str,
        /// How many were given.
        got: usize,
        /// The bound.
        max: usize,
    },
    /// Nothing where something is needed.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// A covered path that is not in its volume.
    #[error("{path:?} does not lie below {volume:?}")]
    Cover {
        /// The path.
        path: PathBuf,
        /// The volume's source.
        volume: PathBuf,
    },
    /// Not permissions.
    #[error("{0:o} are not permissions: the largest are 1777")]
    Mode(u32),
    /// A device where none can be.
    #[error("no device may appear at {0:?}: only below /dev, outside its pts, shm and mqueue")]
    DeviceTarget(PathBuf),
    /// Not a way to use a device.
    #[error("{0:?} is not a device's access: one to three letters of \"rwm\"")]
    Access(String),
    /// The whole root where only a part of it can be.
    #[error("{0:?} cannot be masked or made read-only: it is the root")]
    WholeRoot(PathBuf),
    /// Not an id of a user or group.
    #[error("{0} is not a user or group number: the largest is {MAX_USER}")]
    UserNumber(String),
    /// Not a name of a user or group.
    #[error("{0:?} is not a user or group name: it holds ':' or a line break")]
    UserName(String),
    /// A limit that no host could keep.
    #[error("the limit {limit} is {value:?}, not {wanted}")]
    Limit {
        /// Which.
        limit: &'static str,
        /// The value.
        value: String,
        /// What it may be.
        wanted: &'static str,
    },
    /// A NUL byte, or `=` in the name of a variable.
    #[error("{0} holds a character that the kernel's interface cannot carry")]
    Character(&'static str),
    /// A namespace or range of ids of its own is asked for as another's.
    #[error("{0} cannot share with itself")]
    SharesWithItself(ContainerId),
    /// A limit whose parts contradict each other.
    #[error("the soft limit of {0} is above the hard one")]
    SoftAboveHard(Resource),
    /// A setting that may be there only once.
    #[error("{0} is given twice")]
    Twice(&'static str),
    /// Not a value that the kernel takes.
    #[error("oom_score_adj {0} is not between -1000 and 1000")]
    OomScore(i32),
    /// A terminal whose output nobody takes.
    #[error("a container with a terminal needs output files: it would stand still without")]
    TerminalOutput,
}
