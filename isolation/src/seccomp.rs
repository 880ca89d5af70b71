//! System call filters: from a profile in Docker's or the OCI's form to a short classic BPF program.
//!
//! It decides what a profile means ([`Profile`] says what may be written, `verdict` which rule
//! answers a call) and how the kernel is told so ([`Program`]); it deliberately loads nothing: the
//! child does that, between clone and exec, with instructions that are ready.
//!
//! Invariants. A call that no rule names gets the profile's default action; calls of another
//! architecture than those a profile names end the process, whatever its default is. Where one
//! rule of a profile excepts from another, the answer is never laxer than runc's (libseccomp's).
//!
//! Programs are short paths, not lists: the kernel runs a new filter once for each system call
//! number, native and compat, to learn which are always allowed, and never runs it again for
//! those (Linux 5.11, `seccomp_cache_prepare`). What a load costs is the length of the path to a
//! number, so numbers are searched by halves.

mod action;
mod arch;
mod assemble;
mod builtin;
mod cache;
mod emit;
mod error;
mod listing;
mod parse;
mod profile;
mod program;
mod verdict;

#[cfg(test)]
mod tests;

pub use action::Action;
pub use arch::{Arch, Host, KernelVersion};
pub use cache::{Cache, MAX_CACHED_PROGRAMS};
pub use error::SeccompError;
pub use profile::{
    Comparison, Condition, MAX_CONDITIONS_PER_RULE, MAX_NAME_BYTES, MAX_PROFILE_BYTES, MAX_RULES,
    Profile, Rule,
};
pub use program::{MAX_INSTRUCTIONS, Program};
pub use verdict::MAX_RULES_PER_CALL;

use serde::{Deserialize, Serialize};

/// Which system calls a container may make.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seccomp {
    /// The strict built-in profile, [`Profile::builtin`].
    #[default]
    Default,
    /// All of them.
    Unconfined,
    /// What this text says: JSON as Docker's `--security-opt seccomp=` takes it, or the
    /// `linux.seccomp` object of an OCI bundle's configuration.
    Profile(String),
}

impl Seccomp {
    /// Whether the text is a profile.
    ///
    /// # Errors
    /// The first thing in it that is not understood.
    pub fn check(&self) -> Result<(), SeccompError> {
        match self {
            Self::Default | Self::Unconfined => Ok(()),
            Self::Profile(text) => Profile::parse(text).map(drop),
        }
    }
}
