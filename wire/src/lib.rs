//! What crosses a process boundary: ids, units, resources, the protocol between agent and
//! coordinator, and the JSON that clients of Marathon and Mesos know.
//!
//! It decides nothing. Only serde and prost here: no sockets, no clock, no files.
//! Invariant: a value that was parsed into a checked type (`AppId`, `TaskId`, `PortRanges`) is
//! valid for as long as it lives.
#![deny(missing_docs)]

pub mod agent;
pub mod caller;
pub mod check;
pub mod ids;
pub mod marathon;
pub mod mesos;
pub mod resources;
pub mod task;
pub mod time;
pub mod units;
