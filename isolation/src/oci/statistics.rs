//! `events --stats`: what a container uses, in the form that runc writes.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::Global;
use super::error::OciError;
use super::groups::Groups;
use super::state::{Place, Status};

fn text(dir: Option<&Path>, file: &str) -> String {
    dir.and_then(|dir| std::fs::read_to_string(dir.join(file)).ok())
        .unwrap_or_default()
}

fn number(dir: Option<&Path>, file: &str) -> u64 {
    text(dir, file).trim().parse().unwrap_or(0)
}

/// The numbers of a flat keyed file.
fn keyed(text: &str) -> Map<String, Value> {
    let pair = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((
            name.to_owned(),
            Value::from(value.trim().parse::<u64>().ok()?),
        ))
    };
    text.lines().filter_map(pair).collect()
}

/// One line of JSON.
///
/// # Errors
/// It is not there, or has no process.
pub fn statistics(global: &Global, id: &str) -> Result<String, OciError> {
    let place = Place::find(&global.root, id)?;
    let stored = place.load()?;
    if place.status(&stored) == Status::Stopped {
        return Err(OciError::NotRunning);
    }
    let data = if super::groups::pure_v2() {
        v2(&stored.groups)
    } else {
        v1(&stored.groups)
    };
    Ok(json!({"type": "stats", "id": id, "data": data}).to_string())
}

fn v1(groups: &Groups) -> Value {
    let dir = |name| groups.dir(name);
    let cpu = dir("cpuacct");
    let per_cpu: Vec<u64> = text(cpu, "cpuacct.usage_percpu")
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let throttled = keyed(&text(dir("cpu"), "cpu.stat"));
    let memory = |prefix: &str| {
        let file = |name: &str| number(dir("memory"), &format!("memory.{prefix}{name}"));
        json!({
            "limit": file("limit_in_bytes"),
            "usage": file("usage_in_bytes"),
            "max": file("max_usage_in_bytes"),
            "failcnt": file("failcnt"),
        })
    };
    let raw = keyed(&text(dir("memory"), "memory.stat"));
    let times = keyed(&text(cpu, "cpuacct.stat"));
    // Ticks of 10 ms (USER_HZ is 100 on every architecture that Linux runs containers on).
    let tick = |name: &str| times.get(name).and_then(Value::as_u64).unwrap_or(0) * 10_000_000;
    json!({
        "cpu": {
            "usage": {
                "total": number(cpu, "cpuacct.usage"),
                "percpu": per_cpu,
                "kernel": tick("system"),
                "user": tick("user"),
            },
            "throttling": {
                "periods": throttled.get("nr_periods"),
                "throttledPeriods": throttled.get("nr_throttled"),
                "throttledTime": throttled.get("throttled_time"),
            },
        },
        "memory": {
            "cache": raw.get("cache"),
            "usage": memory(""),
            "swap": memory("memsw."),
            "kernel": memory("kmem."),
            "kernelTCP": memory("kmem.tcp."),
            "raw": raw,
        },
        "pids": {
            "current": number(dir("pids"), "pids.current"),
            "limit": number(dir("pids"), "pids.max"),
        },
        "blkio": {},
        "hugetlb": {},
        "intel_rdt": {},
        "network_interfaces": null,
    })
}

fn v2(groups: &Groups) -> Value {
    let dir = groups.unified();
    let cpu = keyed(&text(dir, "cpu.stat"));
    let nanoseconds = |name: &str| cpu.get(name).and_then(Value::as_u64).unwrap_or(0) * 1000;
    let raw = keyed(&text(dir, "memory.stat"));
    json!({
        "cpu": {
            "usage": {
                "total": nanoseconds("usage_usec"),
                "kernel": nanoseconds("system_usec"),
                "user": nanoseconds("user_usec"),
            },
            "throttling": {
                "periods": cpu.get("nr_periods"),
                "throttledPeriods": cpu.get("nr_throttled"),
                "throttledTime": nanoseconds("throttled_usec"),
            },
        },
        "memory": {
            "cache": raw.get("file"),
            "usage": {
                "limit": number(dir, "memory.max"),
                "usage": number(dir, "memory.current"),
                "failcnt": 0,
            },
            "raw": raw,
        },
        "pids": {"current": number(dir, "pids.current"), "limit": number(dir, "pids.max")},
        "blkio": {},
        "hugetlb": {},
        "intel_rdt": {},
        "network_interfaces": null,
    })
}
