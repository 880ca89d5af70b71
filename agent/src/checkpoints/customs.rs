//! The file of an executor of a framework's own, with its tasks. As the others: for people to read,
//! with the messages of the wire inside in base64.

use std::io;

use base64::Engine as _;
use gantry_agent_core::{ChargeCheckpoint, ChargeStage, CustomCheckpoint, Doom, ExecutorKey};
use gantry_wire::ids::TaskId;
use gantry_wire::task::TaskState;
use serde::{Deserialize, Serialize};

use super::{BASE64, ENDING, File, ReadError, VERSION, checkpoint, message, task_file, text};

#[derive(Serialize, Deserialize)]
struct CustomFile {
    version: u32,
    #[serde(flatten)]
    executor: ExecutorKey,
    framework_info: String,
    executor_info: String,
    process: File,
    subscribed: bool,
    entrusted: bool,
    next_order: u64,
    closing_ms: Option<u64>,
    doom: Option<Doom>,
    tasks: Vec<ChargeFile>,
}

#[derive(Serialize, Deserialize)]
struct ChargeFile {
    task: TaskId,
    info: String,
    order: u64,
    group: Option<u64>,
    stage: ChargeStage,
    state: TaskState,
    kill_grace_ms: Option<u64>,
    pending: Vec<String>,
    heard: Vec<String>,
}

pub(super) fn encode(saved: &CustomCheckpoint) -> io::Result<Vec<u8>> {
    let file = CustomFile {
        version: VERSION,
        executor: saved.executor.clone(),
        framework_info: text(&saved.framework),
        executor_info: text(&saved.info),
        process: task_file(&saved.process),
        subscribed: saved.subscribed,
        entrusted: saved.entrusted,
        next_order: saved.next_order,
        closing_ms: saved.closing_ms,
        doom: saved.doom,
        tasks: saved.charges.iter().map(charge_file).collect(),
    };
    serde_json::to_vec(&file).map_err(io::Error::other)
}

fn charge_file(saved: &ChargeCheckpoint) -> ChargeFile {
    ChargeFile {
        task: saved.task.clone(),
        info: text(&saved.info),
        order: saved.order,
        group: saved.group,
        stage: saved.stage,
        state: saved.state,
        kill_grace_ms: saved.kill_grace_ms,
        pending: saved.pending.iter().map(text).collect(),
        heard: saved.heard.iter().map(|uuid| BASE64.encode(uuid)).collect(),
    }
}

pub(super) fn read(bytes: &[u8], name: &str) -> Result<CustomCheckpoint, ReadError> {
    let file: CustomFile = serde_json::from_slice(bytes)?;
    if file.version != VERSION {
        return Err(ReadError::Version(file.version));
    }
    let process = checkpoint(file.process)?;
    if name.strip_suffix(ENDING) != Some(process.container.as_str()) {
        return Err(ReadError::Name);
    }
    let charges: Result<_, ReadError> = file.tasks.into_iter().map(charge).collect();
    Ok(CustomCheckpoint {
        executor: file.executor,
        framework: message(&file.framework_info)?,
        info: message(&file.executor_info)?,
        process,
        subscribed: file.subscribed,
        entrusted: file.entrusted,
        next_order: file.next_order,
        closing_ms: file.closing_ms,
        doom: file.doom,
        charges: charges?,
    })
}

fn charge(file: ChargeFile) -> Result<ChargeCheckpoint, ReadError> {
    let pending: Result<_, ReadError> = file.pending.iter().map(message).collect();
    let heard: Result<_, base64::DecodeError> =
        file.heard.iter().map(|uuid| BASE64.decode(uuid)).collect();
    Ok(ChargeCheckpoint {
        task: file.task,
        info: message(&file.info)?,
        order: file.order,
        group: file.group,
        stage: file.stage,
        state: file.state,
        kill_grace_ms: file.kill_grace_ms,
        pending: pending?,
        heard: heard?,
    })
}
