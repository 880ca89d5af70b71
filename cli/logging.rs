//! Where log lines go: stderr, in levels. A node says what it does; a command says only what is
//! wrong.

use std::io::IsTerminal;
use std::sync::OnceLock;

use gantry_agent::Verbosity;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use crate::failure::{Exit, Failure};

/// Names a level when no flag does.
const VARIABLE: &str = "GANTRY_LOG";

/// Set once the subscriber is there.
static LEVEL: OnceLock<Verbosity> = OnceLock::new();

/// The level of what was started, for who may change it for a while.
pub(crate) fn verbosity() -> Option<Verbosity> {
    LEVEL.get().cloned()
}

/// Installs the subscriber. Errors: `GANTRY_LOG` holds no level.
pub(crate) fn start(verbose: u8, is_node: bool) -> Result<(), Failure> {
    let named = std::env::var(VARIABLE).ok().filter(|text| !text.is_empty());
    let own = level(verbose, is_node, named.as_deref())?;
    let (targets, handle) = reload::Layer::new(targets(own));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let installed = tracing_subscriber::registry()
        .with(targets)
        .with(lines)
        .try_init();
    installed.map_err(|e| Failure::new(Exit::Failed, format!("no logging: {e}")))?;
    let usual = match own {
        LevelFilter::TRACE => 2,
        LevelFilter::DEBUG => 1,
        _ => 0,
    };
    // Only one subscriber is ever installed.
    let _ = LEVEL.set(Verbosity::new(usual, move |level| {
        let wanted = match level {
            level if level == usual => own,
            1 => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        };
        // It fails only when the subscriber is gone, and with it the log.
        let _ = handle.reload(self::targets(wanted));
    }));
    Ok(())
}

/// Others' crates are as talkative as ours only when everything is asked for.
fn targets(own: LevelFilter) -> Targets {
    let others = if own == LevelFilter::TRACE {
        LevelFilter::DEBUG
    } else {
        own.min(LevelFilter::WARN)
    };
    Targets::new()
        .with_default(others)
        .with_target("gantry", own)
}

fn level(verbose: u8, is_node: bool, named: Option<&str>) -> Result<LevelFilter, Failure> {
    match (verbose, named) {
        (0, Some(text)) => text.parse().map_err(|_| {
            let message = format!("{VARIABLE}={text} is no level");
            Failure::new(Exit::Usage, message).hint("one of off, error, warn, info, debug, trace")
        }),
        (0, None) if is_node => Ok(LevelFilter::INFO),
        (0, None) => Ok(LevelFilter::WARN),
        (1, _) => Ok(LevelFilter::DEBUG),
        _ => Ok(LevelFilter::TRACE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_come_before_the_variable() {
        for (verbose, is_node, named, want) in [
            (0, true, None, LevelFilter::INFO),
            (0, false, None, LevelFilter::WARN),
            (0, true, Some("error"), LevelFilter::ERROR),
            (1, false, Some("error"), LevelFilter::DEBUG),
            (3, false, None, LevelFilter::TRACE),
        ] {
            assert_eq!(level(verbose, is_node, named).unwrap(), want);
        }
        assert_eq!(level(0, true, Some("loud")).unwrap_err().exit, Exit::Usage);
    }
}
