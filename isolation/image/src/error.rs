//! Why a pull failed, in words for the person who named the image.

use std::error::Error;
use std::io;

use crate::Digest;
use crate::config::ConfigError;
use crate::manifest::ManifestError;
use crate::registry::RegistryError;
use crate::unpack::UnpackError;

/// A pull that failed: which image, and why.
#[derive(Debug, thiserror::Error)]
#[error("cannot pull image {image}")]
pub struct PullError {
    /// The full reference.
    pub image: String,
    /// What failed.
    #[source]
    pub failure: PullFailure,
}

/// What failed.
#[derive(Debug, thiserror::Error)]
pub enum PullFailure {
    /// The registry did not give it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The manifest is refused.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The config is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A layer is refused or could not be written.
    #[error("layer {digest} failed")]
    Layer {
        /// The compressed blob's digest.
        digest: Digest,
        /// Why.
        #[source]
        source: UnpackError,
    },
    /// The store's own files.
    #[error("cannot {operation} in the image store")]
    Store {
        /// What was tried.
        operation: &'static str,
        /// Its error.
        #[source]
        source: io::Error,
    },
}

impl PullError {
    /// Everything on one line, for a task's status message.
    #[must_use]
    pub fn message(&self) -> String {
        chain(self)
    }

    /// Whether trying again is pointless until someone changes the image, its name or the node.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match &self.failure {
            PullFailure::Registry(error) => error.is_permanent(),
            PullFailure::Manifest(_) | PullFailure::Config(_) => true,
            PullFailure::Layer { source, .. } => source.is_permanent(),
            PullFailure::Store { .. } => false,
        }
    }
}

/// An error with all its causes on one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}
