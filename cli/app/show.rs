//! `gantry app show`.

use clap::Args;
use serde_json::Value;

use super::list::{status, what_runs};
use crate::args::Global;
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{self, escape};
use crate::reason;
use crate::show::{amount, mebibytes, moment, text};

/// Flags of `app show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The service.
    id: String,
}

impl ShowArgs {
    /// Shows the app.
    pub(crate) async fn run(&self, client: &Client, global: &Global) -> Result<(), Failure> {
        let body = client.get(&super::app_path(&self.id)).await?;
        let app = &body["app"];
        if global.json {
            return output::print_json(app);
        }
        let queue = client.get("/v2/queue").await?;
        output::print(&description(app, &queue))
    }
}

/// The app as lines of `name  value`, then its tasks.
fn description(app: &Value, queue: &Value) -> String {
    let failure = &app["lastTaskFailure"];
    let map = |value: &Value| {
        let pairs = value.as_object().into_iter().flatten();
        pairs
            .map(|(k, v)| format!("{k}={}", text(v)))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let running = format!(
        "{} of {} running",
        text(&app["tasksRunning"]),
        text(&app["instances"])
    );
    let fields = [
        ("id", text(&app["id"])),
        ("status", format!("{}, {running}", status(app))),
        (
            "because",
            reason::of(&text(&app["id"]), queue, None)
                .map(|why| why.trim_start_matches(reason::WAITING).to_owned())
                .unwrap_or_default(),
        ),
        ("runs", what_runs(app)),
        ("cpus", amount(&app["cpus"])),
        ("mem", mebibytes(&app["mem"])),
        ("network", text(&app["networks"][0]["mode"])),
        ("ports", ports(app)),
        ("user", text(&app["user"])),
        ("env", map(&app["env"])),
        ("labels", map(&app["labels"])),
        ("version", moment(&app["version"])),
        ("last failure", text(&failure["message"])),
        ("failed at", moment(&failure["timestamp"])),
    ];
    let mut page = String::new();
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
        page.push_str(&format!("{name:<13} {}\n", escape(value)));
    }
    let tasks = app["tasks"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    if !tasks.is_empty() {
        page.push('\n');
        page.push_str(&crate::task::list::table_of(tasks));
    }
    page
}

fn ports(app: &Value) -> String {
    let mapped = app["container"]["portMappings"]
        .as_array()
        .into_iter()
        .flatten();
    let mapped = mapped.map(|p| {
        let (host, container) = (text(&p["hostPort"]), text(&p["containerPort"]));
        format!("{host}:{container}/{}", text(&p["protocol"]))
    });
    let defined = app["portDefinitions"].as_array().into_iter().flatten();
    let defined = defined.map(|p| format!("{}/{}", text(&p["port"]), text(&p["protocol"])));
    mapped.chain(defined).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn empty_fields_are_left_out_and_text_is_escaped() {
        let app = json!({"id": "/a", "cmd": "echo \u{1b}c", "instances": 1, "tasksRunning": 0,
            "deployments": [], "cpus": 1.0, "mem": 2048.0, "networks": [{"mode": "host"}],
            "portDefinitions": [{"port": 0, "protocol": "tcp"}],
            "lastTaskFailure": {"message": "exit status 1", "timestamp": "2026-01-01T00:00:00.000Z"}});
        let page = description(&app, &json!({"queue": []}));
        let want = "id            /a\nstatus        waiting, 0 of 1 running\n\
                    runs          echo \\u{1b}c\ncpus          1\nmem           2 GiB\n\
                    network       host\nports         0/tcp\nlast failure  exit status 1\n\
                    failed at     2026-01-01T00:00:00Z\n";
        assert_eq!(page, want);
        let summary = json!({"rejectSummaryLastOffers":
            [{"reason": "InsufficientCpus", "declined": 1, "processed": 1}]});
        let queue = json!({"queue": [{"app": {"id": "/a"}, "processedOffersSummary": summary}]});
        let page = description(&app, &queue);
        let line = "because       InsufficientCpus (1 node)\n";
        assert!(page.contains(line), "{page}");
    }
}
