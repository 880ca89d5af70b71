//! The signals that end a role which runs for long: the first asks it to stop, another one to stop at
//! once.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::failure::{Exit, Failure};

/// A signal that comes sooner after the first one is the same one, passed on twice.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// SIGINT and SIGTERM.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(crate) fn new() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind)
                .map_err(|e| Failure::new(Exit::Failed, format!("cannot listen for signals: {e}")))
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    pub(crate) async fn first(&mut self) {
        self.next().await;
    }

    /// The exit code that belongs to the next signal that is not the first one once more.
    pub(crate) async fn again(&mut self, first: Instant) -> u8 {
        loop {
            let code = self.next().await;
            if first.elapsed() >= AGAIN_AFTER {
                return code;
            }
        }
    }

    /// The exit code that belongs to the next signal.
    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 130,
            _ = self.terminate.recv() => 143,
        }
    }
}
