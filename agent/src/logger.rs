//! How much of a task's output is kept: the node's defaults, what the task says by the environment
//! variables of Mesos's logrotate logger (`LogrotateContainerLogger`, `spec/mesos.md` §5.3), and the
//! node's bounds on that.
//!
//! Rules: a size is a number with B, KB, MB, GB or TB, each 1,024 of the former, a page at least;
//! of `logrotate(8)`'s options only `rotate COUNT` has a meaning here, any other one is passed over
//! with a word in the agent's log; output always goes to files. What is not a value at all fails the
//! launch. Invariant: nothing that a task says keeps more than the node's bounds.

use std::collections::BTreeMap;

use gantry_isolation::spec::{Kept, MAX_KEPT_FILES};
use gantry_wire::units::Bytes;

const PREFIX: &str = "CONTAINER_LOGGER_";
const DESTINATION: &str = "CONTAINER_LOGGER_DESTINATION_TYPE";
const LABELS: &str = "CONTAINER_LOGGER_EXTRA_LABELS";
/// By stream: the size and the options.
const STREAMS: [(&str, &str); 2] = [
    (
        "CONTAINER_LOGGER_LOGROTATE_MAX_STDOUT_SIZE",
        "CONTAINER_LOGGER_LOGROTATE_STDOUT_OPTIONS",
    ),
    (
        "CONTAINER_LOGGER_LOGROTATE_MAX_STDERR_SIZE",
        "CONTAINER_LOGGER_LOGROTATE_STDERR_OPTIONS",
    ),
];
/// Least size of a file: Mesos's, a page.
const SIZE_MIN: Bytes = Bytes(4_096);

/// What of a task's output a node keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputLimits {
    /// Size at which a file is rotated, unless the task says another.
    pub size: Bytes,
    /// Old files kept beside the current one, unless the task says another number.
    pub files: u32,
    /// Largest size that a task may say.
    pub size_max: Bytes,
    /// Most old files that a task may say.
    pub files_max: u32,
}

impl Default for OutputLimits {
    /// Sizes and numbers of DC/OS; 1 GiB of a stream at most.
    fn default() -> Self {
        Self {
            size: Bytes(2 << 20),
            files: 9,
            size_max: Bytes(64 << 20),
            files_max: 15,
        }
    }
}

/// Why output limits make no sense.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum OutputLimitsError {
    /// A size below the least.
    #[error("a file of output of {0} bytes: {min} bytes are the least", min = SIZE_MIN.0)]
    Size(u64),
    /// A number above the most.
    #[error("{0} old files of output: {MAX_KEPT_FILES} are the most")]
    Files(u32),
    /// A default above the bound.
    #[error("the default {what} of output, {default}, is more than a task may ask for, {max}")]
    Default {
        /// Of which.
        what: &'static str,
        /// The default.
        default: u64,
        /// The bound.
        max: u64,
    },
}

impl OutputLimits {
    /// Whether they make sense.
    ///
    /// # Errors
    /// The first thing that does not.
    pub fn check(&self) -> Result<(), OutputLimitsError> {
        if self.size < SIZE_MIN {
            return Err(OutputLimitsError::Size(self.size.0));
        }
        if self.files_max > MAX_KEPT_FILES {
            return Err(OutputLimitsError::Files(self.files_max));
        }
        for (what, default, max) in [
            ("size", self.size.0, self.size_max.0),
            ("files", u64::from(self.files), u64::from(self.files_max)),
        ] {
            if default > max {
                return Err(OutputLimitsError::Default { what, default, max });
            }
        }
        Ok(())
    }
}

/// Why what a task says about its output cannot be obeyed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum LoggerProblem {
    #[error("{name}={value:?} is not a size such as 10MB")]
    Size { name: &'static str, value: String },
    #[error("{name}={value:?} is less than a page of memory, {min} bytes", min = SIZE_MIN.0)]
    Small { name: &'static str, value: String },
    #[error("{name}: '{line}' is not a number of old files to keep")]
    Rotate { name: &'static str, line: String },
    #[error("{DESTINATION}={0:?} is not known: output goes to files, 'logrotate'")]
    Destination(String),
}

/// What is kept of stdout and stderr, and words about what was not obeyed.
pub(crate) fn kept(
    env: &BTreeMap<String, String>,
    node: &OutputLimits,
) -> Result<([Kept; 2], Vec<String>), LoggerProblem> {
    let mut words = Vec::new();
    let mut all = [Kept {
        max_bytes: node.size.0,
        files: node.files,
    }; 2];
    // Few tasks say anything.
    if !env.keys().any(|name| name.starts_with(PREFIX)) {
        return Ok((all, words));
    }
    if let Some(value) = env.get(DESTINATION) {
        destination(value, &mut words)?;
    }
    for (kept, (size, options)) in all.iter_mut().zip(STREAMS) {
        if let Some(value) = env.get(size) {
            kept.max_bytes = bytes(size, value)?;
        }
        if let Some(value) = env.get(options) {
            kept.files = files(options, value, kept.files, &mut words)?;
        }
        if kept.max_bytes > node.size_max.0 {
            let max = node.size_max.0;
            words.push(format!("{size}: this node keeps {max} bytes at most"));
            kept.max_bytes = max;
        }
        if kept.files > node.files_max {
            let max = node.files_max;
            words.push(format!(
                "{options}: this node keeps {max} old files at most"
            ));
            kept.files = max;
        }
    }
    let known = |name: &str| {
        let of_stream = |(size, options): &(&str, &str)| name == *size || name == *options;
        matches!(name, DESTINATION | LABELS) || STREAMS.iter().any(of_stream)
    };
    let unknown = env.keys().filter(|name| name.starts_with(PREFIX));
    for name in unknown.filter(|name| !known(name)) {
        words.push(format!("{name} has no meaning here"));
    }
    Ok((all, words))
}

fn destination(value: &str, words: &mut Vec<String>) -> Result<(), LoggerProblem> {
    match value {
        "logrotate" => Ok(()),
        "journald" | "journald+logrotate" | "fluentbit" | "fluentbit+logrotate" => {
            words.push(format!("{DESTINATION}={value}: output goes to files only"));
            Ok(())
        }
        other => Err(LoggerProblem::Destination(other.to_owned())),
    }
}

/// `stout`'s `Bytes::parse`.
fn bytes(name: &'static str, value: &str) -> Result<u64, LoggerProblem> {
    let value = value.trim();
    let wrong = || LoggerProblem::Size {
        name,
        value: value.to_owned(),
    };
    let digits = value.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = value.split_at(digits.ok_or_else(wrong)?);
    let power = match unit.trim().to_ascii_uppercase().as_str() {
        "B" => 0,
        "KB" => 1,
        "MB" => 2,
        "GB" => 3,
        "TB" => 4,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let bytes = number.saturating_mul(1 << (10 * power));
    if bytes < SIZE_MIN.0 {
        let value = value.to_owned();
        return Err(LoggerProblem::Small { name, value });
    }
    Ok(bytes)
}

/// The number of old files that options of logrotate say, or `default`.
fn files(
    name: &'static str,
    value: &str,
    default: u32,
    words: &mut Vec<String>,
) -> Result<u32, LoggerProblem> {
    let mut files = default;
    let lines = value.split(['\n', ';']).map(str::trim);
    for line in lines.filter(|line| !line.is_empty()) {
        let Some(count) = line.strip_prefix("rotate") else {
            words.push(format!("{name}: '{}' has no meaning here", shown(line)));
            continue;
        };
        let wrong = || LoggerProblem::Rotate {
            name,
            line: shown(line),
        };
        if !count.starts_with([' ', '\t', '=']) {
            return Err(wrong());
        }
        // To logrotate a negative one means all of them.
        let count = count.trim_start_matches([' ', '\t', '=']);
        let is_number = !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number {
            return Err(wrong());
        }
        // More than fits is more than any node keeps.
        files = count.parse().unwrap_or(u32::MAX);
    }
    Ok(files)
}

/// A task's words as an error may hold them.
fn shown(line: &str) -> String {
    line.chars().take(80).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Result<([(u64, u32); 2], usize), String> {
        let pairs = pairs.iter().map(|(name, value)| {
            let name = if name.starts_with('_') {
                "CONTAINER_LOGGER"
            } else {
                ""
            }
            .to_owned()
                + name;
            (name, (*value).to_owned())
        });
        let (kept, words) =
            kept(&pairs.collect(), &OutputLimits::default()).map_err(|error| error.to_string())?;
        Ok((kept.map(|kept| (kept.max_bytes, kept.files)), words.len()))
    }

    const OUT: &str = "_LOGROTATE_MAX_STDOUT_SIZE";
    const ERR: &str = "_LOGROTATE_MAX_STDERR_SIZE";
    const OUT_OPTIONS: &str = "_LOGROTATE_STDOUT_OPTIONS";
    const ERR_OPTIONS: &str = "_LOGROTATE_STDERR_OPTIONS";
    const DEFAULT: (u64, u32) = (2 << 20, 9);

    /// What the task says, what is kept of each stream, and the number of words about it.
    type Case<'a> = (&'a [(&'a str, &'a str)], [(u64, u32); 2], usize);

    #[test]
    fn what_a_task_says_is_kept_within_the_nodes_bounds() {
        let cases: [Case<'_>; 11] = [
            (&[], [DEFAULT, DEFAULT], 0),
            (&[("PATH", "/bin")], [DEFAULT, DEFAULT], 0),
            (&[(OUT, "10MB")], [(10 << 20, 9), DEFAULT], 0),
            (&[(ERR, " 4096 b ")], [DEFAULT, (4096, 9)], 0),
            (&[(OUT, "900000TB")], [(64 << 20, 9), DEFAULT], 1),
            (&[(OUT, "99999999999TB")], [(64 << 20, 9), DEFAULT], 1),
            (&[(OUT_OPTIONS, "rotate 3")], [(2 << 20, 3), DEFAULT], 0),
            (
                &[(ERR_OPTIONS, "compress\n\trotate 0\nmissingok")],
                [DEFAULT, (2 << 20, 0)],
                2,
            ),
            (
                &[(OUT_OPTIONS, "rotate 99999999999999999999")],
                [(2 << 20, 15), DEFAULT],
                1,
            ),
            (
                &[("_DESTINATION_TYPE", "journald+logrotate")],
                [DEFAULT, DEFAULT],
                1,
            ),
            (
                &[("_EXTRA_LABELS", "{}"), ("_SPEED", "9")],
                [DEFAULT, DEFAULT],
                1,
            ),
        ];
        for (said, want, words) in cases {
            assert_eq!(of(said), Ok((want, words)), "{said:?}");
        }
    }

    #[test]
    fn what_is_no_value_fails_the_launch() {
        for said in [
            (OUT, ""),
            (OUT, "10"),
            (OUT, "1.5MB"),
            (OUT, "-1MB"),
            (OUT, "10 parsecs"),
            (OUT, "99999999999999999999MB"),
            (ERR, "4095B"),
            (ERR, "0MB"),
            (OUT_OPTIONS, "rotate"),
            (OUT_OPTIONS, "rotate -1"),
            (OUT_OPTIONS, "rotate many"),
            (ERR_OPTIONS, "rotate 1 2"),
            (ERR_OPTIONS, "rotate4"),
            ("_DESTINATION_TYPE", "/dev/null"),
        ] {
            assert!(of(&[said]).is_err(), "{said:?}: {:?}", of(&[said]));
        }
    }

    #[test]
    fn limits_of_a_node_fit_each_other() {
        let usual = OutputLimits::default();
        assert_eq!(usual.check(), Ok(()));
        for limits in [
            OutputLimits {
                size: Bytes(1),
                ..usual
            },
            OutputLimits {
                size: Bytes(1 << 40),
                ..usual
            },
            OutputLimits { files: 16, ..usual },
            OutputLimits {
                files_max: MAX_KEPT_FILES + 1,
                ..usual
            },
        ] {
            assert!(limits.check().is_err(), "{limits:?}");
        }
    }
}
