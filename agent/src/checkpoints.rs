//! Checkpoints of tasks on disk: one JSON file a task, for people to read, with the wire messages
//! inside in base64 so that an older or newer agent still reads them.
//!
//! It deliberately keeps nothing in memory. Invariants: a file is whole or absent; one that cannot
//! be read is reported and set aside, it never stops the start nor the other tasks.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use gantry_agent_core::{Checkpoint, DiskExcess, GpuName, KeeperId, Stage};
use gantry_wire::agent::{Launch, StatusUpdate};
use gantry_wire::ids::{ContainerId, TaskId};
use gantry_wire::task::TaskState;
use prost::Message as _;
use serde::{Deserialize, Serialize};

use crate::durable;

/// A launch fits into one frame of the wire, and base64 adds a third.
const FILE_MAX_BYTES: u64 = 8 << 20;
const VERSION: u32 = 1;
const ENDING: &str = ".json";

/// Longest task id in bytes that names a file with its ending.
pub(crate) const TASK_ID_MAX_BYTES: usize = 255 - ENDING.len();

/// Why a checkpoint cannot be read.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("reading it")]
    Io(#[from] io::Error),
    #[error("its JSON")]
    Json(#[from] serde_json::Error),
    #[error("its base64")]
    Base64(#[from] base64::DecodeError),
    #[error("a message in it")]
    Message(#[from] prost::DecodeError),
    #[error("it is of version {0}, this agent knows {VERSION}")]
    Version(u32),
    #[error("it is named for another task")]
    Name,
}

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    task: TaskId,
    container: ContainerId,
    sandbox: String,
    stage: Stage,
    state: TaskState,
    ip: String,
    #[serde(default)]
    gpus: Vec<GpuName>,
    pid: u32,
    keeper: Option<KeeperId>,
    kill_grace_ms: Option<u64>,
    #[serde(default)]
    excess: Option<DiskExcess>,
    #[serde(default)]
    passed: Vec<Option<bool>>,
    launch: String,
    pending: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Checkpoints {
    dir: PathBuf,
}

/// What was found at the start.
pub(crate) struct Found {
    pub(crate) checkpoints: Vec<Checkpoint>,
    /// A sentence for each file that was set aside.
    pub(crate) set_aside: Vec<String>,
}

impl Checkpoints {
    /// Reads all of `dir`; what cannot be read moves to `corrupt`.
    pub(crate) fn open(dir: PathBuf, corrupt: &Path) -> io::Result<(Self, Found)> {
        let mut found = Found {
            checkpoints: Vec::new(),
            set_aside: Vec::new(),
        };
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if name.ends_with(durable::TEMPORARY) {
                fs::remove_file(&path)?;
                continue;
            }
            match read(&path, &name) {
                Ok(checkpoint) => found.checkpoints.push(checkpoint),
                Err(error) => {
                    let aside = corrupt.join(&name);
                    fs::rename(&path, &aside)?;
                    let why = crate::chain(&error);
                    found
                        .set_aside
                        .push(format!("{path:?}: {why}; moved to {aside:?}"));
                }
            }
        }
        Ok((Self { dir }, found))
    }

    /// Writes a batch; the tasks whose file could not be written come back with the reason.
    pub(crate) fn write(&self, batch: &[(Checkpoint, bool)]) -> Vec<(TaskId, io::Error)> {
        let mut failed = Vec::new();
        for (checkpoint, sync) in batch {
            let write = encode(checkpoint)
                .and_then(|text| durable::replace(&self.path(&checkpoint.task), &text, *sync));
            if let Err(error) = write {
                failed.push((checkpoint.task.clone(), error));
            }
        }
        if batch.iter().any(|(_, sync)| *sync)
            && let Err(error) = durable::sync_dir(&self.dir)
        {
            let kind = error.kind();
            let all = batch.iter().filter(|(_, sync)| *sync);
            failed.extend(all.map(|(c, _)| (c.task.clone(), io::Error::from(kind))));
        }
        failed
    }

    /// Removes the checkpoint of a task that is over. It need not be durable: a task that comes
    /// back from the dead here is over too, and is removed again.
    pub(crate) fn remove(&self, task: &TaskId) -> io::Result<()> {
        fs::remove_file(self.path(task))
    }

    fn path(&self, task: &TaskId) -> PathBuf {
        self.dir.join(format!("{task}{ENDING}"))
    }
}

fn encode(checkpoint: &Checkpoint) -> io::Result<Vec<u8>> {
    let file = File {
        version: VERSION,
        task: checkpoint.task.clone(),
        container: checkpoint.container.clone(),
        sandbox: checkpoint.sandbox.clone(),
        stage: checkpoint.stage,
        state: checkpoint.state,
        ip: checkpoint.ip.clone(),
        gpus: checkpoint.gpus.clone(),
        pid: checkpoint.pid,
        keeper: checkpoint.keeper,
        kill_grace_ms: checkpoint.kill_grace_ms,
        excess: checkpoint.excess,
        passed: checkpoint.passed.clone(),
        launch: BASE64.encode(checkpoint.launch.encode_to_vec()),
        pending: checkpoint
            .pending
            .iter()
            .map(|u| BASE64.encode(u.encode_to_vec()))
            .collect(),
    };
    serde_json::to_vec_pretty(&file).map_err(io::Error::other)
}

fn read(path: &Path, name: &str) -> Result<Checkpoint, ReadError> {
    let file: File = serde_json::from_slice(&durable::read_bounded(path, FILE_MAX_BYTES)?)?;
    if file.version != VERSION {
        return Err(ReadError::Version(file.version));
    }
    if name.strip_suffix(ENDING) != Some(file.task.as_str()) {
        return Err(ReadError::Name);
    }
    let update = |text: &String| -> Result<StatusUpdate, ReadError> {
        Ok(StatusUpdate::decode(BASE64.decode(text)?.as_slice())?)
    };
    Ok(Checkpoint {
        task: file.task,
        launch: Launch::decode(BASE64.decode(&file.launch)?.as_slice())?,
        container: file.container,
        sandbox: file.sandbox,
        stage: file.stage,
        state: file.state,
        ip: file.ip,
        gpus: file.gpus,
        pid: file.pid,
        keeper: file.keeper,
        kill_grace_ms: file.kill_grace_ms,
        excess: file.excess,
        passed: file.passed,
        pending: file.pending.iter().map(update).collect::<Result<_, _>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(task: &str) -> Checkpoint {
        Checkpoint {
            task: TaskId::parse(task).unwrap(),
            launch: Launch {
                task_id: task.into(),
                shell: "true".into(),
                ..Launch::default()
            },
            container: ContainerId::parse("c").unwrap(),
            sandbox: "/s".into(),
            stage: Stage::Running,
            state: TaskState::TaskRunning,
            ip: "10.0.0.2".into(),
            gpus: vec![GpuName::new("nvidia1")],
            pid: 5,
            keeper: Some(KeeperId(u64::MAX)),
            kill_grace_ms: Some(3),
            excess: Some(DiskExcess {
                used_bytes: 2,
                limit_bytes: 1,
                used_files: 4,
                limit_files: 3,
                uncounted: false,
            }),
            passed: vec![None, Some(true), Some(false)],
            pending: vec![StatusUpdate {
                uuid: vec![1; 16],
                ..StatusUpdate::default()
            }],
        }
    }

    #[test]
    fn damaged_files_are_set_aside_and_the_others_are_read() {
        let root = tempfile::tempdir().unwrap();
        let (dir, corrupt) = (root.path().join("tasks"), root.path().join("corrupt"));
        fs::create_dir(&dir).unwrap();
        fs::create_dir(&corrupt).unwrap();
        let (store, found) = Checkpoints::open(dir.clone(), &corrupt).unwrap();
        assert!(found.checkpoints.is_empty());
        assert!(
            store
                .write(&[(checkpoint("a"), true), (checkpoint("b"), false)])
                .is_empty()
        );
        let whole = fs::read(dir.join("a.json")).unwrap();
        fs::write(dir.join("cut.json"), &whole[..whole.len() / 2]).unwrap();
        fs::write(dir.join("empty.json"), "").unwrap();
        fs::write(dir.join("other.json"), &whole).unwrap();
        let newer = String::from_utf8(whole)
            .unwrap()
            .replace("\"version\": 1", "\"version\": 9");
        fs::write(dir.join("newer.json"), newer).unwrap();
        fs::write(dir.join(".new.tmp"), "{").unwrap();
        let (store, mut found) = Checkpoints::open(dir.clone(), &corrupt).unwrap();
        found.checkpoints.sort_by(|x, y| x.task.cmp(&y.task));
        assert_eq!(found.checkpoints, [checkpoint("a"), checkpoint("b")]);
        assert_eq!(found.set_aside.len(), 4, "{:?}", found.set_aside);
        assert_eq!(fs::read_dir(&corrupt).unwrap().count(), 4);
        store.remove(&TaskId::parse("a").unwrap()).unwrap();
        let (_, found) = Checkpoints::open(dir, &corrupt).unwrap();
        assert_eq!((found.checkpoints.len(), found.set_aside.len()), (1, 0));
    }
}
