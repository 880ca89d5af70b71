//! Where the files of an archive are: a directory, or stretches of a tar archive on disk.
//!
//! It decides which names there are and reads them; what they mean others decide. A tar archive is
//! looked through once and never unpacked. Invariants: a directory is entered only by openat2 with
//! RESOLVE_BENEATH, and only regular files are read; names in an archive are looked up in a table
//! and never reach the file system.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2};

use super::{ArchiveError, io_failed, look};
use crate::manifest::Compression;
use crate::recipe::Notes;
use crate::unpack::Limits;
use crate::unpack::meter::Metered;
use gantry_intake::{ArchivePath, Kind, TarError, Tarball};

/// Most entries of an outer archive: images have at most some hundred files each.
const MAX_ENTRIES: usize = 50_000;
/// Links from one name to the next that are followed: old Docker archives share layers by one.
const MAX_LINKS: usize = 4;
/// Most names that are given for words: enough to tell what kind of tree it is.
const NAMES_MAX: usize = 1000;
pub(crate) const READ_BYTES: usize = 256 << 10;

/// The files of an archive.
pub(crate) enum Source {
    Directory(OwnedFd),
    Archive {
        file: File,
        places: HashMap<Vec<u8>, Place>,
    },
}

/// Where something is in an archive.
#[derive(Clone)]
pub(crate) enum Place {
    File { at: u64, size_bytes: u64 },
    Link(Vec<u8>),
}

/// One file of a source, from its beginning.
pub(crate) struct Stretch {
    file: File,
    at: u64,
    left: u64,
}

impl Stretch {
    pub(crate) fn size_bytes(&self) -> u64 {
        self.left
    }

    /// How the first bytes say that it is compressed.
    pub(crate) fn compression(&self) -> io::Result<Compression> {
        magic(&self.file, self.at)
    }
}

impl Read for Stretch {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let most = most.min(into.len());
        let read = self.file.read_at(&mut into[..most], self.at)?;
        if read == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

fn magic(file: &File, at: u64) -> io::Result<Compression> {
    let mut bytes = [0; 4];
    let read = file.read_at(&mut bytes, at)?;
    Ok(match &bytes[..read] {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd] => Compression::Zstd,
        _ => Compression::None,
    })
}

impl Source {
    /// Opens a directory or an archive by its path.
    pub(crate) fn open(
        path: &Path,
        limits: &Limits,
        spool: impl FnOnce() -> io::Result<File>,
    ) -> Result<Self, ArchiveError> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = open(path, flags, Mode::empty());
        let opened = opened.map_err(|error| io_failed("open the archive")(error.into()))?;
        let stat =
            fstat(&opened).map_err(|error| io_failed("look at the archive")(error.into()))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Ok(Self::Directory(opened)),
            FileType::RegularFile => Self::archive(File::from(opened), limits, spool),
            _ => Err(ArchiveError::Format("no ordinary file".to_owned())),
        }
    }

    /// Looks through an archive. One that is compressed as a whole is first written out to what
    /// `spool` gives.
    pub(crate) fn archive(
        file: File,
        limits: &Limits,
        spool: impl FnOnce() -> io::Result<File>,
    ) -> Result<Self, ArchiveError> {
        let read = io_failed("read the archive");
        let size_bytes = file
            .metadata()
            .map_err(io_failed("look at the archive"))?
            .len();
        let plain: Box<dyn Read> = match magic(&file, 0).map_err(read)? {
            Compression::None => return Self::index(file),
            Compression::Gzip => {
                let whole = BufReader::with_capacity(READ_BYTES, whole(&file, size_bytes)?);
                Box::new(MultiGzDecoder::new(whole))
            }
            Compression::Zstd => {
                let decoder = crate::stages::zstd(BufReader::new(whole(&file, size_bytes)?));
                Box::new(decoder.map_err(io_failed("inflate the archive"))?)
            }
        };
        let mut out = spool().map_err(io_failed("make a file for the archive"))?;
        let plain = BufReader::with_capacity(READ_BYTES, plain);
        let mut metered = Metered::new(plain, limits, size_bytes, Notes::none());
        io::copy(&mut metered, &mut out).map_err(io_failed("inflate the archive"))?;
        Self::index(out)
    }

    fn index(file: File) -> Result<Self, ArchiveError> {
        let size_bytes = file
            .metadata()
            .map_err(io_failed("look at the archive"))?
            .len();
        let mut tarball = Tarball::new(Counted {
            input: BufReader::with_capacity(READ_BYTES, whole(&file, size_bytes)?),
            taken: 0,
        });
        let mut places = HashMap::new();
        // The first header says whether this is an archive at all.
        let first = tarball.next_entry();
        let mut next = match first {
            Ok(None) if size_bytes == 0 => return Err(unknown(&file)),
            // Shorter than a header, or none.
            Err(TarError::Checksum | TarError::Read(_)) => return Err(unknown(&file)),
            first => first?,
        };
        while let Some(entry) = next {
            let name = ArchivePath::parse(&entry.path);
            let name = name.map_err(|_| ArchiveError::Bounds("a name that leads out of it"))?;
            let place = match entry.kind {
                Kind::File => Some(Place::File {
                    at: tarball.input().taken,
                    size_bytes: entry.size_bytes,
                }),
                Kind::Symlink => link(name.parent(), &entry.link),
                Kind::HardLink => link(b"", &entry.link),
                Kind::Directory | Kind::Fifo | Kind::Device => None,
            };
            if let Some(place) = place {
                // Two files of one name: readers would not agree which one counts.
                if places.insert(name.bytes().to_vec(), place).is_some() {
                    return Err(ArchiveError::Bounds("two files of one name"));
                }
            }
            if places.len() > MAX_ENTRIES {
                return Err(ArchiveError::Bounds("too many files"));
            }
            next = tarball.next_entry()?;
        }
        Ok(Self::Archive { file, places })
    }

    /// Some of the names, for words.
    pub(super) fn names(&self) -> Vec<String> {
        let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        match self {
            Self::Directory(root) => {
                let entries = rustix::fs::Dir::read_from(root).into_iter().flatten();
                let names = entries
                    .flatten()
                    .map(|entry| text(entry.file_name().to_bytes()));
                let named = names.filter(|name| name != "." && name != "..");
                named.take(NAMES_MAX).collect()
            }
            Self::Archive { places, .. } => places
                .keys()
                .take(NAMES_MAX)
                .map(|name| text(name))
                .collect(),
        }
    }

    /// One file; `None` if there is none of that name.
    pub(crate) fn file(&self, name: &str) -> Result<Option<Stretch>, ArchiveError> {
        match self {
            Self::Directory(root) => in_directory(root, name),
            Self::Archive { file, places } => {
                let mut name = name.as_bytes();
                for _ in 0..=MAX_LINKS {
                    match places.get(name) {
                        None => return Ok(None),
                        Some(Place::Link(target)) => name = target,
                        Some(Place::File { at, size_bytes }) => {
                            let file = file.try_clone();
                            return Ok(Some(Stretch {
                                file: file.map_err(io_failed("read the archive"))?,
                                at: *at,
                                left: *size_bytes,
                            }));
                        }
                    }
                }
                Err(ArchiveError::Bounds("a chain of links"))
            }
        }
    }

    /// A small file, whole.
    pub(crate) fn document(
        &self,
        name: &str,
        max_bytes: u64,
    ) -> Result<Option<Vec<u8>>, ArchiveError> {
        let Some(mut stretch) = self.file(name)? else {
            return Ok(None);
        };
        if stretch.size_bytes() > max_bytes {
            return Err(ArchiveError::Bounds("a document that is too large"));
        }
        let mut bytes = Vec::new();
        let read = stretch.read_to_end(&mut bytes);
        read.map_err(io_failed("read the archive"))?;
        Ok(Some(bytes))
    }
}

/// Something that does not begin as an archive does.
fn unknown(file: &File) -> ArchiveError {
    let mut head = [0; 512];
    match file.read_at(&mut head, 0) {
        Ok(read) => ArchiveError::Format(look::of_bytes(&head[..read]).to_owned()),
        Err(error) => io_failed("read the archive")(error),
    }
}

fn whole(file: &File, size_bytes: u64) -> Result<Stretch, ArchiveError> {
    let file = file.try_clone().map_err(io_failed("read the archive"))?;
    Ok(Stretch {
        file,
        at: 0,
        left: size_bytes,
    })
}

fn in_directory(root: &OwnedFd, name: &str) -> Result<Option<Stretch>, ArchiveError> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let opened = match openat2(root, name, flags, Mode::empty(), resolve) {
        Ok(opened) => opened,
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(error) => return Err(io_failed("open a file of the layout")(error.into())),
    };
    let file = File::from(opened);
    let metadata = file.metadata().map_err(io_failed("read the layout"))?;
    if !metadata.is_file() {
        return Err(ArchiveError::Bounds("something that is not a file"));
    }
    Ok(Some(Stretch {
        left: metadata.len(),
        file,
        at: 0,
    }))
}

/// Where a link in the directory `from` leads; nowhere if it leads out of the archive.
fn link(from: &[u8], target: &[u8]) -> Option<Place> {
    let mut parts: Vec<&[u8]> = from.split(|byte| *byte == b'/').collect();
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    parts.retain(|part| !part.is_empty());
    Some(Place::Link(parts.join(&b'/')))
}

/// Counts what was taken, to know where the content of an entry begins.
struct Counted<R> {
    input: R,
    taken: u64,
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.input.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.input.consume(amount);
        self.taken += amount as u64;
    }
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut available = self.fill_buf()?;
        let read = available.read(into)?;
        self.consume(read);
        Ok(read)
    }
}
