//! How much is logged, and for how long more than usual. Levels are Mesos's: 0 is what is always
//! said, 1 is debugging, 2 and more is everything.
//!
//! It decides when to go back; whoever owns the log ([`Verbosity::new`]) carries out. Invariant: at
//! most one return to the usual level is due.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::AbortHandle;

/// The level of a log that can be changed while it is written.
#[derive(Clone)]
pub struct Verbosity(Arc<Inner>);

struct Inner {
    usual: u32,
    set: Box<dyn Fn(u32) + Send + Sync>,
    now: Mutex<Now>,
}

struct Now {
    level: u32,
    /// Counts settings; only the last one's end counts.
    turn: u64,
    back: Option<AbortHandle>,
}

/// The level is less than the usual one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("'{level}' < original level '{usual}'")]
pub(crate) struct TooQuiet {
    level: u32,
    usual: u32,
}

impl Verbosity {
    /// Of a log whose level is `usual`, and which `set` gives another one.
    pub fn new(usual: u32, set: impl Fn(u32) + Send + Sync + 'static) -> Self {
        let now = Mutex::new(Now {
            level: usual,
            turn: 0,
            back: None,
        });
        let set = Box::new(set);
        Self(Arc::new(Inner { usual, set, now }))
    }

    pub(crate) fn level(&self) -> u32 {
        let now = self.0.now.lock();
        now.unwrap_or_else(PoisonError::into_inner).level
    }

    /// Sets the level for a while, after which the usual one is there again. Needs a runtime.
    pub(crate) fn set(&self, level: u32, lasts: Duration) -> Result<(), TooQuiet> {
        let usual = self.0.usual;
        if level < usual {
            return Err(TooQuiet { level, usual });
        }
        let mut now = self.0.now.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(back) = now.back.take() {
            back.abort();
        }
        now.turn += 1;
        let (this, turn) = (self.clone(), now.turn);
        let back = tokio::spawn(async move {
            tokio::time::sleep(lasts).await;
            this.go_back(turn);
        });
        now.back = Some(back.abort_handle());
        now.level = level;
        (self.0.set)(level);
        Ok(())
    }

    fn go_back(&self, turn: u64) {
        let mut now = self.0.now.lock().unwrap_or_else(PoisonError::into_inner);
        if now.turn == turn {
            now.level = self.0.usual;
            now.back = None;
            (self.0.set)(now.level);
        }
    }
}

impl fmt::Debug for Verbosity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verbosity({})", self.level())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_level_lasts_as_long_as_it_was_set_for() {
        let shown = Arc::new(AtomicU32::new(0));
        let verbosity = {
            let shown = shown.clone();
            Verbosity::new(1, move |level| shown.store(level, Ordering::Relaxed))
        };
        let why = TooQuiet { level: 0, usual: 1 };
        assert_eq!(verbosity.set(0, Duration::ZERO), Err(why));
        let long = Duration::from_secs(3600);
        verbosity.set(3, long).unwrap();
        assert_eq!((verbosity.level(), shown.load(Ordering::Relaxed)), (3, 3));
        // The later one counts, and ends; the first does not come back.
        verbosity.set(2, Duration::from_millis(10)).unwrap();
        assert_eq!(shown.load(Ordering::Relaxed), 2);
        while shown.load(Ordering::Relaxed) != 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(verbosity.level(), 1);
    }
}
