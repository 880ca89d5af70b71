//! The decisions of an agent, pure: what to do with a task from its launch to the acknowledgement
//! of its last status update, and what to make of the tasks found after a restart.
//!
//! [`Tasks::step`] takes the time, an [`Event`] and appends [`Action`]s; the shell (`gantry-agent`)
//! carries them out in order and reports back with events. No clock, randomness, files, sockets or
//! threads here: time and the seed of new uuids are arguments, maps are ordered.
//!
//! It deliberately does not know what an image, a namespace or a keeper looks like: those are
//! steps that the shell is asked for and that succeed or fail with a sentence for people.
//!
//! Invariants (held by `tests/histories.rs` over seeded random histories):
//! - at most one status update of a task is in flight;
//! - a task gets exactly one terminal update, and it is its last;
//! - a container is started at most once, also across restarts of the agent; one that only holds
//!   what tasks share may be, as long as none of them was;
//! - of a group all tasks are started or none; one that fails or is killed ends the others;
//! - what an acknowledgement or a `Forget` rests on was asked to be saved before.
#![deny(missing_docs)]

mod action;
mod checkpoint;
mod checks;
mod custom;
mod customs;
mod ending;
mod event;
mod executor;
mod gpus;
mod groups;
mod history;
mod killing;
mod moment;
mod recovery;
mod refusals;
mod task;
mod tasks;
mod timed;
mod unit;
mod updates;

pub use action::{Action, Signal};
pub use checkpoint::{Checkpoint, ExecutorCheckpoint, Saved, Stage};
pub use checks::{CHECKS_MAX, Found, INTERVAL_MIN_MS};
pub use custom::charge::WAITING_MAX;
pub use custom::saved::{ChargeCheckpoint, ChargeStage, CustomCheckpoint, Doom};
pub use custom::{CustomView, ExecutorTimes};
pub use customs::{STATUS_MAX_BYTES, UpdateRefusal, WAITING_MAX_BYTES};
pub use ending::{DiskExcess, Exit, Verdict};
pub use event::{CustomLaunch, Event, ExecutorCall, GroupLaunch, KeeperId, Member, Seen};
pub use executor::{ExecutorView, LINGER_MS};
pub use gpus::GpuName;
pub use groups::MEMBERS_MAX;
pub use history::HISTORY_MAX;
pub use killing::KILL_REPEAT_MS;
pub use moment::Now;
pub use task::{MESSAGE_MAX_BYTES, TaskView};
pub use tasks::{TASKS_MAX, Tasks};
pub use unit::{ExecutorKey, Unit};
pub use updates::{RETRY_FIRST_MS, RETRY_MAX_MS};
