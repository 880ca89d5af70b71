//! A profile in checked types: what may be written, before it is known for whom.
//!
//! It decides nothing about calls: which rules hold for a set of capabilities, and which of them
//! answers, is `verdict`'s. Invariant: all lists are within the bounds named here, every argument
//! index is at most 5, and every errno at most 4095.

use super::{Action, Arch, KernelVersion};
use crate::caps::CapSet;

/// Size of a profile's text. Docker's default has 12 KiB without indentation, podman's 20 with.
pub const MAX_PROFILE_BYTES: usize = 128 * 1024;
/// Rules of a profile.
pub const MAX_RULES: usize = 4096;
/// Longest name of a system call.
pub const MAX_NAME_BYTES: usize = 64;
/// Conditions of one rule.
pub const MAX_CONDITIONS_PER_RULE: usize = 32;
/// Architectures, capabilities or other words in one list.
pub(super) const MAX_WORDS: usize = 256;
/// Arguments of a system call.
pub(super) const ARGUMENTS: u64 = 6;

/// A profile: the default action and the rules that except from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// For calls that no rule answers.
    pub(super) default: Action,
    /// Whether a number above the largest that the profile knows fails with ENOSYS whatever the
    /// default is, as if the kernel were as old as the profile.
    pub(super) unknown_is_missing: bool,
    /// Architectures besides the native one.
    pub(super) architectures: Vec<Besides>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub(super) flags: u32,
    /// In the order of the text.
    pub(super) rules: Vec<Rule>,
}

/// Architectures whose calls a profile judges too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Besides {
    /// On this native one; None: on every one.
    pub(super) native: Option<Arch>,
    /// These.
    pub(super) judged: Vec<Arch>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Calls that it is for; some may be of other architectures or of no kernel we know.
    pub(super) names: Vec<String>,
    /// What to do.
    pub(super) action: Action,
    /// All must hold, but two on the same argument make a rule of each (as runc and crun do).
    pub(super) conditions: Vec<Condition>,
    /// For whom it holds.
    pub(super) only: Only,
}

/// For whom a rule holds: Docker's `includes` and `excludes`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Only {
    /// All of these capabilities. None in the list is one that no container can have.
    pub(super) with: Vec<Option<u32>>,
    /// Not any of these.
    pub(super) without: Vec<Option<u32>>,
    /// One of these native architectures, if any are listed.
    pub(super) on: Vec<String>,
    /// None of these.
    pub(super) not_on: Vec<String>,
    /// From this kernel on.
    pub(super) since: Option<KernelVersion>,
    /// Before this kernel.
    pub(super) before: Option<KernelVersion>,
}

impl Only {
    /// Whether the rule holds for a container with `caps` on `arch` under `kernel`.
    pub(super) fn holds(&self, caps: CapSet, arch: Arch, kernel: KernelVersion) -> bool {
        let has = |cap: &Option<u32>| cap.is_some_and(|number| caps.contains(number));
        let arch = arch.docker_word();
        self.with.iter().all(has)
            && !self.without.iter().any(has)
            && (self.on.is_empty() || self.on.iter().any(|word| word == arch))
            && !self.not_on.iter().any(|word| word == arch)
            && self.since.is_none_or(|since| kernel >= since)
            && self.before.is_none_or(|before| kernel < before)
    }
}

/// A comparison of one argument, all 64 bits of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Condition {
    /// Which argument, 0 to 5.
    pub(super) argument: u8,
    /// How.
    pub(super) comparison: Comparison,
}

/// A comparison without signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Comparison {
    /// `!=`
    Ne(u64),
    /// `<`
    Lt(u64),
    /// `<=`
    Le(u64),
    /// `==`
    Eq(u64),
    /// `>=`
    Ge(u64),
    /// `>`
    Gt(u64),
    /// `argument & mask == value`
    Masked {
        /// The bits that count.
        mask: u64,
        /// What they must be.
        value: u64,
    },
}

impl Profile {
    /// Architectures whose calls are judged rather than killed on `native`, itself first.
    pub(super) fn architectures_on(&self, native: Arch) -> Vec<Arch> {
        let mut found = vec![native];
        for besides in &self.architectures {
            if besides.native.is_none_or(|on| on == native) {
                let judged = besides.judged.iter();
                found.extend(judged.filter(|other| native.carries(**other)));
            }
        }
        found.sort_by_key(|arch| (*arch != native, *arch));
        found.dedup();
        found
    }
}
