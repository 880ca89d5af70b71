//! Bytes from outside, for images and for what tasks have fetched: where a server may lead us, what
//! an archive says, what content hashes to.
//!
//! It decides what is believed of a server's and an archive's words, within bounds. It deliberately
//! writes nothing: what an entry becomes on disk is the business of whoever unpacks it.
//!
//! Invariants: no credential crosses from one origin to another; no input panics.

mod digest;
mod host;
mod path;
mod tarball;
mod transport;

pub use digest::{Digest, DigestError, Hasher};
pub use host::is_host;
pub use path::{ArchivePath, PathError};
pub use tarball::{Entry, Kind, TarError, Tarball};
pub use transport::{
    Cause, Failed, Reach, Timeouts, Transport, authority, cause, chain, part_from,
};
