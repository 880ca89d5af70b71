//! The keeper: one small single-threaded process that is the only parent of containers.
//!
//! It decides nothing about tasks; it starts what it is told, pumps output, and keeps each exit
//! until the agent says that it has it on disk. Invariants: one keeper per directory (a lock file),
//! it outlives its clients, and nothing a client sends can stop it but `Stop`.
//!
//! A container's life in it:
//! ```text
//! Start ──> Starting ──exec──> Running ──pidfd──> Draining ──outlet──> Exited ──Forget──> Removing ──swept──> (gone)
//!              └──report──> Failing ──pidfd───────────────────────────────────────────────┘ then StartFailed
//! ```

pub mod client;
mod clients;
mod container;
mod daemon;
mod errand;
mod exec;
mod filters;
mod host;
mod ids;
mod launch;
mod outlet;
mod output;
pub mod packet;
pub mod protocol;
mod server;
mod slots;
mod start;
mod sweeper;
pub mod terminal;

pub use client::{Client, ClientError, Received};
pub use daemon::main;
pub(crate) use launch::remove_socket;
pub use output::{END_ATTRIBUTE, START_ATTRIBUTE};
pub use protocol::{Event, ExecSpec, Listed, ListedState, Request};
pub(crate) use slots::{Slot, remove_dead};
