//! What can go wrong with log and snapshots, in words that name the file and the way out.

use std::io;

/// A failure of the log. None of them loses silently: the coordinator does not start, or stops
/// acknowledging.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("cannot list the directory of the log")]
    List(#[source] io::Error),
    #[error("cannot read {path}")]
    Read { path: String, source: io::Error },
    #[error("cannot create {path}")]
    Create { path: String, source: io::Error },
    #[error("cannot write {path}")]
    Write { path: String, source: io::Error },
    #[error("cannot cut the unfinished end off {path}")]
    Cut { path: String, source: io::Error },
    #[error("cannot remove {path}")]
    Remove { path: String, source: io::Error },
    #[error("the log has failed before and takes no more writes until it is opened again")]
    Failed,
    #[error("the thread of the log has ended")]
    Gone,
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// Something durable was lost. The way out is part of the text.
    #[error(
        "{path} is damaged at byte {offset} ({flaw}), although later writes had been durable: \
         the disk has lost data. Restore the coordinator's directory from a backup; or, to go on \
         with what came before and lose the rest (the last entry left is {last_index}): copy the \
         directory, then `truncate -s {offset} {path}`, `truncate -s {size} {path}`, and delete \
         the .wal files with higher numbers"
    )]
    Corrupt {
        path: String,
        offset: usize,
        flaw: String,
        last_index: u64,
        size: usize,
    },
    /// Something durable was lost, by other means than the end of a write.
    #[error(
        "{path} has {found} bytes instead of at least {size}: it was cut short after it had been \
         written, which no crash does, so acknowledged changes may be lost. Restore the \
         coordinator's directory from a backup; or, to go on with what is left and lose the rest: \
         copy the directory, then `truncate -s {size} {path}`"
    )]
    Short { path: String, found: u64, size: u64 },
    #[error(
        "there is a snapshot up to entry {snapshot}, but no log: it was deleted or emptied, and \
         what was acknowledged after the snapshot with it. Restore the coordinator's directory \
         from a backup"
    )]
    Lost { snapshot: u64 },
    #[error(
        "the log has no segment {missing:016x}, but later ones. Restore it from a backup; or, to \
         go on with what came before and lose the rest: copy the directory, then delete the .wal \
         files with higher numbers"
    )]
    Missing { missing: u64 },
    #[error(
        "the log begins with entry {first}, the snapshot ends with {snapshot}: what lies between \
         is lost. Restore the coordinator's directory from a backup"
    )]
    Gap { snapshot: u64, first: u64 },
    #[error("{path} was written by a newer version of Gantry: start that version")]
    Newer { path: String },
    #[error("{name} in the directory of the log does not belong to it: move it away")]
    Foreign { name: String },
    #[error(
        "the snapshot {path} is damaged ({flaw}). Restore the coordinator's directory from a \
         backup"
    )]
    Snapshot { path: String, flaw: String },
}
