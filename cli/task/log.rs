//! `gantry task log`: what a task wrote, read in pieces through its node's `/files/read`.
//!
//! The output is passed on as it is. It does not keep what the node has rotated away: `-f` starts
//! again at the beginning of the new file.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::record::{self, Record};
use crate::args::Global;
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::output;

/// How much one request asks for, in bytes; Mesos gives at most as much.
const PIECE_BYTES: u64 = 64 * 1024;
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
        let mut file = LogFile::new(client, &task, self.stderr);
        if global.json {
            if self.follow {
                return Err(Failure::new(
                    Exit::Usage,
                    "--json and --follow do not go together",
                ));
            }
            let data = String::from_utf8_lossy(&self.whole(&mut file).await?).into_owned();
            return output::print_json(&json!({"task": task.id, "data": data}));
        }
        if self.lines.is_some() {
            output::print_bytes(&self.whole(&mut file).await?)?;
        } else {
            file.pass_on().await?;
        }
        if self.follow {
            follow(client, &task, &mut file).await
        } else {
            Ok(())
        }
    }

    /// What is there now, cut to the last lines where that was asked for.
    async fn whole(&self, file: &mut LogFile<'_>) -> Result<Vec<u8>, Failure> {
        match self.lines {
            Some(lines) => file.tail(lines).await,
            None => file.rest().await,
        }
    }
}

async fn follow(client: &Client, task: &Record, file: &mut LogFile<'_>) -> Result<(), Failure> {
    let mut quiet = 0;
    loop {
        if file.pass_on().await? > 0 {
            quiet = 0;
            continue;
        }
        quiet += 1;
        if quiet % QUIET_LOOKS == 0 && ended(client, task).await? {
            // It may have written between the last look and its end.
            file.pass_on().await?;
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

/// A file of a task's sandbox and how far it has been read.
struct LogFile<'a> {
    client: &'a Client,
    base: String,
    offset: u64,
}

impl<'a> LogFile<'a> {
    fn new(client: &'a Client, task: &Record, stderr: bool) -> Self {
        let name = if stderr { "stderr" } else { "stdout" };
        let path = format!(
            "/frameworks/{}/executors/{}/runs/latest/{name}",
            task.framework, task.id
        );
        let base = format!("/agent/{}/files/read?path={path}", task.agent);
        Self {
            client,
            base,
            offset: 0,
        }
    }

    async fn read(&self, offset: i64, length: u64) -> Result<Value, Failure> {
        let path = format!("{}&offset={offset}&length={length}", self.base);
        self.client.get(&path).await
    }

    async fn size(&self) -> Result<u64, Failure> {
        Ok(self.read(-1, 0).await?["offset"].as_u64().unwrap_or(0))
    }

    /// The next piece; empty at the end of the file.
    async fn piece(&mut self) -> Result<Vec<u8>, Failure> {
        let offset = i64::try_from(self.offset).unwrap_or(i64::MAX);
        let answer = self.read(offset, PIECE_BYTES).await?;
        let data = answer["data"]
            .as_str()
            .unwrap_or_default()
            .as_bytes()
            .to_vec();
        self.offset += data.len() as u64;
        Ok(data)
    }

    /// Prints what is new; returns how many bytes that was.
    async fn pass_on(&mut self) -> Result<u64, Failure> {
        let mut printed = 0;
        loop {
            let data = self.piece().await?;
            if data.is_empty() {
                if printed == 0 && self.offset > 0 && self.size().await? < self.offset {
                    self.offset = 0;
                    continue;
                }
                return Ok(printed);
            }
            printed += data.len() as u64;
            output::print_bytes(&data)?;
        }
    }

    async fn rest(&mut self) -> Result<Vec<u8>, Failure> {
        let mut all = Vec::new();
        loop {
            let data = self.piece().await?;
            if data.is_empty() {
                return Ok(all);
            }
            all.extend(data);
        }
    }

    /// The last lines: reads backwards until there are enough line ends, then to the end.
    async fn tail(&mut self, lines: usize) -> Result<Vec<u8>, Failure> {
        let mut start = self.size().await?;
        loop {
            start = start.saturating_sub(PIECE_BYTES);
            self.offset = start;
            let data = self.rest().await?;
            if let Some(cut) = last_lines(&data, lines) {
                return Ok(data[cut..].to_vec());
            }
            if start == 0 {
                return Ok(data);
            }
        }
    }
}

/// Where the last `lines` lines begin; nothing when the data holds fewer line ends than that.
fn last_lines(data: &[u8], lines: usize) -> Option<usize> {
    if lines == 0 {
        return Some(data.len());
    }
    let body = data.strip_suffix(b"\n").unwrap_or(data);
    let mut ends = body.iter().enumerate().rev().filter(|(_, b)| **b == b'\n');
    ends.nth(lines - 1).map(|(at, _)| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_cut_at_line_ends() {
        for (data, lines, want) in [
            ("a\nb\nc\n", 1, Some("c\n")),
            ("a\nb\nc\n", 2, Some("b\nc\n")),
            ("a\nb\nc", 1, Some("c")),
            ("a\nb\nc\n", 3, None),
            ("a\n", 0, Some("")),
            ("", 1, None),
        ] {
            let cut = last_lines(data.as_bytes(), lines).map(|at| &data[at..]);
            assert_eq!(cut, want, "{data:?} {lines}");
        }
    }
}
