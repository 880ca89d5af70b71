//! Names of containers and sessions.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{MAX_ID_BYTES, SpecError};

/// Name of a container, unique within one keeper. Letters, digits, `.`, `_` and `-` only, so that
/// it can name a directory and can never climb out of one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

impl ContainerId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ContainerId {
    type Error = SpecError;

    fn try_from(text: String) -> Result<Self, SpecError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let ok = !text.is_empty()
            && text.len() <= MAX_ID_BYTES
            && text.bytes().all(plain)
            && !text.starts_with('.');
        if ok {
            Ok(Self(text))
        } else {
            Err(SpecError::Id(text))
        }
    }
}

impl TryFrom<&str> for ContainerId {
    type Error = SpecError;

    fn try_from(text: &str) -> Result<Self, SpecError> {
        Self::try_from(text.to_owned())
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> Self {
        id.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
