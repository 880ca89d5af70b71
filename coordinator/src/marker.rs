//! The mark of a cluster beside its log: a small file with the cluster's id.
//!
//! It holds nothing that the log does not hold; it is there so that a log that was deleted or
//! emptied is noticed. Without it the coordinator would begin a new cluster, in which the tasks
//! that run are nobody's. Invariants: written durably before anybody is served, never changed.

use std::io;
use std::path::{Path, PathBuf};

use crate::log::{Disk, Files};

const NAME: &str = "cluster.id";

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MarkerError {
    /// The file cannot be read or written.
    #[error("cannot use {}", path.display())]
    File {
        /// It.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Log and snapshot are gone.
    #[error(
        "{} says that this directory holds the cluster {cluster}, but neither its log nor a \
         snapshot does: they were deleted or emptied. Restore {} from a backup; or, to begin a \
         new cluster on purpose, remove {} (agents of the old cluster then have to be moved away \
         too). Tasks that run are left alone meanwhile",
        path.display(), directory.display(), directory.display()
    )]
    Lost {
        /// The marker.
        path: PathBuf,
        /// The id in it.
        cluster: String,
        /// The coordinator's directory.
        directory: PathBuf,
    },
    /// They are another cluster's.
    #[error(
        "{} says that this directory holds the cluster {marked}, but its log holds the cluster \
         {found}. Restore the log and the snapshots that belong here; or, if these do, remove {}",
        path.display(), path.display()
    )]
    Other {
        /// The marker.
        path: PathBuf,
        /// The id in it.
        marked: String,
        /// The id in the log.
        found: String,
    },
}

/// The marker of one coordinator's directory.
#[derive(Debug, Clone)]
pub(crate) struct Marker {
    directory: PathBuf,
    cluster: Option<String>,
}

impl Marker {
    /// Reads the marker, if there is one. Blocks.
    ///
    /// # Errors
    /// `File`.
    pub(crate) fn open(directory: &Path) -> Result<Self, MarkerError> {
        let path = directory.join(NAME);
        let cluster = match std::fs::read(&path) {
            Ok(text) => Some(String::from_utf8_lossy(&text).trim().to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(MarkerError::File { path, source }),
        };
        let directory = directory.to_owned();
        Ok(Self { directory, cluster })
    }

    /// Whether a cluster was begun here.
    pub(crate) fn founded(&self) -> bool {
        self.cluster.is_some()
    }

    fn path(&self) -> PathBuf {
        self.directory.join(NAME)
    }

    /// What to say when the cluster is gone.
    pub(crate) fn lost(&self) -> MarkerError {
        MarkerError::Lost {
            path: self.path(),
            cluster: self.cluster.clone().unwrap_or_default(),
            directory: self.directory.clone(),
        }
    }

    /// Compares with the cluster that was found, or writes it down. Blocks.
    ///
    /// # Errors
    /// `Other` and `File`.
    pub(crate) fn settle(&self, found: &str) -> Result<(), MarkerError> {
        let path = self.path();
        match &self.cluster {
            Some(marked) if marked == found => Ok(()),
            Some(marked) => Err(MarkerError::Other {
                path,
                marked: marked.clone(),
                found: found.to_owned(),
            }),
            None => Files::open(&self.directory, false)
                .and_then(|mut files| files.put(NAME, format!("{found}\n").as_bytes()))
                .map_err(|source| MarkerError::File { path, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_once_and_compared_ever_after() {
        let directory = tempfile::tempdir().unwrap();
        let open = || Marker::open(directory.path()).unwrap();
        assert!(!open().founded());
        open().settle("one").unwrap();
        assert!(open().founded());
        open().settle("one").unwrap();
        let error = open().settle("two").unwrap_err().to_string();
        assert!(error.contains("cluster one, but"), "{error}");
        let lost = open().lost().to_string();
        assert!(
            lost.contains("cluster.id") && lost.contains("backup"),
            "{lost}"
        );
        // A marker that was emptied is no licence to begin anew.
        std::fs::write(directory.path().join(NAME), "").unwrap();
        assert!(open().founded());
        assert!(matches!(
            open().settle("one"),
            Err(MarkerError::Other { .. })
        ));
    }
}
