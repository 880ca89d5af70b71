//! Waiting for a condition. The only place of the tests that sleeps.

use std::time::{Duration, Instant};

/// How long a condition may take unless a test says otherwise: long enough for a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks until there is an answer; panics with `what` and the last refusal after [`PATIENCE`].
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(why) if start.elapsed() > PATIENCE => {
                panic!("{what}: not within {PATIENCE:?}; last seen: {why}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Whether a condition comes true in time.
pub fn happens_within(patience: Duration, mut ask: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if ask() {
            return true;
        }
        if start.elapsed() > patience {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
