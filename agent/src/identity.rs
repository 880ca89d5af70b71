//! Who this agent is: the id that the coordinator gave it, kept in `agent.json` for as long as the
//! data directory lives. A file that cannot be read stops the start: taking a new id silently
//! would orphan the tasks that run under the old one.

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

#[derive(Serialize, Deserialize)]
struct File {
    agent_id: AgentId,
}

#[derive(Debug)]
pub(crate) struct Identity {
    path: PathBuf,
    id: Option<AgentId>,
}

impl Identity {
    pub(crate) fn open(path: PathBuf) -> Result<Self, IdentityError> {
        let id = match durable::read_bounded(&path, FILE_MAX_BYTES) {
            Ok(text) => match serde_json::from_slice::<File>(&text) {
                Ok(file) => Some(file.agent_id),
                Err(source) => return Err(IdentityError::Damaged { path, source }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(IdentityError::Read { path, source }),
        };
        Ok(Self { path, id })
    }

    pub(crate) fn get(&self) -> Option<&AgentId> {
        self.id.as_ref()
    }

    /// Takes the id that the coordinator gave; on disk when it returns.
    pub(crate) fn set(&mut self, id: AgentId) -> io::Result<()> {
        if self.id.as_ref() == Some(&id) {
            return Ok(());
        }
        let file = File { agent_id: id };
        let text = serde_json::to_vec(&file).map_err(io::Error::other)?;
        durable::replace(&self.path, &text, true)?;
        if let Some(dir) = self.path.parent() {
            durable::sync_dir(dir)?;
        }
        self.id = Some(file.agent_id);
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
        identity.set(AgentId::parse("a-S0").unwrap()).unwrap();
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
}
