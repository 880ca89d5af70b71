//! How a running task is looked at, again and again: what is asked of it and what was found. Part
//! of the protocol between agent and coordinator.
//!
//! A check of health may end the task, one of readiness or of a value only reports. The names and
//! their meaning are those of Mesos (`HealthCheck`, `CheckInfo`) and of Marathon's readiness checks.

/// What a check is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Purpose {
    /// Whether the task works; failing too often may end it.
    Health = 0,
    /// The value itself: an exit status, an HTTP status, whether a connection is taken.
    Value = 1,
    /// Whether the task may be given work yet.
    Readiness = 2,
}

/// Something that is looked at while a task runs.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Check {
    /// What for.
    #[prost(enumeration = "Purpose", tag = "1")]
    pub purpose: i32,
    /// Its name, may be empty.
    #[prost(string, tag = "2")]
    pub name: String,
    /// From the task's start to the first probe, in milliseconds.
    #[prost(uint64, tag = "3")]
    pub delay_ms: u64,
    /// From the end of one probe to the next, in milliseconds.
    #[prost(uint64, tag = "4")]
    pub interval_ms: u64,
    /// How long a probe may take, in milliseconds; 0: as long as it takes.
    #[prost(uint64, tag = "5")]
    pub timeout_ms: u64,
    /// From the task's start: failures in this time do not count before the first success.
    #[prost(uint64, tag = "6")]
    pub grace_ms: u64,
    /// Failures in a row after which the task is killed, at least one; 0: it never is.
    #[prost(uint32, tag = "7")]
    pub failures_to_kill: u32,
    /// What is asked.
    #[prost(oneof = "Probe", tags = "10, 11, 12")]
    pub probe: Option<Probe>,
}

/// What is asked of a task.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Probe {
    /// A command in its container.
    #[prost(message, tag = "10")]
    Command(CommandProbe),
    /// An HTTP request in its network.
    #[prost(message, tag = "11")]
    Http(HttpProbe),
    /// A TCP connection in its network.
    #[prost(message, tag = "12")]
    Tcp(TcpProbe),
}

/// A command in the task's container; exit status 0 is a success.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CommandProbe {
    /// Run by `/bin/sh -c`; empty when `args` say what to run.
    #[prost(string, tag = "1")]
    pub shell: String,
    /// Argument vector when there is no `shell`.
    #[prost(string, repeated, tag = "2")]
    pub args: Vec<String>,
}

/// A GET to the loopback address of the task's network.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HttpProbe {
    /// Over TLS; whose certificate it is does not matter.
    #[prost(bool, tag = "1")]
    pub tls: bool,
    /// The port.
    #[prost(uint32, tag = "2")]
    pub port: u32,
    /// Path and query; empty is `/`.
    #[prost(string, tag = "3")]
    pub path: String,
    /// By IPv6.
    #[prost(bool, tag = "4")]
    pub ipv6: bool,
    /// A status from 100 to 199 is no answer: nothing changes. Otherwise the final one is waited
    /// for.
    #[prost(bool, tag = "5")]
    pub ignore_1xx: bool,
    /// Statuses that are a success; empty: 200 to 399.
    #[prost(uint32, repeated, tag = "6")]
    pub statuses: Vec<u32>,
}

/// A connection to the loopback address of the task's network; that it is taken is a success.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TcpProbe {
    /// The port.
    #[prost(uint32, tag = "1")]
    pub port: u32,
    /// By IPv6.
    #[prost(bool, tag = "2")]
    pub ipv6: bool,
}

/// What a check found, in a status update that is sent because of it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CheckResult {
    /// Which of the launch's checks.
    #[prost(uint32, tag = "1")]
    pub index: u32,
    /// Whether it succeeded.
    #[prost(bool, tag = "2")]
    pub passed: bool,
    /// Exit status, HTTP status, or 1 and 0 for a connection; none when there was no answer.
    #[prost(int32, optional, tag = "3")]
    pub value: Option<i32>,
    /// Failures in a row that count.
    #[prost(uint32, tag = "4")]
    pub failures: u32,
    /// Why it failed, for people; bounded by the agent.
    #[prost(string, tag = "5")]
    pub cause: String,
}
