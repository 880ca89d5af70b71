//! Who this agent is: the id that the coordinator gave it and the cluster that it belongs to, kept
//! in `agent.json` for as long as the data directory lives. A file that cannot be read stops the
//! start: taking a new id silently would orphan the tasks that run under the old one. Another
//! cluster is refused: it knows none of the tasks here and would have them all killed.

use std::io;
use std::path::PathBuf;

use gantry_wire::ids::AgentId;
use serde::{Deserialize, Serialize};

use crate::durable;

const FILE_MAX_BYTES: u64 = 64 * 1024;

/// Why the agent's id is not known.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read.
    #[error("reading the agent's id from {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It holds something else.
    #[error(
        "{path:?} is damaged. Restore it, or remove it to join as a new agent \
         (tasks that still run here are then unknown to the coordinator and are ended)"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// Why what a coordinator says is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(
        "this agent belongs to the cluster {own}, the coordinator that answers is of the cluster \
         {other}. Nothing is done for it and the tasks here run on. Bring the coordinator of {own} \
         back (restore its directory); or, to join {other}, stop gantry and move {directory:?} away"
    )]
    OtherCluster {
        own: String,
        other: String,
        directory: PathBuf,
    },
    #[error("it cannot be kept")]
    Keep(#[from] io::Error),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct File {
    agent_id: AgentId,
    /// Empty in files of before this field, and until a coordinator has said it.
    #[serde(default)]
    cluster_id: String,
}

#[derive(Debug)]
pub(crate) struct Identity {
    path: PathBuf,
    file: Option<File>,
}

impl Identity {
    pub(crate) fn open(path: PathBuf) -> Result<Self, IdentityError> {
        let file = match durable::read_bounded(&path, FILE_MAX_BYTES) {
            Ok(text) => match serde_json::from_slice::<File>(&text) {
                Ok(file) => Some(file),
                Err(source) => return Err(IdentityError::Damaged { path, source }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(IdentityError::Read { path, source }),
        };
        Ok(Self { path, file })
    }

    pub(crate) fn get(&self) -> Option<&AgentId> {
        self.file.as_ref().map(|file| &file.agent_id)
    }

    /// The cluster, empty while it is not known.
    pub(crate) fn cluster(&self) -> &str {
        self.file.as_ref().map_or("", |file| &file.cluster_id)
    }

    /// Takes the ids that the coordinator gave; on disk when it returns. The first cluster stays.
    pub(crate) fn set(&mut self, id: AgentId, cluster: &str) -> Result<(), Refusal> {
        let own = self.cluster();
        if !own.is_empty() && !cluster.is_empty() && own != cluster {
            return Err(Refusal::OtherCluster {
                own: own.to_owned(),
                other: cluster.to_owned(),
                directory: self.path.parent().unwrap_or(&self.path).to_owned(),
            });
        }
        let kept = if own.is_empty() { cluster } else { own };
        let file = File {
            agent_id: id,
            cluster_id: kept.to_owned(),
        };
        if self.file.as_ref() == Some(&file) {
            return Ok(());
        }
        let text = serde_json::to_vec(&file).map_err(io::Error::other)?;
        durable::replace(&self.path, &text, true)?;
        if let Some(dir) = self.path.parent() {
            durable::sync_dir(dir)?;
        }
        self.file = Some(file);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_or_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.json");
        let mut identity = Identity::open(path.clone()).unwrap();
        assert_eq!(identity.get(), None);
        identity.set(AgentId::parse("a-S0").unwrap(), "").unwrap();
        assert_eq!(
            Identity::open(path.clone())
                .unwrap()
                .get()
                .unwrap()
                .as_str(),
            "a-S0"
        );
        for text in ["", "{", "{}", r#"{"agent_id":"../x"}"#] {
            std::fs::write(&path, text).unwrap();
            let error = Identity::open(path.clone()).unwrap_err().to_string();
            assert!(error.contains("Restore it, or remove it"), "{error}");
        }
    }

    #[test]
    fn the_first_cluster_is_kept_and_another_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.json");
        // As written before there was a cluster in it.
        std::fs::write(&path, r#"{"agent_id":"a-S0"}"#).unwrap();
        let id = AgentId::parse("a-S0").unwrap();
        let mut identity = Identity::open(path.clone()).unwrap();
        assert_eq!(identity.cluster(), "");
        identity.set(id.clone(), "one").unwrap();
        let mut identity = Identity::open(path.clone()).unwrap();
        assert_eq!(identity.cluster(), "one");
        let before = std::fs::read(&path).unwrap();
        let why = identity.set(id.clone(), "two").unwrap_err().to_string();
        assert!(
            why.contains("cluster one, ") && why.contains("move"),
            "{why}"
        );
        assert_eq!(std::fs::read(&path).unwrap(), before);
        identity.set(id.clone(), "").unwrap();
        identity.set(id, "one").unwrap();
        assert_eq!(identity.cluster(), "one");
    }
}
