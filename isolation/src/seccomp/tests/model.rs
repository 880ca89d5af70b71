//! What a profile means, said as plainly as possible and without looking at how filters are made.

use super::super::profile::Only;
use super::super::{Action, Arch, Comparison, Condition, Host, Profile, Rule};
use super::machine::Call;
use crate::caps::CapSet;

/// Whether a condition holds.
fn holds(condition: &Condition, call: &Call, arch: Arch) -> bool {
    let argument = call.arguments[usize::from(condition.argument)];
    // On a 32-bit machine 32 bits of what is written count.
    let cut = |value: u64| {
        if arch == Arch::X86 {
            value & 0xffff_ffff
        } else {
            value
        }
    };
    match condition.comparison {
        Comparison::Ne(value) => argument != cut(value),
        Comparison::Lt(value) => argument < cut(value),
        Comparison::Le(value) => argument <= cut(value),
        Comparison::Eq(value) => argument == cut(value),
        Comparison::Ge(value) => argument >= cut(value),
        Comparison::Gt(value) => argument > cut(value),
        Comparison::Masked { mask, value } => argument & cut(mask) == cut(value),
    }
}

fn rank(action: Action) -> u8 {
    match action {
        Action::KillProcess => 0,
        Action::KillThread => 1,
        Action::Trap => 2,
        Action::Errno(_) => 3,
        Action::Trace(_) => 4,
        Action::Log => 5,
        Action::Allow => 6,
    }
}

fn applies(only: &Only, caps: CapSet, host: Host) -> bool {
    let word = match host.arch {
        Arch::X86_64 => "amd64",
        Arch::X86 => "x86",
        Arch::Aarch64 => "arm64",
    };
    let has = |cap: &Option<u32>| cap.is_some() && caps.bits() >> cap.unwrap() & 1 == 1;
    if only.with.iter().any(|cap| !has(cap)) || only.without.iter().any(has) {
        return false;
    }
    if !only.on.is_empty() && !only.on.iter().any(|on| on == word) {
        return false;
    }
    if only.not_on.iter().any(|on| on == word) {
        return false;
    }
    only.since.is_none_or(|since| host.kernel >= since)
        && only.before.is_none_or(|before| host.kernel < before)
}

/// The rules of a call, each with all of its conditions, two on one argument taken apart.
fn rules_of(rules: &[&Rule], arch: Arch, number: u32) -> Vec<(Vec<Condition>, Action)> {
    let mut found = Vec::new();
    for rule in rules {
        for name in &rule.names {
            if arch.number(name) != Some(number) {
                continue;
            }
            let arguments: Vec<u8> = rule.conditions.iter().map(|one| one.argument).collect();
            let twice = (0..6).any(|n| arguments.iter().filter(|m| **m == n).count() > 1);
            if twice {
                for condition in &rule.conditions {
                    found.push((vec![*condition], rule.action));
                }
            } else {
                found.push((rule.conditions.clone(), rule.action));
            }
        }
    }
    found
}

fn same(a: &Condition, b: &Condition, arch: Arch) -> bool {
    let cut = |value: &u64| {
        if arch == Arch::X86 {
            *value & 0xffff_ffff
        } else {
            *value
        }
    };
    a.argument == b.argument
        && match (&a.comparison, &b.comparison) {
            (Comparison::Eq(a), Comparison::Eq(b))
            | (Comparison::Ne(a), Comparison::Ne(b))
            | (Comparison::Lt(a), Comparison::Lt(b))
            | (Comparison::Le(a), Comparison::Le(b))
            | (Comparison::Ge(a), Comparison::Ge(b))
            | (Comparison::Gt(a), Comparison::Gt(b)) => cut(a) == cut(b),
            (
                Comparison::Masked { mask, value },
                Comparison::Masked {
                    mask: other_mask,
                    value: other,
                },
            ) => cut(mask) == cut(other_mask) && cut(value) == cut(other),
            _ => false,
        }
}

/// What the profile says about a call.
pub(super) fn answer(profile: &Profile, caps: CapSet, host: Host, call: &Call) -> Action {
    let known = profile.architectures_on(host.arch);
    let Some(arch) = known
        .into_iter()
        .find(|arch| arch.audit_number() == call.arch)
    else {
        return Action::KillProcess;
    };
    if arch == Arch::X86_64 && call.number >= 0x4000_0000 {
        return Action::Errno(38);
    }
    let rules: Vec<&Rule> = profile
        .rules
        .iter()
        .filter(|rule| applies(&rule.only, caps, host))
        .collect();
    let names = rules.iter().flat_map(|rule| &rule.names);
    let largest = names.filter_map(|name| arch.number(name)).max();
    if let Some(largest) = largest
        && call.number > largest
        && profile.unknown_is_missing
    {
        return Action::Errno(38);
    }
    let mut all = rules_of(&rules, arch, call.number);
    all.retain(|(conditions, action)| !(conditions.is_empty() && *action == profile.default));
    let stands = |(conditions, action): &&(Vec<Condition>, Action)| {
        !all.iter().any(|(others, other)| {
            rank(*other) < rank(*action)
                && others
                    .iter()
                    .all(|other| conditions.iter().any(|one| same(one, other, arch)))
        })
    };
    // Larger is asked first; among equals the first in the text.
    let weight = |(conditions, action): &(Vec<Condition>, Action)| {
        let equal = |one: &&Condition| matches!(one.comparison, Comparison::Eq(_));
        let equalities = conditions.iter().filter(equal).count();
        let excepts = *action != profile.default;
        let strict = 10 - rank(*action);
        (
            !conditions.is_empty(),
            excepts,
            conditions.len(),
            equalities,
            strict,
        )
    };
    let mut best: Option<&(Vec<Condition>, Action)> = None;
    for rule in all.iter().filter(stands) {
        let matches = rule.0.iter().all(|one| holds(one, call, arch));
        if matches && best.is_none_or(|best| weight(rule) > weight(best)) {
            best = Some(rule);
        }
    }
    best.map_or(profile.default, |(_, action)| *action)
}
