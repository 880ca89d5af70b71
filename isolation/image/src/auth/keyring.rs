//! Whose login is used: first the one that came with the request, then the node's own.
//!
//! The node's file is read when a registry asks for a login, so that a changed file counts at once
//! and a pull that needs no login does not depend on it. Programs are run only for that file, only
//! from the operator's directory, and only if nobody but root can change the file. A request's
//! credentials never run anything.

use std::io::Read;
use std::path::PathBuf;

use super::credentials::{Credentials, CredentialsError, Found, Login, MAX_CONFIG_BYTES};
use super::program;
use crate::DEFAULT_REGISTRY;

/// How Docker's own registry is called in what its programs keep.
const DEFAULT_REGISTRY_KEY: &str = "https://index.docker.io/v1/";

/// The logins that a pull may use.
#[derive(Debug, Clone, Default)]
pub(crate) struct Keyring {
    pub(crate) request: Credentials,
    pub(crate) node_file: Option<PathBuf>,
    pub(crate) programs: Option<PathBuf>,
}

impl Keyring {
    /// The login for a repository of `host`, if there is one.
    pub(crate) async fn find(
        &self,
        host: &str,
        repository: &str,
    ) -> Result<Option<Login>, CredentialsError> {
        match self.request.find(host, repository) {
            Found::Login(login) => return Ok(Some(login)),
            Found::Program {
                name,
                expected: true,
            } => return Err(CredentialsError::ProgramInRequest(name)),
            Found::Program { .. } | Found::Nothing => {}
        }
        let Some(file) = &self.node_file else {
            return Ok(None);
        };
        let path = file.clone();
        let read = tokio::task::spawn_blocking(move || read(&path)).await;
        let (credentials, is_roots) = read
            .map_err(std::io::Error::other)
            .and_then(|result| result)
            .map_err(CredentialsError::Read)?;
        match Credentials::from_config(&credentials)?.find(host, repository) {
            Found::Login(login) => Ok(Some(login)),
            Found::Nothing => Ok(None),
            Found::Program { name, expected } => match &self.programs {
                None if expected => Err(CredentialsError::ProgramsOff(name)),
                None => Ok(None),
                Some(_) if !is_roots => Err(CredentialsError::Exposed {
                    what: "node's credentials file",
                    fix: "chown it to root and take write permission from group and others, or no program is run for it",
                }),
                Some(dir) => {
                    let is_default = host == DEFAULT_REGISTRY;
                    let server = if is_default {
                        DEFAULT_REGISTRY_KEY
                    } else {
                        host
                    };
                    program::ask(dir, &name, server).await
                }
            },
        }
    }
}

/// The file, and whether only root can change it.
fn read(path: &PathBuf) -> std::io::Result<(zeroize::Zeroizing<Vec<u8>>, bool)> {
    let file = std::fs::File::open(path)?;
    let is_roots = program::is_roots_alone(&file.metadata()?);
    let mut bytes = zeroize::Zeroizing::new(Vec::new());
    // One more than is taken, so that a larger one is told from one of that size.
    file.take(MAX_CONFIG_BYTES + 1).read_to_end(&mut bytes)?;
    Ok((bytes, is_roots))
}
