//! `gantry app …`: the commands on services, one file each.

mod add;
mod change;
mod definition;
mod flags;
mod list;
mod merge;
mod show;
mod update;

use std::io::Read;
use std::path::Path;

use clap::Subcommand;
use serde_json::Value;

use crate::args::{Global, Source};
use crate::client::Client;
use crate::failure::{Exit, Failure};

/// Largest app file in bytes.
const FILE_MAX_BYTES: u64 = 4 << 20;

/// What to do with a service.
#[derive(Debug, Subcommand)]
pub(crate) enum AppCommand {
    /// Add a service, from Marathon's app JSON or from flags.
    Add(add::AddArgs),
    /// List services.
    List,
    /// Show one service: its definition, its tasks, its last failure.
    Show(show::ShowArgs),
    /// Change parts of a service; what is not named stays.
    Update(update::UpdateArgs),
    /// Set the number of instances.
    Scale(change::ScaleArgs),
    /// Replace all instances, keeping the definition.
    Restart(change::RestartArgs),
    /// Stop a service and forget it.
    Remove(change::RemoveArgs),
}

impl AppCommand {
    /// Runs it.
    pub(crate) async fn run(&self, client: &Client, global: &Global) -> Result<(), Failure> {
        match self {
            Self::Add(args) => args.run(client, global).await,
            Self::List => list::run(client, global).await,
            Self::Show(args) => args.run(client, global).await,
            Self::Update(args) => args.run(client, global).await,
            Self::Scale(args) => args.run(client, global).await,
            Self::Restart(args) => args.run(client, global).await,
            Self::Remove(args) => args.run(client, global).await,
        }
    }
}

/// The path of an app in the API. Characters with a meaning in URLs are escaped, so that a wrong
/// id is answered as one.
pub(crate) fn app_path(id: &str) -> String {
    let mut path = String::from("/v2/apps/");
    for byte in id.trim_start_matches('/').bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    path
}

/// An id as the API writes it: with its leading `/`.
pub(crate) fn full_id(id: &str) -> String {
    format!("/{}", id.trim_matches('/'))
}

/// Reads a JSON object from a file or stdin.
fn read_object(source: &Source) -> Result<Value, Failure> {
    let (name, text) = match source {
        Source::Stdin => ("stdin".to_owned(), read_bounded(std::io::stdin().lock())),
        Source::File(path) => (path.display().to_string(), read_file(path)),
    };
    let usage = |message: String| Failure::new(Exit::Usage, message);
    let text = text.map_err(|e| usage(format!("cannot read {name}: {e}")))?;
    let value: Value =
        serde_json::from_str(&text).map_err(|e| usage(format!("{name} is not JSON: {e}")))?;
    if !value.is_object() {
        let message = format!("{name} holds no JSON object: one app is `{{\"id\": …}}`");
        return Err(usage(message));
    }
    Ok(value)
}

fn read_file(path: &Path) -> std::io::Result<String> {
    read_bounded(std::fs::File::open(path)?)
}

fn read_bounded(from: impl Read) -> std::io::Result<String> {
    let mut text = String::new();
    from.take(FILE_MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_MAX_BYTES {
        return Err(std::io::Error::other(format!(
            "longer than {FILE_MAX_BYTES} bytes"
        )));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_become_paths() {
        for (id, path) in [
            ("/a/b", "/v2/apps/a/b"),
            ("a", "/v2/apps/a"),
            ("//a", "/v2/apps/a"),
            ("a?force=true#x y", "/v2/apps/a%3Fforce%3Dtrue%23x%20y"),
        ] {
            assert_eq!(app_path(id), path);
        }
        assert_eq!(full_id("a/b/"), "/a/b");
    }

    #[test]
    fn files_that_are_no_app_are_named() {
        let missing = read_object(&Source::File("no/such.json".into())).unwrap_err();
        assert_eq!(missing.exit, Exit::Usage);
        assert!(
            missing.message.starts_with("cannot read no/such.json: "),
            "{}",
            missing.message
        );
        assert!(read_bounded(std::io::repeat(b' ')).is_err());
    }
}
