//! What a task says: its states as they change, and what its checks found.

use gantry_wire::agent::StatusUpdate;
use gantry_wire::check::Purpose;
use gantry_wire::task::{Reason, TaskState};

use super::{Phase, Task};
use crate::checks::Found;
use crate::moment::Turn;

/// Longest message of an update, in bytes.
pub const MESSAGE_MAX_BYTES: usize = 2_048;

impl Task {
    /// A probe of one of its checks is over.
    pub(crate) fn probed(&mut self, check: usize, found: &Found, turn: &mut Turn<'_>) {
        if self.phase != Phase::Running {
            return;
        }
        let checks = &self.launch.checks;
        let now_ms = turn.now.uptime_ms;
        let Some(news) = self.checks.heard(check, found, checks, now_ms) else {
            return;
        };
        let words = news.words(&self.launch.checks);
        let reason = match news.purpose {
            Purpose::Health => Reason::ReasonTaskHealthCheckStatusUpdated,
            Purpose::Value | Purpose::Readiness => Reason::ReasonTaskCheckStatusUpdated,
        };
        let mut update = self.update(Some(reason), &words, None, turn);
        update.check = Some(Box::new(news.result));
        self.updates.push_result(update);
        if news.kill {
            self.unhealthy = Some(words.into_boxed_str());
            self.kill(self.launch.kill_grace_ms, turn);
        } else {
            self.save(false, turn);
        }
    }

    pub(super) fn report(
        &mut self,
        state: TaskState,
        reason: Option<Reason>,
        message: &str,
        exit_code: Option<i32>,
        turn: &mut Turn<'_>,
    ) {
        assert!(
            !self.state.is_terminal(),
            "nothing follows a terminal state"
        );
        self.state = state;
        if self.process.is_none() {
            let update = self.update(reason, message, exit_code, turn);
            self.updates.push(update);
        }
    }

    /// An update that says how things are now.
    fn update(
        &self,
        reason: Option<Reason>,
        message: &str,
        exit_code: Option<i32>,
        turn: &mut Turn<'_>,
    ) -> StatusUpdate {
        StatusUpdate {
            task_id: self.id.to_string(),
            uuid: turn.uuid(),
            state: self.state as i32,
            reason: reason.map(|r| r as i32),
            message: cut(message),
            timestamp_ms: turn.now.wall.0,
            container_id: self.container.to_string(),
            ip_address: self.ip.clone(),
            pid: self.pid,
            exit_code,
            sandbox: self.sandbox.clone(),
            executor_id: self.launch.executor_id().to_owned(),
            healthy: self.checks.healthy(&self.launch.checks),
            check: None,
            status: None,
        }
    }
}

/// At most [`MESSAGE_MAX_BYTES`], on a character boundary.
pub(crate) fn cut(message: &str) -> String {
    let mut end = message.len().min(MESSAGE_MAX_BYTES);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message[..end].to_owned()
}
