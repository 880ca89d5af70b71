//! Why something was not fetched, in words for whoever named it. Decides the words only.

use std::io;
use std::sync::Arc;

use gantry_intake::{Cause as Unreachable, Digest, DigestError, PathError, TarError};

use crate::target::UriError;

/// A URI that was not fetched, and why.
#[derive(Debug, Clone, thiserror::Error)]
#[error("fetching '{uri}'")]
pub struct FetchError {
    /// Without credentials.
    pub uri: String,
    /// Shared by all who wanted the same.
    #[source]
    pub cause: Arc<Cause>,
}

/// Why.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The URI means nothing.
    #[error(transparent)]
    Uri(#[from] UriError),
    /// The checksum that was asked for is none.
    #[error("its checksum is none")]
    Checksum(#[source] DigestError),
    /// The output file is not below the sandbox.
    #[error("the output file {name:?} {error}")]
    Output {
        /// As it was given.
        name: String,
        /// What is wrong.
        error: PathError,
    },
    /// The output file is absolute, or empty.
    #[error("the output file {0:?} is not a relative path to a file")]
    OutputPath(String),
    /// More than a task may have fetched.
    #[error("a task may have no more than {0} URIs fetched")]
    TooMany(usize),
    /// The place is none that the author of a task may reach through the node.
    #[error("{host} {why}, from which this node does not fetch unless its operator allows it")]
    Forbidden {
        /// Its host.
        host: String,
        /// Half a sentence.
        why: String,
    },
    /// The server was not reached, or broke off.
    #[error("{host} {why}")]
    Unreachable {
        /// Its host.
        host: String,
        /// What happened.
        why: String,
        /// Whether it may be otherwise in a moment.
        passing: bool,
    },
    /// The server says no.
    #[error("{host} answered with status {status}")]
    Status {
        /// Its host.
        host: String,
        /// HTTP's.
        status: u16,
    },
    /// Too slow.
    #[error("{host} sent less than a byte a second for {seconds} s")]
    Stalled {
        /// Its host.
        host: String,
        /// For how long.
        seconds: u64,
    },
    /// The server sent less or more than it said.
    #[error("{0} sent content of another size than it promised")]
    WrongSize(String),
    /// More than is fetched at all.
    #[error("it is larger than the {limit_bytes} bytes that this node fetches at most")]
    TooBig {
        /// The bound.
        limit_bytes: u64,
    },
    /// Another content than the one wanted.
    #[error("its content has the digest {actual}, not {expected}")]
    WrongDigest {
        /// That was asked for.
        expected: Digest,
        /// That came.
        actual: Digest,
    },
    /// A file of the node that its user may not have.
    #[error(
        "{0:?} is not readable for everyone on the node, and in no directory that the operator allows"
    )]
    Private(String),
    /// Not a file.
    #[error("{0:?} is not a regular file of a file system")]
    NotAFile(String),
    /// The disk is (nearly) full.
    #[error("the node has no space left for it")]
    NoSpace,
    /// The task's own limit.
    #[error("it needs more than the {0} bytes of disk that the task may use")]
    OverLimit(u64),
    /// An archive that cannot be read.
    #[error("it is not a {kind} archive, or a broken one")]
    Broken {
        /// Which kind it should be.
        kind: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A tar archive that cannot be read.
    #[error("it cannot be extracted")]
    Tar(#[source] TarError),
    /// An entry with an impossible name.
    #[error("it has an entry {path:?} whose name {error}")]
    Name {
        /// The name, made printable.
        path: String,
        /// What is wrong with it.
        error: PathError,
    },
    /// An entry that is not made.
    #[error("it has an entry {path:?} that {why}")]
    Entry {
        /// The name, made printable.
        path: String,
        /// What it would do.
        why: &'static str,
    },
    /// More than the bounds allow.
    #[error("it unpacks to more than {0}: refused as a possible bomb")]
    Bomb(String),
    /// The task is not wanted any more.
    #[error("it was cancelled")]
    Cancelled,
    /// A system call failed.
    #[error("{operation} failed for {path:?}")]
    Io {
        /// The call.
        operation: &'static str,
        /// The name, made printable.
        path: String,
        /// Its error.
        #[source]
        source: io::Error,
    },
}

impl Cause {
    pub(crate) fn io(operation: &'static str, path: &[u8], source: io::Error) -> Self {
        use rustix::io::Errno;
        let errno = Errno::from_io_error(&source);
        if matches!(errno, Some(Errno::NOSPC | Errno::DQUOT)) {
            return Self::NoSpace;
        }
        Self::Io {
            operation,
            path: printable(path),
            source,
        }
    }

    pub(crate) fn entry(path: &[u8], why: &'static str) -> Self {
        Self::Entry {
            path: printable(path),
            why,
        }
    }

    /// What became of a request.
    pub(crate) fn of((host, cause): (String, Unreachable)) -> Self {
        match cause {
            Unreachable::Redirect(why) => Self::Forbidden {
                host,
                why: format!("redirects to a place that {why}"),
            },
            Unreachable::Tls(detail) => Self::Unreachable {
                host,
                why: format!("could not be reached over TLS ({detail})"),
                passing: false,
            },
            cause => Self::Unreachable {
                passing: matches!(
                    cause,
                    Unreachable::Refused | Unreachable::TimedOut | Unreachable::Broken(_)
                ),
                host,
                why: cause.to_string(),
            },
        }
    }

    /// Whether the same request may well succeed in a moment.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { passing, .. } => *passing,
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
            Self::Stalled { .. } | Self::WrongSize(_) => true,
            _ => false,
        }
    }

    /// Whether the server did not get to say what the file is now.
    pub(crate) fn is_silence(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Stalled { .. })
            || matches!(self, Self::Status { .. } if self.is_passing())
    }
}

/// A name for people: cut, and without what is not text.
pub(crate) fn printable(name: &[u8]) -> String {
    const MAX: usize = 200;
    let text = String::from_utf8_lossy(&name[..name.len().min(MAX)]).into_owned();
    if name.len() > MAX {
        format!("{text}…")
    } else {
        text
    }
}
