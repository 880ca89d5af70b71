//! Hooks that the runtime runs in its own namespaces, with the container's state on stdin.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::config::Hook;
use super::error::{OciError, call};

/// How often a hook with a timeout is looked at.
const PAUSE: Duration = Duration::from_millis(5);
/// How much of a failed hook's words is told.
const MAX_WORDS_BYTES: u64 = 4096;

/// Milliseconds; negative is for ever.
pub(super) fn timeout_ms(hook: &Hook) -> i32 {
    hook.timeout
        .filter(|seconds| *seconds > 0)
        .and_then(|seconds| i32::try_from(seconds.saturating_mul(1000)).ok())
        .unwrap_or(-1)
}

/// Runs hooks in order; the first that fails is the last.
pub(super) fn run(kind: &str, hooks: &[Hook], state: &[u8]) -> Result<(), OciError> {
    for (index, hook) in hooks.iter().enumerate() {
        one(hook, state)
            .map_err(|error| match error {
                OciError::Call { what, source } => format!("{what}: {source}"),
                other => other.to_string(),
            })
            .map_err(|words| {
                OciError::Refused(format!("error running {kind} hook #{index}: {words}"))
            })?;
    }
    Ok(())
}

fn one(hook: &Hook, state: &[u8]) -> Result<(), OciError> {
    let mut command = Command::new(&hook.path);
    if let Some((name, rest)) = hook.args.split_first() {
        command.arg0(name).args(rest);
    }
    command.env_clear();
    command.envs(hook.env.iter().filter_map(|text| text.split_once('=')));
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let words = || format!("run {}", hook.path);
    let mut child = command.spawn().map_err(call(words()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook that does not read its state has no need of it; Rust ignores SIGPIPE.
        let _ = stdin.write_all(state);
    }
    let deadline = u64::try_from(timeout_ms(hook))
        .ok()
        .map(|timeout| Instant::now() + Duration::from_millis(timeout));
    let status = match deadline {
        None => child.wait().map_err(call(words()))?,
        Some(deadline) => loop {
            if let Some(status) = child.try_wait().map_err(call(words()))? {
                break status;
            }
            if Instant::now() >= deadline {
                let seconds = hook.timeout.unwrap_or(0);
                child.kill().map_err(call(words()))?;
                child.wait().map_err(call(words()))?;
                return Err(OciError::Refused(format!(
                    "hook ran past specified timeout of {seconds}.0s"
                )));
            }
            std::thread::sleep(PAUSE);
        },
    };
    if status.success() {
        return Ok(());
    }
    let mut said = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        // Only for the words of the error.
        let _ = stderr.take(MAX_WORDS_BYTES).read_to_end(&mut said);
    }
    let said = String::from_utf8_lossy(&said);
    Err(OciError::Refused(format!(
        "{status}, stderr: {}",
        said.trim()
    )))
}
