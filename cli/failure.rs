//! How a command ends: the exit codes that scripts rely on, and errors that name the thing, the
//! cause and the way out.
//!
//! It prints nothing but the final error. Invariant: a number in [`Exit`] never changes its
//! meaning; `--help` lists them from here.

use std::fmt;
use std::process::ExitCode;

use serde_json::{Value, json};

/// Shown by `gantry --help`.
pub(crate) const EXIT_HELP: &str = "\
Exit codes:
  0    done
  1    failed
  2    wrong usage, or a file that cannot be read as JSON (`dev`: a data directory that cannot be)
  3    not found (`image pull`: the registry has no such image)
  4    conflict: it exists already, or a running deployment holds it; `dev`: another process has
       the port or the data directory
  5    the coordinator cannot be reached
  6    timed out waiting (what was started goes on)
  130  interrupted by ctrl-C
`gantry task exec` ends with the exit code of the command it ran: 127 when there is none of that
name, 126 when it cannot be executed, 128 + the signal that ended it. `gantry dev` that is told to
stop at once ends with 130 or 143.
With --json an error is {\"message\": …} on stderr, with a \"hint\" where there is a way out.";

/// Why a command ended, for scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Anything without a code of its own.
    Failed,
    /// The command line or a file given on it is wrong.
    Usage,
    /// The named thing does not exist.
    NotFound,
    /// It exists already, or a deployment holds it.
    Conflict,
    /// No connection to the coordinator.
    Unreachable,
    /// Waited as long as was allowed.
    TimedOut,
    /// Ctrl-C.
    Interrupted,
    /// The reader of our output went away (`gantry app list | head -1`): not an error.
    ClosedPipe,
    /// The exit code of a command run by `task exec`.
    Remote(u8),
}

impl Exit {
    /// The number given to the shell.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::ClosedPipe => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Conflict => 4,
            Self::Unreachable => 5,
            Self::TimedOut => 6,
            Self::Interrupted => 130,
            Self::Remote(code) => code,
        }
    }
}

/// A command that did not do what it was asked for.
#[derive(Debug)]
pub(crate) struct Failure {
    /// For scripts.
    pub(crate) exit: Exit,
    /// For people; empty when there is nothing to say.
    pub(crate) message: String,
    /// The way out, where we know one.
    pub(crate) hint: Option<String>,
}

impl Failure {
    /// A failure without a hint.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            hint: None,
        }
    }

    /// Adds the way out.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Prints it on stderr and gives the exit code.
    pub(crate) fn report(&self, json: bool) -> ExitCode {
        if !self.message.is_empty() {
            let text = if json {
                self.json().to_string()
            } else {
                self.to_string()
            };
            crate::output::note(&text);
        }
        ExitCode::from(self.exit.code())
    }

    fn json(&self) -> Value {
        let mut object = json!({"message": self.message});
        if let Some(hint) = &self.hint {
            object["hint"] = json!(hint);
        }
        object
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, "\n  {hint}")?;
        }
        Ok(())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::new(Exit::ClosedPipe, "");
        }
        Self::new(Exit::Failed, format!("cannot write the output: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_help() {
        for (exit, code) in [
            (Exit::Failed, 1),
            (Exit::Usage, 2),
            (Exit::NotFound, 3),
            (Exit::Conflict, 4),
            (Exit::Unreachable, 5),
            (Exit::TimedOut, 6),
            (Exit::Interrupted, 130),
        ] {
            assert_eq!(exit.code(), code);
            assert!(EXIT_HELP.contains(&format!("\n  {code:<5}")), "{code}");
        }
        assert_eq!(Exit::Remote(7).code(), 7);
    }

    #[test]
    fn the_way_out_stands_below_the_cause() {
        let failure = Failure::new(Exit::NotFound, "app '/x' does not exist").hint("try `list`");
        assert_eq!(
            failure.to_string(),
            "error: app '/x' does not exist\n  try `list`"
        );
        let want = json!({"message": "app '/x' does not exist", "hint": "try `list`"});
        assert_eq!(failure.json(), want);
        assert_eq!(
            Failure::new(Exit::Failed, "x").json(),
            json!({"message": "x"})
        );
    }
}
