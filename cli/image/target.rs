//! Which node's images are meant, and how they are reached.

use std::path::Path;

use gantry_agent::{ImageServer, ImagesError};
use serde_json::Value;

use crate::client::Client;
use crate::dev;
use crate::failure::{Exit, Failure};
use crate::show::text;

/// As the command line says it.
pub(super) struct Places<'a> {
    pub(super) url: &'a str,
    pub(super) node: Option<&'a str>,
    pub(super) data_dir: Option<&'a Path>,
}

/// One node's images.
pub(super) struct Target {
    pub(super) client: Client,
    /// What stands before `/images`.
    prefix: String,
    /// For people; empty where there is only one.
    pub(super) node: String,
    _server: Option<ImageServer>,
}

impl Target {
    /// The path of a request, `rest` being what follows `/images`.
    pub(super) fn path(&self, rest: &str) -> String {
        format!("{}/images{rest}", self.prefix)
    }
}

impl Places<'_> {
    /// The one that is meant.
    pub(super) async fn one(&self) -> Result<Target, Failure> {
        let mut all = self.all().await?;
        if all.len() > 1 {
            let names: Vec<&str> = all.iter().map(|target| target.node.as_str()).collect();
            let message = format!("there are {} nodes: {}", all.len(), names.join(", "));
            return Err(Failure::new(Exit::Usage, message).hint("name one with --node"));
        }
        all.pop()
            .ok_or_else(|| Failure::new(Exit::NotFound, "no node has registered yet"))
    }

    /// All that may be meant.
    pub(super) async fn all(&self) -> Result<Vec<Target>, Failure> {
        if let Some(dir) = self.data_dir {
            return Ok(vec![stopped(dir)?]);
        }
        let client = Client::new(self.url)?;
        let state = match client.get("/state").await {
            Ok(state) => state,
            Err(failure) if failure.exit == Exit::Unreachable && self.node.is_none() => {
                // No node runs: its images are there all the same, if there is any.
                let dir = dev::existing_data_dir().ok_or(failure)?;
                return Ok(vec![stopped(&dir)?]);
            }
            Err(failure) => return Err(failure),
        };
        let mut targets = Vec::new();
        for node in wanted(&state, self.node)? {
            targets.push(Target {
                client: Client::new(self.url)?,
                prefix: format!("/agent/{}", text(&node["id"])),
                node: text(&node["hostname"]),
                _server: None,
            });
        }
        Ok(targets)
    }
}

fn wanted<'a>(state: &'a Value, name: Option<&str>) -> Result<Vec<&'a Value>, Failure> {
    let nodes = state["slaves"].as_array().into_iter().flatten();
    let Some(name) = name else {
        return Ok(nodes.filter(|node| node["active"] == true).collect());
    };
    let named = |node: &&Value| node["id"] == name || node["hostname"] == name;
    let found: Vec<&Value> = nodes.filter(named).collect();
    if found.is_empty() {
        let failure = Failure::new(Exit::NotFound, format!("no node '{name}'"));
        return Err(failure.hint("see `gantry node list`"));
    }
    Ok(found)
}

/// The images of a node that does not run.
fn stopped(dir: &Path) -> Result<Target, Failure> {
    if !dir.is_dir() {
        let message = format!("there is no data directory {}", dir.display());
        return Err(Failure::new(Exit::NotFound, message)
            .hint("for a node that is still to be made, make the directory first"));
    }
    let opened = ImageServer::open(&dir.join("agent"));
    let server = opened.map_err(|error| match &error {
        ImagesError::Running(_) => Failure::new(Exit::Conflict, error.to_string())
            .hint("leave --data-dir away to ask the running node"),
        ImagesError::Open(_) => Failure::new(Exit::Failed, error.to_string()),
        ImagesError::Socket(source) => {
            Failure::new(Exit::Failed, format!("{error}: {source}")).hint("run it with sudo")
        }
    })?;
    Ok(Target {
        client: Client::local(server.socket())?,
        prefix: String::new(),
        node: String::new(),
        _server: Some(server),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nodes_are_found_by_id_and_name() {
        let state = json!({"slaves": [
            {"id": "s1", "hostname": "a", "active": true},
            {"id": "s2", "hostname": "b", "active": false},
        ]});
        let ids = |name| wanted(&state, name).map(|nodes| nodes.len()).ok();
        assert_eq!(ids(None), Some(1));
        assert_eq!(ids(Some("s2")), Some(1));
        assert_eq!(ids(Some("b")), Some(1));
        assert_eq!(ids(Some("c")), None);
    }
}
