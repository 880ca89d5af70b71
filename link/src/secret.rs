//! The secret of a cluster: read from a file that only root can read, kept out of sight.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Longest file or text that is read.
const MOST_BYTES: usize = 4096;
/// Different bytes that random text of the least length has at the very least.
const DIFFERENT: usize = 8;
/// `O_NONBLOCK` of open(2): a FIFO does not hold up the start.
const O_NONBLOCK: i32 = 0o4000;

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Not there, or not to be read.
    #[error("reading {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others may read it.
    #[error(
        "{} can be read by others (mode {mode:04o}, user {uid}): it must be root's or yours, and \
         have mode 0600 or 0400",
        path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
        /// Whose it is.
        uid: u32,
    },
    /// It can be guessed.
    #[error(
        "the secret can be guessed: it needs {} characters at least, random ones (`head -c 32 \
         /dev/urandom | base64` makes some)",
        Secret::LEAST_BYTES
    )]
    Weak,
    /// It has no end.
    #[error("the secret is longer than {MOST_BYTES} bytes")]
    Long,
}

/// The secret of a cluster, forgotten by the memory when it is dropped.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Least length in bytes: 32 characters of base64 are 192 bits.
    pub const LEAST_BYTES: usize = 32;

    /// Blanks and line ends around it do not count.
    ///
    /// # Errors
    /// [`SecretError::Weak`] and [`SecretError::Long`].
    pub fn parse(text: &[u8]) -> Result<Self, SecretError> {
        let text = text.trim_ascii();
        let mut seen = [false; 256];
        text.iter().for_each(|byte| seen[usize::from(*byte)] = true);
        let different = seen.iter().filter(|seen| **seen).count();
        if text.len() < Self::LEAST_BYTES || different < DIFFERENT {
            return Err(SecretError::Weak);
        }
        if text.len() > MOST_BYTES {
            return Err(SecretError::Long);
        }
        Ok(Self(Zeroizing::new(text.to_vec())))
    }

    /// Reads a file that only its owner can read, who is root or this process's user.
    ///
    /// # Errors
    /// See [`SecretError`].
    pub fn read(path: &Path) -> Result<Self, SecretError> {
        let failed = |source| SecretError::Read {
            path: path.to_owned(),
            source,
        };
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(O_NONBLOCK)
            .open(path);
        let file = file.map_err(failed)?;
        // Of what was opened: the path may mean something else by now.
        let meta = file.metadata().map_err(failed)?;
        if !meta.is_file() {
            return Err(failed(io::Error::other("it is no file")));
        }
        let own = std::fs::metadata("/proc/self").map_err(failed)?.uid();
        if meta.mode() & 0o077 != 0 || (meta.uid() != 0 && meta.uid() != own) {
            return Err(SecretError::Exposed {
                path: path.to_owned(),
                mode: meta.mode() & 0o7777,
                uid: meta.uid(),
            });
        }
        // Room from the beginning: a vector that grows leaves copies behind.
        let mut text = Zeroizing::new(Vec::with_capacity(MOST_BYTES + 64));
        let most = MOST_BYTES as u64 + 1;
        file.take(most).read_to_end(&mut text).map_err(failed)?;
        Self::parse(&text)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
