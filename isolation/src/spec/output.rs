//! Where a container's stdout and stderr go, and how much of them is kept.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::SpecError;
use super::{bound, host_path};

/// Old files of one stream at most: each rotation renames them all.
pub const MAX_KEPT_FILES: u32 = 128;

/// Where stdout and stderr go. stdin is always `/dev/null`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Output {
    /// `dir/stdout` and `dir/stderr`, written by the keeper's outlet.
    Files {
        /// Host directory; must exist.
        dir: PathBuf,
        /// How much of stdout is kept.
        stdout: Kept,
        /// How much of stderr is kept.
        stderr: Kept,
    },
    /// `/dev/null`.
    Discard,
}

/// How much of a stream is kept: at `max_bytes` a file is renamed to `stdout.1`, `stdout.1` to
/// `stdout.2` and so on, `files` old ones at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Bytes after which a file is rotated; 0 never rotates.
    pub max_bytes: u64,
    /// Old files kept beside the current one, [`MAX_KEPT_FILES`] at most.
    pub files: u32,
}

impl Output {
    /// As much of stdout as of stderr.
    #[must_use]
    pub fn files(dir: impl Into<PathBuf>, max_bytes: u64, files: u32) -> Self {
        let kept = Kept { max_bytes, files };
        let (stdout, stderr) = (kept, kept);
        let dir = dir.into();
        Self::Files {
            dir,
            stdout,
            stderr,
        }
    }

    pub(super) fn check(&self, terminal: bool) -> Result<(), SpecError> {
        let Self::Files {
            dir,
            stdout,
            stderr,
        } = self
        else {
            return if terminal {
                Err(SpecError::TerminalOutput)
            } else {
                Ok(())
            };
        };
        host_path("output dir", dir)?;
        for kept in [stdout, stderr] {
            let (got, max) = (kept.files as usize, MAX_KEPT_FILES as usize);
            bound("old files of a stream", got, max)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_files_is_bounded() {
        let check = |files| Output::files("/d", 1, files).check(false);
        assert_eq!(check(MAX_KEPT_FILES), Ok(()));
        assert!(matches!(
            check(MAX_KEPT_FILES + 1),
            Err(SpecError::TooMany { .. })
        ));
        assert_eq!(Output::files("/d", 1, 1).check(true), Ok(()));
        assert_eq!(Output::Discard.check(true), Err(SpecError::TerminalOutput));
    }
}
