//! What went wrong, in the words that programs written for runc look for.

use std::io;
use std::path::PathBuf;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// `create` of an id that is taken.
    #[error("container with given ID already exists")]
    Exists,
    /// No such container.
    #[error("container does not exist")]
    Missing,
    /// It has no process.
    #[error("container not running")]
    NotRunning,
    /// `resume` of one that is not paused.
    #[error("container not paused")]
    NotPaused,
    /// `exec` in one that has no process.
    #[error("cannot exec in a stopped container")]
    ExecStopped,
    /// `exec` in one whose processes do not run.
    #[error("cannot exec in a paused container (use --ignore-paused to override)")]
    ExecPaused,
    /// `start` a second time.
    #[error("cannot start an already running container")]
    AlreadyStarted,
    /// `start` of one whose process is gone.
    #[error("cannot start a container that has stopped")]
    StartStopped,
    /// `delete` of one that still has a process.
    #[error("cannot delete container {id} that is not stopped: {status}")]
    NotStopped {
        /// Which.
        id: String,
        /// What it is doing.
        status: &'static str,
    },
    /// An id that names no directory.
    #[error("invalid container id format")]
    Id,
    /// No id.
    #[error("container id cannot be empty")]
    NoId,
    /// The bundle has no configuration.
    #[error("JSON specification file config.json not found")]
    NoConfig,
    /// A file that is no JSON of its kind.
    #[error("parse {path:?}")]
    Parse {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A configuration that asks for what cannot be, or is not done here.
    #[error("{0}")]
    Refused(String),
    /// A call on the host.
    #[error("{what}")]
    Call {
        /// Which, with its operands.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The set-up of the container's process.
    #[error("unable to start container process: {0}")]
    Start(String),
    /// Another process of the container.
    #[error("exec failed: unable to start container process: {0}")]
    Exec(String),
}

/// Names a call and its operands.
pub(super) fn call<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> OciError {
    let what = what.into();
    move |source| OciError::Call {
        what,
        source: source.into(),
    }
}

/// The error with everything behind it, on one line.
pub fn whole(error: &OciError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        let words = error.to_string();
        // Rust adds the number to the system's words, which no other runtime does.
        let words = lower(words.split(" (os error").next().unwrap_or_default());
        text = format!("{text}: {words}");
        source = error.source();
    }
    text.replace('\n', " ")
}

/// The system's words begin with a capital; those of other runtimes do not.
pub(super) fn lower(words: &str) -> String {
    let mut letters = words.chars();
    let first = letters.next().map(|first| first.to_lowercase().to_string());
    first.unwrap_or_default() + letters.as_str()
}
