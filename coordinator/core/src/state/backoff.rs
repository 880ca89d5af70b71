//! Launch delays of apps that fail (Marathon's `core/launchqueue/impl/RateLimiter.scala`).
//!
//! One delay per app, for its current configuration. It grows by the app's factor with each
//! failure up to its maximum, its clock starts again when an instance gets going, and it is
//! forgotten when quiet for longer than the maximum. Times are state time, never a clock's.

use gantry_wire::ids::AppId;
use gantry_wire::marathon::App;
use gantry_wire::time::Millis;
use imbl::OrdMap;

/// A launch delay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delay {
    /// Configuration it belongs to.
    pub config_version: Millis,
    /// Its length.
    pub delay_ms: u64,
    /// No launch before.
    pub until: Millis,
}

/// Launch delays of all apps.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Backoffs {
    delays: OrdMap<AppId, Delay>,
}

/// Milliseconds of a number of seconds that was validated; total for any other.
fn to_ms(seconds: f64) -> u64 {
    (seconds * 1000.0).round() as u64
}

impl Backoffs {
    /// The delay of an app, also one that is over.
    #[must_use]
    pub fn get(&self, app: &AppId, config_version: Millis) -> Option<&Delay> {
        self.delays
            .get(app)
            .filter(|d| d.config_version == config_version)
    }

    /// All delays.
    pub fn iter(&self) -> impl Iterator<Item = (&AppId, &Delay)> {
        self.delays.iter()
    }

    /// An instance failed.
    pub(crate) fn failed(&mut self, spec: &App, config_version: Millis, now: Millis) {
        let longest = to_ms(spec.max_launch_delay_seconds);
        let first = to_ms(spec.backoff_seconds);
        let known = self.get(&spec.id, config_version);
        let known = known.filter(|d| now.0 <= d.until.plus_ms(longest).0);
        let delay_ms = known.map_or(first, |d| {
            let grown = (d.delay_ms as f64 * spec.backoff_factor).round() as u64;
            grown.max(first)
        });
        let delay_ms = delay_ms.min(longest);
        let delay = Delay {
            config_version,
            delay_ms,
            until: now.plus_ms(delay_ms),
        };
        self.delays.insert(spec.id.clone(), delay);
    }

    /// An instance got a step further: the clock starts again with the same length.
    pub(crate) fn advanced(&mut self, app: &AppId, config_version: Millis, now: Millis) {
        if let Some(delay) = self.delays.get_mut(app)
            && delay.config_version == config_version
        {
            delay.until = now.plus_ms(delay.delay_ms);
        }
    }

    pub(crate) fn forget(&mut self, app: &AppId) -> bool {
        self.delays.remove(app).is_some()
    }

    pub(crate) fn restore(&mut self, app: AppId, delay: Delay) {
        self.delays.insert(app, delay);
    }
}
