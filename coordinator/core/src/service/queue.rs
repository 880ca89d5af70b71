//! What waits for launch, and why: Marathon's launch queue as a view of the scheduler.
//!
//! It decides nothing. The refusals of the last attempt are computed when asked for, so they speak
//! of the agents as they are now.

use gantry_wire::ids::AppId;
use gantry_wire::time::Millis;

use crate::alloc::{Allocator, RefusalCounts};
use crate::service::needs;
use crate::state::{AppRecord, State};

/// An app with instances that wait for launch.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueEntry {
    /// The app.
    pub app_id: AppId,
    /// How many instances wait.
    pub count: u32,
    /// Since when.
    pub since: Millis,
    /// Milliseconds of launch delay left; 0 means it waits for resources.
    pub delay_left_ms: u64,
    /// Agents as they are now: how many there are and what they lack.
    pub last_attempt: RefusalCounts,
    /// All attempts since it waits.
    pub all_attempts: RefusalCounts,
    /// When agents refused last.
    pub last_refused_at: Option<Millis>,
    /// When an agent was found last.
    pub last_used_at: Option<Millis>,
}

/// Soft state of a waiting app.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) count: u32,
    since: Millis,
    all_attempts: RefusalCounts,
    last_refused_at: Option<Millis>,
    last_used_at: Option<Millis>,
}

impl Waiting {
    pub(super) fn new(now: Millis) -> Self {
        Self {
            count: 0,
            since: now,
            all_attempts: RefusalCounts::default(),
            last_refused_at: None,
            last_used_at: None,
        }
    }

    /// An attempt ended with instances left.
    pub(super) fn attempted(
        &mut self,
        now: Millis,
        left: u32,
        placed: u32,
        refusals: Option<RefusalCounts>,
    ) {
        self.count = left;
        if placed > 0 {
            self.last_used_at = Some(now);
            self.all_attempts.asked += u64::from(placed);
        }
        let Some(refusals) = refusals else { return };
        if refusals.asked > 0 {
            self.last_refused_at = Some(now);
        }
        self.all_attempts.asked += refusals.asked;
        for (refusal, count) in refusals.refused {
            *self.all_attempts.refused.entry(refusal).or_default() += count;
        }
    }

    pub(super) fn entry(
        &self,
        record: &AppRecord,
        state: &State,
        alloc: &Allocator,
        now: Millis,
    ) -> QueueEntry {
        let delay = state.backoffs().get(&record.spec.id, record.config_version);
        QueueEntry {
            app_id: record.spec.id.clone(),
            count: self.count,
            since: self.since,
            delay_left_ms: delay.map_or(0, |d| d.until.since_ms(now)),
            last_attempt: alloc.explain(&needs::demand(&record.spec)),
            all_attempts: self.all_attempts.clone(),
            last_refused_at: self.last_refused_at,
            last_used_at: self.last_used_at,
        }
    }
}
