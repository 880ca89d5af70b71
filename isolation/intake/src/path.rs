//! Names inside an archive: cleaned of `/` and `.` once, and never with `..` in them.

use std::fmt;

/// Longest name in bytes: what the kernel takes in one call (PATH_MAX less the NUL).
const MAX_PATH_BYTES: usize = 4095;
/// Longest component in bytes (NAME_MAX).
const MAX_COMPONENT_BYTES: usize = 255;
/// Deepest nesting: more would run removal and backup out of file descriptors or stack.
const MAX_DEPTH: usize = 256;

/// What is wrong with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathError {
    /// It climbs out of its directory.
    Parent,
    /// It has a NUL byte.
    Nul,
    /// It, a part of it, or its nesting is beyond what is allowed.
    Long,
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Parent => "has a \"..\" in it",
            Self::Nul => "has a NUL byte in it",
            Self::Long => "is too long or too deep",
        })
    }
}

/// A relative path of plain components; empty for the root of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchivePath(Vec<u8>);

impl ArchivePath {
    pub fn parse(name: &[u8]) -> Result<Self, PathError> {
        if name.len() > MAX_PATH_BYTES {
            return Err(PathError::Long);
        }
        if name.contains(&0) {
            return Err(PathError::Nul);
        }
        let mut clean = Vec::with_capacity(name.len());
        let mut depth = 0;
        for component in name.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => continue,
                b".." => return Err(PathError::Parent),
                _ if component.len() > MAX_COMPONENT_BYTES => return Err(PathError::Long),
                _ => {}
            }
            depth += 1;
            if depth > MAX_DEPTH {
                return Err(PathError::Long);
            }
            if !clean.is_empty() {
                clean.push(b'/');
            }
            clean.extend_from_slice(component);
        }
        Ok(Self(clean))
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The last component; `None` for the root.
    pub fn name(&self) -> Option<&[u8]> {
        self.0
            .rsplit(|byte| *byte == b'/')
            .next()
            .filter(|name| !name.is_empty())
    }

    /// Everything before the last component; empty for what is directly in the root.
    pub fn parent(&self) -> &[u8] {
        let slash = self.0.iter().rposition(|byte| *byte == b'/');
        slash.map_or(&[][..], |slash| &self.0[..slash])
    }

    /// The same place under another last component, which must be a plain one.
    pub fn renamed(&self, name: &[u8]) -> Self {
        let parent = self.parent();
        let separator: &[u8] = if parent.is_empty() { b"" } else { b"/" };
        Self([parent, separator, name].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, clean) in [
            ("a", "a"),
            ("./a/b", "a/b"),
            ("/a//b/./c/", "a/b/c"),
            ("./", ""),
            ("", ""),
            ("/", ""),
            ("a/...", "a/..."),
            ("..a/b..", "..a/b.."),
        ] {
            assert_eq!(
                ArchivePath::parse(name.as_bytes()).unwrap().bytes(),
                clean.as_bytes(),
                "{name}"
            );
        }
        for name in ["..", "../a", "a/..", "a/../b", "/..", "./../a"] {
            assert_eq!(
                ArchivePath::parse(name.as_bytes()),
                Err(PathError::Parent),
                "{name}"
            );
        }
        assert_eq!(ArchivePath::parse(b"a\0b"), Err(PathError::Nul));
        assert_eq!(ArchivePath::parse(&[b'a'; 256]), Err(PathError::Long));
        assert_eq!(
            ArchivePath::parse("a/".repeat(257).as_bytes()),
            Err(PathError::Long)
        );
        assert_eq!(
            ArchivePath::parse("a/".repeat(2048).as_bytes()),
            Err(PathError::Long)
        );
    }

    #[test]
    fn parts() {
        let path = ArchivePath::parse(b"a/b/.wh.c").unwrap();
        assert_eq!(
            (path.parent(), path.name()),
            (&b"a/b"[..], Some(&b".wh.c"[..]))
        );
        assert_eq!(path.renamed(b"c").bytes(), b"a/b/c");
        let top = ArchivePath::parse(b"x").unwrap();
        assert_eq!(
            (top.parent(), top.renamed(b"y").bytes()),
            (&b""[..], &b"y"[..])
        );
        assert_eq!(ArchivePath::parse(b"/").unwrap().name(), None);
    }
}
