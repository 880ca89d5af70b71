//! The decisions of a coordinator, pure: replicated state and how commands change it, the
//! allocator, the service scheduler, the validator of app definitions, and the JSON views of them.
//!
//! No clock, randomness, files, sockets, threads or async: time is an argument, ids are minted by
//! the shell, maps are ordered. Equal inputs give equal outputs on every member.
#![deny(missing_docs)]

pub mod alloc;
pub mod apply;
pub mod command;
pub mod mesos_view;
pub mod outcome;
pub mod service;
pub mod state;

pub use apply::apply;
pub use command::{Command, CommandError, Kind};
pub use outcome::{Applied, Change, LaunchRefusal, Outcome, Rejection};
pub use state::State;
