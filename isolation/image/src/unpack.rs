//! One layer: tar entries become files in a directory that overlayfs can take as a lower layer.
//!
//! It decides what each entry means there, and what is refused. Rules:
//! - `.wh.name` becomes a character device 0:0, `.wh..wh..opq` the attribute
//!   `trusted.overlay.opaque=y` of its directory; other `.wh..wh.*` (AUFS's own) are skipped.
//! - Leading `/` and `.` are dropped; `..` anywhere in a name is refused; a symlink on the way to an
//!   entry is followed, but never out of the layer ([`tree`] does that with openat2).
//! - Hard links only to files of the same layer.
//! - Device nodes are skipped: the container gets a `/dev` of its own, and a node on the host's
//!   disk would be a way around the device cgroup.
//! - Owner, mode with set-id bits, times, `security.capability` and `user.*` attributes are kept;
//!   other attributes (`trusted.overlay.*` among them) are dropped.
//!
//! It does not decide where the directory is or when it becomes visible. The content is untrusted
//! until its digest has been compared, so all of this must hold for hostile archives.

use std::io;
use std::os::fd::OwnedFd;

use crate::Digest;
use crate::recipe::Notes;
use gantry_intake::{ArchivePath, Entry, Kind, PathError, TarError, Tarball};

use self::meter::Metered;
use self::tree::Tree;

mod attributes;
pub(crate) mod meter;
mod tree;

pub(crate) use self::meter::Limits;

const WHITEOUT: &[u8] = b".wh.";
const WHITEOUT_META: &[u8] = b".wh..wh.";
/// Space that unpacking leaves free on the disk, and how often it looks, in bytes.
const RESERVE_BYTES: u64 = 256 << 20;
const SPACE_CHECK_BYTES: u64 = 64 << 20;
/// What files are rounded up to when their size on disk is estimated.
const BLOCK_BYTES: u64 = 4096;
/// Most bytes of names of directories that a layer uses and does not list.
pub(crate) const MAX_IMPLIED_BYTES: usize = 32 << 20;
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Why a layer is refused, or could not be written.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The archive itself.
    #[error(transparent)]
    Tar(TarError),
    /// A name that no file of a layer can have.
    #[error("the layer has an entry {path:?} whose name {error}")]
    Path {
        /// The name, made printable.
        path: String,
        /// What is wrong with it.
        error: PathError,
    },
    /// An entry that cannot be where it wants to be.
    #[error("the layer has an entry {path:?} that {why}")]
    Refused {
        /// The name, made printable.
        path: String,
        /// What it would do.
        why: &'static str,
    },
    /// More than the bounds allow.
    #[error("the layer unpacks to more than {0}: refused as a possible bomb")]
    Bomb(String),
    /// The uncompressed content is not what the config says.
    #[error("the layer's content has the digest {actual}, the image's config says {expected}")]
    WrongDiffId {
        /// From the config.
        expected: Digest,
        /// Of the content.
        actual: Digest,
    },
    /// The compressed content is not what the manifest says.
    #[error("the registry sent wrong content: its digest is {actual}, not {expected}")]
    WrongDigest {
        /// From the manifest.
        expected: Digest,
        /// Of the content.
        actual: Digest,
    },
    /// The compressed content is shorter or longer than the manifest says.
    #[error(
        "the registry sent content of another size than the {expected_bytes} bytes it promised"
    )]
    WrongSize {
        /// From the manifest.
        expected_bytes: u64,
    },
    /// The disk is (nearly) full.
    #[error("the node has no space left for the layer")]
    NoSpace,
    /// A system call failed.
    #[error("{operation} failed for {path:?}")]
    Io {
        /// The call.
        operation: &'static str,
        /// The name in the layer, made printable.
        path: String,
        /// Its error.
        #[source]
        source: io::Error,
    },
}

impl UnpackError {
    /// Whether the same bytes will be refused again.
    pub(crate) fn is_permanent(&self) -> bool {
        match self {
            Self::Path { .. } | Self::Refused { .. } | Self::Bomb(_) | Self::WrongDiffId { .. } => {
                true
            }
            Self::Tar(error) => !matches!(error, TarError::Read(_)),
            Self::WrongDigest { .. } | Self::WrongSize { .. } | Self::NoSpace | Self::Io { .. } => {
                false
            }
        }
    }
}

/// What came of a layer.
#[derive(Debug)]
pub(crate) struct Unpacked {
    /// Of the uncompressed archive.
    pub(crate) digest: Digest,
    /// Directories that the layer uses and does not list; they got a default owner and mode.
    pub(crate) implied: Vec<Vec<u8>>,
    /// On disk, about: content in whole blocks, and one for everything else.
    pub(crate) size_bytes: u64,
    /// Whether the recipe is whole.
    pub(crate) noted: bool,
}

/// Unpacks a tar stream into the empty directory `root`.
pub(crate) fn unpack(
    input: impl io::BufRead,
    root: OwnedFd,
    limits: &Limits,
    compressed_bytes: u64,
    notes: Notes,
) -> Result<Unpacked, UnpackError> {
    let metered = Metered::new(input, limits, compressed_bytes, notes);
    let (tarball, tree) = (Tarball::new(metered), Tree::new(root));
    let mut unpacker = Unpacker {
        tarball,
        tree,
        skipped: 0,
        size_bytes: 0,
        unchecked_bytes: 0,
    };
    unpacker.tree.check_space(RESERVE_BYTES)?;
    let mut entries = 0_u64;
    while let Some(entry) = unpacker.tarball.next_entry()? {
        entries += 1;
        if entries > limits.entries {
            return Err(UnpackError::Bomb(format!("{} files", limits.entries)));
        }
        unpacker.apply(&entry)?;
        let content = if entry.kind == Kind::File {
            entry.size_bytes
        } else {
            1
        };
        unpacker.size_bytes += content.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES);
    }
    let Unpacker {
        mut tarball,
        tree,
        skipped,
        size_bytes,
        ..
    } = unpacker;
    if tree.has_replaced() {
        tarball.input().lost_content();
    }
    let implied = tree.finish()?;
    if skipped > 0 {
        tracing::debug!(skipped, "device nodes of a layer were left out");
    }
    let (digest, noted) = tarball.into_inner().finish()?;
    Ok(Unpacked {
        digest,
        implied,
        size_bytes,
        noted,
    })
}

struct Unpacker<R> {
    tarball: Tarball<Metered<R>>,
    tree: Tree,
    /// Device nodes left out.
    skipped: u64,
    size_bytes: u64,
    /// Written since the free space was looked at.
    unchecked_bytes: u64,
}

impl<R: io::BufRead> Unpacker<R> {
    fn apply(&mut self, entry: &Entry) -> Result<(), UnpackError> {
        let path = ArchivePath::parse(&entry.path).map_err(|error| UnpackError::Path {
            path: printable(&entry.path),
            error,
        })?;
        let Some(name) = path.name() else {
            return match entry.kind {
                Kind::Directory => self.tree.root_attributes(entry),
                _ => Err(refused(&entry.path, "would replace the root directory")),
            };
        };
        if name == OPAQUE {
            return self.tree.opaque(&path);
        }
        if name.starts_with(WHITEOUT_META) {
            return Ok(());
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            if matches!(hidden, b"" | b"." | b"..") {
                return Err(refused(&entry.path, "is a whiteout of no name"));
            }
            return self.tree.whiteout(&path.renamed(hidden));
        }
        match entry.kind {
            Kind::Directory => self.tree.directory(&path, entry),
            Kind::File => self.file(&path, entry),
            Kind::Symlink => self.tree.symlink(&path, entry),
            Kind::Fifo => self.tree.fifo(&path, entry),
            Kind::HardLink => {
                let target =
                    ArchivePath::parse(&entry.link).map_err(|error| UnpackError::Path {
                        path: printable(&entry.link),
                        error,
                    })?;
                self.tree.hard_link(&path, &target)
            }
            Kind::Device => {
                self.skipped += 1;
                Ok(())
            }
        }
    }

    fn file(&mut self, path: &ArchivePath, entry: &Entry) -> Result<(), UnpackError> {
        let file = self.tree.create(path, entry)?;
        self.tarball.input().content(path.bytes(), entry.size_bytes);
        loop {
            if self.unchecked_bytes >= SPACE_CHECK_BYTES {
                self.unchecked_bytes = 0;
                self.tree.check_space(RESERVE_BYTES)?;
            }
            let data = self.tarball.data()?;
            if data.is_empty() {
                break;
            }
            let written = rustix::io::write(&file, data);
            let written = match written {
                Ok(written) => written,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(failed("write", &entry.path, error)),
            };
            self.tarball.consume(written);
            self.unchecked_bytes += written as u64;
        }
        self.tree.complete(&file, entry)
    }
}

fn printable(name: &[u8]) -> String {
    const MAX: usize = 200;
    let text = String::from_utf8_lossy(&name[..name.len().min(MAX)]).into_owned();
    if name.len() > MAX {
        format!("{text}…")
    } else {
        text
    }
}

fn refused(path: &[u8], why: &'static str) -> UnpackError {
    UnpackError::Refused {
        path: printable(path),
        why,
    }
}

fn failed(operation: &'static str, path: &[u8], error: rustix::io::Errno) -> UnpackError {
    if matches!(error, rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) {
        return UnpackError::NoSpace;
    }
    UnpackError::Io {
        operation,
        path: printable(path),
        source: error.into(),
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
