//! Which rule of a profile answers a call.
//!
//! For one architecture and one set of capabilities it makes, for every number that the profile
//! knows, a [`Chain`] to be asked from the front. What `emit` and the tests' model do with a chain
//! is the same: the first whose conditions all hold.
//!
//! Among the rules of one call, those with more conditions are asked first, of as many conditions
//! those with more `==`, of those the stricter, then in the order of the text. Behind them come
//! those that repeat the default (runc passes over them), last a rule without conditions; one
//! without conditions that repeats the default is nothing.
//!
//! Contradictions: a rule goes when another one, with fewer or the same conditions, is stricter.
//! libseccomp drops one of the two there by the order they are added in; this is never laxer.
//! Where conditions only overlap, libseccomp's answer depends on the numbers of the arguments
//! (and 2.5 mixes up rules that share one); this keeps to the order above.

use std::collections::BTreeMap;

use super::{Action, Arch, Comparison, Condition, Host, Profile, Rule, SeccompError};
use crate::caps::CapSet;

/// Rules with conditions for one call.
pub const MAX_RULES_PER_CALL: usize = 256;

/// What to ask about one call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Chain {
    /// The first whose conditions all hold answers.
    pub(super) rules: Vec<(Vec<Condition>, Action)>,
    /// The answer when none does.
    pub(super) otherwise: Action,
}

/// The calls of one architecture that a profile knows, by number.
pub(super) fn chains(
    profile: &Profile,
    caps: CapSet,
    host: Host,
    arch: Arch,
) -> Result<BTreeMap<u32, Chain>, SeccompError> {
    let mut found: BTreeMap<u32, Vec<(Vec<Condition>, Action)>> = BTreeMap::new();
    for rule in &profile.rules {
        if !rule.only.holds(caps, host.arch, host.kernel) {
            continue;
        }
        let alternatives = alternatives(rule, arch);
        for number in rule.names.iter().filter_map(|name| arch.number(name)) {
            let list = found.entry(number).or_default();
            list.extend(alternatives.iter().cloned());
            if list.len() > MAX_RULES_PER_CALL {
                return Err(SeccompError::TooMany {
                    what: "rules for one call",
                    got: list.len(),
                    max: MAX_RULES_PER_CALL,
                });
            }
        }
    }
    let settled = found.into_iter();
    Ok(settled
        .map(|(number, list)| (number, settle(list, profile.default)))
        .collect())
}

/// The rule as written, or one for each condition when two compare the same argument: both runc
/// and crun do that, and profiles rely on it.
fn alternatives(rule: &Rule, arch: Arch) -> Vec<(Vec<Condition>, Action)> {
    let mut conditions: Vec<Condition> = rule
        .conditions
        .iter()
        .map(|condition| narrowed(*condition, arch))
        .collect();
    conditions.sort_unstable();
    let twice = conditions
        .windows(2)
        .any(|pair| matches!(pair, [a, b] if a.argument == b.argument));
    if twice {
        conditions.dedup();
        let each = conditions.into_iter();
        each.map(|condition| (vec![condition], rule.action))
            .collect()
    } else {
        vec![(conditions, rule.action)]
    }
}

/// A 32-bit argument is shown with an upper half of zero. Profiles write negative ones with an
/// upper half of ones: as for libseccomp, only the lower half of what is written counts.
fn narrowed(condition: Condition, arch: Arch) -> Condition {
    if !arch.is_32_bit() {
        return condition;
    }
    let low = u64::from(u32::MAX);
    let comparison = match condition.comparison {
        Comparison::Ne(value) => Comparison::Ne(value & low),
        Comparison::Lt(value) => Comparison::Lt(value & low),
        Comparison::Le(value) => Comparison::Le(value & low),
        Comparison::Eq(value) => Comparison::Eq(value & low),
        Comparison::Ge(value) => Comparison::Ge(value & low),
        Comparison::Gt(value) => Comparison::Gt(value & low),
        Comparison::Masked { mask, value } => Comparison::Masked {
            mask: mask & low,
            value: value & low,
        },
    };
    Condition {
        comparison,
        ..condition
    }
}

fn settle(mut list: Vec<(Vec<Condition>, Action)>, default: Action) -> Chain {
    list.retain(|(conditions, action)| !conditions.is_empty() || *action != default);
    let kept: Vec<bool> = list
        .iter()
        .map(|(conditions, action)| {
            !list.iter().any(|(others, other)| {
                other.is_stricter_than(*action) && others.iter().all(|one| conditions.contains(one))
            })
        })
        .collect();
    let mut kept = kept.into_iter();
    list.retain(|_| kept.next().unwrap_or(true));
    let equalities = |conditions: &[Condition]| {
        let equal = |one: &&Condition| matches!(one.comparison, Comparison::Eq(_));
        conditions.iter().filter(equal).count()
    };
    list.sort_by_key(|(conditions, action)| {
        let asks = !conditions.is_empty();
        let excepts = asks && *action != default;
        let weight = (asks, excepts, conditions.len(), equalities(conditions));
        (std::cmp::Reverse(weight), action.strictness())
    });
    let end = list
        .iter()
        .position(|(conditions, _)| conditions.is_empty());
    let otherwise = end
        .and_then(|end| list.get(end))
        .map_or(default, |(_, action)| *action);
    list.truncate(end.unwrap_or(list.len()));
    while list.last().is_some_and(|(_, action)| *action == otherwise) {
        list.pop();
    }
    Chain {
        rules: list,
        otherwise,
    }
}
