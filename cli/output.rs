//! What goes to the terminal: tables, JSON, notes.
//!
//! It does not decide what is shown. Invariants: no write panics (a closed pipe ends the command
//! quietly); a string that came from the API reaches the terminal with its control characters
//! escaped, so that a task's name cannot move the cursor or change the title.

use std::io::{self, Write};

use comfy_table::Table;
use serde_json::Value;

use crate::failure::Failure;

/// Between the columns of a table.
const GAP: usize = 2;

/// Text from the API made safe for a terminal: control characters and the ones that turn the
/// direction of writing become `\u{..}`.
pub(crate) fn escape(text: &str) -> String {
    let harmful = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if harmful(c) {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// As [`escape`], but line ends stay: for messages of several lines.
pub(crate) fn escape_lines(text: &str) -> String {
    text.lines().map(escape).collect::<Vec<_>>().join("\n")
}

/// Cuts a text to `limit` characters and marks the cut.
pub(crate) fn shorten(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    let kept: String = text.chars().take(limit.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// A table as text: no borders, one line a row, no spaces at line ends.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(header.iter().copied());
    for row in rows {
        table.add_row(row.iter().map(|cell| escape(cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, u16::try_from(GAP).unwrap_or(2)));
    }
    let lines: Vec<String> = table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    lines.join("\n") + "\n"
}

/// Writes to stdout.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    print_bytes(text.as_bytes())
}

/// Writes bytes to stdout as they are: the output of tasks.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()?;
    Ok(())
}

/// Writes bytes to stderr as they are: the error output of a command run by `task exec`.
pub(crate) fn print_error_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stderr().lock();
    out.write_all(bytes)?;
    out.flush()?;
    Ok(())
}

/// JSON, indented, on stdout.
pub(crate) fn print_json(value: &Value) -> Result<(), Failure> {
    print(&format!("{value:#}\n"))
}

/// A line on stderr. Lost when nobody reads it: there is nowhere left to say so.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        for (text, want) in [
            ("plain ü", "plain ü"),
            ("a\x1b[31mred", "a\\u{1b}[31mred"),
            ("two\nlines", "two\\nlines"),
            ("c1 \u{9b}2J", "c1 \\u{9b}2J"),
            ("turned \u{202e}txt", "turned \\u{202e}txt"),
        ] {
            assert_eq!(escape(text), want);
        }
        assert_eq!(escape_lines("a\x07\nb"), "a\\u{7}\nb");
    }

    #[test]
    fn tables_are_lines_without_trailing_spaces() {
        let rows = vec![
            vec!["/a".to_owned(), "1".to_owned()],
            vec!["/long".into(), String::new()],
        ];
        assert_eq!(table(&["ID", "N"], rows), "ID     N\n/a     1\n/long\n");
        assert_eq!(table(&["ID"], vec![]), "ID\n");
    }

    #[test]
    fn long_text_is_cut_at_characters() {
        assert_eq!(shorten("äöü", 3), "äöü");
        assert_eq!(shorten("äöüß", 3), "äö…");
    }
}
