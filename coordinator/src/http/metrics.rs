//! `/metrics/snapshot` (Mesos) and `/metrics` (Marathon): the numbers that are known and true.
//!
//! It decides the names, which are those of the originals; a number that Gantry does not measure
//! is left out, never zero. Invariant: all numbers of an answer are of one snapshot.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use gantry_coordinator_core::state::{Amounts, State as Replicated};
use gantry_wire::task::TaskState;
use gantry_wire::units::{Bytes, MilliCpu};
use serde_json::{Value, json};

use super::Api;

type Numbers = BTreeMap<String, Value>;

/// GET /metrics/snapshot.
pub(super) async fn snapshot(State(api): State<Api>) -> Json<Numbers> {
    let state = api.handle.state();
    let mut numbers = Numbers::new();
    let uptime_ms = api.handle.now().since_ms(api.handle.node().started);
    put(&mut numbers, "uptime_secs", uptime_ms as f64 / 1000.0);
    put(
        &mut numbers,
        "elected",
        f64::from(u8::from(api.handle.is_leader())),
    );
    agents(&state, &mut numbers);
    tasks(&state, &mut numbers);
    resources(&state, &mut numbers);
    Json(numbers)
}

fn put(numbers: &mut Numbers, name: &str, value: f64) {
    numbers.insert(format!("master/{name}"), json!(value));
}

fn agents(state: &Replicated, numbers: &mut Numbers) {
    let active = state.agents().iter().filter(|agent| agent.active).count();
    let all = state.agents().len();
    for (name, value) in [
        ("slaves_active", active),
        ("slaves_connected", active),
        ("slaves_disconnected", all - active),
        ("slaves_inactive", all - active),
    ] {
        put(numbers, name, value as f64);
    }
}

fn tasks(state: &Replicated, numbers: &mut Numbers) {
    for (name, counted) in [
        ("tasks_staging", TaskState::TaskStaging),
        ("tasks_starting", TaskState::TaskStarting),
        ("tasks_running", TaskState::TaskRunning),
        ("tasks_killing", TaskState::TaskKilling),
        ("tasks_unreachable", TaskState::TaskUnreachable),
    ] {
        let count = state
            .tasks()
            .iter_live()
            .filter(|task| task.state == counted)
            .count();
        put(numbers, name, count as f64);
    }
}

fn resources(state: &Replicated, numbers: &mut Numbers) {
    let active = || state.agents().iter().filter(|agent| agent.active);
    let zero = Amounts::default();
    let total = active().fold(zero, |sum, agent| sum.plus(&Amounts::of(&agent.resources)));
    let used = active().fold(zero, |sum, agent| {
        sum.plus(&state.agents().usage(&agent.id).amounts)
    });
    for (name, total, used) in [
        (
            "cpus",
            MilliCpu(total.cpus_milli).cpus(),
            MilliCpu(used.cpus_milli).cpus(),
        ),
        (
            "mem",
            Bytes(total.mem_bytes).mib(),
            Bytes(used.mem_bytes).mib(),
        ),
        (
            "disk",
            Bytes(total.disk_bytes).mib(),
            Bytes(used.disk_bytes).mib(),
        ),
        ("gpus", total.gpus as f64, used.gpus as f64),
    ] {
        put(numbers, &format!("{name}_total"), total);
        put(numbers, &format!("{name}_used"), used);
        put(
            numbers,
            &format!("{name}_percent"),
            if total > 0.0 { used / total } else { 0.0 },
        );
    }
}

/// GET /metrics: Marathon's gauges of what it runs.
pub(super) async fn marathon(State(api): State<Api>) -> Json<Value> {
    let state = api.handle.state();
    let live = |counted: &[TaskState]| {
        state
            .tasks()
            .iter_live()
            .filter(|task| counted.contains(&task.state))
            .count()
    };
    let gauge = |value: usize| json!({ "value": value });
    let uptime_ms = api.handle.now().since_ms(api.handle.node().started);
    let running = live(&[TaskState::TaskRunning]);
    let staged = live(&[TaskState::TaskStaging, TaskState::TaskStarting]);
    Json(json!({
        "gauges": {
            "marathon.apps.active.gauge": gauge(state.apps().len()),
            "marathon.deployments.active.gauge": gauge(state.deployments().len()),
            "marathon.instances.running.gauge": gauge(running),
            "marathon.instances.staged.gauge": gauge(staged),
            "marathon.uptime.gauge.seconds": json!({ "value": uptime_ms as f64 / 1000.0 }),
        },
    }))
}
