//! The name of a group from its tree's root: the same in every tree.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::CgroupError;

/// Length of a whole path, below `PATH_MAX` with any tree before it.
const MAX_BYTES: usize = 2048;
/// Length of one directory's name.
const MAX_NAME_BYTES: usize = 255;

/// Directories separated by `/`, none of them empty, `.` or `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CgroupPath(String);

impl CgroupPath {
    /// Takes a path from the tree's root, with or without a leading `/`.
    ///
    /// # Errors
    /// It is empty, too long, climbs, or holds a control character.
    pub fn new(text: &str) -> Result<Self, CgroupError> {
        let inner = text.strip_prefix('/').unwrap_or(text);
        let name = |name: &str| {
            !matches!(name, "" | "." | "..")
                && name.len() <= MAX_NAME_BYTES
                && !name.contains(char::is_control)
        };
        if inner.len() <= MAX_BYTES && inner.split('/').all(name) {
            Ok(Self(inner.to_owned()))
        } else {
            Err(CgroupError::Name(text.to_owned()))
        }
    }

    /// A directory in this one.
    ///
    /// # Errors
    /// `leaf` is not the name of one directory, or the whole is too long.
    pub fn join(&self, leaf: &str) -> Result<Self, CgroupError> {
        if leaf.contains('/') {
            return Err(CgroupError::Name(leaf.to_owned()));
        }
        Self::new(&format!("{}/{leaf}", self.0))
    }

    /// The directory that this one is in; None in a tree's root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let (parent, _) = self.0.rsplit_once('/')?;
        Some(Self(parent.to_owned()))
    }

    /// This one and those above it, outermost first.
    pub(super) fn downwards(&self) -> impl Iterator<Item = &Path> {
        let ends = self.0.match_indices('/').map(|(end, _)| end);
        ends.chain([self.0.len()])
            .map(|end| Path::new(&self.0[..end]))
    }
}

impl TryFrom<String> for CgroupPath {
    type Error = CgroupError;

    fn try_from(text: String) -> Result<Self, CgroupError> {
        Self::new(&text)
    }
}

impl From<CgroupPath> for String {
    fn from(path: CgroupPath) -> Self {
        path.0
    }
}

impl AsRef<Path> for CgroupPath {
    fn as_ref(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl fmt::Display for CgroupPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_climbs() {
        for bad in [
            "", "/", "..", "a/../b", "a//b", "a/.", "a/", "//a", "a\nb", "a\0b",
        ] {
            assert!(CgroupPath::new(bad).is_err(), "{bad:?}");
        }
        let path = CgroupPath::new("/system/x.slice").unwrap();
        assert!(path.join("..").is_err() && path.join("a/b").is_err());
        let leaf = path.join("c1").unwrap();
        assert_eq!(leaf.to_string(), "/system/x.slice/c1");
        assert_eq!(leaf.parent(), Some(path));
        let all: Vec<&Path> = leaf.downwards().collect();
        assert_eq!(
            all,
            ["system", "system/x.slice", "system/x.slice/c1"].map(Path::new)
        );
    }
}
