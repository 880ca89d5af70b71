//! The service scheduler: Marathon's model.

pub mod answer;
pub mod label_selector;
pub mod launch;
pub mod mesos_summary;
pub mod needs;
pub mod queue;
pub mod request;
pub mod rolling;
pub mod scheduler;
pub mod validate;
pub mod view;

pub use scheduler::{Action, Event, IdSource, Scheduler};
