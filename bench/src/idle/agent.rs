//! Tasks that wait, under an agent as a node has one: how fast all start and end, what agent and
//! keeper take for them, and what the agent keeps when they are gone.

use std::path::Path;
use std::time::Instant;

use anyhow::Context;

use super::{keeper_kb, memory_of, parent_of, pss_kb};
use crate::agent::Agent;
use crate::report::{Better, OURS, Row};
use crate::tasks::{all_removed, all_run, group_above, kill_all, put_image, start_waiting};

/// Starts `count` tasks of an image with this root, and ends them.
pub(super) fn tasks(rootfs: &Path, count: usize) -> anyhow::Result<Vec<Row>> {
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("agent");
    put_image(&data, dir.path(), rootfs)?;
    let agent = Agent::start(&data, &dir.path().join("socket"))?;
    let resident = || memory_of(agent.pid()?, "Rss:");
    let empty = resident()?;

    let begin = Instant::now();
    start_waiting(&agent, count)?;
    let pids = all_run(&agent, count)?;
    let started = begin.elapsed().as_secs_f64();

    let full = resident()?;
    let own = pss_kb(agent.pid()?)?;
    let first = *pids.first().context("nothing runs")?;
    let (keeper, groups) = (parent_of(first)?, group_above(first)?);
    let keepers = keeper_kb(keeper)?;
    let mut inits = 0.0;
    for pid in &pids {
        inits += pss_kb(*pid)?;
    }

    let begin = Instant::now();
    kill_all(&agent, count)?;
    let stopped = begin.elapsed().as_secs_f64();
    all_removed(&groups)?;
    let after = resident()?;
    agent.stop()?;

    let rate = |case: &str, unit, seconds: f64| {
        let rate = count as f64 / seconds;
        Row::new(case, OURS, unit, Better::Higher, rate, vec![rate])
    };
    let kb = |case: &str, value: f64| Row::new(case, OURS, "KB", Better::Lower, value, vec![value]);
    let each = |all: f64| all / count as f64;
    Ok(vec![
        rate(&format!("start of {count} tasks"), "starts/s", started),
        kb("memory of each task", each(own + keepers + inits)),
        kb("agent's share of it", each(own)),
        kb("keeper's share of a task", each(keepers)),
        rate(&format!("stop of {count} tasks"), "stops/s", stopped),
        kb("agent without tasks", empty),
        kb(&format!("agent with {count} tasks"), full),
        kb("agent after them", after),
    ])
}
