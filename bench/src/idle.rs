//! Suite `idle`: many containers that only wait. All must start, be there when the keeper is asked,
//! and be gone after they are stopped; in between, the memory that each costs beside its own command.
//!
//! Memory is the proportional set size (`smaps_rollup`) of the processes that are not the
//! container's: ours are the keeper, its sweeper and outlet, and one PID 1 for each container;
//! containerd's is the shim of each (containerd itself is left out, and so is our agent there). Then as
//! many tasks of an image run under an agent, with its keeper: what both take for them. The kernel's
//! memory for namespaces and cgroups is about the same for all.

mod agent;
mod containerd;

use std::time::Instant;

use anyhow::{Context, ensure};
use gantry_isolation::keeper::{Event, ListedState, Request};
use gantry_isolation::spec::{ContainerId, ContainerSpec, Limits, Network, Output, Root};

use crate::Options;
use crate::keeper::Keeper;
use crate::report::{Better, Measured, OURS, Row, fnv};
use crate::root::{WAIT, make_root};

/// Starts on their way at once.
const WINDOW: usize = 16;
const MEMORY_BYTES: u64 = 64 << 20;
const PIDS_MAX: u64 = 64;

/// What a process costs, in KiB.
pub(crate) fn pss_kb(pid: i32) -> anyhow::Result<f64> {
    memory_of(pid, "Pss:")
}

/// One line of a process's memory, in KiB.
fn memory_of(pid: i32, name: &str) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path).context(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context("no such line")?.parse()?)
}

/// Runs the suite.
pub(crate) fn run(options: &Options) -> anyhow::Result<Measured> {
    let (count, peers) = if options.quick { (20, 2) } else { (1000, 20) };
    let dir = tempfile::tempdir()?;
    let rootfs = dir.path().join("rootfs");
    let programs = make_root(&rootfs)?;
    let mut rows = Vec::new();
    let mut left_out = Vec::new();
    if options.wants_subject(OURS) {
        rows.extend(ours(dir.path(), count)?);
        rows.extend(agent::tasks(&rootfs, count)?);
    }
    let name = "containerd-shim-runc-v2";
    if options.wants_subject(name) {
        match containerd::shims(dir.path(), &rootfs, peers) {
            Ok(samples) => rows.push(memory(name, samples, peers)),
            Err(reason) => left_out.push(format!("{name}: {reason:#}")),
        }
    }
    let hash = fnv(&[&programs[..], b"none was lost"].concat());
    Ok(Measured {
        suite: "idle",
        rows,
        left_out,
        hash,
    })
}

/// Samples are those of single processes; the value is everything by the number of containers.
fn memory(subject: &str, samples: Vec<f64>, containers: usize) -> Row {
    let mean = samples.iter().sum::<f64>() / containers as f64;
    let case = "memory of each";
    Row::new(case, subject, "KB", Better::Lower, mean, samples)
}

fn spec(dir: &std::path::Path, output: &std::path::Path) -> anyhow::Result<ContainerSpec> {
    let id = ContainerId::try_from("template")?;
    let root = Root::Layers(vec![dir.join("rootfs")]);
    let mut spec = ContainerSpec::new(id, root, dir.to_owned(), vec![WAIT.to_owned()]);
    spec.network = Network::New;
    spec.limits = Limits {
        memory_bytes: Some(MEMORY_BYTES),
        pids_max: Some(PIDS_MAX),
        ..Limits::default()
    };
    // One directory for all: the files are the same, the pipes and descriptors are each one's own.
    spec.output = Output::files(output.to_owned(), 0, 0);
    Ok(spec)
}

fn ours(dir: &std::path::Path, count: usize) -> anyhow::Result<Vec<Row>> {
    let output = dir.join("output");
    std::fs::create_dir(&output)?;
    let spec = spec(dir, &output)?;
    let mut keeper = Keeper::start("idle")?;
    let begin = Instant::now();
    let running = keeper.start_many(&spec, count, WINDOW)?;
    let started = begin.elapsed().as_secs_f64();
    lost_none(&mut keeper, count)?;

    let keeper_pid = parent_of(running.first().context("nothing runs")?.1)?;
    let mut samples = Vec::with_capacity(count + 2);
    for pid in running.iter().map(|(_, pid)| *pid) {
        samples.push(pss_kb(pid)?);
    }
    let shared = keeper_kb(keeper_pid)?;
    samples.extend([shared]);

    lost_none(&mut keeper, count)?;
    let begin = Instant::now();
    keeper.kill_all(running.iter().map(|(id, _)| id))?;
    let stopped = begin.elapsed().as_secs_f64();
    lost_none(&mut keeper, 0)?;

    let rate = |case: &str, unit, seconds: f64| {
        let rate = count as f64 / seconds;
        Row::new(case, OURS, unit, Better::Higher, rate, vec![rate])
    };
    let per_container = shared / count as f64;
    Ok(vec![
        rate(&format!("start of {count}"), "starts/s", started),
        memory(OURS, samples, count),
        Row::new(
            "keeper's share of it",
            OURS,
            "KB",
            Better::Lower,
            per_container,
            vec![per_container],
        ),
        rate(&format!("stop of {count}"), "stops/s", stopped),
    ])
}

/// The keeper lists exactly so many, and all run.
fn lost_none(keeper: &mut Keeper, count: usize) -> anyhow::Result<()> {
    keeper.send(&Request::List)?;
    let Event::Listing { containers } = keeper.next()? else {
        anyhow::bail!("no listing came");
    };
    let running = containers
        .iter()
        .filter(|listed| matches!(listed.state, ListedState::Running { .. }))
        .count();
    ensure!(
        running == count && containers.len() == count,
        "{running} of {} run, {count} should",
        containers.len()
    );
    Ok(())
}

/// What a keeper and its helpers take.
fn keeper_kb(keeper: i32) -> anyhow::Result<f64> {
    let (sweeper, outlet) = ("gantry-sweeper", "gantry-outlet");
    let (sweeper, outlet) = (helper_of(keeper, sweeper)?, helper_of(keeper, outlet)?);
    Ok(pss_kb(keeper)? + pss_kb(sweeper)? + pss_kb(outlet)?)
}

fn parent_of(pid: i32) -> anyhow::Result<i32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    Ok(line.context("no PPid")?.trim().parse()?)
}

fn helper_of(keeper: i32, wanted: &str) -> anyhow::Result<i32> {
    let children = std::fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children"))?;
    for child in children.split_whitespace() {
        let name = std::fs::read_to_string(format!("/proc/{child}/comm")).unwrap_or_default();
        if name.trim() == wanted {
            return Ok(child.parse()?);
        }
    }
    anyhow::bail!("the keeper has no child {wanted}")
}
