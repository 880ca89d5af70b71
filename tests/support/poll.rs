//! Waiting for a condition. The only place of the tests that sleeps.

use std::time::{Duration, Instant};

/// How long a condition may take unless a test says otherwise: long enough for a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks until there is an answer; panics with `what` and the last refusal after [`PATIENCE`].
pub fn until<T>(what: &str, ask: impl FnMut() -> Result<T, String>) -> T {
    until_within(PATIENCE, what, ask)
}

/// As [`until`], with a deadline of its own.
pub fn until_within<T>(
    patience: Duration,
    what: &str,
    mut ask: impl FnMut() -> Result<T, String>,
) -> T {
    let start = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(why) if start.elapsed() > patience => {
                panic!("{what}: not within {patience:?}; last seen: {why}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
