//! What the raft crate logs through slog goes to tracing. Raft's "info" tells of every election
//! step, so it counts as debug here.

use std::fmt::Write;

use slog::{Drain, KV, Level, Logger, OwnedKVList, Record, Serializer, o};

struct Bridge;

struct Text(String);

impl Serializer for Text {
    fn emit_arguments(&mut self, key: slog::Key, value: &std::fmt::Arguments<'_>) -> slog::Result {
        write!(self.0, " {key}={value}").map_err(slog::Error::from)
    }
}

impl Drain for Bridge {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &Record<'_>, context: &OwnedKVList) -> Result<(), slog::Never> {
        if record.level() == Level::Trace
            || !tracing::enabled!(target: "raft", tracing::Level::TRACE)
                && record.level() == Level::Debug
        {
            return Ok(());
        }
        let mut text = Text(record.msg().to_string());
        // Writing to a string does not fail, and a lost detail of a log line is no error.
        let _ = record.kv().serialize(record, &mut text);
        let _ = context.serialize(record, &mut text);
        match record.level() {
            Level::Critical | Level::Error => tracing::error!(target: "raft", "{}", text.0),
            Level::Warning => tracing::warn!(target: "raft", "{}", text.0),
            Level::Info => tracing::debug!(target: "raft", "{}", text.0),
            Level::Debug | Level::Trace => tracing::trace!(target: "raft", "{}", text.0),
        }
        Ok(())
    }
}

/// A logger for the raft crate.
pub(crate) fn logger() -> Logger {
    Logger::root(Bridge, o!())
}
