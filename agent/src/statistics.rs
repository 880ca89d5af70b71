//! What containers use, looked at when someone asks. Decides how often the kernel is bothered:
//! whoever asks within [`FRESH`] of another gets what that one got, and only one looks at a time.
//!
//! It keeps no history and watches nothing. Invariant: it reads files of the kernel about containers
//! of this node, away from the async threads; a container that is gone meanwhile has no sample.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gantry_isolation::cgroup::{self, Hierarchies, Usage};
use gantry_isolation::spec::ContainerId as KeeperContainer;
use gantry_wire::agent::{Launch, NetworkMode};
use gantry_wire::ids::ContainerId;
use gantry_wire::mesos::v1::ResourceStatistics;
use gantry_wire::task::TaskState;
use tokio::sync::Mutex;

use crate::inbox::View;
use crate::sandboxes;

/// How old an answer may be.
const FRESH: Duration = Duration::from_secs(1);
/// CFS counts its quota in these.
const NANOS_PER_SEC: f64 = 1e9;

/// Looks at containers.
#[derive(Debug)]
pub(crate) struct Statistics {
    hosts: Hierarchies,
    cgroup_parent: String,
    last: Mutex<Round>,
}

/// What was found at a time.
#[derive(Debug, Default)]
struct Round {
    began: Option<Instant>,
    found: BTreeMap<ContainerId, Found>,
}

/// What the kernel said of a container.
#[derive(Debug, Clone)]
struct Found {
    usage: Usage,
    traffic: Option<Traffic>,
    at: SystemTime,
}

/// Bytes, packets, errors and drops in one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) bytes: u64,
    pub(crate) packets: u64,
    pub(crate) errors: u64,
    pub(crate) dropped: u64,
}

/// What came and went over a network of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) rx: Way,
    pub(crate) tx: Way,
}

/// A container, who it is of, and what it uses.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) container: ContainerId,
    pub(crate) framework: String,
    pub(crate) executor: String,
    /// Empty: the executor itself.
    pub(crate) task: String,
    pub(crate) usage: Usage,
    pub(crate) traffic: Option<Traffic>,
    pub(crate) disk_used_bytes: Option<u64>,
    pub(crate) disk_limit_bytes: Option<u64>,
    at: SystemTime,
    cpus_milli: u64,
}

/// A container that is asked about.
#[derive(Debug, Clone)]
struct Wanted {
    container: ContainerId,
    /// The process whose network is the container's own.
    networked: Option<u32>,
}

impl Statistics {
    pub(crate) fn new(hosts: Hierarchies, cgroup_parent: String) -> Self {
        Self {
            hosts,
            cgroup_parent,
            last: Mutex::default(),
        }
    }

    async fn look(&self, wanted: Vec<Wanted>) -> BTreeMap<ContainerId, Found> {
        let mut last = self.last.lock().await;
        if last.began.is_none_or(|began| began.elapsed() > FRESH) {
            *last = Round {
                began: Some(Instant::now()),
                ..Round::default()
            };
        }
        let unseen = |it: &Wanted| !last.found.contains_key(&it.container);
        let unseen: Vec<Wanted> = wanted.into_iter().filter(unseen).collect();
        if !unseen.is_empty() {
            let (hosts, parent) = (self.hosts.clone(), self.cgroup_parent.clone());
            let work = move || -> Vec<_> {
                let one = |it: Wanted| Some((it.container.clone(), read(&hosts, &parent, &it)?));
                unseen.into_iter().filter_map(one).collect()
            };
            // A reader that panicked has found nothing.
            let found = tokio::task::spawn_blocking(work).await.unwrap_or_default();
            last.found.extend(found);
        }
        last.found.clone()
    }
}

fn read(hosts: &Hierarchies, parent: &str, wanted: &Wanted) -> Option<Found> {
    let id = KeeperContainer::try_from(wanted.container.as_str()).ok()?;
    Some(Found {
        usage: cgroup::usage(hosts, parent, &id)?,
        traffic: wanted.networked.and_then(traffic),
        at: SystemTime::now(),
    })
}

/// What `/proc/PID/net/dev` says, all interfaces but the loopback together.
fn traffic(pid: u32) -> Option<Traffic> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).ok()?;
    Some(parse_traffic(&text))
}

fn parse_traffic(text: &str) -> Traffic {
    let mut sum = Traffic::default();
    for line in text.lines().skip(2) {
        let Some((name, numbers)) = line.split_once(':') else {
            continue;
        };
        if name.trim() == "lo" {
            continue;
        }
        let numbers: Vec<u64> = numbers
            .split_whitespace()
            .map(|n| n.parse().unwrap_or(0))
            .collect();
        let at = |place: usize| numbers.get(place).copied().unwrap_or_default();
        for (way, first) in [(&mut sum.rx, 0), (&mut sum.tx, 8)] {
            way.bytes += at(first);
            way.packets += at(first + 1);
            way.errors += at(first + 2);
            way.dropped += at(first + 3);
        }
    }
    sum
}

/// All containers of a snapshot that can be looked at: those of executors, then those of tasks.
pub(crate) async fn of_view(statistics: &Statistics, view: &View) -> Vec<Sample> {
    let own = |mode: i32, pid: u32| {
        Some(pid).filter(|&pid| mode == NetworkMode::Bridge as i32 && pid > 0)
    };
    let executors = view.executors.iter().map(|row| Wanted {
        container: row.container.clone(),
        networked: own(row.info.network, row.pid),
    });
    let launched = view.launched.iter().filter(|row| row.pid > 0);
    let launched = launched.map(|row| Wanted {
        container: row.container.clone(),
        networked: None,
    });
    let live = || view.tasks.iter().filter(|task| is_there(task.state));
    let tasks = live().map(|task| {
        let alone = task.launch.executor_id.is_empty();
        Wanted {
            container: task.container.clone(),
            networked: own(task.launch.network, task.pid).filter(|_| alone),
        }
    });
    let mut found = statistics
        .look(executors.chain(tasks).chain(launched).collect())
        .await;
    let mut samples = Vec::new();
    for row in &view.executors {
        if let Some(found) = found.remove(&row.container) {
            let info = &row.info;
            let of = (info.framework_id.as_str(), info.executor_id.as_str(), "");
            let mut sample = sample(&row.container, of, found);
            sample.cpus_milli = row.info.resources.as_ref().map_or(0, |it| it.cpus_milli);
            samples.push(sample);
        }
    }
    for task in live() {
        if let Some(found) = found.remove(&task.container) {
            let launch = &task.launch;
            let (framework, executor) = (launch.framework_id.as_str(), launch.executor_id());
            let of = (framework, executor, launch.task_id.as_str());
            let mut sample = sample(&task.container, of, found);
            sample.disk_used_bytes = task.disk_used_bytes;
            sample.disk_limit_bytes = sandboxes::limit_bytes(launch);
            sample.cpus_milli = cpus_milli(launch);
            samples.push(sample);
        }
    }
    for row in &view.launched {
        if let Some(found) = found.remove(&row.container) {
            let of = (row.framework.as_str(), row.executor.as_str(), "");
            samples.push(sample(&row.container, of, found));
        }
    }
    samples
}

/// Whether a task in this state has, or may have, a container.
pub(crate) fn is_there(state: TaskState) -> bool {
    !state.is_terminal() && state != TaskState::TaskStaging
}

fn cpus_milli(launch: &Launch) -> u64 {
    launch.resources.as_ref().map_or(0, |it| it.cpus_milli)
}

fn sample(
    container: &ContainerId,
    (framework, executor, task): (&str, &str, &str),
    found: Found,
) -> Sample {
    Sample {
        container: container.clone(),
        framework: framework.to_owned(),
        executor: executor.to_owned(),
        task: task.to_owned(),
        usage: found.usage,
        traffic: found.traffic,
        disk_used_bytes: None,
        disk_limit_bytes: None,
        at: found.at,
        cpus_milli: 0,
    }
}

impl From<&Sample> for ResourceStatistics {
    fn from(sample: &Sample) -> Self {
        let usage = &sample.usage;
        let seconds = |nanos: u64| Some(nanos as f64 / NANOS_PER_SEC);
        let small = |count: u64| u32::try_from(count).ok();
        let at = sample.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let traffic = sample.traffic;
        let rx = |of: fn(Way) -> u64| traffic.map(|it| of(it.rx));
        let tx = |of: fn(Way) -> u64| traffic.map(|it| of(it.tx));
        Self {
            timestamp: at.as_secs_f64(),
            threads: small(usage.pids),
            cpus_user_time_secs: seconds(usage.cpu_user_ns),
            cpus_system_time_secs: seconds(usage.cpu_system_ns),
            cpus_limit: Some(sample.cpus_milli as f64 / 1_000.0).filter(|&cpus| cpus > 0.0),
            cpus_nr_periods: small(usage.cpu_periods),
            cpus_nr_throttled: small(usage.cpu_throttled_periods),
            cpus_throttled_time_secs: seconds(usage.cpu_throttled_ns),
            mem_total_bytes: Some(usage.memory_bytes),
            mem_limit_bytes: usage.memory_limit_bytes,
            mem_file_bytes: Some(usage.file_bytes),
            mem_anon_bytes: Some(usage.rss_bytes),
            mem_cache_bytes: Some(usage.file_bytes),
            mem_rss_bytes: Some(usage.rss_bytes),
            mem_swap_bytes: Some(usage.swap_bytes),
            disk_limit_bytes: sample.disk_limit_bytes,
            disk_used_bytes: sample.disk_used_bytes,
            net_rx_packets: rx(|it| it.packets),
            net_rx_bytes: rx(|it| it.bytes),
            net_rx_errors: rx(|it| it.errors),
            net_rx_dropped: rx(|it| it.dropped),
            net_tx_packets: tx(|it| it.packets),
            net_tx_bytes: tx(|it| it.bytes),
            net_tx_errors: tx(|it| it.errors),
            net_tx_dropped: tx(|it| it.dropped),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_added_up_without_the_loopback() {
        let text = "Inter-|   Receive                                                |  Transmit\n\
             face |bytes    packets errs drop fifo frame compressed multicast|bytes packets errs\n\
                 lo:     100       1    0    0    0     0          0         0      100    1 0 0\n\
               eth0: 1000 10 1 2 0 0 0 0 2000 20 3 4 0 0 0 0\n\
               eth1:5 5 5 5 0 0 0 0 6 6 6 6 0 0 0 0\n";
        let way = |bytes, packets, errors, dropped| Way {
            bytes,
            packets,
            errors,
            dropped,
        };
        let want = Traffic {
            rx: way(1005, 15, 6, 7),
            tx: way(2006, 26, 9, 10),
        };
        assert_eq!(parse_traffic(text), want);
        assert_eq!(
            parse_traffic("x\ny\nnothing\neth0: a b\n"),
            Traffic::default()
        );
    }
}
