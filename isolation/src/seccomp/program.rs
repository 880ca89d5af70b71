//! From a profile to the instructions that the kernel takes.
//!
//! The order of questions: the architecture, then the number. It deliberately has no question of
//! its own for x32 and for numbers that the profile is too old for: both are ranges of the line of
//! numbers, which fail with ENOSYS.

use std::collections::{BTreeMap, BTreeSet};

use libc::sock_filter;

use super::arch::X32_BIT;
use super::assemble::{Assembler, JUMP_EQ, LOAD, Target};
use super::verdict::{self, Chain};
use super::{Action, Arch, Host, Profile, SeccompError, emit};
use crate::caps::CapSet;

/// Longest program that the kernel takes (`BPF_MAXINSNS`).
pub const MAX_INSTRUCTIONS: usize = libc::BPF_MAXINSNS as usize;

/// `seccomp_data.nr`
const NUMBER_AT: u32 = 0;
/// `seccomp_data.arch`
const ARCH_AT: u32 = 4;
/// As if the kernel had no such call, so that libraries fall back.
const MISSING: Action = Action::Errno(libc::ENOSYS as u16);

/// A filter, ready for `seccomp(2)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    instructions: Vec<sock_filter>,
    flags: u32,
    unknown_names: Vec<String>,
}

impl Program {
    /// Makes the filter for a container with `caps` (its bounding set) on `host`.
    ///
    /// # Errors
    /// [`SeccompError::TooLong`], or too many rules for one call.
    pub fn compile(profile: &Profile, caps: CapSet, host: Host) -> Result<Self, SeccompError> {
        let mut to = Assembler::default();
        let architectures = profile.architectures_on(host.arch);
        let mut next = Target::Answer(Action::KillProcess);
        let mut sections = Vec::new();
        for arch in &architectures {
            let chains = verdict::chains(profile, caps, host, *arch)?;
            let entry = section(&mut to, profile, &chains, *arch)?;
            sections.push((*arch, to.step(LOAD, NUMBER_AT, entry)));
        }
        // The native architecture is asked for first.
        for (arch, entry) in sections.into_iter().rev() {
            next = to.branch(JUMP_EQ, arch.audit_number(), entry, next);
        }
        to.step(LOAD, ARCH_AT, next);
        fits(&to)?;
        Ok(Self {
            instructions: to.finish(),
            flags: profile.flags,
            unknown_names: unknown_names(profile, &architectures),
        })
    }

    /// The instructions, at most [`MAX_INSTRUCTIONS`], at least one.
    pub fn instructions(&self) -> &[sock_filter] {
        &self.instructions
    }

    /// `SECCOMP_FILTER_FLAG_TSYNC`, `_LOG` and `_SPEC_ALLOW`.
    pub fn flags(&self) -> u32 {
        self.flags
    }

    /// Names in the profile that no architecture it is used for has a call of: misspelt, of other
    /// machines or of newer kernels. They have no effect.
    pub fn unknown_names(&self) -> &[String] {
        &self.unknown_names
    }
}

fn fits(to: &Assembler) -> Result<(), SeccompError> {
    if to.len() > MAX_INSTRUCTIONS {
        Err(SeccompError::TooLong(to.len()))
    } else {
        Ok(())
    }
}

/// Writes the questions for one architecture; the accumulator holds the number at its entry.
fn section(
    to: &mut Assembler,
    profile: &Profile,
    chains: &BTreeMap<u32, Chain>,
    arch: Arch,
) -> Result<Target, SeccompError> {
    let default = Target::Answer(profile.default);
    let mut written: BTreeMap<&Chain, Target> = BTreeMap::new();
    let mut ranges = Vec::with_capacity(2 * chains.len() + 2);
    let mut next = 0;
    for (number, chain) in chains {
        let target = match written.get(chain) {
            Some(target) => *target,
            None => {
                let target = emit::chain(to, chain, !arch.is_32_bit());
                fits(to)?;
                written.insert(chain, target);
                target
            }
        };
        if *number > next {
            ranges.push((next, default));
        }
        ranges.push((*number, target));
        next = *number + 1;
    }
    // As runc: only where there is a rule at all, and the default does not let calls through.
    let newer_is_missing = profile.unknown_is_missing && !chains.is_empty();
    let newer = if newer_is_missing {
        Target::Answer(MISSING)
    } else {
        default
    };
    ranges.push((next, newer));
    if arch == Arch::X86_64 {
        ranges.push((X32_BIT, Target::Answer(MISSING)));
    }
    Ok(emit::search(to, &ranges))
}

fn unknown_names(profile: &Profile, architectures: &[Arch]) -> Vec<String> {
    let names = profile.rules.iter().flat_map(|rule| &rule.names);
    let unknown: BTreeSet<&String> = names
        .filter(|name| architectures.iter().all(|arch| arch.number(name).is_none()))
        .collect();
    unknown.into_iter().cloned().collect()
}
