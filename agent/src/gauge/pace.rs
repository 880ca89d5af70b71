//! When a task's disk is looked at again: soon if it may be full soon, late if nothing can have
//! happened. Pure; time and what is free come as arguments.
//!
//! A task can be past its limit only if the file system lost as much as the task had left, or if
//! others freed as much meanwhile. So what is free, which costs one system call for all tasks, says
//! who is worth a look at once; the usual round catches the rest.

use gantry_isolation::cgroup::Activity;

/// Most time between two looks at a task that does something, in milliseconds.
pub(super) const ROUND_MS: u64 = 5_000;
/// Least time between two looks at a task, in milliseconds.
const LEAST_MS: u64 = 200;
/// A task that did nothing is looked at all the same after this: what others put into its
/// directories is not its doing. In milliseconds.
const IDLE_MS: u64 = 600_000;
/// One that cannot be counted without hanging is left alone so long, in milliseconds.
const HUNG_MS: u64 = 60_000;

/// How urgent a look is; the smaller comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Urgency {
    /// It may be past its limit by now.
    Fell,
    /// It is its turn.
    Turn,
}

/// One task's.
#[derive(Debug, Clone, Default)]
pub(super) struct Pace {
    /// When the last look began; None before the first.
    looked_ms: Option<u64>,
    next_ms: u64,
    /// What was free then.
    free_bytes: u64,
    used_bytes: u64,
    room_bytes: u64,
    activity: Option<Activity>,
    /// When the last look began that was no mere glance at its activity.
    counted_ms: u64,
    /// Something is to be watched closely, active or not.
    watchful: bool,
}

/// How things were when a look began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beginning {
    pub(super) now_ms: u64,
    pub(super) free_bytes: u64,
    pub(super) activity: Option<Activity>,
}

impl Pace {
    /// Whether to look now.
    pub(super) fn urgency(&self, now_ms: u64, free_bytes: u64) -> Option<Urgency> {
        let Some(looked_ms) = self.looked_ms else {
            return Some(Urgency::Fell);
        };
        let since_ms = now_ms.saturating_sub(looked_ms);
        let fell = self.free_bytes.saturating_sub(free_bytes);
        if since_ms >= LEAST_MS && fell > 0 && fell >= self.room_bytes / 2 {
            return Some(Urgency::Fell);
        }
        (self.next_ms <= now_ms).then_some(Urgency::Turn)
    }

    /// Whether it did nothing since the last look; then the next one is put off.
    pub(super) fn is_idle(&mut self, at: Beginning) -> bool {
        let same = at.activity.is_some() && at.activity == self.activity;
        let recent = at.now_ms.saturating_sub(self.counted_ms) < IDLE_MS;
        if self.looked_ms.is_none() || !same || !recent || self.watchful {
            return false;
        }
        (self.looked_ms, self.free_bytes) = (Some(at.now_ms), at.free_bytes);
        self.next_ms = at.now_ms + ROUND_MS;
        true
    }

    /// It was counted.
    pub(super) fn counted(
        &mut self,
        at: Beginning,
        (used_bytes, limit_bytes): (u64, u64),
        watchful: bool,
    ) {
        let room_bytes = limit_bytes.saturating_sub(used_bytes);
        let took_ms = self.looked_ms.map(|last| at.now_ms.saturating_sub(last));
        let grew_bytes = used_bytes.saturating_sub(self.used_bytes);
        // Half of the time until it would be full.
        let wait_ms = match took_ms {
            Some(took_ms) if grew_bytes > 0 => {
                let full_ms = u128::from(room_bytes) * u128::from(took_ms) / u128::from(grew_bytes);
                u64::try_from(full_ms / 2).unwrap_or(u64::MAX)
            }
            _ => ROUND_MS,
        };
        self.looked_ms = Some(at.now_ms);
        self.counted_ms = at.now_ms;
        self.next_ms = at.now_ms + wait_ms.clamp(LEAST_MS, ROUND_MS);
        self.activity = at.activity;
        self.free_bytes = at.free_bytes;
        (self.used_bytes, self.room_bytes) = (used_bytes, room_bytes);
        self.watchful = watchful;
    }

    /// It could not be looked at.
    pub(super) fn failed(&mut self, now_ms: u64) {
        self.looked_ms = Some(self.looked_ms.unwrap_or(now_ms));
        self.next_ms = now_ms + ROUND_MS;
        self.free_bytes = 0;
    }

    /// Looking at it hung, and held up others.
    pub(super) fn hung(&mut self, now_ms: u64) {
        self.failed(now_ms);
        self.next_ms = now_ms + HUNG_MS;
    }

    /// What it has left.
    pub(super) fn room_bytes(&self) -> u64 {
        self.room_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn at(now_ms: u64, free_mib: u64) -> Beginning {
        Beginning {
            now_ms,
            free_bytes: free_mib * MIB,
            activity: None,
        }
    }

    /// Looked at at 10 s with 1,000 MiB free: it used 20 MiB of 100.
    fn looked() -> Pace {
        let mut pace = Pace::default();
        assert_eq!(pace.urgency(0, 0), Some(Urgency::Fell));
        pace.counted(at(10_000, 1_000), (20 * MIB, 100 * MIB), false);
        pace
    }

    #[test]
    fn looks_come_with_time_and_when_enough_is_gone() {
        let pace = looked();
        for (now_ms, free_mib, want) in [
            (10_000, 1_000, None),
            (14_999, 1_000, None),
            (15_000, 1_000, Some(Urgency::Turn)),
            // Half of what it had left.
            (10_200, 960, Some(Urgency::Fell)),
            (10_200, 961, None),
            (10_199, 0, None),
            // Others made room.
            (12_000, 2_000, None),
        ] {
            let found = pace.urgency(now_ms, free_mib * MIB);
            assert_eq!(found, want, "{now_ms} {free_mib}");
        }
        let mut full = looked();
        full.counted(at(11_000, 1_000), (100 * MIB, 100 * MIB), false);
        assert_eq!(full.urgency(11_200, 1_000 * MIB), Some(Urgency::Turn));
    }

    #[test]
    fn what_grows_is_looked_at_before_it_is_full() {
        for (used_mib, next_ms) in [
            (20, 15_000),
            // 10 MiB a second: 70 MiB last 7 s.
            (30, 14_500),
            // 40 MiB last one.
            (60, 11_500),
            (99, 11_200),
            (101, 11_200),
        ] {
            let mut pace = looked();
            pace.counted(at(11_000, 1_000), (used_mib * MIB, 100 * MIB), false);
            let next_ms = if used_mib == 20 { 16_000 } else { next_ms };
            assert_eq!(pace.urgency(next_ms - 1, 1_000 * MIB), None, "{used_mib}");
            let found = pace.urgency(next_ms, 1_000 * MIB);
            assert_eq!(found, Some(Urgency::Turn), "{used_mib}");
        }
    }
}
