//! What the log and the snapshots need of a disk, so that the same log code runs on real files
//! ([`super::files`]), on the faulty disks of the tests, and later on a simulated one.
//!
//! Invariants of an implementation: when a call answers `Ok`, its effect survives a power cut;
//! when `append` answers an error, any part of the bytes may be on disk.

use std::io;

/// A directory of files on something durable. Names are plain file names.
pub(crate) trait Disk: Send {
    /// All file names, in no order.
    fn list(&mut self) -> io::Result<Vec<String>>;
    /// The whole file.
    fn read(&mut self, name: &str) -> io::Result<Vec<u8>>;
    /// A new file of that many zero bytes, its space reserved.
    fn create(&mut self, name: &str, size: u64) -> io::Result<()>;
    /// Writes inside an existing file and makes it durable.
    fn append(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes everything from `offset` on zero.
    fn cut(&mut self, name: &str, offset: u64) -> io::Result<()>;
    /// Creates or replaces a file, whole or not at all.
    fn put(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Removes a file.
    fn remove(&mut self, name: &str) -> io::Result<()>;
    /// The file's place, for messages to people.
    fn describe(&self, name: &str) -> String;
}
