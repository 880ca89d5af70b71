//! A [`Disk`] of real files in one directory: io_uring where the kernel permits it, pwrite and
//! fdatasync where not.
//!
//! Invariants: files are 0600; a created, replaced or removed name is durable because the
//! directory is synced too; the file that is appended to stays open between calls.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;

use super::Disk;
use super::ring::Ring;

/// Suffix of files that are not finished; they are removed at start.
const UNFINISHED: &str = ".new";

/// How appends reach the disk.
enum Writer {
    Ring(Box<Ring>),
    Plain,
}

/// A directory of real files.
pub(crate) struct Files {
    directory: PathBuf,
    writer: Writer,
    open: Option<(String, File)>,
}

impl Files {
    /// Opens the directory, which must exist. With `ring` appends go through io_uring if the
    /// kernel permits it; the log says which. The calling thread must be the one that appends.
    pub(crate) fn open(directory: &Path, ring: bool) -> io::Result<Self> {
        let writer = if ring { Self::ring() } else { Writer::Plain };
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().ends_with(UNFINISHED) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(Self {
            directory: directory.to_owned(),
            writer,
            open: None,
        })
    }

    fn ring() -> Writer {
        match Ring::open() {
            Ok(ring) => {
                tracing::debug!("the log is written through io_uring");
                Writer::Ring(Box::new(ring))
            }
            Err(error) => {
                tracing::warn!(
                    %error,
                    "io_uring is not available here: the log is written by pwrite and fdatasync"
                );
                Writer::Plain
            }
        }
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }

    fn opened(&mut self, name: &str) -> io::Result<&File> {
        if self.open.as_ref().is_none_or(|(open, _)| open != name) {
            let file = OpenOptions::new()
                .write(true)
                .open(self.directory.join(name))?;
            self.open = Some((name.to_owned(), file));
        }
        Ok(self
            .open
            .as_ref()
            .map(|(_, file)| file)
            .expect("it was just opened"))
    }

    fn make(&self, name: &str) -> io::Result<File> {
        let path = self.directory.join(name);
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
    }

    /// Finishes the file under its unfinished name and gives it its own.
    fn install(
        &self,
        name: &str,
        fill: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> io::Result<()> {
        let unfinished = format!("{name}{UNFINISHED}");
        let mut file = self.make(&unfinished)?;
        fill(&mut file)?;
        file.sync_all()?;
        std::fs::rename(self.directory.join(unfinished), self.directory.join(name))?;
        self.sync_directory()
    }
}

impl Disk for Files {
    fn list(&mut self) -> io::Result<Vec<String>> {
        std::fs::read_dir(&self.directory)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    fn read(&mut self, name: &str) -> io::Result<Vec<u8>> {
        std::fs::read(self.directory.join(name))
    }

    fn create(&mut self, name: &str, size: u64) -> io::Result<()> {
        self.install(name, |file| {
            match rustix::fs::fallocate(&*file, FallocateFlags::empty(), 0, size) {
                // A file system without fallocate reserves nothing: a full disk then shows at
                // the write, which is handled the same.
                Err(rustix::io::Errno::OPNOTSUPP) => file.set_len(size),
                other => other.map_err(io::Error::from),
            }
        })
    }

    fn append(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.opened(name)?;
        let (_, file) = self.open.as_ref().expect("it was just opened");
        match &mut self.writer {
            Writer::Ring(ring) => ring.write_and_sync(file, offset, bytes),
            Writer::Plain => {
                file.write_all_at(bytes, offset)?;
                file.sync_data()
            }
        }
    }

    fn cut(&mut self, name: &str, offset: u64) -> io::Result<()> {
        let file = self.opened(name)?;
        let size = file.metadata()?.len();
        file.set_len(offset)?;
        file.set_len(size)?;
        file.sync_all()
    }

    fn put(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.install(name, |file| file.write_all(bytes))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.open.take_if(|(open, _)| open == name);
        std::fs::remove_file(self.directory.join(name))?;
        self.sync_directory()
    }

    fn describe(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }
}
