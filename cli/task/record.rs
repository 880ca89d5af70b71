//! A task as `/state` shows it, and finding one by what a person types.
//!
//! Invariant: a name is never resolved to one of several tasks at random; a running task comes
//! before an ended one.

use serde_json::Value;

use crate::app::full_id;
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::output::escape;
use crate::show::text;

/// How many candidates an error names.
const CANDIDATES_SHOWN: usize = 10;

/// What the commands need to know of a task.
#[derive(Debug, Clone)]
pub(super) struct Record {
    /// Task id.
    pub(super) id: String,
    /// The app, read from the task id.
    pub(super) app: String,
    /// The node.
    pub(super) agent: String,
    /// The framework.
    pub(super) framework: String,
    /// Whether nothing follows.
    pub(super) ended: bool,
    /// When the last state was entered, in seconds.
    pub(super) since: f64,
    /// The task as the API gave it.
    pub(super) raw: Value,
}

impl Record {
    fn new(raw: &Value, ended: bool) -> Self {
        let id = text(&raw["id"]);
        let statuses = raw["statuses"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        Self {
            app: app_of(&id),
            agent: text(&raw["slave_id"]),
            framework: text(&raw["framework_id"]),
            ended,
            since: statuses
                .last()
                .and_then(|s| s["timestamp"].as_f64())
                .unwrap_or(0.0),
            raw: raw.clone(),
            id,
        }
    }

    /// The id of its container, with those around it, while it runs.
    pub(super) fn running_container(&self) -> Result<Value, Failure> {
        if self.ended {
            let message = format!("task {} has ended", self.id);
            return Err(Failure::new(Exit::Failed, message).hint("see `gantry task list`"));
        }
        let statuses = self.raw["statuses"].as_array().into_iter().flatten();
        let mut ids = statuses
            .rev()
            .map(|s| &s["container_status"]["container_id"]);
        let id = ids.find(|id| id["value"].is_string()).cloned();
        id.ok_or_else(|| {
            let message = format!("task {} has no container yet", self.id);
            Failure::new(Exit::Failed, message).hint("try again when it is running")
        })
    }
}

/// `/g/web` of `g_web.instance-…`; app ids hold no `_` of their own.
pub(super) fn app_of(task: &str) -> String {
    let safe = task.split(".instance-").next().unwrap_or(task);
    format!("/{}", safe.replace('_', "/"))
}

/// All tasks of `/state`, the running ones first.
pub(super) async fn all(client: &Client) -> Result<Vec<Record>, Failure> {
    Ok(read(&client.get("/state").await?))
}

fn read(state: &Value) -> Vec<Record> {
    let frameworks: Vec<&Value> = ["frameworks", "completed_frameworks"]
        .iter()
        .filter_map(|field| state[*field].as_array())
        .flatten()
        .collect();
    let of = |field: &str, ended: bool| -> Vec<Record> {
        let lists = frameworks.iter().filter_map(|f| f[field].as_array());
        lists.flatten().map(|raw| Record::new(raw, ended)).collect()
    };
    let mut tasks = of("tasks", false);
    tasks.extend(of("unreachable_tasks", false));
    tasks.extend(of("completed_tasks", true));
    tasks
}

/// The task that `name` means: an id, the id of an app with one task, or a unique beginning.
pub(super) async fn find(client: &Client, name: &str) -> Result<Record, Failure> {
    choose(&all(client).await?, name)
}

fn choose(tasks: &[Record], name: &str) -> Result<Record, Failure> {
    if let Some(exact) = tasks.iter().find(|t| t.id == name) {
        return Ok(exact.clone());
    }
    let app = full_id(name);
    let of_app: Vec<&Record> = tasks.iter().filter(|t| t.app == app).collect();
    let matching = if of_app.is_empty() {
        tasks
            .iter()
            .filter(|t| t.id.starts_with(name.trim_start_matches('/')))
            .collect()
    } else {
        of_app
    };
    let running: Vec<&Record> = matching.iter().copied().filter(|t| !t.ended).collect();
    match running[..] {
        [one] => Ok(one.clone()),
        [] => {
            let latest = matching.iter().max_by(|a, b| a.since.total_cmp(&b.since));
            let all_of_one_app = matching.iter().all(|t| t.app == matching[0].app);
            match latest {
                Some(latest) if all_of_one_app => Ok((*latest).clone()),
                Some(_) => Err(ambiguous(name, &matching)),
                None => {
                    let message = format!("no task is called '{}'", escape(name));
                    Err(Failure::new(Exit::NotFound, message)
                        .hint("see `gantry task list`, with --all for ended ones"))
                }
            }
        }
        _ => Err(ambiguous(name, &running)),
    }
}

fn ambiguous(name: &str, tasks: &[&Record]) -> Failure {
    let shown = tasks.iter().take(CANDIDATES_SHOWN).map(|t| escape(&t.id));
    let list = shown.collect::<Vec<_>>().join("\n  ");
    let message = format!("'{}' could be any of {} tasks", escape(name), tasks.len());
    Failure::new(Exit::Usage, message).hint(list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tasks() -> Vec<Record> {
        let task = |id: &str, at: f64| {
            json!({"id": id, "framework_id": "f", "slave_id": "s", "statuses": [
                {"state": "TASK_STARTING", "timestamp": 1.0,
                 "container_status": {"container_id": {"value": "c1"}}},
                {"state": "TASK_RUNNING", "timestamp": at}]})
        };
        read(&json!({"frameworks": [{
            "tasks": [task("web.instance-a1._app.1", 2.0), task("web.instance-b2._app.1", 3.0),
                      task("g_one.instance-c3._app.1", 4.0)],
            "completed_tasks": [task("g_one.instance-d4._app.1", 1.0),
                                task("old.instance-e5._app.1", 5.0),
                                task("old.instance-f6._app.2", 6.0)],
        }]}))
    }

    #[test]
    fn names_mean_one_task_or_none() {
        for (name, want) in [
            ("web.instance-a1._app.1", Some("web.instance-a1._app.1")),
            ("web.instance-b", Some("web.instance-b2._app.1")),
            ("/g/one", Some("g_one.instance-c3._app.1")),
            ("g/one", Some("g_one.instance-c3._app.1")),
            ("g_one.instance-d4", Some("g_one.instance-d4._app.1")),
            ("/old", Some("old.instance-f6._app.2")),
            ("/web", None),
            ("/we", None),
            ("nothing", None),
        ] {
            let found = choose(&tasks(), name).ok().map(|t| t.id);
            assert_eq!(found.as_deref(), want, "{name}");
        }
        assert_eq!(choose(&tasks(), "/web").unwrap_err().exit, Exit::Usage);
        assert_eq!(
            choose(&tasks(), "nothing").unwrap_err().exit,
            Exit::NotFound
        );
    }

    #[test]
    fn the_container_is_that_of_any_status() {
        assert_eq!(
            tasks()[0].running_container().unwrap(),
            json!({"value": "c1"})
        );
        let ended = choose(&tasks(), "/old").unwrap().running_container();
        assert!(ended.unwrap_err().message.contains("has ended"));
        assert_eq!(app_of("a_b-c.instance-1._app.1"), "/a/b-c");
    }
}
