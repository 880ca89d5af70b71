//! Images in files, for nodes with no registry: OCI image layouts (directories and archives) and
//! the archives of `docker save`, in and out.
//!
//! It decides which of an archive's documents are believed; layers go through the same stages and
//! bounds as those from a registry. It trusts no name, size or digest in an archive.

pub(crate) mod docker;
pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod layout;
pub(crate) mod repack;
pub(crate) mod source;

use std::io;

use crate::config::ConfigError;
use crate::error::PullFailure;
use crate::manifest::ManifestError;
use crate::{Digest, ReferenceError};
use gantry_intake::TarError;

/// Why an archive is refused, or could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// A file operation failed.
    #[error("cannot {operation}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// Its error.
        #[source]
        source: io::Error,
    },
    /// Neither of the known kinds.
    #[error("this is neither an OCI image layout nor a Docker archive")]
    Format,
    /// Something that another document names is not there.
    #[error("the archive has no {0:?}")]
    Missing(String),
    /// A document or blob is not what its name says.
    #[error("{name:?} in the archive has the digest {actual}")]
    WrongDigest {
        /// Its name.
        name: String,
        /// What it is.
        actual: Digest,
    },
    /// Beyond the bounds.
    #[error("the archive has {0}")]
    Bounds(&'static str),
    /// Not JSON, or not of the expected shape.
    #[error("{name:?} in the archive is not valid")]
    Json {
        /// Its name.
        name: &'static str,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// No name in the archive, and none given.
    #[error("the archive does not say what its image is called: give it a name")]
    Unnamed,
    /// A name that is none.
    #[error("the archive calls its image {name:?}")]
    Name {
        /// As it stands there.
        name: String,
        /// What is wrong.
        #[source]
        source: ReferenceError,
    },
    /// One name was given for several images.
    #[error("the archive has {0} images: one name cannot be given to all")]
    Several(usize),
    /// The outer archive.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// A manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A config.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A layer, or the store.
    #[error(transparent)]
    Image(#[from] PullFailure),
    /// There is no such image to export.
    #[error("no image {0} on this node")]
    Unknown(String),
    /// The layer's files changed while they were read.
    #[error("the files of layer {0} change while they are read")]
    Changing(Digest),
}

impl ArchiveError {
    /// Everything on one line.
    #[must_use]
    pub fn message(&self) -> String {
        crate::error::chain(self)
    }
}

fn io_failed(operation: &'static str) -> impl FnOnce(io::Error) -> ArchiveError {
    move |source| ArchiveError::Io { operation, source }
}
