//! Directories that a layer uses without listing them.
//!
//! A layer may hold `home/app/file` and no entry for `home/app` (umoci, bazel and kaniko write such
//! layers). Unpacked by itself it needs that directory, and overlayfs shows the topmost layer's
//! owner and mode: without help a user's home would turn root's. As layers are unpacked without
//! their parents, so that they can be shared, this works out which directories show wrong
//! attributes in one particular stack, and what they should be; the store puts them, empty, into a
//! directory of their own on top of the stack.
//!
//! It does not write anything. Invariant: nothing becomes visible that the stack itself hides.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, open, openat, statat};
use rustix::io::Errno;

/// Most steps (one directory looked at in one layer) before an image is refused.
const MAX_STEPS: u64 = 20_000_000;

/// One layer of a stack.
pub(super) struct View {
    root: OwnedFd,
    implied: HashSet<Vec<u8>>,
}

/// Directories and the attributes that they should show, parents first.
pub(super) type Patch = BTreeMap<Vec<u8>, Stat>;

/// What a stack says about one path.
enum Shown {
    /// No directory is visible there.
    Nothing,
    /// The topmost layer that has it lists it, or none does.
    Right(Stat),
    /// A layer above uses it without listing it; these are the attributes of the one that lists it.
    Inherits(Stat),
}

impl View {
    pub(super) fn open(root: &Path, implied: HashSet<Vec<u8>>) -> io::Result<Self> {
        Ok(Self {
            root: open(root, flags(), Mode::empty())?,
            implied,
        })
    }
}

fn flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

/// Whether a directory hides what is in it in the layers below.
pub(super) fn is_opaque(directory: &OwnedFd) -> bool {
    let mut value = [0_u8; 1];
    let length = rustix::fs::fgetxattr(directory, "trusted.overlay.opaque", &mut value[..]);
    length == Ok(1) && value == *b"y"
}

/// What has to be put on top of `stack` (topmost first).
pub(super) fn patch(stack: &[View]) -> io::Result<Patch> {
    let mut steps = 0;
    let mut patch = Patch::new();
    // In the bottom layer there is nothing to inherit.
    let above = &stack[..stack.len().saturating_sub(1)];
    let implied: BTreeSet<&[u8]> = above
        .iter()
        .flat_map(|view| view.implied.iter().map(Vec::as_slice))
        .collect();
    for path in implied {
        let Shown::Inherits(stat) = shown(stack, path, &mut steps)? else {
            continue;
        };
        // The directories on the way are on top then too, so they must look right as well.
        for slash in path
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'/')
            .map(|(at, _)| at)
        {
            let parent = &path[..slash];
            if patch.contains_key(parent) {
                continue;
            }
            if let Shown::Right(stat) | Shown::Inherits(stat) = shown(stack, parent, &mut steps)? {
                patch.insert(parent.to_vec(), stat);
            }
        }
        patch.insert(path.to_vec(), stat);
    }
    Ok(patch)
}

fn shown(stack: &[View], path: &[u8], steps: &mut u64) -> io::Result<Shown> {
    let mut unlisted = None;
    for view in stack {
        let found = look(view, path, steps)?;
        if let Some(stat) = found.stat {
            if !view.implied.contains(path) {
                let listed = if unlisted.is_some() {
                    Shown::Inherits
                } else {
                    Shown::Right
                };
                return Ok(listed(stat));
            }
            unlisted = unlisted.or(Some(stat));
        }
        if found.hides {
            break;
        }
    }
    Ok(unlisted.map_or(Shown::Nothing, Shown::Right))
}

struct Found {
    /// The directory, if this layer has one there.
    stat: Option<Stat>,
    /// Whether this layer hides what the layers below have there.
    hides: bool,
}

fn look(view: &View, path: &[u8], steps: &mut u64) -> io::Result<Found> {
    let mut hides = false;
    let mut directory: Option<OwnedFd> = None;
    for name in path.split(|byte| *byte == b'/') {
        *steps += 1;
        if *steps > MAX_STEPS {
            return Err(io::Error::other("too many directories that no layer lists"));
        }
        let parent = directory.as_ref().unwrap_or(&view.root);
        match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {}
            Ok(_) => {
                return Ok(Found {
                    stat: None,
                    hides: true,
                });
            }
            Err(Errno::NOENT) => return Ok(Found { stat: None, hides }),
            Err(error) => return Err(error.into()),
        }
        let next = openat(parent, name, flags(), Mode::empty())?;
        hides |= is_opaque(&next);
        directory = Some(next);
    }
    let stat = directory.map(fstat).transpose()?;
    Ok(Found { stat, hides })
}
