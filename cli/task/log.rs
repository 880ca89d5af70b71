//! `gantry task log`: what a task wrote, from its node's `/files/stream`.
//!
//! The output is passed on as it is, over all files that it lies in; with `--follow` the node sends
//! what is new when it is there, and nothing is asked in between. It does not keep what the node has
//! removed, and says so on stderr. A connection that breaks is made again where it broke.

use std::time::Duration;

use clap::Args;
use reqwest::Response;
use serde_json::json;
use tokio::time::Instant;

use super::record::{self, Record};
use crate::args::Global;
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::output;

/// Between two looks for the output of a task that is being started, or for a node that went away.
const LOOK: Duration = Duration::from_millis(250);
/// How long a node that went away is looked for.
const AWAY_MAX: Duration = Duration::from_secs(60);

/// Flags of `task log`.
#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    /// The task: its id, the beginning of it, or the id of a service with one task.
    task: String,
    /// Go on until the task ends.
    #[arg(short, long)]
    follow: bool,
    /// What it wrote to stderr instead of stdout.
    #[arg(long)]
    stderr: bool,
    /// Only the last lines.
    #[arg(short = 'n', long, value_name = "LINES")]
    lines: Option<usize>,
}

impl LogArgs {
    /// Prints the log.
    pub(crate) async fn run(&self, client: &Client, global: &Global) -> Result<(), Failure> {
        let task = record::find(client, &self.task).await?;
        if global.json && self.follow {
            let message = "--json and --follow do not go together";
            return Err(Failure::new(Exit::Usage, message));
        }
        let output = Output {
            client,
            follow: self.follow,
            path: format!(
                "/agent/{}/files/stream?path=/frameworks/{}/executors/{}/runs/latest/{}",
                task.agent,
                task.framework,
                task.id,
                if self.stderr { "stderr" } else { "stdout" }
            ),
        };
        let Some(first) = self.open(&output, &task).await? else {
            output::note("nothing is written yet: the task is being started");
            return if global.json {
                output::print_json(&json!({"task": task.id, "data": ""}))
            } else {
                Ok(())
            };
        };
        if !global.json {
            return output
                .pass_on(first, &mut |bytes| output::print_bytes(bytes))
                .await;
        }
        let mut all = Vec::new();
        let mut keep = |bytes: &[u8]| {
            all.extend_from_slice(bytes);
            Ok(())
        };
        output.pass_on(first, &mut keep).await?;
        let data = String::from_utf8_lossy(&all);
        output::print_json(&json!({"task": task.id, "data": data}))
    }

    /// Opens the output. A task that is being started has none yet: with `--follow` it is waited
    /// for, else there is nothing.
    async fn open(&self, output: &Output<'_>, task: &Record) -> Result<Option<Opened>, Failure> {
        let from = self.lines.map(|lines| format!("&lines={lines}"));
        loop {
            let opened = output.open(&from.clone().unwrap_or_default()).await;
            match opened {
                Err(failure)
                    if failure.exit == Exit::NotFound && !ended(output.client, task).await? =>
                {
                    if !self.follow {
                        return Ok(None);
                    }
                    tokio::time::sleep(LOOK).await;
                }
                Ok(opened) => {
                    if self.lines.is_none() && opened.at > 0 {
                        let gone = opened.at;
                        output::note(&format!(
                            "the first {gone} bytes of its output were rotated away"
                        ));
                    }
                    return Ok(Some(opened));
                }
                Err(failure) => return Err(failure),
            }
        }
    }
}

async fn ended(client: &Client, task: &Record) -> Result<bool, Failure> {
    let tasks = record::all(client).await?;
    Ok(tasks
        .iter()
        .find(|t| t.id == task.id)
        .is_none_or(|t| t.ended))
}

/// An output of a task.
struct Output<'a> {
    client: &'a Client,
    follow: bool,
    /// Of the stream, to which parameters are added.
    path: String,
}

/// A piece of it on its way.
struct Opened {
    response: Response,
    /// The place of its first byte.
    at: u64,
    /// The place after its last, if it has one.
    end: Option<u64>,
}

impl Output<'_> {
    async fn open(&self, from: &str) -> Result<Opened, Failure> {
        let path = format!("{}&follow={}{from}", self.path, self.follow);
        let response = self.client.download(&path).await?;
        let place = |name: &str| -> Option<u64> {
            let value = response.headers().get(name)?;
            value.to_str().ok()?.parse().ok()
        };
        let at = place("gantry-offset").ok_or_else(|| {
            let message = "the node did not say where its answer begins: it is of another version";
            Failure::new(Exit::Failed, message)
        })?;
        let end = place("gantry-end");
        Ok(Opened { response, at, end })
    }

    /// Passes all of it on, over holes and broken connections.
    async fn pass_on(
        &self,
        first: Opened,
        take: &mut dyn FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let (mut at, end) = (first.at, first.end);
        let mut opened = first;
        loop {
            if opened.at > at {
                let gone = opened.at - at;
                output::note(&format!(
                    "{gone} bytes were rotated away before they could be read"
                ));
            }
            let from = opened.at;
            let mut response = opened.response;
            at = from;
            let broken = loop {
                match response.chunk().await {
                    Ok(Some(bytes)) => {
                        at += bytes.len() as u64;
                        take(&bytes)?;
                    }
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            };
            let is_all = match end {
                Some(end) => at >= end || at == from,
                None => at == from,
            };
            if is_all && broken.is_none() {
                return Ok(());
            }
            if broken.is_some() {
                tokio::time::sleep(LOOK).await;
            }
            opened = self.reopen(at).await?;
        }
    }

    /// Goes on at a place; a node that is away may be starting again.
    async fn reopen(&self, at: u64) -> Result<Opened, Failure> {
        let until = Instant::now() + AWAY_MAX;
        loop {
            match self.open(&format!("&offset={at}")).await {
                Err(failure) if failure.exit != Exit::NotFound && Instant::now() < until => {
                    tokio::time::sleep(LOOK).await;
                }
                opened => return opened,
            }
        }
    }
}
