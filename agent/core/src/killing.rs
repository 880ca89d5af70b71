//! Whether and when the processes of a task are to be killed: because its end was asked for, with a
//! grace, or at once because of a verdict of the agent's own. Decides moments only; the task sends
//! the signals.
//!
//! Invariant: a reason to kill never goes away; a further one may only bring SIGKILL forward.

use crate::ending::Verdict;

/// How often SIGKILL is repeated for a container that does not end, in milliseconds.
pub const KILL_REPEAT_MS: u64 = 5_000;

#[derive(Debug, Default)]
pub(crate) struct Killing {
    /// From SIGTERM to SIGKILL, once its end was asked for.
    grace_ms: Option<u64>,
    /// Only when it came before anyone asked.
    verdict: Option<Verdict>,
    /// When SIGKILL is due next; nothing is after a restart before [`Killing::again`].
    due_ms: Option<u64>,
}

impl Killing {
    pub(crate) fn restore(grace_ms: Option<u64>, verdict: Option<Verdict>) -> Self {
        Self {
            grace_ms,
            verdict,
            due_ms: None,
        }
    }

    pub(crate) fn grace_ms(&self) -> Option<u64> {
        self.grace_ms
    }

    pub(crate) fn verdict(&self) -> Option<Verdict> {
        self.verdict
    }

    /// Whether someone asked.
    pub(crate) fn is_asked(&self) -> bool {
        self.grace_ms.is_some()
    }

    /// Someone asks; whether for the first time.
    pub(crate) fn ask(&mut self, grace_ms: u64, now_ms: u64) -> bool {
        let first = self.grace_ms.is_none();
        let grace = self
            .grace_ms
            .map_or(grace_ms, |before| before.min(grace_ms));
        self.grace_ms = Some(grace);
        self.forward(now_ms.saturating_add(grace_ms));
        first
    }

    /// It must not go on; whether that is a new reason.
    pub(crate) fn condemn(&mut self, verdict: Verdict, now_ms: u64) -> bool {
        if self.verdict.is_some() {
            return false;
        }
        self.forward(now_ms);
        if self.is_asked() {
            return false;
        }
        self.verdict = Some(verdict);
        true
    }

    /// The grace starts anew; whether there is a reason to kill.
    pub(crate) fn again(&mut self, now_ms: u64) -> bool {
        let wait_ms = match (self.verdict, self.grace_ms) {
            (Some(_), _) => 0,
            (None, Some(grace_ms)) => grace_ms,
            (None, None) => return false,
        };
        self.due_ms = Some(now_ms.saturating_add(wait_ms));
        true
    }

    /// Whether SIGKILL is due; if so the next one is due later.
    pub(crate) fn take_due(&mut self, now_ms: u64) -> bool {
        let due = self.due_ms.is_some_and(|due_ms| due_ms <= now_ms);
        if due {
            self.due_ms = Some(now_ms.saturating_add(KILL_REPEAT_MS));
        }
        due
    }

    pub(crate) fn due_ms(&self) -> Option<u64> {
        self.due_ms
    }

    fn forward(&mut self, wanted_ms: u64) {
        self.due_ms = Some(
            self.due_ms
                .map_or(wanted_ms, |due_ms| due_ms.min(wanted_ms)),
        );
    }
}
