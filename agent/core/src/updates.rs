//! The status updates of one task that the coordinator has not acknowledged yet.
//!
//! ```text
//! push ──▶ queued ──(head, connected)──▶ in flight ──ack of its uuid──▶ gone, next head is sent
//!                        ▲                  │
//!                        └── retry after 10 s, doubling to 10 min; at once on a new connection
//! ```
//! Invariant: only the head is ever in flight, so the coordinator sees a task's states in order.
//! (Mesos: `src/slave/task_status_update_manager.cpp`.)

use std::collections::VecDeque;

use gantry_wire::agent::StatusUpdate;

/// First wait before an unacknowledged update is sent again, in milliseconds.
pub const RETRY_FIRST_MS: u64 = 10_000;
/// Longest such wait, in milliseconds.
pub const RETRY_MAX_MS: u64 = 600_000;

#[derive(Debug, Default)]
pub(crate) struct Updates {
    queue: VecDeque<StatusUpdate>,
    flight: Option<Flight>,
}

#[derive(Debug)]
struct Flight {
    retry_at_ms: u64,
    wait_ms: u64,
}

impl Updates {
    pub(crate) fn restore(pending: Vec<StatusUpdate>) -> Self {
        Self {
            queue: pending.into(),
            flight: None,
        }
    }

    pub(crate) fn push(&mut self, update: StatusUpdate) {
        self.queue.push_back(update);
    }

    /// As [`Self::push`], in the place of an older result of the same check that still waits: so
    /// the queue stays short however long nobody listens.
    pub(crate) fn push_result(&mut self, update: StatusUpdate) {
        let index = |update: &StatusUpdate| update.check.as_ref().map(|result| result.index);
        let (wanted, sent) = (index(&update), usize::from(self.flight.is_some()));
        match self
            .queue
            .iter_mut()
            .skip(sent)
            .find(|waits| index(waits) == wanted)
        {
            Some(older) => *older = update,
            None => self.queue.push_back(update),
        }
    }

    pub(crate) fn pending(&self) -> impl Iterator<Item = &StatusUpdate> {
        self.queue.iter()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The head, if it was not sent yet on this connection or its retry is due; it is then in
    /// flight. Call only while connected.
    pub(crate) fn due(&mut self, uptime_ms: u64) -> Option<StatusUpdate> {
        let head = self.queue.front()?;
        let wait_ms = match &self.flight {
            None => RETRY_FIRST_MS,
            Some(flight) if flight.retry_at_ms <= uptime_ms => {
                flight.wait_ms.saturating_mul(2).min(RETRY_MAX_MS)
            }
            Some(_) => return None,
        };
        self.flight = Some(Flight {
            retry_at_ms: uptime_ms.saturating_add(wait_ms),
            wait_ms,
        });
        Some(head.clone())
    }

    /// Takes the head out if `uuid` is its; whether it did. An acknowledgement of anything else
    /// is old news.
    pub(crate) fn acknowledge(&mut self, uuid: &[u8]) -> bool {
        let is_head = self.queue.front().is_some_and(|head| head.uuid == uuid);
        if is_head {
            self.queue.pop_front();
            self.flight = None;
        }
        is_head
    }

    /// What was in flight is not known to have arrived.
    pub(crate) fn connection_lost(&mut self) {
        self.flight = None;
    }

    /// When a retry is due, if one is.
    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        self.flight.as_ref().map(|flight| flight.retry_at_ms)
    }
}

#[cfg(test)]
mod tests {
    use gantry_wire::check::CheckResult;

    use super::*;

    fn update(n: u8) -> StatusUpdate {
        StatusUpdate {
            uuid: vec![n],
            ..StatusUpdate::default()
        }
    }

    #[test]
    fn results_that_wait_are_replaced_by_newer_ones() {
        let result = |n: u8, index: u32| StatusUpdate {
            check: Some(Box::new(CheckResult {
                index,
                ..CheckResult::default()
            })),
            ..update(n)
        };
        let mut updates = Updates::default();
        updates.push(update(1));
        for (n, index) in [(2, 0), (3, 1), (4, 0)] {
            updates.push_result(result(n, index));
        }
        let uuids = |updates: &Updates| -> Vec<u8> {
            updates.pending().flat_map(|u| u.uuid.clone()).collect()
        };
        assert_eq!(uuids(&updates), [1, 4, 3]);
        updates.due(0).unwrap();
        assert!(updates.acknowledge(&[1]));
        updates.due(0).unwrap();
        updates.push_result(result(5, 0));
        assert_eq!(uuids(&updates), [4, 3, 5], "what is on its way stays");
        updates.push_result(result(6, 0));
        assert_eq!(uuids(&updates), [4, 3, 6]);
    }

    #[test]
    fn one_in_flight_with_growing_waits() {
        let mut updates = Updates::default();
        updates.push(update(1));
        updates.push(update(2));
        let mut sent_at = Vec::new();
        let mut now = 0;
        while sent_at.len() < 10 {
            if let Some(sent) = updates.due(now) {
                assert_eq!(sent.uuid, [1]);
                sent_at.push(now / 1000);
            }
            now += 1000;
        }
        assert_eq!(sent_at, [0, 10, 30, 70, 150, 310, 630, 1230, 1830, 2430]);
        assert!(!updates.acknowledge(&[2]), "not the head");
        assert!(updates.acknowledge(&[1]));
        assert_eq!(updates.due(now).map(|u| u.uuid), Some(vec![2]));
        assert_eq!(updates.due(now), None);
        updates.connection_lost();
        assert_eq!(
            updates.due(now).map(|u| u.uuid),
            Some(vec![2]),
            "sent again at once"
        );
        assert_eq!(updates.deadline_ms(), Some(now + RETRY_FIRST_MS));
        assert!(updates.acknowledge(&[2]) && updates.is_empty());
    }
}
