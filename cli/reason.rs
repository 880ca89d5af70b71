//! Why an app does not move, out of `/v2/queue` and its last failure.

use serde_json::Value;

use crate::show::text;

/// Begins a reason that is not time.
pub(crate) const WAITING: &str = "waiting: ";

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
    Some(format!("{WAITING}{}{failure}", refused.join(", ")))
}

/// `InsufficientMemory (1 node)` for each reason that refused something. The last round asks each
/// node once; the sum of all rounds counts offers, so only its names are shown.
fn refusals(summary: &Value) -> Vec<String> {
    let rows = |field: &str| {
        let rows = summary[field].as_array().into_iter().flatten();
        rows.filter(|row| row["declined"].as_u64().is_some_and(|n| n > 0))
    };
    let last: Vec<String> = rows("rejectSummaryLastOffers")
        .map(|row| format!("{} ({})", text(&row["reason"]), nodes(&row["declined"])))
        .collect();
    if last.is_empty() {
        let all = rows("rejectSummaryLaunchAttempt");
        return all.map(|row| text(&row["reason"])).collect();
    }
    last
}

fn nodes(count: &Value) -> String {
    let plural = if *count == 1 { "" } else { "s" };
    format!("{} node{plural}", text(count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_queue_says_why() {
        let queue = |delay: Value, rejects: Value| {
            json!({"queue": [{"app": {"id": "/a"}, "delay": delay,
                "processedOffersSummary": {"rejectSummaryLastOffers": rejects,
                    "rejectSummaryLaunchAttempt": [
                        {"reason": "InsufficientCpus", "declined": 23, "processed": 42}]}}]})
        };
        let backing_off = queue(json!({"timeLeftSeconds": 12, "overdue": false}), json!([]));
        let short = queue(
            json!({"timeLeftSeconds": 0, "overdue": true}),
            json!([{"reason": "InsufficientCpus", "declined": 0, "processed": 1},
                   {"reason": "InsufficientMemory", "declined": 1, "processed": 1}]),
        );
        let earlier = queue(json!({"timeLeftSeconds": 0, "overdue": true}), json!([]));
        let fresh = json!({"queue": [{"app": {"id": "/a"}}]});
        for (queue, failure, want) in [
            (
                &backing_off,
                Some("exit status 1"),
                "backing off 12 s, last failure: exit status 1",
            ),
            (&short, None, "waiting: InsufficientMemory (1 node)"),
            (&earlier, None, "waiting: InsufficientCpus"),
            (&fresh, None, "waiting to be launched"),
        ] {
            assert_eq!(of("/a", queue, failure).as_deref(), Some(want));
        }
        assert_eq!(of("/b", &fresh, None), None);
        assert_eq!(of("/a", &json!({}), None), None);
    }
}
