//! Tasks that wait, under an agent as a node has one: how fast all start and end, what agent and
//! keeper take for them, and what the agent keeps when they are gone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use gantry_image::{Archive, Digest, ImportOptions, Store};
use gantry_wire::agent::{Kill, Launch, ResourcesMessage, StatusUpdate, to_agent};
use gantry_wire::task::TaskState;
use serde_json::json;

use super::{MEMORY_BYTES, keeper_kb, memory_of, parent_of, pss_kb};
use crate::agent::Agent;
use crate::report::{Better, OURS, Row};
use crate::root::WAIT;

/// What the image is called; no registry is asked, since it is there.
const IMAGE: &str = "registry.test/bench/wait:1";

/// How long removing all of them may take.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(20);

/// Starts `count` tasks of an image with this root, and ends them.
pub(super) fn tasks(rootfs: &Path, count: usize) -> anyhow::Result<Vec<Row>> {
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("agent");
    put_image(&data, dir.path(), rootfs)?;
    let agent = Agent::start(&data, &dir.path().join("socket"))?;
    let resident = || memory_of(agent.pid()?, "Rss:");
    let empty = resident()?;

    let begin = Instant::now();
    for number in 0..count {
        agent.say(to_agent::Kind::Launch(launch(&name(number))))?;
    }
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
    for number in 0..count {
        let (task_id, grace_ms) = (name(number), 0);
        agent.say(to_agent::Kind::Kill(Kill { task_id, grace_ms }))?;
    }
    all_end(&agent, count)?;
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

fn name(number: usize) -> String {
    format!("idle.{number}")
}

fn launch(task: &str) -> Launch {
    Launch {
        task_id: task.to_owned(),
        name: "idle".to_owned(),
        framework_id: "bench".to_owned(),
        resources: Some(ResourcesMessage {
            cpus_milli: 10,
            mem_bytes: MEMORY_BYTES,
            ..ResourcesMessage::default()
        }),
        image: IMAGE.to_owned(),
        ..Launch::default()
    }
}

/// Waits until every task runs, each once; their first processes.
fn all_run(agent: &Agent, count: usize) -> anyhow::Result<Vec<i32>> {
    let mut running = BTreeMap::new();
    while running.len() < count {
        let update = agent.next()?;
        let state = state(&update)?;
        ensure!(!state.is_terminal(), "{update:?}");
        if state == TaskState::TaskRunning {
            running.insert(update.task_id, i32::try_from(update.pid)?);
        }
    }
    Ok(running.into_values().collect())
}

/// Waits until every task was killed; none may have been lost before.
fn all_end(agent: &Agent, count: usize) -> anyhow::Result<()> {
    let mut ended = 0;
    while ended < count {
        let update = agent.next()?;
        match state(&update)? {
            TaskState::TaskKilled => ended += 1,
            state => ensure!(!state.is_terminal(), "{update:?}"),
        }
    }
    Ok(())
}

/// The directory of the group above that of a container's process, in one tree.
fn group_above(pid: i32) -> anyhow::Result<PathBuf> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let mut lines = text.lines().map(|line| line.splitn(3, ':').skip(1));
    let found = lines.find_map(|mut parts| {
        let (tree, path) = (parts.next()?, parts.next()?);
        let root = Path::new("/sys/fs/cgroup").join(tree);
        let group = root.join(path.trim_start_matches('/'));
        matches!(tree, "" | "memory").then_some(group)
    });
    let group = found.context("a process in no cgroup")?;
    Ok(group.parent().context("a process in the root")?.to_owned())
}

/// Waits until the keeper has nothing left to remove.
fn all_removed(groups: &Path) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let entries = std::fs::read_dir(groups)?.flatten();
        let left = entries.filter(|entry| entry.path().is_dir()).count();
        if left == 0 {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{left} groups are not removed");
        std::thread::sleep(PAUSE);
    }
}

fn state(update: &StatusUpdate) -> anyhow::Result<TaskState> {
    Ok(TaskState::try_from(update.state)?)
}

/// Puts the image into an agent's store before it starts, as `docker save` writes one.
fn put_image(data: &Path, scratch: &Path, rootfs: &Path) -> anyhow::Result<()> {
    let mut layer = tar::Builder::new(Vec::new());
    layer.append_dir_all("", rootfs)?;
    let layer = layer.into_inner()?;
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        _ => "arm64",
    };
    let config = json!({
        "os": "linux",
        "architecture": architecture,
        "config": {"Cmd": [WAIT]},
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer).to_string()]},
    });
    let manifest = json!([{
        "Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"],
    }]);
    let path = scratch.join("image.tar");
    let mut archive = tar::Builder::new(std::fs::File::create(&path)?);
    for (name, content) in [
        ("manifest.json", manifest.to_string().into_bytes()),
        ("config.json", config.to_string().into_bytes()),
        ("layer.tar", layer),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(content.len())?);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, &content[..])?;
    }
    archive.into_inner()?.sync_all()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let images = data.join("images");
    std::fs::create_dir_all(&images)?;
    let store = Store::open(&images)?;
    let imported = runtime.block_on(store.import(Archive::Path(path), ImportOptions::default()));
    imported.map_err(|error| anyhow::anyhow!("{}", error.message()))?;
    Ok(())
}
