//! Running `docker-credential-<name> get`, as Docker does: the registry's name on its input, a JSON
//! object with `Username` and `Secret` on its output.
//!
//! It decides which file is run (only one in the operator's directory, owned by root and writable
//! by nobody else), what it sees (the agent's `PATH` and `HOME`, nothing more) and how long and how
//! much it may talk. It never repeats the output, as that may be a password.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::credentials::{CredentialsError, Login};
use super::secret::Secret;

/// How long it may take: it may have to ask a cloud's own service.
const MAX_TIME: Duration = Duration::from_secs(20);
/// Most output that is read, in bytes.
const MAX_OUTPUT_BYTES: u64 = 128 * 1024;
/// How such programs say that they know of no login.
const NOT_FOUND: &[u8] = b"credentials not found in native keychain";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Output {
    username: String,
    secret: String,
}

/// Asks the program `name` in `dir` for the login of `server`; `None` if it knows of none.
pub(crate) async fn ask(
    dir: &Path,
    name: &str,
    server: &str,
) -> Result<Option<Login>, CredentialsError> {
    let failed = |problem: String| CredentialsError::Program {
        name: name.chars().take(100).collect(),
        problem,
    };
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if name.is_empty() || name.len() > 100 || !name.bytes().all(fits) {
        return Err(failed("this is not a program's name".into()));
    }
    let path = dir.join(format!("docker-credential-{name}"));
    let metadata = tokio::fs::metadata(&path).await;
    let metadata = metadata.map_err(|error| failed(format!("it cannot be found ({error})")))?;
    if !is_roots_alone(&metadata) {
        return Err(CredentialsError::Exposed {
            what: "credential program",
            fix: "chown it to root and take write permission from group and others",
        });
    }
    let run = run(&path, server);
    let (succeeded, output) = match tokio::time::timeout(MAX_TIME, run).await {
        Ok(result) => result.map_err(|error| failed(format!("it could not be run ({error})")))?,
        Err(_) => return Err(failed(format!("no answer within {} s", MAX_TIME.as_secs()))),
    };
    if output.trim_ascii() == NOT_FOUND {
        return Ok(None);
    }
    if !succeeded {
        return Err(failed("it ended with an error".into()));
    }
    let output: Output =
        serde_json::from_slice(&output).map_err(|_| failed("its output is not a login".into()))?;
    let login = Login::password(output.username, Secret::new(output.secret));
    login
        .map(Some)
        .map_err(|problem| failed(problem.to_owned()))
}

async fn run(path: &Path, server: &str) -> std::io::Result<(bool, Vec<u8>)> {
    let kept = ["PATH", "HOME"].map(|name| (name, std::env::var_os(name).unwrap_or_default()));
    let mut child = Command::new(path)
        .arg("get")
        .env_clear()
        .envs(kept)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        // One that does not read its input may still answer.
        let _ = input.write_all(server.as_bytes()).await;
    }
    let mut output = Vec::new();
    if let Some(pipe) = child.stdout.take() {
        pipe.take(MAX_OUTPUT_BYTES).read_to_end(&mut output).await?;
    }
    Ok((child.wait().await?.success(), output))
}

/// Whether nobody but root can change the file.
pub(crate) fn is_roots_alone(metadata: &std::fs::Metadata) -> bool {
    metadata.uid() == 0 && metadata.is_file() && metadata.mode() & 0o022 == 0
}
