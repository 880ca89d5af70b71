//! Why a profile is not understood or cannot become a filter.

use super::program::MAX_INSTRUCTIONS;

/// Why a profile is not understood or cannot become a filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SeccompError {
    /// Not JSON, or not of the form of a profile. The text says where.
    #[error("the seccomp profile is not of the form it should be: {0}")]
    Json(String),
    /// More than a bound.
    #[error("seccomp profile: {got} {what}, at most {max}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many were given.
        got: usize,
        /// The bound.
        max: usize,
    },
    /// A word that should be one of a known list.
    #[error("seccomp profile: {word:?} is no {what}")]
    Unknown {
        /// Which list.
        what: &'static str,
        /// The word, cut short if long.
        word: String,
    },
    /// Two fields that exclude each other.
    #[error("seccomp profile: {0:?} and {1:?} are both given, use one")]
    Both(&'static str, &'static str),
    /// A rule that names no system call.
    #[error("seccomp profile: rule {0} names no system call")]
    Nameless(usize),
    /// `SCMP_ACT_NOTIFY`.
    #[error("seccomp profile: SCMP_ACT_NOTIFY needs a listener, which is not supported")]
    Notify,
    /// An index that no argument has.
    #[error("seccomp profile: argument {0} does not exist, the last is 5")]
    Argument(u64),
    /// Not an error number.
    #[error("seccomp profile: {0} is no error number, the largest is 4095")]
    Errno(u64),
    /// The filter is larger than the kernel takes.
    #[error("the seccomp filter needs {0} instructions, at most {MAX_INSTRUCTIONS}")]
    TooLong(usize),
    /// Built for a processor that filters cannot be made for.
    #[error("seccomp filters cannot be made for this processor")]
    Machine,
}
