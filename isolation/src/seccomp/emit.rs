//! Questions about numbers and arguments as instructions.
//!
//! Everything is one shape: a line of numbers cut into ranges, each with a place to go on; it is
//! searched by halves. System call numbers are one such line, the 64 bits of an argument two, the
//! upper half's and the lower half's. Several rules on the same argument are one line too.

use super::assemble::{AND, Assembler, JUMP_EQ, JUMP_GE, JUMP_SET, LOAD, Target};
use super::verdict::Chain;
use super::{Action, Comparison, Condition};

/// `seccomp_data.args[0]`; each has eight bytes, the lower half first on the machines we know.
const ARGUMENTS_AT: u32 = 16;

/// Writes a search of the accumulator in ranges, each given by its start; the first starts at 0.
pub(super) fn search(to: &mut Assembler, ranges: &[(u32, Target)]) -> Target {
    let mut merged: Vec<(u32, Target)> = Vec::with_capacity(ranges.len());
    for range in ranges {
        if merged.last().is_none_or(|last| last.1 != range.1) {
            merged.push(*range);
        }
    }
    halve(to, &merged)
}

fn halve(to: &mut Assembler, ranges: &[(u32, Target)]) -> Target {
    match ranges {
        // No caller has none; were there one, it would refuse.
        [] => Target::Answer(Action::KillProcess),
        [(_, only)] => *only,
        // One number out of a range.
        [(_, around), (number, inside), (next, after)]
            if around == after && number.checked_add(1) == Some(*next) =>
        {
            to.branch(JUMP_EQ, *number, *inside, *around)
        }
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let yes = halve(to, high);
            let no = halve(to, low);
            let start = high.first().map_or(0, |range| range.0);
            to.branch(JUMP_GE, start, yes, no)
        }
    }
}

/// Writes the questions of a chain.
pub(super) fn chain(to: &mut Assembler, chain: &Chain, wide: bool) -> Target {
    let mut next = Target::Answer(chain.otherwise);
    let mut rest = chain.rules.as_slice();
    while let Some(((conditions, action), before)) = rest.split_last() {
        match ordered(conditions) {
            Some(argument) => {
                let same = rest
                    .iter()
                    .rev()
                    .take_while(|(conditions, _)| ordered(conditions) == Some(argument))
                    .count();
                let (before, run) = rest.split_at(rest.len() - same);
                next = line(to, argument, run, next, wide);
                rest = before;
            }
            None => {
                let mut hit = Target::Answer(*action);
                for condition in conditions.iter().rev() {
                    hit = ask(to, *condition, hit, next, wide);
                }
                next = hit;
                rest = before;
            }
        }
    }
    next
}

/// The argument, if the rule is a single question of its order.
fn ordered(conditions: &[Condition]) -> Option<u8> {
    match conditions {
        [one] if !matches!(one.comparison, Comparison::Masked { .. }) => Some(one.argument),
        _ => None,
    }
}

/// The numbers that a comparison holds for, as up to two ranges of start and last.
fn ranges_of(comparison: Comparison) -> [Option<(u64, u64)>; 2] {
    let below = |value: u64| value.checked_sub(1).map(|last| (0, last));
    let above = |value: u64| value.checked_add(1).map(|start| (start, u64::MAX));
    match comparison {
        Comparison::Ne(value) => [below(value), above(value)],
        Comparison::Lt(value) => [below(value), None],
        Comparison::Le(value) => [Some((0, value)), None],
        Comparison::Eq(value) => [Some((value, value)), None],
        Comparison::Ge(value) => [Some((value, u64::MAX)), None],
        Comparison::Gt(value) => [above(value), None],
        Comparison::Masked { .. } => [None, None],
    }
}

fn in_ranges(comparison: Comparison, number: u64) -> bool {
    let ranges = ranges_of(comparison);
    let mut given = ranges.iter().flatten();
    given.any(|(start, last)| (*start..=*last).contains(&number))
}

/// Starts of the ranges in which all of the comparisons answer the same.
fn cuts(comparisons: impl Iterator<Item = Comparison>) -> Vec<u64> {
    let mut cuts = vec![0];
    for (start, last) in comparisons.flat_map(ranges_of).flatten() {
        cuts.push(start);
        cuts.extend(last.checked_add(1));
    }
    cuts.sort_unstable();
    cuts.dedup();
    cuts
}

/// Writes a run of rules that each ask one question about the order of the same argument.
fn line(
    to: &mut Assembler,
    argument: u8,
    run: &[(Vec<Condition>, Action)],
    miss: Target,
    wide: bool,
) -> Target {
    let asked: Vec<(Comparison, Action)> = run
        .iter()
        .filter_map(|(conditions, action)| Some((conditions.first()?.comparison, *action)))
        .collect();
    let answer = |number| {
        let found = asked
            .iter()
            .find(|(comparison, _)| in_ranges(*comparison, number));
        found.map_or(miss, |(_, action)| Target::Answer(*action))
    };
    let starts = cuts(asked.iter().map(|(comparison, _)| *comparison));
    let ranges: Vec<(u64, Target)> = starts.into_iter().map(|at| (at, answer(at))).collect();
    search_argument(to, argument, &ranges, wide)
}

/// Writes one condition.
fn ask(to: &mut Assembler, one: Condition, hit: Target, miss: Target, wide: bool) -> Target {
    if let Comparison::Masked { mask, value } = one.comparison {
        return masked(to, one.argument, (mask, value), hit, miss);
    }
    let starts = cuts(std::iter::once(one.comparison));
    let answer = |number| {
        if in_ranges(one.comparison, number) {
            hit
        } else {
            miss
        }
    };
    let ranges: Vec<(u64, Target)> = starts.into_iter().map(|at| (at, answer(at))).collect();
    search_argument(to, one.argument, &ranges, wide)
}

/// Upper and lower half.
fn halves(number: u64) -> (u32, u32) {
    ((number >> 32) as u32, number as u32)
}

/// Writes a search of an argument; of 32-bit ones only the lower half is looked at.
fn search_argument(
    to: &mut Assembler,
    argument: u8,
    ranges: &[(u64, Target)],
    wide: bool,
) -> Target {
    let at = ARGUMENTS_AT + 8 * u32::from(argument);
    let mut uppers: Vec<(u32, Target)> = Vec::new();
    let mut rest = ranges;
    // Replaced by the first range, which starts at 0.
    let mut reached = Target::Answer(Action::KillProcess);
    while let Some((start, _)) = rest.first() {
        let (upper, _) = halves(*start);
        let same = rest.partition_point(|(start, _)| halves(*start).0 == upper);
        let (group, after) = rest.split_at(same);
        let mut lowers: Vec<(u32, Target)> = Vec::with_capacity(group.len() + 1);
        if halves(*start).1 != 0 {
            lowers.push((0, reached));
        }
        lowers.extend(
            group
                .iter()
                .map(|(start, target)| (halves(*start).1, *target)),
        );
        reached = group.last().map_or(reached, |(_, target)| *target);
        let uniform = lowers
            .windows(2)
            .all(|pair| matches!(pair, [a, b] if a.1 == b.1));
        let found = search(to, &lowers);
        let found = if uniform {
            found
        } else {
            to.step(LOAD, at, found)
        };
        if !wide {
            return found;
        }
        uppers.push((upper, found));
        let next = after.first().map(|(start, _)| halves(*start).0);
        if let Some(above) = upper.checked_add(1)
            && next != Some(above)
        {
            uppers.push((above, reached));
        }
        rest = after;
    }
    let uniform = uppers
        .windows(2)
        .all(|pair| matches!(pair, [a, b] if a.1 == b.1));
    if uniform {
        return uppers.first().map_or(reached, |(_, target)| *target);
    }
    let found = search(to, &uppers);
    to.step(LOAD, at + 4, found)
}

/// Writes `argument & mask == value`.
fn masked(
    to: &mut Assembler,
    argument: u8,
    (mask, value): (u64, u64),
    hit: Target,
    miss: Target,
) -> Target {
    if value & !mask != 0 {
        return miss;
    }
    let at = ARGUMENTS_AT + 8 * u32::from(argument);
    let ((mask_upper, mask_lower), (upper, lower)) = (halves(mask), halves(value));
    let lower_half = masked_half(to, at, (mask_lower, lower), hit, miss);
    masked_half(to, at + 4, (mask_upper, upper), lower_half, miss)
}

fn masked_half(
    to: &mut Assembler,
    at: u32,
    (mask, value): (u32, u32),
    hit: Target,
    miss: Target,
) -> Target {
    if mask == 0 || hit == miss {
        return hit;
    }
    let test = if value == 0 && mask != u32::MAX {
        to.branch(JUMP_SET, mask, miss, hit)
    } else {
        let test = to.branch(JUMP_EQ, value, hit, miss);
        if mask == u32::MAX {
            test
        } else {
            to.step(AND, mask, test)
        }
    };
    to.step(LOAD, at, test)
}
