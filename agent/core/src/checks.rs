//! When a running task is looked at, and what to make of what is seen: the checks of one task
//! (Mesos: `src/checks/health_checker.cpp`, `checker_process.cpp`).
//!
//! ```text
//! running ──delay──▶ probe ──▶ result ──interval──▶ probe …
//! ```
//! A failure of health in the time of grace does not count before the first success. Every failure
//! that counts is told, a success only when it is the first or follows a failure; a value is told
//! when it changes. It deliberately does not know how a probe is made. Invariants: of each check at
//! most one probe is out; a probe that was asked for is answered, or the task ends.

use gantry_wire::check::{Check, CheckResult, Purpose};

/// Most checks of a task; more are not made.
pub const CHECKS_MAX: usize = 32;
/// Shortest time between two probes of a check, in milliseconds.
pub const INTERVAL_MIN_MS: u64 = 100;

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The task answered.
    Answer {
        /// Exit status, HTTP status, or 1 for a connection that was taken.
        value: i32,
        /// Whether that is a success.
        passed: bool,
    },
    /// There was no answer, in time or at all.
    Nothing {
        /// For people.
        cause: String,
    },
    /// What was seen says nothing about the task.
    Unclear,
}

/// What is to be done because of a result.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct News {
    pub(crate) result: CheckResult,
    pub(crate) purpose: Purpose,
    /// The task is to be killed for it.
    pub(crate) kill: bool,
}

impl News {
    /// In a sentence.
    pub(crate) fn words(&self, checks: &[Check]) -> String {
        let result = &self.result;
        let index = usize::try_from(result.index).unwrap_or(usize::MAX);
        let name = checks.get(index).map_or("", |check| check.name.as_str());
        let named = if name.is_empty() {
            String::new()
        } else {
            format!(" '{name}'")
        };
        let seen = match (result.value, result.cause.as_str()) {
            (Some(value), _) => format!(" ({value})"),
            (None, "") => String::new(),
            (None, cause) => format!(": {cause}"),
        };
        match (self.purpose, result.passed) {
            (Purpose::Health, true) => format!("The health check{named} succeeds"),
            (Purpose::Health, false) => {
                let count = result.failures;
                let times = if count == 1 { "time" } else { "times in a row" };
                format!("The health check{named} failed {count} {times}{seen}")
            }
            (Purpose::Readiness, true) => format!("The task is ready{named}"),
            (Purpose::Readiness, false) => format!("The task is not ready{named}{seen}"),
            (Purpose::Value, _) => format!("The check{named} gives another value{seen}"),
        }
    }
}

/// The checks of one task.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    states: Vec<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When the next probe is due; none while one is out, or while the task does not run.
    due_ms: Option<u64>,
    out: bool,
    /// Until when failures do not count.
    grace_until_ms: u64,
    failures: u32,
    /// The last that was told.
    passed: Option<bool>,
    value: Option<i32>,
    told: bool,
}

impl Checks {
    /// With what was known of each before the agent was restarted.
    pub(crate) fn restore(passed: Vec<Option<bool>>) -> Self {
        let state = |passed| State {
            passed,
            ..State::default()
        };
        Self {
            states: passed.into_iter().map(state).collect(),
        }
    }

    /// Whether each passed when last told.
    pub(crate) fn passed(&self) -> Vec<Option<bool>> {
        self.states.iter().map(|state| state.passed).collect()
    }

    /// The task runs, as is known from now on, or again.
    pub(crate) fn begin(&mut self, checks: &[Check], now_ms: u64) {
        let count = checks.len().min(CHECKS_MAX);
        self.states.resize_with(count, State::default);
        for (state, check) in self.states.iter_mut().zip(checks) {
            if state.out || state.due_ms.is_some() {
                continue;
            }
            state.due_ms = Some(now_ms.saturating_add(check.delay_ms));
            state.grace_until_ms = now_ms.saturating_add(check.grace_ms);
        }
    }

    /// The task is to end: it is not looked at any more.
    pub(crate) fn end(&mut self) {
        for state in &mut self.states {
            state.due_ms = None;
            state.out = false;
        }
    }

    /// When a probe is due, if one is.
    pub(crate) fn due_ms(&self) -> Option<u64> {
        self.states.iter().filter_map(|state| state.due_ms).min()
    }

    /// The checks whose probe is due; it is out from now on.
    pub(crate) fn take_due(&mut self, now_ms: u64) -> Vec<usize> {
        let mut due = Vec::new();
        for (index, state) in self.states.iter_mut().enumerate() {
            if state.due_ms.is_some_and(|due_ms| due_ms <= now_ms) {
                state.due_ms = None;
                state.out = true;
                due.push(index);
            }
        }
        due
    }

    /// Whether all checks of health passed, as far as is known: none before each was told once.
    pub(crate) fn healthy(&self, checks: &[Check]) -> Option<bool> {
        let of_health = self.states.iter().zip(checks);
        let mut of_health = of_health
            .filter(|(_, check)| check.purpose() == Purpose::Health)
            .map(|(state, _)| state.passed)
            .peekable();
        of_health.peek()?;
        // A failure outweighs what is not known, which outweighs a success.
        of_health
            .try_fold(Some(true), |all, passed| match passed {
                Some(false) => Err(false),
                None => Ok(None),
                Some(true) => Ok(all),
            })
            .unwrap_or_else(Some)
    }

    /// Takes in the result of a probe.
    pub(crate) fn heard(
        &mut self,
        index: usize,
        found: &Found,
        checks: &[Check],
        now_ms: u64,
    ) -> Option<News> {
        let (state, check) = (self.states.get_mut(index)?, checks.get(index)?);
        if !std::mem::take(&mut state.out) {
            return None;
        }
        let interval_ms = check.interval_ms.max(INTERVAL_MIN_MS);
        state.due_ms = Some(now_ms.saturating_add(interval_ms));
        let (value, passed, cause) = match found {
            Found::Unclear => return None,
            Found::Answer { value, passed } => (Some(*value), *passed, String::new()),
            Found::Nothing { cause } => (None, false, cause.clone()),
        };
        let purpose = check.purpose();
        let tell = match purpose {
            Purpose::Health => state.judge(passed, now_ms),
            Purpose::Value => !state.told || (state.value, state.passed) != (value, Some(passed)),
            Purpose::Readiness => state.passed != Some(passed),
        };
        if !tell {
            return None;
        }
        (state.told, state.passed, state.value) = (true, Some(passed), value);
        let limit = check.failures_to_kill;
        let failed_too_often = limit > 0 && state.failures >= limit;
        Some(News {
            kill: purpose == Purpose::Health && !passed && failed_too_often,
            purpose,
            result: CheckResult {
                index: u32::try_from(index).unwrap_or(u32::MAX),
                passed,
                value,
                failures: state.failures,
                cause,
            },
        })
    }
}

impl State {
    /// Counts a result of health; whether it is told.
    fn judge(&mut self, passed: bool, now_ms: u64) -> bool {
        if passed {
            self.failures = 0;
            return self.passed != Some(true);
        }
        if self.passed.is_none() && now_ms <= self.grace_until_ms {
            return false;
        }
        self.failures = self.failures.saturating_add(1);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: Found = Found::Answer {
        value: 200,
        passed: true,
    };
    const BAD: Found = Found::Answer {
        value: 500,
        passed: false,
    };

    fn nothing() -> Found {
        Found::Nothing {
            cause: "connection refused".to_owned(),
        }
    }

    fn check(purpose: Purpose) -> Check {
        Check {
            purpose: purpose as i32,
            delay_ms: 15_000,
            interval_ms: 10_000,
            grace_ms: 30_000,
            failures_to_kill: 3,
            ..Check::default()
        }
    }

    /// Probes once per interval from the start; what was told, on a line each.
    fn told(check: &Check, found: &[Found]) -> Vec<String> {
        let checks = std::slice::from_ref(check);
        let mut state = Checks::default();
        state.begin(checks, 0);
        let mut lines = Vec::new();
        for found in found {
            let now = state.due_ms().unwrap();
            assert_eq!(state.take_due(now - 1), Vec::<usize>::new());
            assert_eq!(state.take_due(now), [0]);
            assert_eq!(state.due_ms(), None, "one at a time");
            if let Some(news) = state.heard(0, found, checks, now) {
                let result = news.result;
                let value = result
                    .value
                    .map_or("-".to_owned(), |value| value.to_string());
                let kill = if news.kill { " kill" } else { "" };
                lines.push(format!(
                    "{} {} {value} {}{kill}",
                    now / 1000,
                    result.passed,
                    result.failures
                ));
            }
        }
        lines
    }

    #[test]
    fn failures_in_the_time_of_grace_do_not_count_before_a_success() {
        let health = check(Purpose::Health);
        let lines = told(&health, &[nothing(), nothing(), BAD, BAD, nothing()]);
        assert_eq!(
            lines,
            ["35 false 500 1", "45 false 500 2", "55 false - 3 kill"]
        );
        let lines = told(&health, &[OK, OK, BAD, OK, OK]);
        assert_eq!(lines, ["15 true 200 0", "35 false 500 1", "45 true 200 0"]);
        let lines = told(&health, &[OK, BAD, BAD, BAD]);
        assert_eq!(
            lines,
            [
                "15 true 200 0",
                "25 false 500 1",
                "35 false 500 2",
                "45 false 500 3 kill"
            ]
        );
    }

    #[test]
    fn without_a_limit_nothing_is_killed() {
        let health = Check {
            failures_to_kill: 0,
            grace_ms: 0,
            ..check(Purpose::Health)
        };
        let lines = told(&health, &[BAD, BAD]);
        assert_eq!(lines, ["15 false 500 1", "25 false 500 2"]);
    }

    #[test]
    fn a_value_is_told_when_it_changes() {
        let value = check(Purpose::Value);
        let lines = told(
            &value,
            &[nothing(), nothing(), OK, OK, BAD, Found::Unclear, BAD],
        );
        assert_eq!(
            lines,
            ["15 false - 0", "35 true 200 0", "55 false 500 0"],
            "never a reason to kill"
        );
        let ready = check(Purpose::Readiness);
        let lines = told(&ready, &[BAD, nothing(), OK, OK]);
        assert_eq!(lines, ["15 false 500 0", "35 true 200 0"]);
    }

    #[test]
    fn what_says_nothing_changes_nothing() {
        let health = Check {
            grace_ms: 0,
            ..check(Purpose::Health)
        };
        let lines = told(&health, &[BAD, Found::Unclear, BAD]);
        assert_eq!(lines, ["15 false 500 1", "35 false 500 2"]);
    }

    #[test]
    fn a_task_is_healthy_when_all_its_checks_are() {
        let checks = [
            check(Purpose::Health),
            check(Purpose::Value),
            check(Purpose::Health),
        ];
        let healthy = |passed: [Option<bool>; 3]| Checks::restore(passed.to_vec()).healthy(&checks);
        let (yes, no) = (Some(true), Some(false));
        for (passed, want) in [
            ([None, None, None], None),
            ([yes, no, None], None),
            ([None, no, yes], None),
            ([yes, no, yes], yes),
            ([yes, no, no], no),
            ([no, yes, None], no),
            ([None, yes, no], no),
        ] {
            assert_eq!(healthy(passed), want, "{passed:?}");
        }
        assert_eq!(Checks::default().healthy(&[]), None);
    }

    #[test]
    fn a_late_answer_of_an_ending_task_is_nothing() {
        let checks = [check(Purpose::Health)];
        let mut state = Checks::default();
        state.begin(&checks, 0);
        assert_eq!(state.take_due(15_000), [0]);
        state.end();
        assert_eq!(state.heard(0, &BAD, &checks, 50_000), None);
        assert_eq!(state.heard(7, &BAD, &checks, 50_000), None);
        assert_eq!(state.due_ms(), None);
    }
}
