//! The memory limit as files of the `memory` controller, and the count of kills it caused.

use super::Setting;
use crate::spec::Limits;

/// Limit on memory and swap together; exists only where the kernel counts swap.
pub(super) const SWAP_LIMIT: &str = "memory.memsw.limit_in_bytes";
/// v1 file with the line `oom_kill N` (Linux 4.13).
pub(super) const V1_OOM: &str = "memory.oom_control";
/// v2 file with the same line.
pub(super) const V2_EVENTS: &str = "memory.events";

/// The swap limit may not be below the memory limit, so it comes second.
pub(super) fn v1(limits: &Limits, swap: bool) -> Vec<Setting> {
    let Some(bytes) = limits.memory_bytes else {
        return Vec::new();
    };
    let mut settings = vec![Setting::new("memory.limit_in_bytes", bytes)];
    if swap {
        settings.push(Setting::new(SWAP_LIMIT, bytes));
    }
    settings
}

pub(super) fn v2(limits: &Limits) -> Vec<Setting> {
    let Some(bytes) = limits.memory_bytes else {
        return Vec::new();
    };
    vec![
        Setting::new("memory.max", bytes),
        Setting::new("memory.swap.max", 0),
    ]
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
    use super::*;

    #[test]
    fn swap_is_part_of_the_limit() {
        let limits = Limits {
            memory_bytes: Some(33_554_432),
            ..Limits::default()
        };
        assert_eq!(v1(&limits, false).len(), 1);
        assert_eq!(v1(&limits, true)[1], Setting::new(SWAP_LIMIT, 33_554_432));
        assert_eq!(v2(&limits)[1], Setting::new("memory.swap.max", 0));
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
