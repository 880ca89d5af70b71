//! Limits on memory and swap as files of the `memory` controller, and the count of kills they
//! caused.

use super::{GroupError, Setting};
use crate::spec::Limits;

/// Limit on memory and swap together; exists only where the kernel counts swap.
pub(super) const SWAP_LIMIT: &str = "memory.memsw.limit_in_bytes";
/// v1 file with the line `oom_kill N` (Linux 4.13).
pub(super) const V1_OOM: &str = "memory.oom_control";
/// v2 file with the same line.
pub(super) const V2_EVENTS: &str = "memory.events";

/// The limit with swap may not be below the one without, so it comes second. A kernel that does not
/// count swap keeps the memory limit alone, unless a limit on swap was asked for.
pub(super) fn v1(limits: &Limits, counts_swap: bool) -> Result<Vec<Setting>, GroupError> {
    if limits.memory_high_bytes.is_some() {
        return Err(GroupError::OnlyV2 {
            limit: "memory_high_bytes",
            file: "memory.high",
        });
    }
    let mut settings = Vec::new();
    if let Some(bytes) = limits.memory_low_bytes {
        let bytes = number(bytes, "-1");
        let file = "memory.soft_limit_in_bytes";
        settings.push(Setting::new("memory_low_bytes", file, bytes));
    }
    let Some(memory) = limits.memory_bytes else {
        return Ok(settings);
    };
    let value = number(memory, "-1");
    settings.push(Setting::new("memory_bytes", "memory.limit_in_bytes", value));
    let limited = |bytes| bytes != Limits::UNLIMITED;
    if counts_swap || limits.swap_bytes.is_some_and(limited) {
        let together = memory.saturating_add(limits.swap_bytes.unwrap_or(0));
        let value = number(together, "-1");
        settings.push(Setting::new("swap_bytes", SWAP_LIMIT, value));
    }
    Ok(settings)
}

/// `counts_swap` says whether the kernel has the file for it.
pub(super) fn v2(limits: &Limits, counts_swap: bool) -> Vec<Setting> {
    let mut settings = Vec::new();
    for (limit, file, bytes) in [
        ("memory_low_bytes", "memory.low", limits.memory_low_bytes),
        ("memory_high_bytes", "memory.high", limits.memory_high_bytes),
        ("memory_bytes", "memory.max", limits.memory_bytes),
    ] {
        settings.extend(bytes.map(|bytes| Setting::new(limit, file, number(bytes, "max"))));
    }
    let default = match limits.memory_bytes {
        Some(Limits::UNLIMITED) => Some(Limits::UNLIMITED),
        bytes => bytes.map(|_| 0),
    };
    let asked = limits.swap_bytes;
    let asked = asked.filter(|bytes| counts_swap || *bytes != Limits::UNLIMITED);
    let swap = asked.or(default.filter(|_| counts_swap));
    let swap = swap.map(|bytes| number(bytes, "max"));
    settings.extend(swap.map(|value| Setting::new("swap_bytes", "memory.swap.max", value)));
    settings
}

fn number(bytes: u64, unlimited: &str) -> String {
    if bytes == Limits::UNLIMITED {
        unlimited.to_owned()
    } else {
        bytes.to_string()
    }
}

/// Reads the count from either version's file; a file without it counts 0.
pub(super) fn oom_kills(text: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill "))
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::shown;
    use super::*;

    #[test]
    fn without_a_word_on_swap_there_is_none() {
        let limits = Limits {
            memory_bytes: Some(33_554_432),
            ..Limits::default()
        };
        let v1 = |swap| shown(&v1(&limits, swap).unwrap());
        assert_eq!(v1(false), "memory.limit_in_bytes=33554432");
        assert_eq!(
            v1(true),
            "memory.limit_in_bytes=33554432 memory.memsw.limit_in_bytes=33554432"
        );
        assert_eq!(
            shown(&v2(&limits, true)),
            "memory.max=33554432 memory.swap.max=0"
        );
        assert_eq!(shown(&v2(&limits, false)), "memory.max=33554432");
    }

    #[test]
    fn swap_is_beside_memory_on_v2_and_part_of_the_sum_on_v1() {
        let limits = Limits {
            memory_bytes: Some(100),
            memory_low_bytes: Some(50),
            swap_bytes: Some(11),
            ..Limits::default()
        };
        assert_eq!(
            shown(&v1(&limits, false).unwrap()),
            "memory.soft_limit_in_bytes=50 memory.limit_in_bytes=100 \
             memory.memsw.limit_in_bytes=111"
        );
        let limits = Limits {
            memory_high_bytes: Some(70),
            ..limits
        };
        assert_eq!(
            shown(&v2(&limits, true)),
            "memory.low=50 memory.high=70 memory.max=100 memory.swap.max=11"
        );
        let refused = v1(&limits, true).unwrap_err().to_string();
        assert!(refused.contains("memory_high_bytes"), "{refused}");
    }

    #[test]
    fn limits_can_be_lifted() {
        let limits = Limits {
            memory_bytes: Some(Limits::UNLIMITED),
            ..Limits::default()
        };
        assert_eq!(
            shown(&v1(&limits, true).unwrap()),
            "memory.limit_in_bytes=-1 memory.memsw.limit_in_bytes=-1"
        );
        assert_eq!(
            shown(&v2(&limits, true)),
            "memory.max=max memory.swap.max=max"
        );
    }

    #[test]
    fn kills_are_counted_in_both_formats() {
        assert_eq!(
            oom_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"),
            3
        );
        assert_eq!(
            oom_kills("low 0\nhigh 0\nmax 9\noom 1\noom_kill 1\noom_group_kill 0\n"),
            1
        );
        assert_eq!(oom_kills(""), 0);
        assert_eq!(oom_kills("oom_kill many"), 0);
    }
}
