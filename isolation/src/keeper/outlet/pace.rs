//! How soon a stream gets its next turn: at once, after a rest, or when its pipe speaks.
//!
//! A container chooses how it writes, and each turn costs the node the same whether it moves one
//! byte or many. So a stream that was quiet is served at once, and one that keeps writing is served
//! in larger and larger pieces, until a turn finds its pipe half full or it rested [`LONGEST`]. It
//! deliberately knows no clock and no pipe. Invariant: nothing waits in a pipe for longer than
//! [`LONGEST`] on account of it, and a stream that writes without end gets a turn each [`LONGEST`] at
//! most, unless there is enough in it to be worth more.

use std::time::{Duration, Instant};

/// The shortest rest.
const SHORTEST: Duration = Duration::from_micros(500);
/// The longest, which is [`SHORTEST`] doubled as often as [`MAX_LEVEL`] says.
const LONGEST: Duration = Duration::from_millis(16);
const MAX_LEVEL: u32 = 6;
/// A stream that had no turn for so long was quiet.
const QUIET: Duration = Duration::from_millis(100);

/// What a stream does after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Another turn, when the others had theirs.
    Again,
    /// One after this time.
    Rest(Duration),
    /// One when its pipe speaks.
    Listen,
}

/// How a stream has been writing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    /// 0 never rests; each further one rests twice as long.
    level: u32,
    last: Option<Instant>,
}

impl Pace {
    /// After a turn that found `found` bytes in a pipe that holds `room`.
    pub(super) fn next(&mut self, found: usize, room: usize, now: Instant) -> Next {
        if found == 0 {
            return Next::Listen;
        }
        let last = self.last.replace(now);
        let was_quiet = last.is_none_or(|last| now.saturating_duration_since(last) >= QUIET);
        if was_quiet && found < room / 2 {
            self.level = 0;
            return Next::Listen;
        }
        if found >= room / 2 {
            self.level = self.level.saturating_sub(1);
        } else if found < room / 8 {
            self.level = (self.level + 1).min(MAX_LEVEL);
        }
        match self.level {
            0 => Next::Again,
            level => Next::Rest((SHORTEST * (1 << (level - 1))).min(LONGEST)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: usize = 64 << 10;

    /// What a stream does that has `found` in each of so many turns, `gap` apart.
    fn after(found: usize, turns: u32, gap: Duration) -> Next {
        let (mut pace, begin) = (Pace::default(), Instant::now());
        let all = (0..turns).map(|turn| pace.next(found, ROOM, begin + gap * turn));
        all.last().unwrap()
    }

    #[test]
    fn who_is_quiet_is_heard_at_once() {
        assert_eq!(after(80, 100, QUIET), Next::Listen);
        assert_eq!(after(80, 1, Duration::ZERO), Next::Listen);
    }

    #[test]
    fn who_writes_bytes_without_end_is_heard_ever_more_seldom() {
        let gap = Duration::from_millis(1);
        assert_eq!(after(1, 2, gap), Next::Rest(SHORTEST));
        assert_eq!(after(1, 3, gap), Next::Rest(SHORTEST * 2));
        assert_eq!(after(1, 99, gap), Next::Rest(LONGEST));
    }

    #[test]
    fn who_fills_its_pipe_never_rests() {
        let gap = Duration::from_millis(1);
        assert_eq!(after(ROOM, 1, gap), Next::Again);
        assert_eq!(after(ROOM / 2, 99, gap), Next::Again);
    }

    #[test]
    fn who_becomes_loud_rests_less() {
        let (mut pace, begin) = (Pace::default(), Instant::now());
        let mut at = |found, ms| pace.next(found, ROOM, begin + Duration::from_millis(ms));
        for ms in 0..20 {
            at(1, ms);
        }
        assert_eq!(at(ROOM, 20), Next::Rest(LONGEST / 2));
        for ms in 21..26 {
            at(ROOM, ms);
        }
        assert_eq!(at(ROOM, 26), Next::Again);
        // An empty pipe says nothing about how it was filled.
        assert_eq!(at(0, 27), Next::Listen);
        assert_eq!(at(1, 28), Next::Rest(SHORTEST));
    }
}
