//! Hooks that the runtime runs in its own namespaces, with the container's state on stdin.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::config::Hook;
use super::error::{OciError, call};
use crate::spec::ExitStatus;

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

/// How a hook ended, as Go says it.
pub(super) fn how_ended(status: ExitStatus) -> String {
    let signal = match status {
        ExitStatus::Code(code) => return format!("exit status {code}"),
        ExitStatus::Signal(signal) => signal,
    };
    let name = match signal {
        libc::SIGHUP => "hangup",
        libc::SIGINT => "interrupt",
        libc::SIGILL => "illegal instruction",
        libc::SIGABRT => "aborted",
        libc::SIGKILL => "killed",
        libc::SIGSEGV => "segmentation fault",
        libc::SIGPIPE => "broken pipe",
        libc::SIGTERM => "terminated",
        libc::SIGSYS => "bad system call",
        other => return format!("signal: {other}"),
    };
    format!("signal: {name}")
}

fn one(hook: &Hook, state: &[u8]) -> Result<(), OciError> {
    let mut command = Command::new(&hook.path);
    if let Some((name, rest)) = hook.args.split_first() {
        command.arg0(name).args(rest);
    }
    command.env_clear();
    command.envs(hook.env.iter().filter_map(|text| text.split_once('=')));
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    let words = || format!("run {}", hook.path);
    // A file, so that a hook with much to say needs no reader.
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let said = rustix::fs::memfd_create("stderr", flags).map_err(call(words()))?;
    command.stderr(said.try_clone().map_err(call(words()))?);
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
    let mut text = Vec::new();
    // Only for the words of the error.
    let mut file = File::from(said);
    let _ = file
        .rewind()
        .and_then(|()| file.take(MAX_WORDS_BYTES).read_to_end(&mut text));
    let said = String::from_utf8_lossy(&text);
    let how = how_ended(ExitStatus::from_raw(status.into_raw()));
    Err(OciError::Refused(format!(
        "{how}, stdout: , stderr: {}",
        said.trim()
    )))
}
