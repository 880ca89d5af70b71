//! A disk in memory for tests: shared by clones, so that a "crash" is dropping one log and
//! opening another on what is left; can be made to fail.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::Disk;

#[derive(Debug, Default)]
pub(crate) struct Inside {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// Appends until the disk fails; the failing one writes half of its bytes.
    pub(crate) fail_after: Option<usize>,
    /// Bytes of each append that went well, by file, offset and length.
    pub(crate) appends: Vec<(String, usize, usize)>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryDisk(Arc<Mutex<Inside>>);

impl MemoryDisk {
    pub(crate) fn inside(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap()
    }

    /// A disk with the same files, on its own.
    pub(crate) fn copy(&self) -> Self {
        let copy = Self::default();
        copy.inside().files = self.inside().files.clone();
        copy
    }
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Disk for MemoryDisk {
    fn list(&mut self) -> io::Result<Vec<String>> {
        Ok(self.inside().files.keys().cloned().collect())
    }

    fn read(&mut self, name: &str) -> io::Result<Vec<u8>> {
        self.inside().files.get(name).cloned().ok_or_else(missing)
    }

    fn create(&mut self, name: &str, size: u64) -> io::Result<()> {
        self.inside()
            .files
            .insert(name.to_owned(), vec![0; usize::try_from(size).unwrap()]);
        Ok(())
    }

    fn append(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut inside = self.inside();
        let offset = usize::try_from(offset).unwrap();
        let fails = inside.fail_after == Some(0);
        let length = if fails { bytes.len() / 2 } else { bytes.len() };
        inside.fail_after = inside.fail_after.map(|left| left.saturating_sub(1));
        let file = inside.files.get_mut(name).ok_or_else(missing)?;
        file[offset..offset + length].copy_from_slice(&bytes[..length]);
        if fails {
            return Err(io::ErrorKind::StorageFull.into());
        }
        inside.appends.push((name.to_owned(), offset, length));
        Ok(())
    }

    fn cut(&mut self, name: &str, offset: u64) -> io::Result<()> {
        let mut inside = self.inside();
        let file = inside.files.get_mut(name).ok_or_else(missing)?;
        file[usize::try_from(offset).unwrap()..].fill(0);
        Ok(())
    }

    fn put(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.inside().files.insert(name.to_owned(), bytes.to_vec());
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.inside()
            .files
            .remove(name)
            .map(|_| ())
            .ok_or_else(missing)
    }

    fn describe(&self, name: &str) -> String {
        name.to_owned()
    }
}
