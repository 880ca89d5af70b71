//! How many instances of an app may be launched and killed now, from counts alone.
//!
//! Marathon's rolling rule (`core/deployment/impl/TaskReplaceActor.scala`), stated as a rule that
//! holds at every moment instead of a script that runs once: never more than the allowed capacity,
//! never fewer healthy instances than promised by our own doing. Used by the scheduler to decide
//! and by `apply` to check. It does not choose which instances.

use gantry_wire::marathon::UpgradeStrategy;

use crate::state::tasks::Counts;
use crate::state::{AppRecord, State};

/// What is wanted and what is there.
#[derive(Debug, Clone, Copy)]
pub struct Situation {
    /// Instances wanted.
    pub wanted: u32,
    /// Capacity to hold.
    pub strategy: UpgradeStrategy,
    /// Tasks of the current configuration.
    pub current: Counts,
    /// Tasks of all others.
    pub old: Counts,
}

impl Situation {
    /// Of an app.
    #[must_use]
    pub fn of(state: &State, record: &AppRecord) -> Self {
        let (current, old) = state.tasks().counts(&record.spec.id, record.config_version);
        let wanted = record.spec.instances;
        Self {
            wanted,
            strategy: record.spec.upgrade_strategy,
            current,
            old,
        }
    }

    /// Whether nothing is left to do.
    #[must_use]
    pub fn is_reached(&self) -> bool {
        self.old.live == 0
            && self.current.live == self.wanted
            && self.current.running == self.wanted
    }
}

/// What may be done now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moves {
    /// Instances of the current configuration that may be launched.
    pub launch: u32,
    /// Old instances that do not run: all of them may go.
    pub kill_old_waiting: u32,
    /// Old instances that run and may go.
    pub kill_old_running: u32,
    /// Current instances that are too many.
    pub kill_surplus: u32,
}

/// What may be done now.
#[must_use]
pub fn decide(s: &Situation) -> Moves {
    let total = s.current.live.saturating_add(s.old.live);
    let kept = s.current.kept();
    let kill_surplus = kept.saturating_sub(s.wanted);
    if s.old.live == 0 {
        let launch = s.wanted.saturating_sub(total);
        return Moves {
            launch,
            kill_surplus,
            ..Moves::default()
        };
    }
    let wanted = f64::from(s.wanted);
    let min_healthy = (wanted * s.strategy.minimum_health_capacity).ceil() as u32;
    let mut capacity = (wanted * (1.0 + s.strategy.maximum_over_capacity)).floor() as u32;
    let healthy = s.current.running.saturating_add(s.old.running);
    if s.wanted > 0 && capacity <= min_healthy && healthy >= min_healthy {
        // No room to move in: one above capacity, as Marathon does.
        capacity = min_healthy.saturating_add(1);
    }
    let missing = s.wanted.saturating_sub(kept);
    Moves {
        launch: missing.min(capacity.saturating_sub(total)),
        kill_old_waiting: s.old.kept().saturating_sub(s.old.running),
        kill_old_running: healthy.saturating_sub(min_healthy).min(s.old.running),
        kill_surplus,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(live: u32, killing: u32, running: u32) -> Counts {
        Counts {
            live,
            killing,
            running,
        }
    }

    #[test]
    fn the_rolling_rule() {
        let moves = |wanted, min, over, current, old| {
            let strategy = UpgradeStrategy {
                minimum_health_capacity: min,
                maximum_over_capacity: over,
            };
            let m = decide(&Situation {
                wanted,
                strategy,
                current,
                old,
            });
            (
                m.launch,
                m.kill_old_waiting,
                m.kill_old_running,
                m.kill_surplus,
            )
        };
        let none = counts(0, 0, 0);
        // Scaling.
        assert_eq!(moves(3, 1.0, 1.0, none, none), (3, 0, 0, 0));
        assert_eq!(moves(3, 1.0, 1.0, counts(5, 1, 4), none), (0, 0, 0, 1));
        assert_eq!(moves(3, 1.0, 1.0, counts(3, 1, 2), none), (0, 0, 0, 0));
        assert_eq!(moves(0, 1.0, 1.0, counts(2, 0, 2), none), (0, 0, 0, 2));
        // Defaults: twice the capacity, an old one goes for each new one that runs.
        assert_eq!(moves(4, 1.0, 1.0, none, counts(4, 0, 4)), (4, 0, 0, 0));
        assert_eq!(
            moves(4, 1.0, 1.0, counts(4, 0, 1), counts(4, 0, 4)),
            (0, 0, 1, 0)
        );
        // Half may be missing, nothing above.
        assert_eq!(moves(4, 0.5, 0.0, none, counts(4, 0, 4)), (0, 0, 2, 0));
        assert_eq!(moves(4, 0.5, 0.0, none, counts(4, 2, 2)), (0, 0, 0, 0));
        assert_eq!(moves(4, 0.5, 0.0, none, counts(2, 0, 2)), (2, 0, 0, 0));
        // No room: one above capacity.
        assert_eq!(moves(4, 1.0, 0.0, none, counts(4, 0, 4)), (1, 0, 0, 0));
        assert_eq!(
            moves(1, 1.0, 0.0, counts(1, 0, 0), counts(1, 0, 1)),
            (0, 0, 0, 0)
        );
        assert_eq!(
            moves(1, 1.0, 0.0, counts(1, 0, 1), counts(1, 0, 1)),
            (0, 0, 1, 0)
        );
        // Old ones that never ran are no loss.
        assert_eq!(moves(2, 1.0, 0.0, none, counts(2, 0, 0)), (0, 2, 0, 0));
        // Everything goes.
        assert_eq!(moves(0, 1.0, 1.0, none, counts(3, 0, 3)), (0, 0, 3, 0));
        assert_eq!(moves(3, 0.0, 0.0, none, counts(3, 0, 3)), (0, 0, 3, 0));
    }
}
