//! The files that an output lies in, as one stream: `stdout.9` … `stdout.1`, `stdout`.
//!
//! The outlet renames them while they are read, and a task may do with their names what it likes. So
//! a place is never told by a name: each file carries where in the stream it begins and, once
//! another one goes on, where it ends (`isolation/src/keeper/output.rs`), and a file that is being
//! read stays open. It deliberately waits for nothing. All of it blocks. Invariants: no byte is given
//! twice or passed over in silence; a file with any other name is a stream of that file alone.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;

use bytes::Bytes;
use gantry_isolation::keeper::{END_ATTRIBUTE, START_ATTRIBUTE};
use gantry_isolation::spec::MAX_KEPT_FILES;

use super::beneath;

/// Most bytes of a piece.
const PIECE_BYTES: usize = 64 * 1024;
/// So many names without a file end a search: one may be missing while files are renamed.
const MISSING_MAX: u32 = 2;

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    /// With the oldest byte that is kept.
    Beginning,
    /// At this place in the stream, or with the oldest byte after it.
    Place(u64),
    /// With so many last lines.
    Lines(usize),
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Bytes(Bytes),
    /// Nothing yet. With `is_over` the next file is still to appear.
    Nothing {
        is_over: bool,
    },
    /// What followed is not kept any more.
    Hole,
}

#[derive(Debug)]
struct Part {
    file: File,
    start: u64,
    /// Where the next one goes on, if that is known.
    end: Option<u64>,
    length: u64,
}

impl Part {
    fn new(file: File) -> io::Result<Self> {
        let (start, end) = (place(&file, START_ATTRIBUTE), place(&file, END_ATTRIBUTE));
        let (start, length) = (start.unwrap_or(0), file.metadata()?.len());
        Ok(Self {
            file,
            start,
            end,
            length,
        })
    }

    fn end(&self) -> u64 {
        self.end.unwrap_or(self.start.saturating_add(self.length))
    }
}

/// The files and how far they have been read.
#[derive(Debug)]
pub(super) struct OutputFiles {
    dir: OwnedFd,
    name: String,
    part: Part,
    at: u64,
    /// What of its part was last looked at.
    looked_at: Option<u64>,
    /// How often the part changed.
    pub(super) changes: u64,
}

fn place(file: &File, attribute: &str) -> Option<u64> {
    let mut text = [0; 20];
    let length = rustix::fs::fgetxattr(file, attribute, &mut text).ok()?;
    std::str::from_utf8(text.get(..length)?).ok()?.parse().ok()
}

/// Every file of the stream, the oldest first.
fn parts(dir: &OwnedFd, name: &str) -> io::Result<Vec<Part>> {
    let mut parts: Vec<Part> = Vec::new();
    let mut missing = 0;
    // Upwards, as they are renamed: none is passed over.
    for number in 0..=MAX_KEPT_FILES + 1 {
        let file = if number == 0 {
            beneath::file_in(dir, name)
        } else {
            beneath::file_in(dir, &format!("{name}.{number}"))
        };
        let Some(part) = file?.map(Part::new).transpose()? else {
            missing += 1;
            if missing == MISSING_MAX {
                break;
            }
            continue;
        };
        missing = 0;
        if parts.iter().all(|other| other.start != part.start) {
            parts.push(part);
        }
    }
    // Only the very first of the outlet's carries nothing, while there is no other one: the task
    // put this one there.
    if parts.iter().any(|part| part.start > 0) {
        parts.retain(|part| part.start > 0 || part.end.is_some());
    }
    parts.sort_by_key(|part| part.start);
    Ok(parts)
}

impl OutputFiles {
    /// None when there is no such file.
    pub(super) fn open(dir: OwnedFd, name: &str, from: From) -> io::Result<Option<Self>> {
        let mut parts = parts(&dir, name)?;
        let Some(first) = parts.first().map(|part| part.start) else {
            return Ok(None);
        };
        let at = match from {
            From::Beginning => first,
            From::Place(place) => resume(&parts, place.max(first)),
            From::Lines(lines) => last_lines(&parts, lines)?,
        };
        let before = parts.partition_point(|part| part.start <= at);
        let part = parts.swap_remove(before.saturating_sub(1));
        Ok(Some(Self {
            dir,
            name: name.to_owned(),
            part,
            at,
            looked_at: None,
            changes: 0,
        }))
    }

    /// The place of the next byte.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// The place after the last byte that is there now.
    pub(super) fn end(&self) -> io::Result<u64> {
        let parts = parts(&self.dir, &self.name)?;
        let end = parts.iter().map(Part::end).max();
        Ok(end.unwrap_or(self.at).max(self.at))
    }

    /// The file that is being read.
    pub(super) fn file(&self) -> &File {
        &self.part.file
    }

    /// The next bytes, `most` at most. `attributes` counts the changes of the file's: where it ends
    /// is looked up only when there was one.
    pub(super) fn piece(&mut self, most: u64, attributes: u64) -> io::Result<Piece> {
        loop {
            let bytes = self.read(most)?;
            if !bytes.is_empty() {
                self.at += bytes.len() as u64;
                return Ok(Piece::Bytes(bytes));
            }
            if self.looked_at == Some(attributes) {
                return Ok(Piece::Nothing { is_over: false });
            }
            let Some(end) = place(&self.part.file, END_ATTRIBUTE) else {
                self.looked_at = Some(attributes);
                return Ok(Piece::Nothing { is_over: false });
            };
            // Written before it ended, and after the reading.
            if self.at < end && !self.read(1)?.is_empty() {
                continue;
            }
            // The task may have cut it.
            let is_whole = self.at >= end;
            self.at = self.at.max(end);
            let later = parts(&self.dir, &self.name)?
                .into_iter()
                .find(|part| part.start > self.part.start && part.end() >= self.at);
            let Some(part) = later else {
                return Ok(Piece::Nothing { is_over: true });
            };
            let is_next = is_whole && part.start <= self.at;
            (self.at, self.part) = (self.at.max(part.start), part);
            (self.looked_at, self.changes) = (None, self.changes + 1);
            if !is_next {
                return Ok(Piece::Hole);
            }
        }
    }

    fn read(&self, most: u64) -> io::Result<Bytes> {
        let length = usize::try_from(most).unwrap_or(usize::MAX).min(PIECE_BYTES);
        let mut buffer = vec![0; length];
        let offset = self.at.saturating_sub(self.part.start);
        let read = self.part.file.read_at(&mut buffer, offset)?;
        buffer.truncate(read);
        Ok(buffer.into())
    }
}

/// Where to go on from a place: there, or where the next file begins.
fn resume(parts: &[Part], place: u64) -> u64 {
    let before = parts.partition_point(|part| part.start <= place);
    let Some(part) = before.checked_sub(1).and_then(|at| parts.get(at)) else {
        return place;
    };
    let next = parts.get(before).map(|part| part.start);
    match next {
        Some(next) if place > part.end() => next,
        _ => place.min(part.end()),
    }
}

/// Where the last lines begin.
fn last_lines(parts: &[Part], lines: usize) -> io::Result<u64> {
    let mut at = parts.last().map_or(0, Part::end);
    if lines == 0 {
        return Ok(at);
    }
    // The end of the last line is not one between two.
    let (mut ends, mut is_last) = (0, true);
    let mut buffer = vec![0; PIECE_BYTES];
    for part in parts.iter().rev() {
        let mut left = part.length.min(part.end() - part.start.min(part.end()));
        while left > 0 {
            let length = left.min(PIECE_BYTES as u64);
            left -= length;
            let piece = &mut buffer[..usize::try_from(length).unwrap_or(PIECE_BYTES)];
            match part.file.read_exact_at(piece, left) {
                Ok(()) => {}
                // Cut meanwhile: what is not there has no lines.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => continue,
                Err(error) => return Err(error),
            }
            for (index, byte) in piece.iter().enumerate().rev() {
                if *byte == b'\n' && !is_last {
                    ends += 1;
                    if ends == lines {
                        return Ok(part.start + left + index as u64 + 1);
                    }
                }
                is_last = false;
            }
        }
        at = part.start;
    }
    Ok(at)
}
