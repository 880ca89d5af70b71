//! Time and fresh ids as arguments. Decides nothing; reads no clock and draws no random number.

use gantry_wire::time::Millis;

use crate::action::Action;

/// The moment of a step, read by the shell.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Wall clock: goes into status updates, decides nothing.
    pub wall: Millis,
    /// Milliseconds on a clock that never jumps: every deadline is on it.
    pub uptime_ms: u64,
    /// Random, new for every step: the uuids of the step's updates follow from it.
    pub seed: u128,
}

/// One step under way: its moment, the next uuid, and where actions go.
pub(crate) struct Turn<'a> {
    pub(crate) now: Now,
    pub(crate) actions: &'a mut Vec<Action>,
    next_uuid: u128,
}

impl<'a> Turn<'a> {
    pub(crate) fn new(now: Now, actions: &'a mut Vec<Action>) -> Self {
        Self {
            now,
            actions,
            next_uuid: now.seed,
        }
    }

    /// A uuid that no other update has: 128 random bits, counted up within a step.
    pub(crate) fn uuid(&mut self) -> Vec<u8> {
        let uuid = self.next_uuid;
        self.next_uuid = self.next_uuid.wrapping_add(1);
        uuid.to_be_bytes().to_vec()
    }

    pub(crate) fn act(&mut self, action: Action) {
        self.actions.push(action);
    }
}
