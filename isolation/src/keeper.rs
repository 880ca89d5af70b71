//! The keeper: one small single-threaded process that is the only parent of containers.
//!
//! It decides nothing about tasks; it starts what it is told, pumps output, and keeps each exit
//! until the agent says that it has it on disk. Invariants: one keeper per directory (a lock file),
//! it outlives its clients, and nothing a client sends can stop it but `Stop`.

pub mod client;
mod launch;
pub mod packet;
pub mod protocol;

pub use client::{Client, ClientError, Received};
pub use protocol::{Event, ExecSpec, Listed, ListedState, Request};

use std::ffi::OsString;
use std::process::ExitCode;

/// The keeper's program: call it before any thread exists, with the arguments after the role.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let _ = args.into_iter().count();
    ExitCode::FAILURE
}
