//! Checkpoints on disk: one JSON file for each task that has an executor of its own, and one for
//! each executor that tasks share, with them in it. For people to read, with the wire messages
//! inside in base64 so that an older or newer agent still reads them.
//!
//! It deliberately keeps nothing in memory. Invariants: a file is whole or absent; one that cannot
//! be read is reported and set aside, it never stops the start nor the other tasks.

mod customs;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use gantry_agent_core::{
    Checkpoint, CustomCheckpoint, DiskExcess, ExecutorCheckpoint, ExecutorKey, GpuName, KeeperId,
    Saved, Stage, Unit, Verdict,
};
use gantry_wire::agent::{ExecutorInfo, Launch, PortMapping, StatusUpdate};
use gantry_wire::ids::{ContainerId, TaskId};
use gantry_wire::task::TaskState;
use gantry_wire::time::Millis;
use prost::Message;
use serde::{Deserialize, Serialize};

use crate::durable;

/// Launches of one executor come in frames of the wire, and base64 adds a third; what has not been
/// acknowledged is small beside them.
const FILE_MAX_BYTES: u64 = 64 << 20;
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
    #[error("it is named for something else")]
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
    #[serde(default)]
    started: Option<Millis>,
    kill_grace_ms: Option<u64>,
    /// Of agents that knew no other verdict.
    #[serde(default, skip_serializing)]
    excess: Option<DiskExcess>,
    #[serde(default)]
    passed: Vec<Option<bool>>,
    #[serde(default)]
    verdict: Option<Verdict>,
    #[serde(default)]
    culprit: Option<TaskId>,
    launch: String,
    pending: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct ExecutorFile {
    version: u32,
    #[serde(flatten)]
    executor: ExecutorKey,
    container: ContainerId,
    sandbox: String,
    stage: Stage,
    ip: String,
    pid: u32,
    keeper: Option<KeeperId>,
    info: String,
    ports: Vec<String>,
    tasks: Vec<MemberFile>,
}

#[derive(Serialize, Deserialize)]
struct MemberFile {
    group: u32,
    #[serde(flatten)]
    task: File,
}

/// A unit to write.
#[derive(Debug)]
pub(crate) enum ToSave {
    Task(Box<Checkpoint>),
    Executor(Box<ExecutorCheckpoint>),
    Custom(Box<CustomCheckpoint>),
}

#[derive(Debug)]
pub(crate) struct Checkpoints {
    tasks: PathBuf,
    executors: PathBuf,
    customs: PathBuf,
}

/// What was found at the start.
pub(crate) struct Found {
    pub(crate) saved: Saved,
    /// A sentence for each file that was set aside.
    pub(crate) set_aside: Vec<String>,
}

impl ToSave {
    fn unit(&self) -> Unit {
        match self {
            Self::Task(saved) => Unit::Task(saved.task.clone()),
            Self::Executor(saved) => Unit::Executor(saved.executor.clone()),
            Self::Custom(saved) => Unit::Executor(saved.executor.clone()),
        }
    }
}

impl Checkpoints {
    /// Reads all of the directories; what cannot be read moves to `corrupt`.
    pub(crate) fn open(
        tasks: PathBuf,
        (executors, customs): (PathBuf, PathBuf),
        corrupt: &Path,
    ) -> io::Result<(Self, Found)> {
        let mut set_aside = Vec::new();
        let saved = Saved {
            tasks: read_all(&tasks, corrupt, &mut set_aside, read_task)?,
            executors: read_all(&executors, corrupt, &mut set_aside, read_executor)?,
            customs: read_all(&customs, corrupt, &mut set_aside, customs::read)?,
        };
        let dirs = Self {
            tasks,
            executors,
            customs,
        };
        Ok((dirs, Found { saved, set_aside }))
    }

    /// Writes a batch; the units whose file could not be written come back with the reason.
    pub(crate) fn write(&self, batch: &[(ToSave, bool)]) -> Vec<(Unit, io::Error)> {
        let mut failed = Vec::new();
        for (unit, sync) in batch {
            let (path, text) = match unit {
                ToSave::Task(saved) => (self.path(&saved.task), encode_task(saved)),
                ToSave::Executor(saved) => {
                    (self.executor_path(&saved.container), encode_executor(saved))
                }
                ToSave::Custom(saved) => (
                    self.custom_path(&saved.process.container),
                    customs::encode(saved),
                ),
            };
            if let Err(error) = text.and_then(|text| durable::replace(&path, &text, *sync)) {
                failed.push((unit.unit(), error));
            }
        }
        for dir in [&self.tasks, &self.executors, &self.customs] {
            let of = |unit: &ToSave| match unit {
                ToSave::Task(_) => &self.tasks,
                ToSave::Executor(_) => &self.executors,
                ToSave::Custom(_) => &self.customs,
            };
            let is_in = |(unit, sync): &&(ToSave, bool)| *sync && of(unit) == dir;
            if batch.iter().any(|it| is_in(&it))
                && let Err(error) = durable::sync_dir(dir)
            {
                let kind = error.kind();
                let all = batch.iter().filter(is_in);
                failed.extend(all.map(|(unit, _)| (unit.unit(), io::Error::from(kind))));
            }
        }
        failed
    }

    /// Removes the checkpoint of a task that is over. It need not be durable: a task that comes
    /// back from the dead here is over too, and is removed again.
    pub(crate) fn remove(&self, task: &TaskId) -> io::Result<()> {
        fs::remove_file(self.path(task))
    }

    /// As [`Self::remove`], of an executor by its container.
    pub(crate) fn remove_executor(&self, container: &ContainerId) -> io::Result<()> {
        match fs::remove_file(self.executor_path(container)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::remove_file(self.custom_path(container))
            }
            other => other,
        }
    }

    fn custom_path(&self, container: &ContainerId) -> PathBuf {
        self.customs.join(format!("{container}{ENDING}"))
    }

    fn path(&self, task: &TaskId) -> PathBuf {
        self.tasks.join(format!("{task}{ENDING}"))
    }

    fn executor_path(&self, container: &ContainerId) -> PathBuf {
        self.executors.join(format!("{container}{ENDING}"))
    }
}

fn read_all<T>(
    dir: &Path,
    corrupt: &Path,
    set_aside: &mut Vec<String>,
    read: impl Fn(&[u8], &str) -> Result<T, ReadError>,
) -> io::Result<Vec<T>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(durable::TEMPORARY) {
            fs::remove_file(&path)?;
            continue;
        }
        let bytes = durable::read_bounded(&path, FILE_MAX_BYTES);
        match bytes
            .map_err(ReadError::Io)
            .and_then(|bytes| read(&bytes, &name))
        {
            Ok(checkpoint) => found.push(checkpoint),
            Err(error) => {
                let aside = corrupt.join(&*name);
                fs::rename(&path, &aside)?;
                let why = crate::chain(&error);
                set_aside.push(format!("{path:?}: {why}; moved to {aside:?}"));
            }
        }
    }
    Ok(found)
}

fn encode_task(checkpoint: &Checkpoint) -> io::Result<Vec<u8>> {
    serde_json::to_vec_pretty(&task_file(checkpoint)).map_err(io::Error::other)
}

fn encode_executor(checkpoint: &ExecutorCheckpoint) -> io::Result<Vec<u8>> {
    let member = |(group, task): &(u32, Checkpoint)| MemberFile {
        group: *group,
        task: task_file(task),
    };
    let file = ExecutorFile {
        version: VERSION,
        executor: checkpoint.executor.clone(),
        container: checkpoint.container.clone(),
        sandbox: checkpoint.sandbox.clone(),
        stage: checkpoint.stage,
        ip: checkpoint.ip.clone(),
        pid: checkpoint.pid,
        keeper: checkpoint.keeper,
        info: text(&checkpoint.info),
        ports: checkpoint.ports.iter().map(text).collect(),
        tasks: checkpoint.tasks.iter().map(member).collect(),
    };
    serde_json::to_vec_pretty(&file).map_err(io::Error::other)
}

fn task_file(checkpoint: &Checkpoint) -> File {
    File {
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
        started: checkpoint.started,
        kill_grace_ms: checkpoint.kill_grace_ms,
        passed: checkpoint.passed.clone(),
        excess: None,
        verdict: checkpoint.verdict,
        culprit: checkpoint.culprit.clone(),
        launch: text(&checkpoint.launch),
        pending: checkpoint.pending.iter().map(text).collect(),
    }
}

/// A message of the wire.
fn text(message: &impl Message) -> String {
    BASE64.encode(message.encode_to_vec())
}

fn message<M: Message + Default>(text: &String) -> Result<M, ReadError> {
    Ok(M::decode(BASE64.decode(text)?.as_slice())?)
}

fn read_task(bytes: &[u8], name: &str) -> Result<Checkpoint, ReadError> {
    let file: File = serde_json::from_slice(bytes)?;
    if name.strip_suffix(ENDING) != Some(file.task.as_str()) {
        return Err(ReadError::Name);
    }
    checkpoint(file)
}

fn read_executor(bytes: &[u8], name: &str) -> Result<ExecutorCheckpoint, ReadError> {
    let file: ExecutorFile = serde_json::from_slice(bytes)?;
    if file.version != VERSION {
        return Err(ReadError::Version(file.version));
    }
    if name.strip_suffix(ENDING) != Some(file.container.as_str()) {
        return Err(ReadError::Name);
    }
    let member = |member: MemberFile| Ok((member.group, checkpoint(member.task)?));
    let ports: Result<Vec<PortMapping>, ReadError> = file.ports.iter().map(message).collect();
    let tasks: Result<_, ReadError> = file.tasks.into_iter().map(member).collect();
    Ok(ExecutorCheckpoint {
        executor: file.executor,
        info: message::<ExecutorInfo>(&file.info)?,
        ports: ports?,
        container: file.container,
        sandbox: file.sandbox,
        stage: file.stage,
        ip: file.ip,
        pid: file.pid,
        keeper: file.keeper,
        tasks: tasks?,
    })
}

fn checkpoint(file: File) -> Result<Checkpoint, ReadError> {
    if file.version != VERSION {
        return Err(ReadError::Version(file.version));
    }
    let pending: Result<Vec<StatusUpdate>, ReadError> = file.pending.iter().map(message).collect();
    Ok(Checkpoint {
        task: file.task,
        launch: message::<Launch>(&file.launch)?,
        container: file.container,
        sandbox: file.sandbox,
        stage: file.stage,
        state: file.state,
        ip: file.ip,
        gpus: file.gpus,
        pid: file.pid,
        keeper: file.keeper,
        started: file.started,
        kill_grace_ms: file.kill_grace_ms,
        verdict: file.verdict.or(file.excess.map(Verdict::Disk)),
        passed: file.passed,
        culprit: file.culprit,
        pending: pending?,
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
            started: Some(Millis(9)),
            kill_grace_ms: Some(3),
            verdict: Some(Verdict::Disk(DiskExcess {
                used_bytes: 2,
                limit_bytes: 1,
                used_files: 4,
                limit_files: 3,
                uncounted: false,
                parked: 0,
            })),
            culprit: TaskId::parse("other").ok(),
            passed: vec![None, Some(true), Some(false)],
            pending: vec![StatusUpdate {
                uuid: vec![1; 16],
                ..StatusUpdate::default()
            }],
        }
    }

    fn executor(container: &str) -> ExecutorCheckpoint {
        ExecutorCheckpoint {
            executor: ExecutorKey {
                framework: "f".to_owned().try_into().unwrap(),
                executor: "e".to_owned().try_into().unwrap(),
            },
            info: ExecutorInfo {
                executor_id: "e".into(),
                ..ExecutorInfo::default()
            },
            ports: vec![PortMapping {
                host_port: 1,
                ..PortMapping::default()
            }],
            container: ContainerId::parse(container).unwrap(),
            sandbox: "/e".into(),
            stage: Stage::Starting,
            ip: "10.0.0.3".into(),
            pid: 6,
            keeper: Some(KeeperId(7)),
            tasks: vec![(3, checkpoint("a")), (4, checkpoint("b"))],
        }
    }

    struct Dirs {
        root: tempfile::TempDir,
    }

    impl Dirs {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            for name in ["tasks", "executors", "customs", "corrupt"] {
                fs::create_dir(root.path().join(name)).unwrap();
            }
            Self { root }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.root.path().join(name)
        }

        fn open(&self) -> (Checkpoints, Found) {
            let executors = (self.path("executors"), self.path("customs"));
            Checkpoints::open(self.path("tasks"), executors, &self.path("corrupt")).unwrap()
        }
    }

    #[test]
    fn damaged_files_are_set_aside_and_the_others_are_read() {
        let dirs = Dirs::new();
        let dir = dirs.path("tasks");
        let (store, found) = dirs.open();
        assert!(found.saved.tasks.is_empty());
        let tasks = ["a", "b"].map(|task| (ToSave::Task(Box::new(checkpoint(task))), task == "a"));
        assert!(store.write(&tasks).is_empty());
        let whole = fs::read(dir.join("a.json")).unwrap();
        fs::write(dir.join("cut.json"), &whole[..whole.len() / 2]).unwrap();
        fs::write(dir.join("empty.json"), "").unwrap();
        fs::write(dir.join("other.json"), &whole).unwrap();
        let newer = String::from_utf8(whole)
            .unwrap()
            .replace("\"version\": 1", "\"version\": 9");
        fs::write(dir.join("newer.json"), newer).unwrap();
        fs::write(dir.join(".new.tmp"), "{").unwrap();
        let (store, mut found) = dirs.open();
        found.saved.tasks.sort_by(|x, y| x.task.cmp(&y.task));
        assert_eq!(found.saved.tasks, [checkpoint("a"), checkpoint("b")]);
        assert_eq!(found.set_aside.len(), 4, "{:?}", found.set_aside);
        assert_eq!(fs::read_dir(dirs.path("corrupt")).unwrap().count(), 4);
        store.remove(&TaskId::parse("a").unwrap()).unwrap();
        let (_, found) = dirs.open();
        assert_eq!((found.saved.tasks.len(), found.set_aside.len()), (1, 0));
    }

    #[test]
    fn wherever_a_file_is_torn_or_flipped_the_others_are_read() {
        let dirs = Dirs::new();
        let (store, _) = dirs.open();
        let whole = [
            ToSave::Task(Box::new(checkpoint("a"))),
            ToSave::Executor(Box::new(executor("c"))),
        ];
        assert!(store.write(&whole.map(|unit| (unit, false))).is_empty());
        for (kind, name) in [("tasks", "a"), ("executors", "c")] {
            let text = fs::read(dirs.path(kind).join(format!("{name}.json"))).unwrap();
            let bad = dirs.path(kind).join("bad.json");
            for at in 0..text.len() {
                fs::write(&bad, &text[..at]).unwrap();
                let (_, found) = dirs.open();
                let read = (found.saved.tasks.len(), found.saved.executors.len());
                assert_eq!((read, found.set_aside.len()), ((1, 1), 1), "cut at {at}");
                let mut flipped = text.clone();
                flipped[at] ^= 1 << (at % 8);
                fs::write(&bad, &flipped).unwrap();
                let (_, found) = dirs.open();
                let read = (found.saved.tasks.len(), found.saved.executors.len());
                // It is still named for something else.
                assert_eq!(
                    (read, found.set_aside.len()),
                    ((1, 1), 1),
                    "flipped at {at}"
                );
            }
        }
    }

    #[test]
    fn an_executor_is_one_file_with_its_tasks() {
        let dirs = Dirs::new();
        let (store, _) = dirs.open();
        let saved = |container| (ToSave::Executor(Box::new(executor(container))), true);
        assert!(store.write(&[saved("c1"), saved("c2")]).is_empty());
        let whole = fs::read(dirs.path("executors/c1.json")).unwrap();
        fs::write(dirs.path("executors/c3.json"), &whole).unwrap();
        let (store, mut found) = dirs.open();
        found
            .saved
            .executors
            .sort_by(|x, y| x.container.cmp(&y.container));
        assert_eq!(found.saved.executors, [executor("c1"), executor("c2")]);
        assert_eq!((found.saved.tasks.len(), found.set_aside.len()), (0, 1));
        for container in ["c1", "c2"] {
            store
                .remove_executor(&executor(container).container)
                .unwrap();
        }
        assert!(dirs.open().1.saved.executors.is_empty());
    }

    #[test]
    fn what_an_older_agent_wrote_is_understood() {
        let dirs = Dirs::new();
        let mut file = serde_json::to_value(task_file(&checkpoint("a"))).unwrap();
        let fields = file.as_object_mut().unwrap();
        for newer in ["started", "verdict", "culprit"] {
            fields.remove(newer).unwrap();
        }
        let Some(Verdict::Disk(excess)) = checkpoint("a").verdict else {
            panic!("a disk excess");
        };
        fields.insert("excess".into(), serde_json::to_value(excess).unwrap());
        fs::write(dirs.path("tasks/a.json"), file.to_string()).unwrap();
        let want = Checkpoint {
            started: None,
            culprit: None,
            ..checkpoint("a")
        };
        assert_eq!(dirs.open().1.saved.tasks, [want]);
    }
}
