//! What the agent counts: the one registry that `/metrics/snapshot`, GET_METRICS and Prometheus's
//! `/metrics` read. Whoever does something worth counting adds a line to the table and calls
//! [`Metrics::add`].
//!
//! It decides names only. What is not counted but known at any time (tasks that run, cpus) is a
//! gauge, made when someone asks (`http/metrics.rs`). Invariant: a counter never falls; it is no
//! number of the node but of this run of the agent.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($(#[doc = $help:literal] $name:ident = $mesos:literal,)+) => {
        /// Something that is counted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Counter {
            $(#[doc = $help] $name,)+
        }

        /// Every counter with its name at `/metrics/snapshot` and what it means.
        const TABLE: &[(Counter, &str, &str)] = &[$((Counter::$name, $mesos, $help),)+];
    };
}

counters! {
    /// Tasks that ended well.
    TasksFinished = "slave/tasks_finished",
    /// Tasks that failed.
    TasksFailed = "slave/tasks_failed",
    /// Tasks that were killed.
    TasksKilled = "slave/tasks_killed",
    /// Tasks that were lost.
    TasksLost = "slave/tasks_lost",
    /// Tasks that were dropped, or ended in another way.
    TasksOther = "slave/tasks_other",
    /// Containers that could not be started.
    ContainerLaunchErrors = "slave/container_launch_errors",
    /// Executors, also those of one task, that are over.
    ExecutorsTerminated = "slave/executors_terminated",
    /// Checkpoints that could not be read when the agent started.
    RecoveryErrors = "slave/recovery_errors",
    /// Finished sandboxes that were removed.
    PathRemovalsSucceeded = "gc/path_removals_succeeded",
    /// Finished sandboxes that could not be removed.
    PathRemovalsFailed = "gc/path_removals_failed",
}

/// The counters of an agent.
#[derive(Debug)]
pub(crate) struct Metrics {
    counts: [AtomicU64; TABLE.len()],
}

impl Metrics {
    pub(crate) fn new() -> Self {
        Self {
            counts: [const { AtomicU64::new(0) }; TABLE.len()],
        }
    }

    pub(crate) fn add(&self, counter: Counter, count: u64) {
        // Numbers that are read one by one need no order.
        self.counts[counter as usize].fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn numbers(&self) -> impl Iterator<Item = Number> {
        let rows = TABLE.iter().zip(&self.counts);
        rows.map(|((_, name, help), count)| Number {
            name: Cow::Borrowed(name),
            help: Cow::Borrowed(help.trim()),
            kind: Kind::Counter,
            value: count.load(Ordering::Relaxed) as f64,
        })
    }
}

/// Whether a number only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
}

/// A number with its name, as Mesos names it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Number {
    pub(crate) name: Cow<'static, str>,
    pub(crate) help: Cow<'static, str>,
    pub(crate) kind: Kind,
    pub(crate) value: f64,
}

impl Number {
    pub(crate) fn gauge(
        name: impl Into<Cow<'static, str>>,
        help: impl Into<Cow<'static, str>>,
        value: f64,
    ) -> Self {
        Self {
            name: name.into(),
            help: help.into(),
            kind: Kind::Gauge,
            value,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_counted_under_its_own_name() {
        let metrics = Metrics::new();
        for (place, (counter, _, _)) in TABLE.iter().enumerate() {
            metrics.add(*counter, place as u64 + 1);
            metrics.add(*counter, 1);
        }
        let mut names = std::collections::BTreeSet::new();
        for (place, number) in metrics.numbers().enumerate() {
            assert_eq!(number.value, place as f64 + 2.0, "{}", number.name);
            assert!(!number.help.is_empty() && number.help.ends_with('.'));
            assert!(names.insert(number.name));
        }
        assert_eq!(names.len(), TABLE.len());
    }
}
