//! Tasks that an agent is told to run: of an image that is in its store before it starts, to wait, or
//! of the host's files, to end at once.
//!
//! It measures nothing. Whatever a task does that was not asked for fails the suite.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use gantry_image::{Archive, Digest, ImportOptions, Store};
use gantry_wire::agent::{Kill, Launch, ResourcesMessage, StatusUpdate, to_agent};
use gantry_wire::task::TaskState;
use serde_json::json;

use crate::agent::Agent;
use crate::root::WAIT;

/// What the image is called; no registry is asked, since it is there.
const IMAGE: &str = "registry.test/bench/wait:1";
/// Limit of each that waits.
const WAITING_BYTES: u64 = 64 << 20;
/// How long removing all of them may take.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(20);

fn name(number: usize) -> String {
    format!("idle.{number}")
}

fn waiting(task: String) -> Launch {
    Launch {
        image: IMAGE.to_owned(),
        ..launch(task, 10, WAITING_BYTES)
    }
}

/// A task with nothing to run yet.
fn launch(task_id: String, cpus_milli: u64, mem_bytes: u64) -> Launch {
    Launch {
        task_id,
        name: "bench".to_owned(),
        framework_id: "bench".to_owned(),
        resources: Some(ResourcesMessage {
            cpus_milli,
            mem_bytes,
            ..ResourcesMessage::default()
        }),
        ..Launch::default()
    }
}

/// A task on the host's files that ends at once.
pub(crate) fn passing(task_id: String, cpus_milli: u64, mem_bytes: u64) -> Launch {
    Launch {
        shell: "/bin/true".to_owned(),
        ..launch(task_id, cpus_milli, mem_bytes)
    }
}

/// Asks for so many tasks of the image, which wait.
pub(crate) fn start_waiting(agent: &Agent, count: usize) -> anyhow::Result<()> {
    for number in 0..count {
        agent.say(to_agent::Kind::Launch(waiting(name(number))))?;
    }
    Ok(())
}

/// Kills them, and waits until every one was.
pub(crate) fn kill_all(agent: &Agent, count: usize) -> anyhow::Result<()> {
    for number in 0..count {
        let (task_id, grace_ms) = (name(number), 0);
        agent.say(to_agent::Kind::Kill(Kill { task_id, grace_ms }))?;
    }
    all_end(agent, count)
}

/// Waits until every task runs, each once; their first processes.
pub(crate) fn all_run(agent: &Agent, count: usize) -> anyhow::Result<Vec<i32>> {
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
pub(crate) fn group_above(pid: i32) -> anyhow::Result<PathBuf> {
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
pub(crate) fn all_removed(groups: &Path) -> anyhow::Result<()> {
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

pub(crate) fn state(update: &StatusUpdate) -> anyhow::Result<TaskState> {
    Ok(TaskState::try_from(update.state)?)
}

/// Puts the image into an agent's store before it starts, as `docker save` writes one.
pub(crate) fn put_image(data: &Path, scratch: &Path, rootfs: &Path) -> anyhow::Result<()> {
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
