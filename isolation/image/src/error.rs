//! Why a pull failed, in words for the person who named the image.

use std::error::Error;
use std::io;

use serde::Serialize;

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

/// What sort of trouble an error is, for programs: exit codes and ways out hang on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// The registry does not have it.
    NotFound,
    /// No image of that name is on this node.
    NotHere,
    /// Something runs from it.
    InUse,
    /// What was given is no name of an image, or no logins.
    BadRequest,
    /// The registry wants a login, or does not take the one it got.
    Login,
    /// The registry cannot be spoken to over TLS.
    Tls,
    /// The registry would have to be spoken to over plain HTTP, which is not allowed for it.
    PlainHttp,
    /// The image has nothing for this node.
    Platform,
    /// The disk is full.
    NoSpace,
    /// A file that is no archive of images.
    NotAnArchive,
    /// An archive that has no name for an image.
    Unnamed,
    /// One name for several images.
    Several,
    /// An archive that does not have the image that is asked for.
    NotInArchive,
    /// The files of a layer are not what was pulled.
    Damaged,
    /// Too much else is going on.
    Busy,
    /// Anything else.
    Other,
}

impl Trouble {
    /// A full disk shows in the middle of anything.
    pub(crate) fn of_causes(error: &(dyn Error + 'static)) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            let is_full = error.downcast_ref::<io::Error>().is_some_and(|error| {
                use io::ErrorKind::{QuotaExceeded, StorageFull};
                matches!(error.kind(), StorageFull | QuotaExceeded)
            });
            if is_full {
                return Self::NoSpace;
            }
            next = error.source();
        }
        Self::Other
    }
}

impl PullFailure {
    pub(crate) fn trouble(&self) -> Trouble {
        match self {
            Self::Registry(error) => error.trouble(),
            Self::Manifest(ManifestError::Platform { .. })
            | Self::Config(ConfigError::Platform { .. }) => Trouble::Platform,
            Self::Layer {
                source: UnpackError::NoSpace,
                ..
            } => Trouble::NoSpace,
            other => Trouble::of_causes(other),
        }
    }
}

impl PullError {
    /// What sort of trouble it is.
    #[must_use]
    pub fn trouble(&self) -> Trouble {
        self.failure.trouble()
    }

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
