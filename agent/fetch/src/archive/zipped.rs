//! A zip archive into the sandbox, by its central directory.
//!
//! It decides what each entry becomes: files, directories and symbolic links; anything else, and
//! whatever is encrypted or packed in a way that hardly anyone uses, is refused by name. The bytes
//! of two entries never overlap, so that an archive cannot unpack the same bytes over and over.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};

use rawzip::{CompressionMethod, ReaderAt, ZipArchive, ZipArchiveEntryWayfinder, ZipEntry};

use super::tarred::parse;
use super::{BUFFER_BYTES, Kind, ZSTD_WINDOW_LOG};
use crate::error::Cause;
use crate::meter::Meter;
use crate::sandbox::Sandbox;

/// Longest target of a symbolic link (PATH_MAX).
const MAX_TARGET_BYTES: u64 = 4096;
/// Bits of a mode that say what it is (inode(7)).
const TYPE: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;

/// What is needed of an entry's header, copied: the header lies in the reader's buffer.
struct Header {
    name: Vec<u8>,
    mode: u32,
    method: CompressionMethod,
    place: ZipArchiveEntryWayfinder,
}

pub(super) fn extract(
    from: &File,
    meter: &Meter<'_>,
    sandbox: &mut Sandbox<'_>,
) -> Result<(), Cause> {
    let mut buffer = vec![0; rawzip::MAX_CENTRAL_DIRECTORY_RECORD_SIZE];
    let from = from.try_clone().map_err(|error| Kind::Zip.broken(error))?;
    let archive = ZipArchive::from_file(from, &mut buffer).map_err(broken)?;
    let mut taken = BTreeMap::new();
    let mut entries = archive.entries(&mut buffer);
    while let Some(record) = entries.next_entry().map_err(broken)? {
        meter.entry()?;
        let header = Header {
            name: record.file_path().as_ref().to_vec(),
            mode: record.mode().value(),
            method: record.compression_method(),
            place: record.wayfinder(),
        };
        if record.flags().is_encrypted() {
            return Err(Cause::entry(&header.name, "is encrypted"));
        }
        let entry = archive.get_entry(header.place).map_err(broken)?;
        apart(&mut taken, entry.compressed_data_range(), &header.name)?;
        apply(&header, &entry, meter, sandbox)?;
    }
    Ok(())
}

/// Notes where the bytes of an entry are; those of another may not be there.
fn apart(
    taken: &mut BTreeMap<u64, u64>,
    (start, end): (u64, u64),
    name: &[u8],
) -> Result<(), Cause> {
    if start == end {
        return Ok(());
    }
    let before = taken.range(..end).next_back();
    if before.is_some_and(|(_, before)| *before > start) {
        return Err(Cause::entry(name, "shares its bytes with another one"));
    }
    taken.insert(start, end);
    Ok(())
}

fn apply<R: ReaderAt>(
    header: &Header,
    entry: &ZipEntry<'_, R>,
    meter: &Meter<'_>,
    sandbox: &mut Sandbox<'_>,
) -> Result<(), Cause> {
    let path = parse(&header.name)?;
    match header.mode & TYPE {
        // One that is called a directory is one, whatever else it says.
        _ if header.name.ends_with(b"/") => sandbox.directory(&path, header.mode),
        DIRECTORY => sandbox.directory(&path, header.mode),
        SYMLINK => {
            let mut target = Vec::new();
            let content = meter.on(content(header, entry)?);
            let read = content.take(MAX_TARGET_BYTES).read_to_end(&mut target);
            read.map_err(|error| Kind::Zip.broken(error))?;
            sandbox.symlink(&path, &target)
        }
        0 | FILE => {
            let mut content = meter.on(content(header, entry)?);
            let file = sandbox.file(&path, header.mode)?;
            sandbox.fill(&file, &path, &mut content, |error| Kind::Zip.broken(error))
        }
        _ => Err(Cause::entry(&header.name, "is a device or a named pipe")),
    }
}

/// What an entry holds; its size and checksum are compared at the end.
fn content<'a, R: ReaderAt>(
    header: &Header,
    entry: &ZipEntry<'a, R>,
) -> Result<Box<dyn Read + 'a>, Cause> {
    let packed = BufReader::with_capacity(BUFFER_BYTES, entry.reader());
    let broken = |error| Kind::Zip.broken(error);
    Ok(match header.method {
        CompressionMethod::STORE => Box::new(entry.verifying_reader(packed)),
        CompressionMethod::DEFLATE => {
            let plain = flate2::bufread::DeflateDecoder::new(packed);
            Box::new(entry.verifying_reader(plain))
        }
        CompressionMethod::BZIP2 => {
            let plain = bzip2::bufread::BzDecoder::new(packed);
            Box::new(entry.verifying_reader(plain))
        }
        CompressionMethod::ZSTD => {
            let mut plain = zstd::Decoder::with_buffer(packed).map_err(broken)?;
            plain.window_log_max(ZSTD_WINDOW_LOG).map_err(broken)?;
            Box::new(entry.verifying_reader(plain))
        }
        _ => {
            let why = "is packed in a way that is not supported (deflate, bzip2 and zstd are)";
            return Err(Cause::entry(&header.name, why));
        }
    })
}

fn broken(error: rawzip::Error) -> Cause {
    Kind::Zip.broken(io::Error::other(error))
}
