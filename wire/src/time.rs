//! Time as it crosses a boundary: milliseconds since the Unix epoch inside, Marathon's text form
//! outside. Nothing here reads a clock.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Millis {
    /// Reads an ISO-8601 timestamp. `None` when it is not one or lies before 1970.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let ms = text.parse::<jiff::Timestamp>().ok()?.as_millisecond();
        u64::try_from(ms).ok().map(Self)
    }

    /// This much later.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this, zero when it is not earlier.
    #[must_use]
    pub fn since_ms(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Seconds since the epoch with a fraction, as Mesos prints timestamps.
    #[must_use]
    pub fn seconds(self) -> f64 {
        self.0 as f64 / 1000.0
    }
}

impl fmt::Display for Millis {
    /// Marathon's form: UTC, always three digits of fraction, `Z` (`state/Timestamp.scala`).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = i64::try_from(self.0).unwrap_or(i64::MAX);
        match jiff::Timestamp::from_millisecond(ms) {
            Ok(at) => write!(f, "{at:.3}"),
            Err(_) => write!(f, "{}ms", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Millis;

    #[test]
    fn prints_as_marathon_does() {
        let at = Millis::parse("2026-11-22T10:00:00Z").unwrap();
        assert_eq!(at.to_string(), "2026-11-22T10:00:00.000Z");
        assert_eq!(Millis(at.0 + 7).to_string(), "2026-11-22T10:00:00.007Z");
        assert_eq!(Millis(u64::MAX).to_string(), format!("{}ms", u64::MAX));
        assert_eq!(Millis::parse("yesterday"), None);
    }
}
