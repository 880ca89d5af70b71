//! `events --stats`: what a container uses, in the form that runc writes.
//!
//! The numbers are those of every container ([`crate::cgroup::Usage`]). Read here are only the lines of
//! `memory.stat` and the times of single CPUs, which runc's form repeats as they are and nobody else
//! asks for.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::Global;
use super::error::OciError;
use super::groups::Groups;
use super::state::{Place, Status};
use crate::cgroup::{IoUsage, Usage};

/// What runc tells for no limit: v1's largest page-aligned number, and the largest number on v2.
const NO_V1_LIMIT: u64 = 0x7fff_ffff_ffff_f000;

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
    let usage = stored.groups.usage().ok_or(OciError::NotRunning)?;
    let data = data(&stored.groups, &usage);
    Ok(json!({"type": "stats", "id": id, "data": data}).to_string())
}

fn data(groups: &Groups, usage: &Usage) -> Value {
    let raw = lines(groups);
    let unlimited = if groups.pure_v2() {
        u64::MAX
    } else {
        NO_V1_LIMIT
    };
    json!({
        "cpu": {
            "usage": {
                "total": usage.cpu_ns,
                "percpu": per_cpu(groups),
                "kernel": usage.cpu_system_ns,
                "user": usage.cpu_user_ns,
            },
            "throttling": {
                "periods": usage.cpu_periods,
                "throttledPeriods": usage.cpu_throttled_periods,
                "throttledTime": usage.cpu_throttled_ns,
            },
        },
        "memory": {
            "cache": raw.get("cache").or_else(|| raw.get("file")),
            "usage": {
                "limit": usage.memory_limit_bytes.unwrap_or(unlimited),
                "usage": usage.memory_bytes,
                "max": usage.memory_peak_bytes,
                "failcnt": usage.memory_refusals,
            },
            "swap": {"usage": usage.memory_bytes.saturating_add(usage.swap_bytes)},
            "raw": raw,
        },
        "pids": {"current": usage.pids, "limit": usage.pids_max.unwrap_or(0)},
        "blkio": {
            "ioServiceBytesRecursive": operations(&usage.io, |io| (io.read_bytes, io.written_bytes)),
            "ioServicedRecursive": operations(&usage.io, |io| (io.reads, io.writes)),
        },
        "hugetlb": huge_pages(usage),
        "intel_rdt": {},
        "network_interfaces": null,
    })
}

fn operations(usage: &[IoUsage], pick: impl Fn(&IoUsage) -> (u64, u64)) -> Vec<Value> {
    let entry = |io: &IoUsage, op: &str, value: u64| json!({"major": io.major, "minor": io.minor, "op": op, "value": value});
    let both = |io: &IoUsage| {
        let (reads, writes) = pick(io);
        [entry(io, "Read", reads), entry(io, "Write", writes)]
    };
    usage.iter().flat_map(both).collect()
}

fn huge_pages(usage: &Usage) -> Map<String, Value> {
    let entry = |(size, bytes): &(u64, u64)| {
        let name = crate::cgroup::huge_page_name(*size);
        (name, json!({"usage": bytes}))
    };
    usage.huge_pages.iter().map(entry).collect()
}

fn text(dir: Option<&Path>, file: &str) -> String {
    dir.and_then(|dir| std::fs::read_to_string(dir.join(file)).ok())
        .unwrap_or_default()
}

/// The lines of `memory.stat`, the same form in both versions.
fn lines(groups: &Groups) -> Map<String, Value> {
    let dir = groups.dir("memory").or_else(|| groups.unified());
    let pair = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        let value = value.trim().parse::<u64>().ok()?;
        Some((name.to_owned(), Value::from(value)))
    };
    let text = text(dir.as_deref(), "memory.stat");
    text.lines().filter_map(pair).collect()
}

/// Nanoseconds of each CPU; v2 does not tell them.
fn per_cpu(groups: &Groups) -> Vec<u64> {
    let text = text(groups.dir("cpuacct").as_deref(), "cpuacct.usage_percpu");
    let words = text.split_whitespace();
    words.filter_map(|word| word.parse().ok()).collect()
}
