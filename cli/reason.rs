//! Why an app does not move, out of `/v2/queue` and its last failure.

use serde_json::Value;

use crate::show::text;

/// The reason in one line; nothing when the app waits for nothing.
pub(crate) fn of(app: &str, queue: &Value, last_failure: Option<&str>) -> Option<String> {
    let entries = queue["queue"].as_array()?;
    let entry = entries.iter().find(|e| text(&e["app"]["id"]) == app)?;
    let failure = last_failure
        .map(|f| format!(", last failure: {f}"))
        .unwrap_or_default();
    let delay = &entry["delay"];
    let seconds = delay["timeLeftSeconds"].as_u64().unwrap_or(0);
    if delay["overdue"] == false && seconds > 0 {
        return Some(format!("backing off {seconds} s{failure}"));
    }
    let refused = refusals(&entry["processedOffersSummary"]);
    if refused.is_empty() {
        return Some(format!("waiting to be launched{failure}"));
    }
    Some(format!("waiting: {}{failure}", refused.join(", ")))
}

/// `InsufficientMemory on 1 of 1 nodes` for each reason that refused something.
fn refusals(summary: &Value) -> Vec<String> {
    let line = |entry: &Value| {
        let declined = entry["declined"].as_u64().filter(|n| *n > 0)?;
        let processed = entry["processed"].as_u64().unwrap_or(declined);
        let nodes = if processed == 1 { "node" } else { "nodes" };
        Some(format!(
            "{} on {declined} of {processed} {nodes}",
            text(&entry["reason"])
        ))
    };
    let of = |field: &str| -> Vec<String> {
        summary[field]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(line)
            .collect()
    };
    let latest = of("rejectSummaryLaunchAttempt");
    if latest.is_empty() {
        of("rejectSummaryLastOffers")
    } else {
        latest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_queue_says_why() {
        let queue = |delay: Value, rejects: Value| {
            json!({"queue": [{"app": {"id": "/a"}, "delay": delay,
                "processedOffersSummary": {"rejectSummaryLaunchAttempt": rejects}}]})
        };
        let backing_off = queue(json!({"timeLeftSeconds": 12, "overdue": false}), json!([]));
        let short = queue(
            json!({"timeLeftSeconds": 0, "overdue": true}),
            json!([{"reason": "InsufficientCpus", "declined": 0, "processed": 1},
                   {"reason": "InsufficientMemory", "declined": 1, "processed": 1}]),
        );
        let fresh = queue(json!({"timeLeftSeconds": 0, "overdue": true}), json!([]));
        for (queue, failure, want) in [
            (
                &backing_off,
                Some("exit status 1"),
                "backing off 12 s, last failure: exit status 1",
            ),
            (&short, None, "waiting: InsufficientMemory on 1 of 1 node"),
            (&fresh, None, "waiting to be launched"),
        ] {
            assert_eq!(of("/a", queue, failure).as_deref(), Some(want));
        }
        assert_eq!(of("/b", &fresh, None), None);
        assert_eq!(of("/a", &json!({}), None), None);
    }
}
