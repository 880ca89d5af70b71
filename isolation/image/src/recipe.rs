//! How a layer's archive is made again from its files, byte for byte.
//!
//! A store that keeps unpacked layers only could not export an image under its own digests: the
//! order of entries, the kind of their headers and the padding are lost. So unpacking notes, in a
//! small compressed file, everything of the archive that is not the content of a file, and where the
//! content is (as tar-split does for other engines). Some twenty bytes an entry remain.
//!
//! ```text
//! zstd( record… )    record = 0, length: u32 LE, bytes          as they stood in the archive
//!                           | 1, length: u32 LE, path, size: u64 LE   the content of that file
//! ```
//! It does not promise that the files are still what they were: whoever replays compares the digest.
//! Invariants: a recipe never makes a pull fail, it is only missing then; what replays reads nothing
//! outside of the layer's directory.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};

/// Most bytes of an archive that are noted; more than that is no ordinary layer.
const MAX_NOTED_BYTES: u64 = 1 << 30;
/// A record of archive bytes is written when there are so many.
const RECORD_BYTES: usize = 64 << 10;
/// Longest record that is read back, in bytes.
const MAX_RECORD_BYTES: usize = 2 * RECORD_BYTES;
const COPY_BYTES: usize = 256 << 10;
/// The fastest level: headers of tar archives are mostly zeros.
const LEVEL: i32 = 1;

const BYTES: u8 = 0;
const CONTENT: u8 = 1;

/// Takes notes while a layer is unpacked.
pub(crate) struct Notes {
    /// Nothing any more once something went wrong.
    out: Option<zstd::stream::write::Encoder<'static, BufWriter<File>>>,
    pending: Vec<u8>,
    left_bytes: u64,
}

impl Notes {
    /// Writes to a new file.
    pub(crate) fn create(path: &Path) -> Self {
        let out = File::create_new(path)
            .and_then(|file| zstd::stream::write::Encoder::new(BufWriter::new(file), LEVEL));
        let mut notes = Self::none();
        notes.out = notes.kept(out);
        notes
    }

    /// Takes none.
    pub(crate) fn none() -> Self {
        Self {
            out: None,
            pending: Vec::new(),
            left_bytes: MAX_NOTED_BYTES,
        }
    }

    /// Bytes of the archive.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        if self.out.is_none() {
            return;
        }
        self.left_bytes = self.left_bytes.saturating_sub(bytes.len() as u64);
        if self.left_bytes == 0 {
            self.out = None;
        }
        for piece in bytes.chunks(RECORD_BYTES) {
            self.pending.extend_from_slice(piece);
            if self.pending.len() >= RECORD_BYTES {
                self.flush();
            }
        }
    }

    /// Here the archive has the content of a file.
    pub(crate) fn content(&mut self, path: &[u8], size_bytes: u64) {
        self.flush();
        self.record(CONTENT, path, &size_bytes.to_le_bytes());
    }

    /// The files do not say any more what was in the archive.
    pub(crate) fn give_up(&mut self) {
        self.out = None;
    }

    /// Whether the recipe is complete and written.
    pub(crate) fn finish(mut self) -> bool {
        self.flush();
        let Some(out) = self.out.take() else {
            return false;
        };
        let written = out.finish().and_then(|mut file| file.flush());
        self.kept(written).is_some()
    }

    fn flush(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        if !pending.is_empty() {
            self.record(BYTES, &pending, &[]);
        }
        self.pending = pending;
        self.pending.clear();
    }

    fn record(&mut self, kind: u8, bytes: &[u8], rest: &[u8]) {
        let Some(out) = &mut self.out else { return };
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let mut write = || {
            out.write_all(&[kind])?;
            out.write_all(&length.to_le_bytes())?;
            out.write_all(bytes)?;
            out.write_all(rest)
        };
        if let Err(error) = write() {
            tracing::debug!(%error, "a layer's recipe could not be written");
            self.out = None;
        }
    }

    fn kept<T>(&self, result: io::Result<T>) -> Option<T> {
        result
            .inspect_err(|error| tracing::debug!(%error, "a layer's recipe could not be written"))
            .ok()
    }
}

/// Writes the archive of the layer in `root` again.
pub(crate) fn replay(recipe: File, root: &OwnedFd, out: &mut dyn Write) -> io::Result<()> {
    let mut copy = vec![0; COPY_BYTES];
    records(recipe, |record| match record {
        Record::Bytes(bytes) => out.write_all(bytes),
        Record::Content(path, size_bytes) => content(root, path, size_bytes, &mut copy, out),
    })
}

/// How long the archive will be, without a look at the files.
pub(crate) fn size_bytes(recipe: File) -> io::Result<u64> {
    let mut sum = 0_u64;
    records(recipe, |record| {
        sum = sum.saturating_add(match record {
            Record::Bytes(bytes) => bytes.len() as u64,
            Record::Content(_, size_bytes) => size_bytes,
        });
        Ok(())
    })?;
    Ok(sum)
}

enum Record<'a> {
    /// As they stand in the archive.
    Bytes(&'a [u8]),
    /// So many of the file of this name.
    Content(&'a [u8], u64),
}

fn records(recipe: File, mut each: impl FnMut(Record<'_>) -> io::Result<()>) -> io::Result<()> {
    let mut records = BufReader::new(zstd::stream::read::Decoder::new(recipe)?);
    let mut bytes = Vec::new();
    loop {
        let mut kind = [0];
        if records.read(&mut kind)? == 0 {
            return Ok(());
        }
        let mut length = [0; 4];
        records.read_exact(&mut length)?;
        let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        if length > MAX_RECORD_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        bytes.resize(length, 0);
        records.read_exact(&mut bytes)?;
        match kind[0] {
            BYTES => each(Record::Bytes(&bytes))?,
            CONTENT => {
                let mut size = [0; 8];
                records.read_exact(&mut size)?;
                each(Record::Content(&bytes, u64::from_le_bytes(size)))?;
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

fn content(
    root: &OwnedFd,
    path: &[u8],
    size_bytes: u64,
    copy: &mut [u8],
    out: &mut dyn Write,
) -> io::Result<()> {
    // The same resolution as when it was written; a FIFO there now must not block.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let file = openat2(root, path, flags, Mode::empty(), resolve)?;
    if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut file = File::from(file);
    let mut left = size_bytes;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(copy.len());
        let read = file.read(&mut copy[..most])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        out.write_all(&copy[..read])?;
        left -= read as u64;
    }
    Ok(())
}
