//! `/v2/queue`: what waits, with the funnel of refusals (`raml/QueueInfoConversion.scala`).
//!
//! Marathon counts offers; there are none here, so agents that were looked at are counted.

use gantry_wire::time::Millis;
use serde_json::{Value, json};

use super::app;
use crate::alloc::{Refusal, RefusalCounts};
use crate::service::queue::QueueEntry;
use crate::state::State;

/// `/v2/queue`.
#[must_use]
pub fn queue(state: &State, entries: &[QueueEntry], _now: Millis) -> Value {
    let entries: Vec<Value> = entries.iter().filter_map(|e| entry(state, e)).collect();
    json!({"queue": entries})
}

fn entry(state: &State, e: &QueueEntry) -> Option<Value> {
    let record = state.app(&e.app_id)?;
    let mut summary = json!({
        "processedOffersCount": e.all_attempts.asked,
        "unusedOffersCount": e.all_attempts.refused.values().sum::<u64>(),
        "rejectSummaryLastOffers": funnel(&e.last_attempt),
        "rejectSummaryLaunchAttempt": funnel(&e.all_attempts),
    });
    let times = [
        ("lastUnusedOfferAt", e.last_refused_at),
        ("lastUsedOfferAt", e.last_used_at),
    ];
    for (name, at) in times {
        if let (Some(at), Value::Object(object)) = (at, &mut summary) {
            object.insert(name.to_owned(), at.to_string().into());
        }
    }
    Some(json!({
        "app": app(record, record.version),
        "count": e.count,
        "role": record.spec.role,
        "since": e.since.to_string(),
        "delay": {
            "timeLeftSeconds": e.delay_left_ms.div_ceil(1000),
            "overdue": e.delay_left_ms == 0,
        },
        "processedOffersSummary": summary,
    }))
}

/// Each reason sees what passed all reasons before it.
fn funnel(counts: &RefusalCounts) -> Vec<Value> {
    let mut left = counts.asked;
    let mut rows = Vec::with_capacity(Refusal::ALL.len());
    for reason in Refusal::ALL {
        let declined = counts.refused.get(&reason).copied().unwrap_or(0);
        rows.push(json!({"reason": reason.name(), "declined": declined, "processed": left}));
        left = left.saturating_sub(declined);
    }
    rows
}
