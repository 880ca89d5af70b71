//! Making the place of a mount behind symbolic links of the image that lead to nothing yet, such as an
//! `/etc/resolv.conf` that points below `/run`.
//!
//! The way is walked name by name and written down as it really is; what a link says counts from the
//! container's root. Every opening is still within the root (see [`super::super::paths`]), so a link
//! that is swapped meanwhile leads to a wrong place inside at most.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, readlinkat_raw};
use rustix::io::Errno;

use super::super::paths;

const BYTES: usize = libc::PATH_MAX as usize;
/// As the kernel has it (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// A path without allocation: some bytes and a NUL.
struct Text {
    bytes: [u8; BYTES],
    length: usize,
}

impl Text {
    fn new(path: &[u8]) -> Result<Self, Errno> {
        let mut text = Self {
            bytes: [0; BYTES],
            length: 0,
        };
        text.push(path)?;
        Ok(text)
    }

    fn push(&mut self, more: &[u8]) -> Result<(), Errno> {
        let end = self.length + more.len();
        if end >= BYTES {
            return Err(Errno::NAMETOOLONG);
        }
        self.bytes[self.length..end].copy_from_slice(more);
        self.length = end;
        self.bytes[end] = 0;
        Ok(())
    }

    fn cut(&mut self, length: usize) {
        self.length = length;
        self.bytes[length] = 0;
    }

    /// `.` for the root.
    fn path(&self) -> Result<&CStr, Errno> {
        if self.length == 0 {
            return Ok(c".");
        }
        CStr::from_bytes_with_nul(&self.bytes[..=self.length]).map_err(|_| Errno::INVAL)
    }
}

/// Opens `path` below `root`, making what is missing: directories, and the last part as a directory or
/// an empty file.
pub(super) fn make(root: BorrowedFd<'_>, path: &CStr, dir: bool) -> Result<OwnedFd, Errno> {
    let mut way = Text::new(b"")?;
    let mut rest = Text::new(path.to_bytes())?;
    let (mut at, mut links) = (0, 0);
    while at < rest.length {
        let left = &rest.bytes[at..rest.length];
        let end = left.iter().position(|byte| *byte == b'/');
        let (name, next) = (&left[..end.unwrap_or(left.len())], end.map(|end| end + 1));
        let last = left[name.len()..].iter().all(|byte| *byte == b'/');
        let before = way.length;
        match name {
            b"" | b"." => {}
            b".." => {
                let parent = way.bytes[..before].iter().rposition(|byte| *byte == b'/');
                way.cut(parent.unwrap_or(0));
            }
            name => {
                if before > 0 {
                    way.push(b"/")?;
                }
                way.push(name)?;
                if let Some(link) = step(root, &way, before, dir || !last)? {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::LOOP);
                    }
                    let absolute = link.bytes[..link.length].starts_with(b"/");
                    way.cut(if absolute { 0 } else { before });
                    let mut new = link;
                    if let Some(next) = next {
                        new.push(b"/")?;
                        new.push(&left[next..])?;
                    }
                    (rest, at) = (new, 0);
                    continue;
                }
            }
        }
        at += next.unwrap_or(left.len());
    }
    let flags = if dir { paths::DIR } else { OFlags::PATH };
    paths::open(root, way.path()?, flags, paths::WITHIN)
}

/// Looks at one more name of the way, making it when missing. What a link says, if it is one.
fn step(root: BorrowedFd<'_>, way: &Text, before: usize, dir: bool) -> Result<Option<Text>, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW;
    match paths::open(root, way.path()?, flags, paths::WITHIN) {
        Ok(found) => {
            let kind = FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode);
            if !kind.is_symlink() {
                return Ok(None);
            }
            let mut link = Text::new(b"")?;
            link.length = readlinkat_raw(&found, c"", &mut link.bytes[..BYTES - 1])?;
            Ok(Some(link))
        }
        Err(Errno::NOENT) => {
            let mut above = Text::new(&way.bytes[..before])?;
            let parent = paths::open(root, above.path()?, paths::DIR, paths::WITHIN)?;
            above.cut(0);
            let start = if before > 0 { before + 1 } else { 0 };
            above.push(&way.bytes[start..way.length])?;
            let name = above.path()?;
            if dir {
                rustix::fs::mkdirat(parent.as_fd(), name, Mode::from_raw_mode(0o755))?;
            } else {
                let flags = OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::WRONLY
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
                rustix::fs::openat(parent.as_fd(), name, flags, Mode::from_raw_mode(0o644))?;
            }
            Ok(None)
        }
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_to_nothing_are_made_something_inside() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        symlink("../run/a/file", root.join("etc/near")).unwrap();
        symlink("/run/b/file", root.join("etc/far")).unwrap();
        symlink("../../../../out/file", root.join("etc/out")).unwrap();
        symlink("/etc/dirs", root.join("jump")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let flags = paths::DIR;
        let fd = rustix::fs::open(&root, flags, Mode::empty()).unwrap();
        for path in [c"etc/near", c"etc/far", c"etc/out"] {
            make(fd.as_fd(), path, false).unwrap();
        }
        make(fd.as_fd(), c"jump/x/../y", true).unwrap();
        for file in ["run/a/file", "run/b/file", "out/file"] {
            assert!(root.join(file).is_file(), "{file}");
        }
        assert!(root.join("etc/dirs/y").is_dir());
        assert!(!dir.path().join("out").exists());
        let error = make(fd.as_fd(), c"loop/x", true).unwrap_err();
        assert_eq!(error, Errno::LOOP);
    }
}
