//! One task below an executor of its framework's own. It is a container of nobody: what becomes of
//! it the executor says, and the agent passes that on, in order and once.
//!
//! ```text
//!          subscribed          terminal update, or the executor ended
//! Queued ────────────▶ Given ────────────────────────────────────────▶ Ended ──acked──▶ over
//!    └───────────────────── killed, or the executor ended ─────────────────▲
//! ```
//! It decides what of an update is news. Invariants: nothing follows a terminal update; an update
//! is queued once, however often the executor repeats it; what waits is bounded in number and bytes.

use std::collections::VecDeque;

use gantry_wire::agent::{Launch, StatusUpdate};
use gantry_wire::ids::TaskId;
use gantry_wire::mesos::{commands, v1};
use gantry_wire::task::{Reason, TaskState};
use prost::Message as _;

use crate::action::Action;
use crate::custom::saved::{ChargeCheckpoint, ChargeStage};
use crate::moment::Turn;
use crate::task::{TaskView, cut};
use crate::unit::ExecutorKey;
use crate::updates::Updates;

/// Updates of a task that may wait for the coordinator; a terminal one always may.
pub const WAITING_MAX: usize = 64;
/// Uuids of a task's updates that are remembered, so that a repeated one is known.
const HEARD_MAX: usize = 128;

#[derive(Debug)]
pub(crate) struct Charge {
    pub(crate) id: TaskId,
    pub(crate) info: v1::TaskInfo,
    /// What of it is shown.
    launch: Launch,
    /// Its place among all that the executor was ever asked for.
    pub(crate) order: u64,
    /// The place of the first of its group.
    pub(crate) group: Option<u64>,
    pub(crate) stage: ChargeStage,
    pub(crate) state: TaskState,
    /// The grace of the kill that was asked for.
    pub(crate) kill_grace_ms: Option<u64>,
    updates: Updates,
    pub(crate) waiting_bytes: usize,
    heard: VecDeque<Vec<u8>>,
}

impl Charge {
    pub(crate) fn new(
        (id, info): (TaskId, v1::TaskInfo),
        key: &ExecutorKey,
        order: u64,
        group: Option<u64>,
    ) -> Self {
        Self {
            launch: shown(&id, &info, key),
            id,
            info,
            order,
            group,
            stage: ChargeStage::Queued,
            state: TaskState::TaskStaging,
            kill_grace_ms: None,
            updates: Updates::default(),
            waiting_bytes: 0,
            heard: VecDeque::new(),
        }
    }

    pub(crate) fn restore(saved: ChargeCheckpoint, key: &ExecutorKey) -> Self {
        Self {
            stage: saved.stage,
            state: saved.state,
            kill_grace_ms: saved.kill_grace_ms,
            waiting_bytes: saved.pending.iter().map(prost::Message::encoded_len).sum(),
            updates: Updates::restore(saved.pending),
            heard: saved.heard.into(),
            ..Self::new((saved.task, saved.info), key, saved.order, saved.group)
        }
    }

    pub(crate) fn checkpoint(&self) -> ChargeCheckpoint {
        ChargeCheckpoint {
            task: self.id.clone(),
            info: self.info.clone(),
            order: self.order,
            group: self.group,
            stage: self.stage,
            state: self.state,
            kill_grace_ms: self.kill_grace_ms,
            pending: self.updates.pending().cloned().collect(),
            heard: self.heard.iter().cloned().collect(),
        }
    }

    /// `process` is its executor's.
    pub(crate) fn view<'a>(&'a self, process: TaskView<'a>) -> TaskView<'a> {
        TaskView {
            launch: &self.launch,
            state: self.state,
            gpus: &[],
            ..process
        }
    }

    pub(crate) fn launch(&self) -> &Launch {
        &self.launch
    }

    pub(crate) fn is_over(&self) -> bool {
        self.stage == ChargeStage::Ended && self.updates.is_empty()
    }

    pub(crate) fn lives(&self) -> bool {
        self.stage != ChargeStage::Ended
    }

    /// Whether the executor never said a word about it.
    pub(crate) fn is_unheard(&self) -> bool {
        self.stage == ChargeStage::Given && self.heard.is_empty()
    }

    pub(crate) fn has_heard(&self, uuid: &[u8]) -> bool {
        self.heard.iter().any(|heard| heard == uuid)
    }

    pub(crate) fn waiting(&self) -> usize {
        self.updates.pending().count()
    }

    /// Its executor says something that is not known yet. Whether that was the end.
    pub(crate) fn hear(
        &mut self,
        status: v1::TaskStatus,
        process: TaskView<'_>,
        turn: &Turn<'_>,
    ) -> bool {
        let state = status.state().into();
        self.state = state;
        let uuid = status.uuid.clone().unwrap_or_default();
        self.heard.push_back(uuid.clone());
        if self.heard.len() > HEARD_MAX {
            self.heard.pop_front();
        }
        let status = completed(status, &self.info, process, turn.now.wall.seconds());
        let update = StatusUpdate {
            uuid,
            reason: status.reason,
            message: cut(status.message.as_deref().unwrap_or_default()),
            healthy: status.healthy,
            status: Some(Box::new(status)),
            ..self.update(state, process, turn)
        };
        self.push(update);
        if state.is_terminal() {
            self.stage = ChargeStage::Ended;
        }
        state.is_terminal()
    }

    /// The agent itself says how it ended.
    pub(crate) fn end(
        &mut self,
        (state, reason, message): (TaskState, Reason, &str),
        process: TaskView<'_>,
        turn: &mut Turn<'_>,
    ) {
        assert!(self.lives(), "a task ends once");
        (self.state, self.stage) = (state, ChargeStage::Ended);
        let update = StatusUpdate {
            uuid: turn.uuid(),
            reason: Some(reason as i32),
            message: cut(message),
            ..self.update(state, process, turn)
        };
        self.push(update);
    }

    fn push(&mut self, update: StatusUpdate) {
        self.waiting_bytes += update.encoded_len();
        self.updates.push(update);
    }

    fn update(&self, state: TaskState, process: TaskView<'_>, turn: &Turn<'_>) -> StatusUpdate {
        StatusUpdate {
            task_id: self.id.to_string(),
            state: state as i32,
            timestamp_ms: turn.now.wall.0,
            container_id: process.container.to_string(),
            ip_address: process.ip.to_owned(),
            pid: process.pid,
            sandbox: process.sandbox.to_owned(),
            executor_id: self.launch.executor_id().to_owned(),
            ..StatusUpdate::default()
        }
    }

    /// Call only while connected.
    pub(crate) fn send_due(&mut self, turn: &mut Turn<'_>) {
        if let Some(update) = self.updates.due(turn.now.uptime_ms) {
            turn.act(Action::Send(update));
        }
    }

    pub(crate) fn acknowledged(&mut self, uuid: &[u8]) -> bool {
        let head = self.updates.pending().next();
        let bytes = head.map_or(0, prost::Message::encoded_len);
        let taken = self.updates.acknowledge(uuid);
        if taken {
            self.waiting_bytes = self.waiting_bytes.saturating_sub(bytes);
        }
        taken
    }

    pub(crate) fn connection_lost(&mut self) {
        self.updates.connection_lost();
    }

    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        self.updates.deadline_ms()
    }
}

/// What of a task below such an executor is shown as that of any other.
fn shown(id: &TaskId, info: &v1::TaskInfo, key: &ExecutorKey) -> Launch {
    Launch {
        task_id: id.to_string(),
        name: info.name.clone(),
        framework_id: key.framework.to_string(),
        executor_id: key.executor.to_string(),
        resources: Some(commands::resources(&info.resources).unwrap_or_default()),
        labels: commands::labels(info.labels.as_ref()),
        ..Launch::default()
    }
}

/// Adds what the agent knows better (Mesos: `Slave::statusUpdate`).
fn completed(
    mut status: v1::TaskStatus,
    info: &v1::TaskInfo,
    process: TaskView<'_>,
    seconds: f64,
) -> v1::TaskStatus {
    status.agent_id = Some(info.agent_id.clone());
    status.timestamp.get_or_insert(seconds);
    let container = status.container_status.get_or_insert_default();
    container.container_id = Some(process.container.into());
    if process.pid != 0 {
        container.executor_pid = Some(process.pid);
    }
    if container.network_infos.is_empty() && !process.ip.is_empty() {
        let address = v1::network_info::IpAddress {
            ip_address: Some(process.ip.to_owned()),
            ..v1::network_info::IpAddress::default()
        };
        container.network_infos.push(v1::NetworkInfo {
            ip_addresses: vec![address],
            ..v1::NetworkInfo::default()
        });
    }
    status
}
