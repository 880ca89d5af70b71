//! Executors that are programs of their framework, and what goes through the agent between the two.
//! The messages carry Mesos's own, as the framework gave them: an executor gets them back whole.
//!
//! Field numbers are never reused, as in [`super`].

use crate::mesos::v1;

/// Launch tasks below an executor of the framework's own, which is started if it is not there. In
/// a group all of them or none. Idempotent by the task ids; an executor that is there takes them in
/// if it is asked for in the same words.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LaunchCustom {
    /// The framework, with its id.
    #[prost(message, optional, boxed, tag = "1")]
    pub framework: Option<Box<v1::FrameworkInfo>>,
    /// The executor, with its command.
    #[prost(message, optional, boxed, tag = "2")]
    pub executor: Option<Box<v1::ExecutorInfo>>,
    /// The tasks, at least one.
    #[prost(message, repeated, tag = "3")]
    pub tasks: Vec<v1::TaskInfo>,
    /// Whether they are a group.
    #[prost(bool, tag = "4")]
    pub group: bool,
}

/// Bytes between a framework and an executor of its own, in either direction; may be lost.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ExecutorMessage {
    /// The framework.
    #[prost(string, tag = "1")]
    pub framework_id: String,
    /// The executor.
    #[prost(string, tag = "2")]
    pub executor_id: String,
    /// Whatever they agreed on.
    #[prost(bytes = "vec", tag = "3")]
    pub data: Vec<u8>,
}

/// An executor of a framework's own has ended; may be lost.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ExecutorEnded {
    /// The framework.
    #[prost(string, tag = "1")]
    pub framework_id: String,
    /// The executor.
    #[prost(string, tag = "2")]
    pub executor_id: String,
    /// As wait(2) gives it; -1 when nobody saw it end, or it never ran.
    #[prost(int32, tag = "3")]
    pub status: i32,
}
