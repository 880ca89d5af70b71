//! The files that a task's output lies in, as one stream: `stdout.4` … `stdout.1`, `stdout`.
//!
//! The node renames them while they are read. Each piece is therefore followed by a listing, which
//! tells from which file it came. Invariant: a piece that is not there any more is said on stderr,
//! not passed over in silence.

use serde_json::Value;

use super::Record;
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::output;

/// How much one request asks for, in bytes; Mesos gives at most as much.
const PIECE_BYTES: u64 = 64 * 1024;
/// How many old files the agent keeps; with so many, older ones may have been.
const KEPT: usize = gantry_wire::agent::OUTPUT_FILES_KEPT as usize;

/// An old file as `/files/browse` shows it; it does not change any more.
#[derive(Debug, Clone, PartialEq)]
struct Old {
    size: u64,
    mtime: f64,
}

/// The files and how far they have been read.
pub(super) struct OutputFiles<'a> {
    client: &'a Client,
    agent: String,
    dir: String,
    name: &'static str,
    /// `stdout.1`, `stdout.2` and so on when they were last listed.
    old: Vec<Old>,
    /// The file that is being read: 0 is `stdout`, 1 is `stdout.1`.
    at: usize,
    offset: u64,
}

impl<'a> OutputFiles<'a> {
    /// Lists the files; the first piece is the oldest. Not found: there is no output yet, or none
    /// any more.
    pub(super) async fn open(
        client: &'a Client,
        task: &Record,
        stderr: bool,
    ) -> Result<Self, Failure> {
        let mut files = Self {
            client,
            agent: task.agent.clone(),
            dir: format!(
                "/frameworks/{}/executors/{}/runs/latest",
                task.framework, task.id
            ),
            name: if stderr { "stderr" } else { "stdout" },
            old: Vec::new(),
            at: 0,
            offset: 0,
        };
        files.old = files.list().await?;
        files.at = files.old.len();
        if files.old.is_empty() {
            files.read(0, -1, 0).await?;
        }
        Ok(files)
    }

    async fn list(&self) -> Result<Vec<Old>, Failure> {
        let path = format!("/agent/{}/files/browse?path={}", self.agent, self.dir);
        let listed = self.client.get(&path).await?;
        Ok(old_files(&listed, self.name))
    }

    async fn read(&self, at: usize, offset: i64, length: u64) -> Result<Value, Failure> {
        let suffix = if at == 0 {
            String::new()
        } else {
            format!(".{at}")
        };
        let path = format!("{}/{}{suffix}", self.dir, self.name);
        let query = format!("path={path}&offset={offset}&length={length}");
        let path = format!("/agent/{}/files/read?{query}", self.agent);
        self.client.get(&path).await
    }

    async fn size(&self, at: usize) -> Result<u64, Failure> {
        let answer = unless_gone(self.read(at, -1, 0).await)?;
        Ok(answer["offset"].as_u64().unwrap_or(0))
    }

    async fn bytes(&self, at: usize, offset: u64) -> Result<Vec<u8>, Failure> {
        let offset = i64::try_from(offset).unwrap_or(i64::MAX);
        let answer = unless_gone(self.read(at, offset, PIECE_BYTES).await)?;
        let data = answer["data"].as_str().unwrap_or_default();
        Ok(data.as_bytes().to_vec())
    }

    /// The next piece; empty at the end of what is there now.
    pub(super) async fn piece(&mut self) -> Result<Vec<u8>, Failure> {
        if self.at >= KEPT && self.at == self.old.len() && self.offset == 0 {
            output::note(&format!(
                "older output may have been rotated away: a node keeps {KEPT} old files"
            ));
        }
        loop {
            let data = self.bytes(self.at, self.offset).await?;
            // Only now is it known from which file that came.
            let mut now = self.list().await?;
            let mut made = shift(&self.old, &now);
            let at_end = data.is_empty() && self.at == 0;
            if made == 0 && at_end && self.size(0).await? < self.offset {
                now = self.list().await?;
                made = shift(&self.old, &now).max(1);
            }
            if made > 0 {
                self.renamed(made, now);
            } else if data.is_empty() && self.at > 0 {
                self.at -= 1;
                self.offset = 0;
            } else {
                self.offset += data.len() as u64;
                return Ok(data);
            }
        }
    }

    /// Keeps the place when every file has a higher number.
    fn renamed(&mut self, made: usize, now: Vec<Old>) {
        self.at += made;
        self.old = now;
        if self.at > self.old.len() {
            output::note("output was rotated away before it could be read");
            self.at = self.old.len();
            self.offset = 0;
        }
    }

    /// The last lines: counts line ends backwards, then reads forwards, so that no character is
    /// cut. What follows comes from [`Self::piece`].
    pub(super) async fn tail(&mut self, lines: usize) -> Result<Vec<u8>, Failure> {
        let (mut at, mut ends) = (0, 0);
        let mut start = self.size(0).await?;
        while ends <= lines {
            if start == 0 {
                if at == self.old.len() {
                    break;
                }
                at += 1;
                start = self.size(at).await?;
                continue;
            }
            let length = start.min(PIECE_BYTES);
            start -= length;
            let mut piece = self.bytes(at, start).await?;
            piece.truncate(usize::try_from(length).unwrap_or(usize::MAX));
            ends += piece.iter().filter(|byte| **byte == b'\n').count();
        }
        (self.at, self.offset) = (at, start);
        let data = self.rest().await?;
        let cut = last_lines(&data, lines).unwrap_or(0);
        Ok(data[cut..].to_vec())
    }

    /// All that is there from here on.
    pub(super) async fn rest(&mut self) -> Result<Vec<u8>, Failure> {
        let mut all = Vec::new();
        loop {
            let data = self.piece().await?;
            if data.is_empty() {
                return Ok(all);
            }
            all.extend(data);
        }
    }
}

/// An old file may be gone since the listing, and the newest is not there in the moment of a
/// rotation: it is read as empty.
fn unless_gone(answer: Result<Value, Failure>) -> Result<Value, Failure> {
    match answer {
        Err(failure) if failure.exit == Exit::NotFound => Ok(Value::Null),
        other => other,
    }
}

/// The old files of one name, `.1` first, up to the first gap.
fn old_files(listed: &Value, name: &str) -> Vec<Old> {
    let entries = listed.as_array().map(Vec::as_slice).unwrap_or_default();
    let numbered = |number: usize| {
        let ending = format!("/{name}.{number}");
        let is_it = |entry: &&Value| entry["path"].as_str().is_some_and(|p| p.ends_with(&ending));
        entries.iter().find(is_it)
    };
    let old = (1..=KEPT).map_while(numbered).map(|entry| Old {
        size: entry["size"].as_u64().unwrap_or(0),
        mtime: entry["mtime"].as_f64().unwrap_or(0.0),
    });
    old.collect()
}

/// How many files were made between two listings: the least number that explains the later one.
/// Files that are alike in size and time cannot be told apart.
fn shift(before: &[Old], now: &[Old]) -> usize {
    let least = now.len().saturating_sub(before.len());
    let explains = |by: &usize| now.iter().skip(*by).zip(before).all(|(a, b)| a == b);
    (least..=now.len()).find(explains).unwrap_or(now.len())
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

    #[test]
    fn rotations_are_seen_in_listings() {
        let files = |times: &[u32]| -> Vec<Old> {
            let old = |t: &u32| Old {
                size: 16,
                mtime: f64::from(*t),
            };
            times.iter().map(old).collect()
        };
        for (before, now, want) in [
            (&[][..], &[][..], 0),
            (&[1], &[1], 0),
            (&[], &[1], 1),
            (&[2, 1], &[3, 2, 1], 1),
            (&[4, 3, 2, 1], &[4, 3, 2, 1], 0),
            (&[4, 3, 2, 1], &[6, 5, 4, 3], 2),
            (&[4, 3, 2, 1], &[9, 8, 7, 6], 4),
        ] {
            assert_eq!(
                shift(&files(before), &files(now)),
                want,
                "{before:?} {now:?}"
            );
        }
    }

    #[test]
    fn old_files_are_found_in_a_listing() {
        let listed = serde_json::json!([
            {"path": "/d/stdout", "size": 1, "mtime": 9}, {"path": "/d/stdout.2", "size": 3, "mtime": 7},
            {"path": "/d/stdout.1", "size": 2, "mtime": 8}, {"path": "/d/stderr.1", "size": 5, "mtime": 1},
            {"path": "/d/stdout.4", "size": 9, "mtime": 1}]);
        let sizes: Vec<u64> = old_files(&listed, "stdout")
            .iter()
            .map(|f| f.size)
            .collect();
        assert_eq!(sizes, [2, 3]);
    }
}
