//! Waiting for a deployment, and saying meanwhile how far it is and what holds it up.
//!
//! Progress goes to stderr: one moving line on a terminal, otherwise a line whenever something
//! but a countdown changes. The result goes to stdout. It never gives up by itself on a
//! deployment before the `--timeout`; what was started goes on when it does. A deployment is done
//! once its tasks have started: that they still run a moment later is looked at afterwards
//! (`outcome`).

mod outcome;

use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use tokio::time::Instant;

use crate::app::app_path;
use crate::args::Global;
use crate::client::{Answer, Client};
use crate::failure::{Exit, Failure};
use crate::output::{self, escape};
use crate::reason;
use crate::show::text;

/// Between two looks at a deployment.
const POLL: Duration = Duration::from_millis(200);
/// Apps of one deployment that are shown.
const APPS_SHOWN: usize = 4;
/// How long a reason in a progress line may be, in characters.
const REASON_MAX: usize = 200;

/// Flags of every command that starts a deployment.
#[derive(Debug, Args)]
pub(crate) struct WaitFlags {
    /// Wait until the deployment is done (the default).
    #[arg(long, overrides_with = "no_wait")]
    wait: bool,
    /// Return as soon as the change is accepted.
    #[arg(long, overrides_with = "wait")]
    no_wait: bool,
    /// Stop waiting after so many seconds, with exit code 6.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
    /// Take over from a deployment that holds the service.
    #[arg(long)]
    force: bool,
}

impl WaitFlags {
    /// The path with `force` where it was asked for.
    pub(crate) fn path(&self, path: &str) -> String {
        if !self.force {
            return path.to_owned();
        }
        let joint = if path.contains('?') { '&' } else { '?' };
        format!("{path}{joint}force=true")
    }

    /// Waits for what `answer` started and prints how it ended.
    pub(crate) async fn finish(
        &self,
        client: &Client,
        global: &Global,
        app: &str,
        answer: Answer,
        done: &str,
    ) -> Result<(), Failure> {
        let deployment = deployment_of(&answer);
        if let Some(id) = deployment.as_deref().filter(|_| !self.no_wait) {
            let deadline = Duration::from_secs(self.timeout);
            let wait = follow(client, app, id);
            if tokio::time::timeout(deadline, wait)
                .await
                .map_or(Ok(false), |r| r.map(|()| true))?
            {
                return self.summary(client, global, app, answer, done).await;
            }
            let message = format!(
                "deployment {id} of {app} is not done after {} s",
                self.timeout
            );
            return Err(Failure::new(Exit::TimedOut, message).hint(format!(
                "it goes on; see `gantry app show {app}`, or wait longer with --timeout"
            )));
        }
        if global.json {
            return output::print_json(&answer.body);
        }
        let deployment = deployment
            .map(|id| format!(", deployment {id}"))
            .unwrap_or_default();
        output::print(&escape_line(&format!("{app}: accepted{deployment}")))
    }

    async fn summary(
        &self,
        client: &Client,
        global: &Global,
        app: &str,
        answer: Answer,
        done: &str,
    ) -> Result<(), Failure> {
        let found = outcome::look(client, app).await?;
        if global.json {
            output::print_json(found.as_ref().unwrap_or(&answer.body))?;
        }
        let short = found.as_ref().filter(|app| outcome::is_short(app));
        if let Some(found) = short {
            return Err(outcome::failure(found, done, &answer.body["version"]));
        }
        if global.json {
            return Ok(());
        }
        let running = found.map(|app| format!(", {} running", count(&app)));
        output::print(&escape_line(&format!(
            "{app} {done}{}",
            running.unwrap_or_default()
        )))
    }
}

fn escape_line(text: &str) -> String {
    escape(text) + "\n"
}

/// `2 of 3`.
fn count(app: &Value) -> String {
    format!(
        "{} of {}",
        text(&app["tasksRunning"]),
        text(&app["instances"])
    )
}

/// The deployment that a call started: Marathon names it in three places.
fn deployment_of(answer: &Answer) -> Option<String> {
    let body = &answer.body;
    let in_body = body["deploymentId"]
        .as_str()
        .or(body["deployments"][0]["id"].as_str());
    answer
        .deployment
        .clone()
        .or_else(|| in_body.map(str::to_owned))
}

/// Looks until the deployment is gone from the list of running ones.
async fn follow(client: &Client, app: &str, id: &str) -> Result<(), Failure> {
    let mut display = Display::new();
    loop {
        let deployments = client.get("/v2/deployments").await?;
        let all = deployments
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let Some(deployment) = all.iter().find(|d| d["id"] == id) else {
            return Ok(());
        };
        let line = progress(client, app, deployment).await?;
        display.show(&format!("deployment {id}: {line}"));
        tokio::time::sleep_until(Instant::now() + POLL).await;
    }
}

async fn progress(client: &Client, app: &str, deployment: &Value) -> Result<String, Failure> {
    let mut apps: Vec<String> = deployment["affectedApps"]
        .as_array()
        .into_iter()
        .flatten()
        .map(text)
        .collect();
    if apps.is_empty() {
        apps.push(app.to_owned());
    }
    let queue = client.get("/v2/queue").await?;
    let mut parts = Vec::new();
    for id in apps.iter().take(APPS_SHOWN) {
        let Some(body) = client.find(&app_path(id)).await? else {
            parts.push(format!("{id} stopping"));
            continue;
        };
        let failure = body["app"]["lastTaskFailure"]["message"].as_str();
        let reason = reason::of(id, &queue, failure).map(|r| output::shorten(&r, REASON_MAX));
        let reason = reason.map(|r| format!(" ({r})")).unwrap_or_default();
        let pull = pulling(&body["app"]).map(|p| format!(" ({})", output::shorten(&p, REASON_MAX)));
        let pull = pull.unwrap_or_default();
        parts.push(format!(
            "{id} {} running{pull}{reason}",
            count(&body["app"])
        ));
    }
    if apps.len() > APPS_SHOWN {
        parts.push(format!("and {} more", apps.len() - APPS_SHOWN));
    }
    Ok(parts.join(", "))
}

/// What the first task says that is still being made ready.
fn pulling(app: &Value) -> Option<String> {
    let tasks = app["tasks"].as_array()?;
    let message = tasks.iter().find_map(|task| task["message"].as_str());
    message.map(str::to_owned)
}

/// One moving line, or lines.
struct Display {
    spinner: Option<ProgressBar>,
    last: String,
}

impl Display {
    fn new() -> Self {
        let spinner = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
                bar.set_style(style);
            }
            bar
        });
        Self {
            spinner,
            last: String::new(),
        }
    }

    fn show(&mut self, line: &str) {
        let line = escape(line);
        if let Some(bar) = &self.spinner {
            bar.set_message(line);
            bar.tick();
        } else if without_countdown(&line) != without_countdown(&self.last) {
            output::note(&line);
            self.last = line;
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        if let Some(bar) = &self.spinner {
            bar.finish_and_clear();
        }
    }
}

/// The line without the seconds that are left: they change all the time.
fn without_countdown(line: &str) -> String {
    let mut kept = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("backing off ") {
        kept.push_str(before);
        rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
    }
    kept + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_countdown_is_no_news() {
        let a = "deployment 1: /a 0 of 1 (backing off 12 s, last failure: status 3)";
        let b = "deployment 1: /a 0 of 1 (backing off 9 s, last failure: status 3)";
        let c = "deployment 1: /a 0 of 1 (backing off 9 s, last failure: status 4)";
        assert_eq!(without_countdown(a), without_countdown(b));
        assert_ne!(without_countdown(b), without_countdown(c));
    }

    #[test]
    fn the_deployment_is_found_wherever_it_is_named() {
        let answer = |body: Value, header: Option<&str>| Answer {
            body,
            deployment: header.map(str::to_owned),
        };
        for (answer, want) in [
            (answer(json!({"deploymentId": "d"}), None), Some("d")),
            (
                answer(json!({"deployments": [{"id": "d"}]}), None),
                Some("d"),
            ),
            (answer(Value::Null, Some("d")), Some("d")),
            (answer(json!({"id": "/a"}), None), None),
        ] {
            assert_eq!(deployment_of(&answer).as_deref(), want);
        }
    }

    #[test]
    fn force_joins_other_parameters() {
        let flags = WaitFlags {
            wait: false,
            no_wait: false,
            timeout: 1,
            force: true,
        };
        assert_eq!(flags.path("/a"), "/a?force=true");
        assert_eq!(flags.path("/a?b=c"), "/a?b=c&force=true");
    }
}
