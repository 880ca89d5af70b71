//! What executors of frameworks' own say, and what is said to them: SUBSCRIBE, UPDATE, MESSAGE.
//!
//! An update is checked before it is taken ([`Tasks::check_update`]), saved before the executor
//! hears ACKNOWLEDGED, and one that is known already is only acknowledged. (Mesos:
//! `src/common/validation.cpp`, `Slave::subscribe`, `Slave::statusUpdate`.)

use std::collections::BTreeSet;

use gantry_wire::ids::TaskId;
use gantry_wire::mesos::v1;
use gantry_wire::mesos::v1::executor::{Event, event};
use gantry_wire::task::{Reason, TaskState};
use prost::Message as _;

use super::{give, kill_event, shrink};
use crate::action::Action;
use crate::custom::charge::{Charge, WAITING_MAX};
use crate::custom::saved::ChargeStage;
use crate::custom::{Custom, lost_or, plain};
use crate::event::ExecutorCall;
use crate::moment::Turn;
use crate::tasks::Tasks;
use crate::unit::ExecutorKey;

/// Longest status in an update, in bytes.
pub const STATUS_MAX_BYTES: usize = 64 << 10;
/// Updates of all tasks of an executor that may wait for the coordinator, in bytes; terminal ones
/// always may.
pub const WAITING_MAX_BYTES: usize = 8 << 20;
const UUID_BYTES: usize = 16;

/// Why an update is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpdateRefusal {
    /// It makes no sense.
    #[error("{0}")]
    Invalid(&'static str),
    /// The task is none of this executor's.
    #[error("Task '{0}' is not known to the executor")]
    Unknown(String),
    /// Too many of them wait; it may be sent again.
    #[error("Too many updates of the executor wait for the coordinator")]
    Full,
}

impl Tasks {
    /// Whether an executor's update is to be taken.
    ///
    /// # Errors
    /// See [`UpdateRefusal`].
    pub fn check_update(
        &self,
        key: &ExecutorKey,
        status: &v1::TaskStatus,
    ) -> Result<(), UpdateRefusal> {
        let invalid = |what| Err(UpdateRefusal::Invalid(what));
        match &status.uuid {
            None => return invalid("Expecting 'uuid' to be present"),
            Some(uuid) if uuid.len() != UUID_BYTES => return invalid("Not a valid UUID"),
            Some(_) => {}
        }
        if status.source != Some(v1::task_status::Source::SourceExecutor as i32) {
            return invalid("Received Call from executor with invalid source");
        }
        if status.state() == v1::TaskState::TaskStaging {
            return invalid("Received TASK_STAGING from executor which is not allowed");
        }
        let of = status.executor_id.as_ref();
        if of.is_some_and(|of| of.value != key.executor.as_str()) {
            return invalid("ExecutorID in Call does not match ExecutorID in TaskStatus");
        }
        if status.encoded_len() > STATUS_MAX_BYTES {
            return invalid("The status is longer than 65536 bytes");
        }
        let unknown = || UpdateRefusal::Unknown(status.task_id.value.clone());
        let id = TaskId::parse(status.task_id.value.as_str()).map_err(|_| unknown())?;
        let custom = self.customs.get(key).ok_or_else(unknown)?;
        match custom.charges.get(&id) {
            None if self.history.contains(&id) => Ok(()),
            None => Err(unknown()),
            Some(charge) if charge.stage == ChargeStage::Queued => Err(unknown()),
            Some(charge) => room(custom, charge, status),
        }
    }

    /// An executor said something, or is told something.
    pub(crate) fn called(&mut self, key: &ExecutorKey, call: ExecutorCall, turn: &mut Turn<'_>) {
        match call {
            ExecutorCall::Subscribe { tasks, updates } => {
                self.custom_subscribed(key, &tasks, updates, turn);
            }
            ExecutorCall::Unsubscribe => self.with_custom(key, turn, |it, _| it.unlinked()),
            ExecutorCall::Update(status) => self.custom_update(key, *status, turn),
            ExecutorCall::Message(data) => turn.act(Action::TellMessage {
                executor: key.clone(),
                data,
            }),
            ExecutorCall::Told(data) => self.custom_message(key, data, turn),
        }
    }

    fn custom_update(&mut self, key: &ExecutorKey, status: v1::TaskStatus, turn: &mut Turn<'_>) {
        self.with_custom(key, turn, |custom, turn| take_update(custom, status, turn));
    }

    fn custom_subscribed(
        &mut self,
        key: &ExecutorKey,
        known: &[TaskId],
        updates: Vec<v1::TaskStatus>,
        turn: &mut Turn<'_>,
    ) {
        // What is not to be taken the executor keeps.
        let mut taken = Vec::new();
        for status in updates {
            if self.check_update(key, &status).is_ok() {
                taken.push(status);
            }
        }
        self.with_custom(key, turn, |custom, turn| {
            custom.linked(turn);
            for status in taken {
                take_update(custom, status, turn);
            }
            let known: BTreeSet<&TaskId> = known.iter().collect();
            drop_unheard(custom, &known, turn);
            let asked = custom.charges.values().filter(|charge| charge.lives());
            let asked = asked.filter(|charge| charge.stage == ChargeStage::Given);
            let kills: Vec<Event> = asked
                .filter_map(|charge| Some(kill_event(&charge.id, charge.kill_grace_ms?)))
                .collect();
            for kill in kills {
                custom.say(kill, turn);
            }
        });
    }

    pub(crate) fn custom_resized(
        &mut self,
        key: &ExecutorKey,
        result: Result<(), String>,
        turn: &mut Turn<'_>,
    ) {
        self.with_custom(key, turn, |custom, turn| {
            if !std::mem::take(&mut custom.resizing) {
                return;
            }
            let Err(cause) = result else {
                return give(custom, turn);
            };
            let process = custom.process.view();
            for charge in custom.charges.values_mut() {
                if charge.stage == ChargeStage::Queued {
                    let message = format!("The executor's container cannot have more: {cause}");
                    let reason = Reason::ReasonContainerUpdateFailed;
                    charge.end((TaskState::TaskFailed, reason, &message), process, turn);
                }
            }
            custom.save(true, turn);
            shrink(custom, turn);
        });
    }

    /// From the framework; lost unless the executor listens.
    fn custom_message(&self, key: &ExecutorKey, data: Vec<u8>, turn: &mut Turn<'_>) {
        if let Some(custom) = self.customs.get(key) {
            let message = Event {
                message: Some(event::Message { data }),
                ..plain(event::Type::Message)
            };
            custom.say(message, turn);
        }
    }
}

/// What is not news needs no room, and the last word on a task always has it.
fn room(custom: &Custom, charge: &Charge, status: &v1::TaskStatus) -> Result<(), UpdateRefusal> {
    let uuid = status.uuid.as_deref().unwrap_or_default();
    let state = TaskState::from(status.state());
    if !charge.lives() || charge.has_heard(uuid) || state.is_terminal() {
        return Ok(());
    }
    let waiting: usize = custom.charges.values().map(|it| it.waiting_bytes).sum();
    if charge.waiting() >= WAITING_MAX || waiting >= WAITING_MAX_BYTES {
        return Err(UpdateRefusal::Full);
    }
    Ok(())
}

fn take_update(custom: &mut Custom, status: v1::TaskStatus, turn: &mut Turn<'_>) {
    let uuid = status.uuid.clone().unwrap_or_default();
    let acknowledged = Event {
        acknowledged: Some(event::Acknowledged {
            task_id: status.task_id.clone(),
            uuid: uuid.clone(),
        }),
        ..plain(event::Type::Acknowledged)
    };
    let id = TaskId::parse(status.task_id.value.as_str());
    let process = custom.process.view();
    let charge = id.ok().and_then(|id| custom.charges.get_mut(&id));
    if let Some(charge) = charge
        && charge.lives()
        && !charge.has_heard(&uuid)
    {
        let ended = charge.hear(status, process, turn);
        custom.save(ended, turn);
        if ended {
            shrink(custom, turn);
        }
    }
    custom.say(acknowledged, turn);
}

/// The agent died, or the stream broke, before the executor heard of them.
fn drop_unheard(custom: &mut Custom, known: &BTreeSet<&TaskId>, turn: &mut Turn<'_>) {
    let state = lost_or(&custom.framework, TaskState::TaskDropped);
    let process = custom.process.view();
    let mut any = false;
    for charge in custom.charges.values_mut() {
        if charge.is_unheard() && !known.contains(&charge.id) {
            any = true;
            let words = "The executor was not told of the task before its connection was lost";
            charge.end((state, Reason::ReasonAgentRestarted, words), process, turn);
        }
    }
    if any {
        custom.save(true, turn);
        shrink(custom, turn);
    }
}
