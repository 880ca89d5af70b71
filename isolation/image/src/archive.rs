//! Images in files, for nodes with no registry: OCI image layouts (directories and archives) and
//! the archives of `docker save`, in and out.
//!
//! It decides which of an archive's documents are believed; layers go through the same stages and
//! bounds as those from a registry. It trusts no name, size or digest in an archive.

pub(crate) mod docker;
pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod layout;
mod look;
pub(crate) mod repack;
mod select;
pub(crate) mod source;

use std::io;

use crate::config::ConfigError;
use crate::error::{PullFailure, Trouble};
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
    #[error("it is {0}, not an OCI image layout or a Docker archive")]
    Format(String),
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
    /// No full name in the archive, and none given.
    #[error("the archive has no full name (such as app:1) for its image {0}")]
    Unnamed(String),
    /// The image that is asked for is not in it.
    #[error("the archive has no image {wanted}; it has {has}")]
    NotThere {
        /// As it was asked for.
        wanted: String,
        /// What there is.
        has: String,
    },
    /// A name that is none.
    #[error("the archive calls its image {name:?}")]
    Name {
        /// As it stands there.
        name: String,
        /// What is wrong.
        #[source]
        source: ReferenceError,
    },
    /// The image that is asked for is in it, and is none for this node.
    #[error("the archive's image {name} is not for this node: {why}")]
    NotForHere {
        /// As it was asked for.
        name: String,
        /// Why not, in words.
        why: String,
    },
    /// One name was given for several images.
    #[error("one name cannot be given to several images: the archive has {0}")]
    Several(String),
    /// The outer archive.
    #[error("the archive is broken or cut off")]
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
    /// The layer's files are not what they were when they were unpacked or read before.
    #[error("the files of layer {0} on this node were changed")]
    Changed(Digest),
}

impl ArchiveError {
    /// What sort of trouble it is.
    #[must_use]
    pub fn trouble(&self) -> Trouble {
        match self {
            Self::Format(_) => Trouble::NotAnArchive,
            Self::Unnamed(_) => Trouble::Unnamed,
            Self::NotThere { .. } => Trouble::NotInArchive,
            Self::Several(_) => Trouble::Several,
            Self::Unknown(_) => Trouble::NotHere,
            Self::Changed(_) => Trouble::Damaged,
            Self::NotForHere { .. }
            | Self::Manifest(ManifestError::Platform { .. })
            | Self::Config(ConfigError::Platform { .. }) => Trouble::Platform,
            Self::Image(failure) => failure.trouble(),
            other => Trouble::of_causes(other),
        }
    }

    /// Everything on one line.
    #[must_use]
    pub fn message(&self) -> String {
        crate::error::chain(self)
    }
}

fn io_failed(operation: &'static str) -> impl FnOnce(io::Error) -> ArchiveError {
    move |source| ArchiveError::Io { operation, source }
}
