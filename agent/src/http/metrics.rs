//! The agent's numbers: `/metrics/snapshot` in Mesos's names, `/metrics` in Prometheus's text. Both
//! are made from the same list ([`numbers`]), which GET_METRICS reads too.
//!
//! Gauges are made here, of one snapshot of the loop; counters come from [`crate::metrics`]. A number
//! that is not measured is left out, never zero. Invariant: what is written about single containers
//! is bounded ([`SERIES_MAX`] of them).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use gantry_wire::agent::ResourcesMessage;
use gantry_wire::resources::Resources;
use gantry_wire::task::TaskState;
use serde::Deserialize;

use super::Server;
use super::problem::Problem;
use super::prometheus::{self, Family, Labels};
use super::state;
use crate::inbox::{TaskRow, View};
use crate::metrics::{Kind, Number};
use crate::statistics::{self, Sample};

/// Containers that Prometheus is told about one by one.
const SERIES_MAX: usize = 1_000;

#[derive(Debug, Deserialize)]
pub(super) struct Patience {
    timeout: Option<String>,
}

/// GET /metrics/snapshot: what is known within `timeout`.
pub(super) async fn snapshot(
    State(server): State<Arc<Server>>,
    query: Result<Query<Patience>, QueryRejection>,
) -> Result<Json<BTreeMap<String, f64>>, Problem> {
    let Query(query) = query.map_err(|error| Problem::BadRequest(error.body_text()))?;
    let patience = query.timeout.as_deref().map(|text| {
        let why = || format!("Failed to parse timeout '{text}': a number and its unit, like 5secs");
        duration(text).ok_or_else(|| Problem::BadRequest(why()))
    });
    let numbers = numbers(&server, patience.transpose()?).await;
    let pairs = numbers
        .into_iter()
        .map(|it| (it.name.into_owned(), it.value));
    Ok(Json(pairs.collect()))
}

/// A length of time as Mesos writes it.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit_at);
    let number: f64 = number.parse().ok()?;
    let seconds = match unit {
        "ns" => 1e-9,
        "us" => 1e-6,
        "ms" => 1e-3,
        "secs" => 1.0,
        "mins" => 60.0,
        "hrs" => 3_600.0,
        "days" => 86_400.0,
        "weeks" => 604_800.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number * seconds).ok()
}

/// Every number but those of single containers. When the loop does not answer in time, its numbers
/// are left out.
pub(super) async fn numbers(server: &Server, patience: Option<Duration>) -> Vec<Number> {
    let asked = state::view(server);
    let view = match patience {
        Some(patience) => tokio::time::timeout(patience, asked).await.ok(),
        None => Some(asked.await),
    };
    let mut numbers: Vec<Number> = server.facts.metrics.numbers().collect();
    system(&mut numbers);
    if let Some(Ok(view)) = view {
        of_view(server, &view, &mut numbers);
    }
    numbers
}

fn of_view(server: &Server, view: &View, numbers: &mut Vec<Number>) {
    let facts = &server.facts;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs_f64();
    let yes = |yes: bool| f64::from(u8::from(yes));
    let mut put = |name, help, value| numbers.push(Number::gauge(name, help, value));
    let uptime = (now - facts.started.seconds()).max(0.0);
    put(
        "slave/uptime_secs",
        "Seconds since the agent started.",
        uptime,
    );
    put(
        "slave/registered",
        "Whether the coordinator has taken this agent in.",
        yes(view.registered),
    );
    put(
        "slave/keeper_connected",
        "Whether the process that holds the containers can be reached.",
        yes(view.keeper_up),
    );
    put(
        "slave/sandboxes_finished",
        "Sandboxes of ended tasks that are not removed yet.",
        view.finished_sandboxes as f64,
    );
    let [moved_bytes, rotations, held_up] = view.output;
    put(
        "slave/output_bytes",
        "Bytes of output written into files since the keeper started.",
        moved_bytes as f64,
    );
    put(
        "slave/output_rotations",
        "Files of output rotated since the keeper started.",
        rotations as f64,
    );
    put(
        "slave/output_held_up",
        "Streams of output that something holds up, such as a slow disk.",
        held_up as f64,
    );
    put(
        "slave/exec_sessions",
        "Processes that people run inside containers.",
        view.execs as f64,
    );
    tasks(view, numbers);
    resources(server, view, numbers);
}

fn tasks(view: &View, numbers: &mut Vec<Number>) {
    for (name, state) in [
        ("slave/tasks_staging", TaskState::TaskStaging),
        ("slave/tasks_starting", TaskState::TaskStarting),
        ("slave/tasks_running", TaskState::TaskRunning),
        ("slave/tasks_killing", TaskState::TaskKilling),
    ] {
        let count = view.tasks.iter().filter(|task| task.state == state).count();
        let help = format!("Tasks in {}.", state.name());
        numbers.push(Number::gauge(name, help, count as f64));
    }
    let live = || view.tasks.iter().filter(|task| !task.state.is_terminal());
    let of_tasks = live().map(|task| task.launch.framework_id.as_str());
    let of_executors = view
        .executors
        .iter()
        .map(|row| row.info.framework_id.as_str());
    let frameworks: BTreeSet<&str> = of_tasks.chain(of_executors).collect();
    let started = |task: &&TaskRow| task.state != TaskState::TaskStaging;
    let alone = live().filter(|task| task.launch.executor_id.is_empty());
    let running = alone.filter(started).count() + view.executors.len();
    let mut put = |name, help, value: usize| numbers.push(Number::gauge(name, help, value as f64));
    put(
        "slave/frameworks_active",
        "Frameworks with something on this node.",
        frameworks.len(),
    );
    put(
        "slave/executors_running",
        "Executors, also those of one task.",
        running,
    );
}

/// What is offered, what of it is in use, and which part that is.
fn resources(server: &Server, view: &View, numbers: &mut Vec<Number>) {
    let total = &server.facts.resources;
    let mut used = Resources::default();
    let none = ResourcesMessage::default();
    let mut add = |message: Option<&ResourcesMessage>| {
        used.add(&Resources::from(message.unwrap_or(&none)));
    };
    for task in view.tasks.iter().filter(|task| !task.state.is_terminal()) {
        add(task.launch.resources.as_ref());
    }
    for executor in &view.executors {
        add(executor.info.resources.as_ref());
    }
    for (name, unit, total, used) in [
        ("cpus", "CPUs", total.cpus.cpus(), used.cpus.cpus()),
        ("mem", "MiB of memory", total.mem.mib(), used.mem.mib()),
        ("disk", "MiB of disk", total.disk.mib(), used.disk.mib()),
        ("gpus", "GPUs", total.gpus as f64, used.gpus as f64),
    ] {
        let percent = if total > 0.0 { used / total } else { 0.0 };
        for (part, what, value) in [
            ("total", "that tasks may use", total),
            ("used", "that tasks asked for", used),
            ("percent", "in use, as a part of all", percent),
        ] {
            let (name, help) = (format!("slave/{name}_{part}"), format!("{unit} {what}."));
            numbers.push(Number::gauge(name, help, value));
        }
    }
}

/// The machine's, as `/system/stats.json` has them.
pub(super) fn machine() -> [(&'static str, &'static str, f64); 6] {
    let info = rustix::system::sysinfo();
    let load = |place: usize| info.loads[place] as f64 / f64::from(1_u32 << 16);
    let bytes = |units: u64| units as f64 * f64::from(info.mem_unit);
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    [
        (
            "load_1min",
            "Load of the machine, over one minute.",
            load(0),
        ),
        (
            "load_5min",
            "Load of the machine, over five minutes.",
            load(1),
        ),
        (
            "load_15min",
            "Load of the machine, over a quarter of an hour.",
            load(2),
        ),
        ("cpus_total", "CPUs of the machine.", cpus as f64),
        (
            "mem_total_bytes",
            "Memory of the machine.",
            bytes(info.totalram),
        ),
        (
            "mem_free_bytes",
            "Memory that nobody uses.",
            bytes(info.freeram),
        ),
    ]
}

fn system(numbers: &mut Vec<Number>) {
    for (name, help, value) in machine() {
        numbers.push(Number::gauge(format!("system/{name}"), help, value));
    }
}

/// GET /metrics.
pub(super) async fn prometheus(
    State(server): State<Arc<Server>>,
) -> Result<impl IntoResponse, Problem> {
    let mut families: Vec<Family> = numbers(&server, None)
        .await
        .into_iter()
        .map(Family::from)
        .collect();
    let view = state::view(&server).await?;
    let mut samples = statistics::of_view(&server.statistics, &view).await;
    let more = samples.len().saturating_sub(SERIES_MAX);
    samples.truncate(SERIES_MAX);
    let left_out = Number::gauge(
        "containers_left_out",
        "Containers that are not shown one by one: there are too many.",
        more as f64,
    );
    families.push(left_out.into());
    families.extend(containers(&samples));
    Ok((
        [(CONTENT_TYPE, prometheus::MEDIA_TYPE)],
        prometheus::text(&families),
    ))
}

/// What a family of single containers is made of; its labels are those of the container and these.
type Column = (
    &'static str,
    &'static str,
    Kind,
    fn(&Sample) -> Vec<(&'static [(&'static str, &'static str)], f64)>,
);

/// One value, if there is one.
fn one(value: Option<f64>) -> Vec<(&'static [(&'static str, &'static str)], f64)> {
    value.map(|value| (&[][..], value)).into_iter().collect()
}

const COLUMNS: &[Column] = &[
    (
        "container_cpu_seconds",
        "CPU time used.",
        Kind::Counter,
        |it| {
            vec![
                (&[("mode", "user")], it.usage.cpu_user_ns as f64 / 1e9),
                (&[("mode", "system")], it.usage.cpu_system_ns as f64 / 1e9),
            ]
        },
    ),
    (
        "container_cpu_throttled_seconds",
        "Time for which its quota held it back.",
        Kind::Counter,
        |it| one(Some(it.usage.cpu_throttled_ns as f64 / 1e9)),
    ),
    (
        "container_memory_bytes",
        "Memory, page cache included.",
        Kind::Gauge,
        |it| one(Some(it.usage.memory_bytes as f64)),
    ),
    (
        "container_memory_rss_bytes",
        "Resident anonymous memory.",
        Kind::Gauge,
        |it| one(Some(it.usage.rss_bytes as f64)),
    ),
    (
        "container_memory_limit_bytes",
        "Limit on its memory.",
        Kind::Gauge,
        |it| one(it.usage.memory_limit_bytes.map(|bytes| bytes as f64)),
    ),
    (
        "container_threads",
        "Processes and threads.",
        Kind::Gauge,
        |it| one(Some(it.usage.pids as f64)),
    ),
    (
        "container_oom_kills",
        "Processes killed for want of memory.",
        Kind::Counter,
        |it| one(Some(it.usage.oom_kills as f64)),
    ),
    (
        "container_disk_used_bytes",
        "What its sandbox holds.",
        Kind::Gauge,
        |it| one(it.disk_used_bytes.map(|bytes| bytes as f64)),
    ),
    (
        "container_network_bytes",
        "What came and went over its own network.",
        Kind::Counter,
        |it| {
            let both = |it: statistics::Traffic| {
                vec![
                    (&[("direction", "rx")][..], it.rx.bytes as f64),
                    (&[("direction", "tx")][..], it.tx.bytes as f64),
                ]
            };
            it.traffic.map(both).unwrap_or_default()
        },
    ),
    (
        "container_pressure_seconds",
        "Time for which some of it waited.",
        Kind::Counter,
        |it| {
            let usage = &it.usage;
            let rows: [(&'static [_], _); 3] = [
                (&[("resource", "cpu")], usage.cpu_pressure),
                (&[("resource", "memory")], usage.memory_pressure),
                (&[("resource", "io")], usage.io_pressure),
            ];
            let rows = rows.into_iter();
            rows.filter_map(|(labels, it)| Some((labels, it?.some.total_us as f64 / 1e6)))
                .collect()
        },
    ),
];

fn containers(samples: &[Sample]) -> Vec<Family> {
    let family = |(name, help, kind, values): &Column| {
        let mut family = Family::new(name, help, *kind);
        for sample in samples {
            for (more, value) in values(sample) {
                let mut labels = labels(sample);
                labels.extend(
                    more.iter()
                        .map(|(name, value)| (*name, (*value).to_owned())),
                );
                family.samples.push((labels, value));
            }
        }
        family
    };
    COLUMNS.iter().map(family).collect()
}

fn labels(sample: &Sample) -> Labels {
    Labels::from([
        ("container_id", sample.container.to_string()),
        ("framework_id", sample.framework.clone()),
        ("executor_id", sample.executor.clone()),
        ("task_id", sample.task.clone()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_mesos_writes_them() {
        for (text, want) in [
            ("5secs", Some(Duration::from_secs(5))),
            ("1.5ms", Some(Duration::from_micros(1_500))),
            ("0ns", Some(Duration::ZERO)),
            ("2weeks", Some(Duration::from_secs(1_209_600))),
            ("5", None),
            ("secs", None),
            ("-1secs", None),
            ("5 secs", None),
            ("5s", None),
            ("1e300weeks", None),
            ("infsecs", None),
            ("", None),
        ] {
            assert_eq!(duration(text), want, "{text}");
        }
    }
}
