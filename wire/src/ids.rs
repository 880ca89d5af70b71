//! Identifiers. A new id is minted by a shell (it needs randomness) and checked where it enters.
//!
//! Rules: ids that become file names (`AgentId`, `TaskId`, `FrameworkId`, `ContainerId`) hold no
//! `/`, no control characters, are not `.` or `..` and are at most 255 bytes
//! (NAME_MAX, limits.h(0p)); Mesos has the same rule in `src/common/validation.cpp`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest id in bytes: one path segment on Linux.
pub const ID_MAX_BYTES: usize = 255;

/// Why a string is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Nothing there.
    #[error("an id must not be empty")]
    Empty,
    /// Longer than [`ID_MAX_BYTES`] (for an `AppId`: than its own limit).
    #[error("an id of {0} bytes is too long")]
    TooLong(usize),
    /// A character that is not allowed, or a reserved name.
    #[error("'{0}' is not a valid id")]
    Invalid(String),
}

fn check_segment(text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > ID_MAX_BYTES {
        return Err(IdError::TooLong(text.len()));
    }
    let bad = |c: char| c == '/' || c == '\\' || c.is_control() || c.is_whitespace();
    if text == "." || text == ".." || text.chars().any(bad) {
        return Err(IdError::Invalid(text.to_owned()));
    }
    Ok(())
}

macro_rules! segment_id {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks the text. Errors: see [`IdError`].
            pub fn parse(text: impl Into<String>) -> Result<Self, IdError> {
                let text = text.into();
                check_segment(&text)?;
                Ok(Self(text))
            }

            /// The text of the id.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::parse(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }
    )+};
}

segment_id! {
    /// A node, for as long as it keeps its data directory.
    AgentId,
    /// A framework: an external scheduler, or one of the built-in ones.
    FrameworkId,
    /// One execution; never used twice.
    TaskId,
    /// What tasks run below; unique within a framework on a node.
    ExecutorId,
    /// A container on a node; minted by the agent.
    ContainerId,
    /// An instance of a service: `<path with _>.instance-<uuid>` (Marathon).
    InstanceId,
    /// A running change of one or more services.
    DeploymentId,
}

/// The absolute path of an app, such as `/group/web`.
///
/// Segments match `[a-z0-9]([a-z0-9-.]*[a-z0-9])?` and are not `.` or `..`
/// (Marathon, `state/PathId.scala`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AppId(String);

/// Longest app id in bytes. A task id is made of it and must stay under [`ID_MAX_BYTES`].
pub const APP_ID_MAX_BYTES: usize = 180;

impl AppId {
    /// Reads an id as clients write it: a missing leading `/` is added, doubled and trailing
    /// ones are dropped. Errors: see [`IdError`].
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let segments: Vec<&str> = text.split('/').filter(|s| !s.is_empty()).collect();
        if segments.is_empty() {
            return Err(IdError::Empty);
        }
        let id = format!("/{}", segments.join("/"));
        if id.len() > APP_ID_MAX_BYTES {
            return Err(IdError::TooLong(id.len()));
        }
        if segments.iter().all(|s| Self::segment_is_valid(s)) {
            Ok(Self(id))
        } else {
            Err(IdError::Invalid(text.to_owned()))
        }
    }

    fn segment_is_valid(segment: &str) -> bool {
        let edge =
            |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        edge(segment.chars().next())
            && edge(segment.chars().next_back())
            && segment
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.')
    }

    /// The path, with its leading `/`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path with `_` for `/`, without the leading one: the first part of instance ids.
    #[must_use]
    pub fn safe(&self) -> String {
        self.0[1..].replace('/', "_")
    }

    /// The task name Marathon gives: segments reversed and joined by dots (`/a/b` is `b.a`).
    #[must_use]
    pub fn task_name(&self) -> String {
        self.0[1..].rsplit('/').collect::<Vec<_>>().join(".")
    }
}

impl TryFrom<String> for AppId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        Self::parse(&text)
    }
}

impl From<AppId> for String {
    fn from(id: AppId) -> String {
        id.0
    }
}

impl fmt::Display for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn app_ids_are_normalised_or_refused() {
        for (text, want) in [
            ("/a", Some("/a")),
            ("a//b/", Some("/a/b")),
            ("/a.b/c-d", Some("/a.b/c-d")),
            ("/A", None),
            ("/a/..", None),
            ("/-a", None),
            ("/a_b", None),
            ("", None),
            ("/", None),
        ] {
            assert_eq!(
                AppId::parse(text).ok().as_ref().map(AppId::as_str),
                want,
                "{text}"
            );
        }
        let id = AppId::parse("/g/web").unwrap();
        assert_eq!(
            (id.safe().as_str(), id.task_name().as_str()),
            ("g_web", "web.g")
        );
    }

    #[test]
    fn segment_ids_never_leave_their_directory() {
        for text in ["", ".", "..", "a/b", "a\0b", "a\nb", "a b"] {
            assert!(TaskId::parse(text).is_err(), "{text:?}");
        }
        assert!(TaskId::parse("g_web.instance-1._app.1").is_ok());
        assert!(TaskId::parse("x".repeat(256)).is_err());
    }
}
