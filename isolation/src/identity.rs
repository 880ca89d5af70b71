//! The numbers of a user before its container exists, for files that are to be its own: found as
//! the container finds them, in `/etc/passwd` and `/etc/group` of its root.
//!
//! It decides which layer counts: for each of the two files the uppermost that has it. A file that
//! is a link into another layer is not followed there, and has no users. Blocking.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, open, openat2, statat};
use rustix::io::Errno;

use crate::child::Fault;
use crate::child::user::numbers;
use crate::plan::Who;
use crate::spec::{SpecError, User};

/// Why a user has no numbers.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// It is none by its words.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The root has no such user.
    #[error("there is no user {0:?} in the root's /etc/passwd")]
    NoUser(String),
    /// The root has no such group.
    #[error("there is no group for {0:?} in the root's /etc/group")]
    NoGroup(String),
    /// The files cannot be read.
    #[error("reading the root's users")]
    Io(#[source] io::Error),
}

/// User and group id of `user` in a root of these layers, the uppermost first.
///
/// # Errors
/// There is none.
pub fn of(user: &User, layers: &[PathBuf]) -> Result<(u32, u32), IdentityError> {
    let who = Who::new(user)?;
    if let Who::Ids(uid, gid) = who {
        return Ok((uid, gid));
    }
    let found = uppermost(layers, "passwd").and_then(|passwd| {
        let group = uppermost(layers, "group")?;
        Ok(numbers(passwd.as_fd(), group.as_fd(), &who))
    });
    match found.map_err(IdentityError::Io)? {
        Ok(numbers) => Ok(numbers),
        Err(Fault::NoUser) => Err(IdentityError::NoUser(who.to_string())),
        Err(Fault::NoGroup) => Err(IdentityError::NoGroup(who.to_string())),
        Err(Fault::Errno(errno)) => Err(IdentityError::Io(errno.into())),
        Err(_) => Err(IdentityError::Io(io::Error::other("no numbers"))),
    }
}

/// The layer whose file of that name in `/etc` the container will see.
fn uppermost(layers: &[PathBuf], name: &str) -> io::Result<OwnedFd> {
    let mut last = None;
    for layer in layers {
        let root = open_directory(layer)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let is_there = match openat2(&root, "etc", flags, Mode::empty(), resolve) {
            Ok(etc) => match statat(&etc, name, AtFlags::SYMLINK_NOFOLLOW) {
                // What hides the file of the layers below is a device.
                Ok(stat) => FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice,
                Err(Errno::NOENT) => false,
                Err(error) => return Err(error.into()),
            },
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => false,
            Err(error) => return Err(error.into()),
        };
        if is_there {
            return Ok(root);
        }
        last = Some(root);
    }
    last.ok_or_else(|| io::Error::other("the root has no layers"))
}

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(open(path, flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uppermost_layer_with_the_file_counts() {
        let root = std::env::temp_dir().join(format!("gantry-identity-{}", std::process::id()));
        let layers: Vec<PathBuf> = (0..3).rev().map(|n| root.join(n.to_string())).collect();
        for layer in &layers {
            std::fs::create_dir_all(layer.join("etc")).unwrap();
        }
        let write = |n: usize, name: &str, text: &str| {
            std::fs::write(layers[2 - n].join("etc").join(name), text).unwrap();
        };
        write(0, "passwd", "web:x:1:1::/:\nold:x:9:9::/:\n");
        write(1, "passwd", "web:x:2:3::/:\n");
        write(0, "group", "staff:x:50:\n");
        let ids = |user: &str| of(&User::Name(user.into()), &layers).map_err(|e| e.to_string());
        assert_eq!(ids("web"), Ok((2, 3)));
        assert_eq!(ids("web:staff"), Ok((2, 50)));
        assert_eq!(ids("7"), Ok((7, 0)));
        assert_eq!(ids("7:8"), Ok((7, 8)));
        assert!(ids("old").unwrap_err().contains("no user \"old\""));
        assert!(ids("web:x").unwrap_err().contains("no group"));
        assert_eq!(of(&User::Root, &[]).unwrap(), (0, 0));
        std::fs::remove_dir_all(root).unwrap();
    }
}
