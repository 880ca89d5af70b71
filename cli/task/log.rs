//! `gantry task log`: what a task wrote, read in pieces through its node's `/files/read`.
//!
//! The output is passed on as it is, the rotated files first. It does not keep what the node has
//! removed, and says so on stderr.

mod output_files;

use std::time::Duration;

use clap::Args;
use serde_json::json;

use self::output_files::OutputFiles;
use super::record::{self, Record};
use crate::args::Global;
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::output;

/// Between two looks at a log that is followed.
const POLL: Duration = Duration::from_millis(250);
/// Empty looks before it is asked whether the task has ended.
const QUIET_LOOKS: u32 = 4;

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
        let Some(mut file) = self.open(client, &task).await? else {
            output::note("nothing is written yet: the task is being started");
            return if global.json {
                output::print_json(&json!({"task": task.id, "data": ""}))
            } else {
                Ok(())
            };
        };
        if global.json {
            let data = String::from_utf8_lossy(&self.whole(&mut file).await?).into_owned();
            return output::print_json(&json!({"task": task.id, "data": data}));
        }
        if self.lines.is_some() {
            output::print_bytes(&self.whole(&mut file).await?)?;
        } else {
            pass_on(&mut file).await?;
        }
        if self.follow {
            follow(client, &task, &mut file).await
        } else {
            Ok(())
        }
    }

    /// Opens the output. A task that is being started has none yet: with `--follow` it is waited
    /// for, else there is nothing.
    async fn open<'a>(
        &self,
        client: &'a Client,
        task: &Record,
    ) -> Result<Option<OutputFiles<'a>>, Failure> {
        loop {
            match OutputFiles::open(client, task, self.stderr).await {
                Err(failure) if failure.exit == Exit::NotFound && !ended(client, task).await? => {
                    if !self.follow {
                        return Ok(None);
                    }
                    tokio::time::sleep(POLL).await;
                }
                opened => return opened.map(Some),
            }
        }
    }

    /// What is there now, cut to the last lines where that was asked for.
    async fn whole(&self, file: &mut OutputFiles<'_>) -> Result<Vec<u8>, Failure> {
        match self.lines {
            Some(lines) => file.tail(lines).await,
            None => file.rest().await,
        }
    }
}

async fn follow(client: &Client, task: &Record, file: &mut OutputFiles<'_>) -> Result<(), Failure> {
    let mut quiet = 0;
    loop {
        if pass_on(file).await? > 0 {
            quiet = 0;
            continue;
        }
        quiet += 1;
        if quiet % QUIET_LOOKS == 0 && ended(client, task).await? {
            // It may have written between the last look and its end.
            pass_on(file).await?;
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn ended(client: &Client, task: &Record) -> Result<bool, Failure> {
    let tasks = record::all(client).await?;
    Ok(tasks
        .iter()
        .find(|t| t.id == task.id)
        .is_none_or(|t| t.ended))
}

/// Prints what is new; returns how many bytes that was.
async fn pass_on(file: &mut OutputFiles<'_>) -> Result<u64, Failure> {
    let mut printed = 0;
    loop {
        let data = file.piece().await?;
        if data.is_empty() {
            return Ok(printed);
        }
        printed += data.len() as u64;
        output::print_bytes(&data)?;
    }
}
