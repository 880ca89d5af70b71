//! A path inside a container's root, cut so that a child can open or make it without allocating.

use std::ffi::CString;
use std::fmt;
use std::path::{Component, Path};

use super::c;
use crate::spec::SpecError;

/// One directory on the way: where it is, where its parent is, and its own name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// From the root down to here, without a leading slash.
    pub(crate) path: CString,
    /// The same without the last name; `.` for the root.
    pub(crate) parent: CString,
    /// The last name.
    pub(crate) name: CString,
}

/// A path inside the root. It is only a wish until `openat2(2)` resolves it within the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InRoot {
    /// From the top down; empty for the root itself.
    pub(crate) parts: Vec<Part>,
    /// The whole path without a leading slash; `.` for the root.
    pub(crate) path: CString,
}

impl InRoot {
    /// From an absolute path.
    pub(crate) fn new(path: &Path) -> Result<Self, SpecError> {
        let wrong = || SpecError::Path {
            what: "path in the container",
            path: path.to_owned(),
        };
        let mut parts: Vec<Part> = Vec::new();
        let mut here = Vec::new();
        for component in path.components() {
            match component {
                Component::RootDir | Component::CurDir => {}
                Component::Normal(name) => {
                    let parent = if here.is_empty() {
                        b".".to_vec()
                    } else {
                        here.clone()
                    };
                    if !here.is_empty() {
                        here.push(b'/');
                    }
                    here.extend_from_slice(name.as_encoded_bytes());
                    parts.push(Part {
                        path: c(&here)?,
                        parent: c(parent)?,
                        name: c(name.as_encoded_bytes())?,
                    });
                }
                Component::ParentDir | Component::Prefix(_) => return Err(wrong()),
            }
        }
        let path = if here.is_empty() { c(".")? } else { c(here)? };
        Ok(Self { parts, path })
    }
}

impl fmt::Display for InRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.parts.is_empty() {
            f.write_str("/")
        } else {
            write!(f, "/{}", self.path.to_string_lossy())
        }
    }
}
