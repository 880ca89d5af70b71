//! Paths as clients of `/files` write them, parsed into a sandbox and a place inside. Only what is
//! in a sandbox has a name here; nothing on disk is looked at.
//!
//! Forms: the absolute path of a sandbox, `/slaves/A/frameworks/…`, and Mesos's virtual
//! `/frameworks/F/executors/E/runs/R` of this agent; R is a container or `latest`.

use std::path::{Path, PathBuf};

use gantry_wire::ids::{AgentId, ContainerId, FrameworkId, TaskId};

/// A checked path.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SandboxPath {
    /// `A/frameworks/F/executors/E/runs`, relative to the root of all sandboxes.
    pub(super) runs: PathBuf,
    /// None: the latest.
    pub(super) run: Option<ContainerId>,
    /// Inside the sandbox; empty for the sandbox itself.
    pub(super) inside: PathBuf,
}

impl SandboxPath {
    /// None when it names nothing in a sandbox. `own` is this agent's id.
    pub(super) fn parse(text: &str, slaves: &Path, own: Option<&str>) -> Option<Self> {
        if text.contains('\0') {
            return None;
        }
        let absolute = slaves.to_str().and_then(|prefix| text.strip_prefix(prefix));
        let relative = match absolute.or_else(|| text.strip_prefix("/slaves")) {
            Some(rest) => rest.strip_prefix('/')?.to_owned(),
            None => format!("{}/{}", own?, text.strip_prefix('/')?),
        };
        let mut parts = relative.split('/').filter(|part| !part.is_empty());
        let agent = AgentId::parse(parts.next()?).ok()?;
        expect(parts.next()?, "frameworks")?;
        let framework = FrameworkId::parse(parts.next()?).ok()?;
        expect(parts.next()?, "executors")?;
        let task = TaskId::parse(parts.next()?).ok()?;
        expect(parts.next()?, "runs")?;
        let run = match parts.next()? {
            "latest" => None,
            run => Some(ContainerId::parse(run).ok()?),
        };
        let inside: PathBuf = parts.collect();
        let plain = |part: std::path::Component<'_>| {
            matches!(
                part,
                std::path::Component::Normal(_) | std::path::Component::CurDir
            )
        };
        if !inside.components().all(plain) {
            return None;
        }
        let runs = format!("{agent}/frameworks/{framework}/executors/{task}/runs");
        Some(Self {
            runs: PathBuf::from(runs),
            run,
            inside,
        })
    }
}

fn expect(part: &str, word: &str) -> Option<()> {
    (part == word).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_and_refusals() {
        let parse = |text: &str| SandboxPath::parse(text, Path::new("/d/slaves"), Some("me"));
        let inside = |text: &str| {
            let path = parse(text)?;
            let run = path.run.map(|run| run.to_string()).unwrap_or_default();
            Some(format!(
                "{}|{run}|{}",
                path.runs.display(),
                path.inside.display()
            ))
        };
        let tail = "frameworks/f/executors/t/runs";
        for (text, want) in [
            (
                format!("/d/slaves/a/{tail}/c/stdout"),
                Some(format!("a/{tail}|c|stdout")),
            ),
            (
                format!("/slaves/a/{tail}/latest"),
                Some(format!("a/{tail}||")),
            ),
            (format!("/{tail}/c//x/y"), Some(format!("me/{tail}|c|x/y"))),
            (format!("/{tail}/c/../../x"), None),
            (format!("/{tail}/../c"), None),
            (format!("/d/slaves/../a/{tail}/c"), None),
            (format!("/d/slavesX/a/{tail}/c"), None),
            ("/etc/passwd".into(), None),
            ("/d/agent.json".into(), None),
            (format!("/{tail}"), None),
            (format!("/{tail}/c/a\0b"), None),
            (String::new(), None),
        ] {
            assert_eq!(inside(&text), want, "{text}");
        }
    }
}
