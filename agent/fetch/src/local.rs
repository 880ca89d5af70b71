//! Files of the node itself.
//!
//! It decides which of them a task may have: those that everyone on the node may read, every
//! directory on the way included, and everything below the directories that the operator lists.
//! The agent is root, so without that rule whoever may start a task could read any file. Links are
//! resolved first, and the file is opened by the way that was looked at. Blocking.

use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat2};

use crate::error::{Cause, printable};

/// Everyone's bits of a mode.
const READ: u32 = 0o004;
const SEARCH: u32 = 0o001;
/// What is there is made by the kernel for whoever looks, which here is the agent.
const KERNEL: [&str; 3] = ["/proc", "/sys", "/dev"];

/// Opens a file of the node, if the author of a task may have it.
pub(crate) fn open(path: &Path, allowed: &[PathBuf]) -> Result<File, Cause> {
    let name = path.as_os_str().as_encoded_bytes();
    let fail = |operation| move |error| Cause::io(operation, name, error);
    let real = path.canonicalize().map_err(fail("resolve"))?;
    if KERNEL.iter().any(|dir| real.starts_with(dir)) {
        return Err(Cause::NotAFile(printable(name)));
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let file = openat2(CWD, &real, flags, Mode::empty(), resolve);
    let file = file.map_err(|error| fail("open")(error.into()))?;
    let stat = fstat(&file).map_err(|error| fail("stat")(error.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Cause::NotAFile(printable(name)));
    }
    let listed = allowed
        .iter()
        .filter_map(|dir| dir.canonicalize().ok())
        .any(|dir| real.starts_with(dir));
    if listed || (stat.st_mode & READ != 0 && is_open(&real)) {
        return Ok(File::from(file));
    }
    Err(Cause::Private(printable(name)))
}

/// Whether everyone may pass every directory above `path`.
fn is_open(path: &Path) -> bool {
    let mut above = path.ancestors().skip(1);
    above.all(|dir| {
        dir.metadata()
            .is_ok_and(|metadata| metadata.permissions().mode() & SEARCH != 0)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_everyone_may_read_and_what_is_listed() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let (open_dir, closed) = (dir.path().join("open"), dir.path().join("closed"));
        for (dir, bits) in [(dir.path(), 0o755), (&open_dir, 0o755), (&closed, 0o700)] {
            std::fs::create_dir_all(dir).unwrap();
            mode(dir, bits);
        }
        let (public, private) = (open_dir.join("public"), open_dir.join("private"));
        let below = closed.join("below");
        for (file, bits) in [(&public, 0o644), (&private, 0o640), (&below, 0o644)] {
            std::fs::write(file, "x").unwrap();
            mode(file, bits);
        }
        symlink(&below, open_dir.join("link")).unwrap();
        symlink(&closed, open_dir.join("linked")).unwrap();
        let is_private = |path: &Path, allowed: &[PathBuf]| match open(path, allowed) {
            Ok(_) => false,
            Err(Cause::Private(_)) => true,
            Err(other) => panic!("{other}"),
        };
        assert!(!is_private(&public, &[]));
        for path in [
            private.clone(),
            below.clone(),
            open_dir.join("link"),
            open_dir.join("linked/below"),
            open_dir.join("../closed/below"),
        ] {
            assert!(is_private(&path, &[]), "{path:?}");
        }
        assert!(!is_private(
            &open_dir.join("link"),
            std::slice::from_ref(&closed)
        ));
        assert!(!is_private(&private, std::slice::from_ref(&open_dir)));
        // A directory is listed, not a beginning of a name.
        let twin = dir.path().join("closed-too");
        std::fs::create_dir(&twin).unwrap();
        mode(&twin, 0o700);
        std::fs::write(twin.join("f"), "x").unwrap();
        assert!(is_private(&twin.join("f"), &[closed]));
    }

    #[test]
    fn what_is_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
        for path in [
            Path::new("/proc/self/environ"),
            Path::new("/dev/null"),
            &fifo,
            dir.path(),
        ] {
            let all = [PathBuf::from("/")];
            assert!(
                matches!(open(path, &all), Err(Cause::NotAFile(_))),
                "{path:?}"
            );
        }
        let missing = open(&dir.path().join("missing"), &[]);
        assert!(matches!(
            missing,
            Err(Cause::Io {
                operation: "resolve",
                ..
            })
        ));
    }
}
