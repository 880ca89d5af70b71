//! Required fields: which ones a message lacks, as paths such as `operations[0].launch.task_id`.
//!
//! The protobuf form is walked by the tables before prost reads it, because prost takes a missing
//! field for its default. A message that comes in pieces is judged piece by piece.

use std::fmt;

use super::DecodeError;
use super::descriptor::{Field, Kind, Label, Message};
use super::fields::{Fields, Value};

/// How deep messages may be nested, in both encodings (prost has the same limit).
pub const DEPTH_MAX: usize = 100;
/// Missing fields that an error names; the others are counted.
pub const MISSING_MAX: usize = 64;
/// Longest path in an error, in characters.
const PATH_MAX_CHARS: usize = 256;

/// Where a field is.
#[derive(Clone, Copy)]
pub(crate) struct Path<'p> {
    up: Option<&'p Path<'p>>,
    field: &'p Field,
    /// Its place in a list.
    pub(crate) index: Option<usize>,
}

impl<'p> Path<'p> {
    pub(crate) fn new(up: Option<&'p Path<'p>>, field: &'p Field) -> Self {
        let index = None;
        Self { up, field, index }
    }

    fn whole(&self) -> String {
        let mut text = self.up.map_or_else(String::new, |up| up.whole() + ".");
        text += self.field.name;
        if let Some(index) = self.index {
            text += &format!("[{index}]");
        }
        text
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.whole();
        if text.len() <= PATH_MAX_CHARS {
            return f.write_str(&text);
        }
        // Names are ASCII: any place is the border of a character.
        write!(f, "{}…", &text[..PATH_MAX_CHARS])
    }
}

/// The required fields that were not there.
#[derive(Default)]
pub(crate) struct Missing {
    paths: Vec<String>,
    more: usize,
}

impl Missing {
    pub(crate) fn add(&mut self, path: &Path<'_>) {
        if self.paths.len() < MISSING_MAX {
            self.paths.push(path.to_string());
        } else {
            self.more += 1;
        }
    }

    pub(crate) fn none(self) -> Result<(), DecodeError> {
        let Self { paths, more } = self;
        if paths.is_empty() {
            return Ok(());
        }
        Err(DecodeError::Missing { paths, more })
    }
}

/// Checks the protobuf form of a message. Errors: what is missing, or that it is not protobuf.
pub(crate) fn check(message: &'static Message, bytes: &[u8]) -> Result<(), DecodeError> {
    let mut missing = Missing::default();
    walk(message, bytes, None, DEPTH_MAX, &mut missing)?;
    missing.none()
}

fn walk(
    message: &'static Message,
    bytes: &[u8],
    up: Option<&Path<'_>>,
    depth: usize,
    missing: &mut Missing,
) -> Result<(), DecodeError> {
    if !message.demands {
        return Ok(());
    }
    let depth = depth.checked_sub(1).ok_or(DecodeError::TooDeep)?;
    let mut seen = 0_u64;
    let mut counts = [0_usize; 64];
    for item in Fields::of(bytes) {
        let item = item?;
        let Some(place) = message.numbered(item.number) else {
            continue;
        };
        let field = &message.fields[place];
        let known = match (field.kind, item.value) {
            (Kind::Enum(names), Value::Varint(number)) => names.name(number as i32).is_some(),
            (Kind::Message(inner), Value::Delimited(bytes)) => {
                let mut path = Path::new(up, field);
                if matches!(field.label, Label::Repeated | Label::Map) {
                    path.index = Some(counts[place]);
                    counts[place] += 1;
                }
                walk(inner, bytes, Some(&path), depth, missing)?;
                true
            }
            _ => true,
        };
        // Of several values the last one counts.
        seen = seen & !(1 << place) | u64::from(known) << place;
    }
    for field in message.lacking(seen) {
        missing.add(&Path::new(up, field));
    }
    Ok(())
}
