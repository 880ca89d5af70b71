//! Settings as a TOML file: one section a role, so that a machine needs one file.
//!
//! ```toml
//! [agent]
//! port = 5051
//! insecure-registry = ["registry.example:5000"]
//! [agent.attributes]
//! rack = "r1"
//! ```

use std::collections::BTreeMap;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use toml_edit::{Document, Item, TableLike, Value};

use super::{Found, Key, Kind, Role, Source};
use crate::failure::{Exit, Failure};

/// Sections that a file may have.
const SECTIONS: [&str; 2] = ["agent", "coordinator"];
/// Longest file that is read.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// Reads the section of a role.
pub(super) fn read(
    role: &'static Role,
    path: &Path,
) -> Result<BTreeMap<&'static str, Found>, Failure> {
    let at = |why: String| Failure::new(Exit::Usage, format!("{}: {why}", path.display()));
    let meta = std::fs::metadata(path).map_err(|error| at(error.to_string()))?;
    if meta.len() > FILE_MAX_BYTES {
        return Err(at(format!("it is longer than {FILE_MAX_BYTES} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| at(error.to_string()))?;
    let line = |span: Option<Range<usize>>| {
        let before = span.map_or(0, |span| span.start).min(text.len());
        1 + text.as_bytes()[..before]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
    };
    let document = Document::parse(text.as_str())
        .map_err(|error| at(format!("line {}: {}", line(error.span()), error.message())))?;
    let mut found = BTreeMap::new();
    for (section, item) in document.iter() {
        let here = |why: String| {
            let line = line(
                document
                    .as_table()
                    .key(section)
                    .and_then(toml_edit::Key::span),
            );
            Failure::new(Exit::Usage, format!("{}:{line}: {why}", path.display()))
        };
        if !SECTIONS.contains(&section) {
            let why = format!("'{section}' is no section");
            let names = SECTIONS.map(|name| format!("[{name}]")).join(" and ");
            return Err(here(why).hint(format!("keys stand in the sections {names}")));
        }
        let Some(table) = item.as_table_like() else {
            return Err(here(format!("'{section}' is not a section")));
        };
        if section != role.name {
            continue;
        }
        for (name, item) in table.iter() {
            let line = line(table.key(name).and_then(toml_edit::Key::span));
            let here = |why: String| {
                Failure::new(Exit::Usage, format!("{}:{line}: {why}", path.display()))
            };
            let key = role.key(name).ok_or_else(|| {
                here(format!("'{name}' is no setting of `gantry {}`", role.name))
                    .hint(role.nearest(name))
            })?;
            if key.secret && meta.mode() & 0o077 != 0 {
                return Err(
                    here(format!("'{name}' is a secret and others can read the file"))
                        .hint(format!("chmod 600 {}", path.display())),
                );
            }
            let texts = texts(key, item).ok_or_else(|| {
                here(format!("the value of '{name}' is of a wrong kind"))
                    .hint(format!("it takes {}", key.takes))
            })?;
            let source = Source::File(path.to_owned(), line);
            if found.insert(key.name, Found { texts, source }).is_some() {
                return Err(here(format!("'{name}' is there twice, by two names")));
            }
        }
    }
    Ok(found)
}

/// The value of a key; `None` when it is of another kind.
fn texts(key: &Key, item: &Item) -> Option<Vec<String>> {
    if key.kind == Kind::Pairs
        && let Some(table) = item.as_table_like()
    {
        return Some(vec![pairs(table)?]);
    }
    let value = item.as_value()?;
    match (key.kind, value) {
        (Kind::Many, Value::Array(list)) => list.iter().map(text).collect(),
        _ => Some(vec![text(value)?]),
    }
}

/// `name:value;name:value`.
fn pairs(table: &dyn TableLike) -> Option<String> {
    let pair = |(name, item): (&str, &Item)| Some(format!("{name}:{}", text(item.as_value()?)?));
    let pairs: Option<Vec<String>> = table.iter().map(pair).collect();
    Some(pairs?.join(";"))
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.value().clone()),
        Value::Integer(number) => Some(number.value().to_string()),
        Value::Float(number) => Some(number.value().to_string()),
        Value::Boolean(yes) => Some(yes.value().to_string()),
        Value::Datetime(_) | Value::Array(_) | Value::InlineTable(_) => None,
    }
}
