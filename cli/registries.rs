//! How registries are spoken to, as flags of every command that pulls by itself.

use std::path::{Path, PathBuf};

use clap::Args;
use gantry_agent::images::{Mirror, RegistryConfig};

use crate::failure::{Exit, Failure};

/// Flags about registries.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Registries")]
pub(crate) struct RegistryFlags {
    /// Registry that may be spoken to over plain HTTP (repeat it; loopback always may).
    #[arg(long, value_name = "HOST[:PORT]")]
    insecure_registry: Vec<String>,
    /// Server that is asked before a registry (repeat it; the order counts). With ",tags" it may
    /// also say what a tag means, not only serve what is known by digest.
    #[arg(long, value_name = "REGISTRY=MIRROR[,tags]")]
    registry_mirror: Vec<Mirror>,
    /// Logins of registries, in the form of Docker's config.json; read whenever one is needed.
    #[arg(long, value_name = "FILE")]
    registry_auth: Option<PathBuf>,
    /// Directory with DIR/HOST[:PORT]/*.crt for registries that have certificates of their own.
    #[arg(long, value_name = "DIR")]
    registry_certs: Option<PathBuf>,
    /// Directory of docker-credential-NAME programs that the logins may name.
    #[arg(long, value_name = "DIR")]
    credential_programs: Option<PathBuf>,
}

impl RegistryFlags {
    /// The same for the node.
    pub(crate) fn config(&self) -> Result<RegistryConfig, Failure> {
        Ok(RegistryConfig {
            mirrors: self.registry_mirror.clone(),
            insecure: self.insecure_registry.clone(),
            ca_dir: found("--registry-certs", self.registry_certs.as_deref())?,
            credentials_file: found("--registry-auth", self.registry_auth.as_deref())?,
            credential_programs: found(
                "--credential-programs",
                self.credential_programs.as_deref(),
            )?,
        })
    }
}

/// The whole path of what a flag names, which must be there: a typing error would otherwise show
/// only when a pull is refused.
fn found(flag: &str, path: Option<&Path>) -> Result<Option<PathBuf>, Failure> {
    let Some(path) = path else { return Ok(None) };
    let whole = path.canonicalize();
    whole
        .map(Some)
        .map_err(|error| Failure::new(Exit::Usage, format!("{flag} {}: {error}", path.display())))
}
