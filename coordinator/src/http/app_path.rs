//! What the part of a path after `/v2/apps/` names.
//!
//! App ids are paths themselves, so the resource below an app is told from the app by its last
//! segments: `tasks`, `tasks/{id}`, `versions`, `versions/{version}`, `restart`, `*`. It decides
//! only that; whether the app exists is the state's business. Ids come with doubled slashes and
//! escaped ones (the router has undone the escapes). Invariant: every text names something or is
//! refused with Marathon's words for a bad id; `tasks`, `versions` and `restart` as the last
//! segment of an app's own id are refused by the validator, so nothing is out of reach.

use gantry_wire::ids::AppId;

use super::refusal::Refusal;

/// A resource below `/v2/apps/`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum AppPath {
    /// The app itself.
    App(AppId),
    /// Its tasks.
    Tasks(AppId),
    /// One of its tasks, by id.
    Task(AppId, String),
    /// Its versions.
    Versions(AppId),
    /// One of its versions, as written.
    Version(AppId, String),
    /// The action that replaces its instances.
    Restart(AppId),
    /// Every app below a group; the group's path with its leading `/` and without the last one,
    /// empty for the root.
    Group(String),
    /// The tasks of every app below a group.
    GroupTasks(String),
}

impl AppPath {
    /// Reads what follows `/v2/apps/`.
    pub(super) fn parse(rest: &str) -> Result<Self, Refusal> {
        let segments: Vec<&str> = rest.split('/').filter(|s| !s.is_empty()).collect();
        match segments.as_slice() {
            [group @ .., "*"] => Ok(Self::Group(group_path(group))),
            [group @ .., "*", "tasks"] => Ok(Self::GroupTasks(group_path(group))),
            [app @ .., "tasks"] if !app.is_empty() => Ok(Self::Tasks(app_id(app)?)),
            [app @ .., "tasks", task] if !app.is_empty() => {
                Ok(Self::Task(app_id(app)?, (*task).to_owned()))
            }
            [app @ .., "versions"] if !app.is_empty() => Ok(Self::Versions(app_id(app)?)),
            [app @ .., "versions", version] if !app.is_empty() => {
                Ok(Self::Version(app_id(app)?, (*version).to_owned()))
            }
            [app @ .., "restart"] if !app.is_empty() => Ok(Self::Restart(app_id(app)?)),
            app => Ok(Self::App(app_id(app)?)),
        }
    }
}

fn group_path(segments: &[&str]) -> String {
    segments
        .iter()
        .map(|segment| format!("/{segment}"))
        .collect()
}

/// Reads an app id from text; a bad one is answered 422 as a plain illegal argument.
pub(super) fn app_id(segments: &[&str]) -> Result<AppId, Refusal> {
    let text = segments.join("/");
    AppId::parse(&text).map_err(|source| Refusal::BadArgument(source.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_segments_name_the_resource() {
        let id = |text: &str| AppId::parse(text).unwrap();
        let own = str::to_owned;
        for (rest, want) in [
            ("a", AppPath::App(id("/a"))),
            ("/a//b/", AppPath::App(id("/a/b"))),
            ("a/tasks", AppPath::Tasks(id("/a"))),
            ("/a/b/tasks/", AppPath::Tasks(id("/a/b"))),
            ("a/tasks/a.1", AppPath::Task(id("/a"), own("a.1"))),
            ("a/tasks/tasks", AppPath::Tasks(id("/a/tasks"))),
            ("a/versions", AppPath::Versions(id("/a"))),
            (
                "a/versions/2026-01-01T00:00:00.000Z",
                AppPath::Version(id("/a"), own("2026-01-01T00:00:00.000Z")),
            ),
            ("a/restart", AppPath::Restart(id("/a"))),
            ("tasks", AppPath::App(id("/tasks"))),
            ("*", AppPath::Group(own(""))),
            ("/g/h/*", AppPath::Group(own("/g/h"))),
            ("g/*/tasks", AppPath::GroupTasks(own("/g"))),
        ] {
            assert_eq!(AppPath::parse(rest).ok(), Some(want), "{rest}");
        }
        for rest in ["", "/", "A", "a/../b", "a b", "x/-"] {
            assert!(
                matches!(AppPath::parse(rest), Err(Refusal::BadArgument(_))),
                "{rest}"
            );
        }
    }
}
