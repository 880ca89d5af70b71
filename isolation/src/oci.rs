//! `gantry oci`: the OCI runtime command line over the same plan, child and system calls as the
//! keeper's containers, for runtime-spec 1.2.
//!
//! Each command is one short-lived process with one thread; there is no keeper. The container's first
//! process is cloned with its plan, waits for its start, and is left to whoever called us. It
//! deliberately parses no command line: requests come as plain types. What runc would say, it says in
//! the same words, since engines and conformance suites read them.

mod check;
mod clock;
pub mod config;
mod console;
mod create;
mod delete;
mod devices;
mod error;
mod exec;
mod features;
mod filter;
mod foreground;
#[cfg(test)]
mod fuzz;
mod groups;
mod hooks;
mod idmap;
mod launch;
mod limits;
mod log;
mod options;
mod protect;
mod relay;
mod run;
mod show;
mod spec;
mod state;
mod statistics;
mod steps;
mod update;

use std::path::PathBuf;

pub use create::{Create, create};
pub use delete::{delete, kill};
pub use error::{OciError, whole};
pub use exec::{Exec, exec, read_process};
pub use features::features;
pub use log::{Log, LogFormat};
pub use protect::{close_inherited, leave, protect};
pub use run::{Run, run, start};
pub use show::{Listed, list, processes, state};
pub use spec::{spec, write_spec};
pub use state::Status;
pub use statistics::statistics;
pub use update::{Update, pause, resume, update};

pub use crate::sys::early::RoleAllocator;

/// What every command knows.
#[derive(Clone, Debug, Default)]
pub struct Global {
    /// Directory of all containers' state.
    pub root: PathBuf,
    /// Where errors are told.
    pub log: Log,
    /// Whether `cgroupsPath` has systemd's form.
    pub systemd_cgroup: bool,
}
