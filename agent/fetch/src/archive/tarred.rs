//! A tar archive into the sandbox. Decides what each entry becomes: files, directories and links;
//! anything else is refused by name.

use std::io::{self, BufReader, Read};

use gantry_intake::{ArchivePath, Entry, Kind as EntryKind, TarError, Tarball};

use super::{BUFFER_BYTES, Kind};
use crate::error::{Cause, printable};
use crate::meter::{Meter, stopped};
use crate::sandbox::Sandbox;

pub(super) fn extract(
    kind: Kind,
    plain: impl Read,
    meter: &Meter<'_>,
    sandbox: &mut Sandbox<'_>,
) -> Result<(), Cause> {
    let plain = BufReader::with_capacity(BUFFER_BYTES, meter.on(plain));
    let mut tarball = Tarball::new(plain);
    while let Some(entry) = tarball.next_entry().map_err(|error| worded(kind, error))? {
        meter.entry()?;
        apply(kind, &entry, &mut tarball, sandbox)?;
    }
    // To the end, where the packing has its checksum: a broken archive is not taken for a good one.
    let mut rest = tarball.into_inner();
    let drained = io::copy(&mut rest, &mut io::sink());
    drained.map(|_| ()).map_err(|error| kind.broken(error))
}

fn apply<R: io::BufRead>(
    kind: Kind,
    entry: &Entry,
    tarball: &mut Tarball<R>,
    sandbox: &mut Sandbox<'_>,
) -> Result<(), Cause> {
    let path = parse(&entry.path)?;
    match entry.kind {
        EntryKind::Directory => sandbox.directory(&path, entry.mode),
        EntryKind::File => {
            let file = sandbox.file(&path, entry.mode)?;
            let mut content = Content { tarball };
            sandbox.fill(&file, &path, &mut content, |error| kind.broken(error))?;
            sandbox.set_time(&file, &path, (entry.mtime_s, entry.mtime_ns))
        }
        EntryKind::Symlink => sandbox.symlink(&path, &entry.link),
        EntryKind::HardLink => sandbox.hard_link(&path, &parse(&entry.link)?),
        EntryKind::Fifo => Err(Cause::entry(&entry.path, "is a named pipe")),
        EntryKind::Device => Err(Cause::entry(&entry.path, "is a device")),
    }
}

pub(super) fn parse(name: &[u8]) -> Result<ArchivePath, Cause> {
    ArchivePath::parse(name).map_err(|error| Cause::Name {
        path: printable(name),
        error,
    })
}

/// The content of the entry at hand.
struct Content<'a, R> {
    tarball: &'a mut Tarball<R>,
}

impl<R: io::BufRead> Read for Content<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut data = self.tarball.data().map_err(|error| match error {
            TarError::Read(error) => error,
            error => io::Error::other(error),
        })?;
        let read = data.read(into)?;
        self.tarball.consume(read);
        Ok(read)
    }
}

fn worded(kind: Kind, error: TarError) -> Cause {
    match error {
        TarError::Read(error) => stopped(&error).unwrap_or_else(|| kind.broken(error)),
        error => Cause::Tar(error),
    }
}
