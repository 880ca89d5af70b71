//! What an archive is by its name, and what is made of it: a tree of files, or one file.
//!
//! It decides by the suffix alone, as Mesos does. Everything inside is untrusted.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::sync::atomic::AtomicBool;

use gantry_intake::ArchivePath;

use crate::error::Cause;
use crate::meter::{Bounds, Meter, stopped};
use crate::sandbox::Sandbox;

mod tarred;
mod zipped;

/// Read from the archive at a time.
const BUFFER_BYTES: usize = 128 * 1024;
/// Most memory that a decoder of xz may use, in KiB: twice what `xz -9` needs; and the largest
/// window of zstd, as a power of two: the largest that its own tool takes without being asked.
const XZ_MEMORY_KIB: u32 = 128 * 1024;
const ZSTD_WINDOW_LOG: u32 = 27;

/// How bytes are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    None,
    Gzip,
    Bzip2,
    Xz,
    Zstd,
}

/// What an archive is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Tar(Packing),
    Zip,
    /// One packed file; this many bytes of its name are the suffix.
    Single(Packing, usize),
}

/// Suffixes, the longer ones first.
const SUFFIXES: [(&str, Kind); 15] = [
    (".tar.gz", Kind::Tar(Packing::Gzip)),
    (".tar.bz2", Kind::Tar(Packing::Bzip2)),
    (".tar.xz", Kind::Tar(Packing::Xz)),
    (".tar.zst", Kind::Tar(Packing::Zstd)),
    (".tar", Kind::Tar(Packing::None)),
    (".tgz", Kind::Tar(Packing::Gzip)),
    (".tbz2", Kind::Tar(Packing::Bzip2)),
    (".tbz", Kind::Tar(Packing::Bzip2)),
    (".txz", Kind::Tar(Packing::Xz)),
    (".tzst", Kind::Tar(Packing::Zstd)),
    (".zip", Kind::Zip),
    (".gz", Kind::Single(Packing::Gzip, 3)),
    (".bz2", Kind::Single(Packing::Bzip2, 4)),
    (".xz", Kind::Single(Packing::Xz, 3)),
    (".zst", Kind::Single(Packing::Zstd, 4)),
];

impl Kind {
    /// `None`: nothing is extracted.
    pub(crate) fn of(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let found = SUFFIXES
            .iter()
            .find(|(suffix, _)| name.len() > suffix.len() && name.ends_with(suffix));
        found.map(|(_, kind)| *kind)
    }

    fn words(self) -> &'static str {
        match self {
            Self::Tar(Packing::None) => "tar",
            Self::Tar(Packing::Gzip) => "tar.gz",
            Self::Tar(Packing::Bzip2) => "tar.bz2",
            Self::Tar(Packing::Xz) => "tar.xz",
            Self::Tar(Packing::Zstd) => "tar.zst",
            Self::Zip => "zip",
            Self::Single(Packing::Gzip, _) => "gzip",
            Self::Single(Packing::Bzip2, _) => "bzip2",
            Self::Single(Packing::Xz, _) => "xz",
            Self::Single(Packing::Zstd, _) => "zstd",
            Self::Single(Packing::None, _) => "plain",
        }
    }

    fn broken(self, source: io::Error) -> Cause {
        stopped(&source).unwrap_or(Cause::Broken {
            kind: self.words(),
            source,
        })
    }
}

/// Extracts `from`, which is called `name` in the sandbox: trees into the sandbox's top, as Mesos
/// does, a single file beside its archive.
pub(crate) fn extract(
    kind: Kind,
    name: &ArchivePath,
    from: &File,
    bounds: &Bounds,
    sandbox: &mut Sandbox<'_>,
    cancel: &AtomicBool,
) -> Result<(), Cause> {
    let broken = |error| kind.broken(error);
    let packed_bytes = from.metadata().map_err(broken)?.len();
    let meter = Meter::new(bounds, packed_bytes, cancel);
    match kind {
        Kind::Tar(packing) => {
            let plain = unpacked(packing, from).map_err(broken)?;
            tarred::extract(kind, plain, &meter, sandbox)
        }
        Kind::Zip => zipped::extract(from, &meter, sandbox),
        Kind::Single(packing, suffix) => {
            let mut plain = meter.on(unpacked(packing, from).map_err(broken)?);
            let bytes = name.bytes();
            let shorter = ArchivePath::parse(&bytes[..bytes.len().saturating_sub(suffix)]);
            let path = shorter.map_err(|error| Cause::Name {
                path: crate::error::printable(bytes),
                error,
            })?;
            let file = sandbox.file(&path, 0o644)?;
            sandbox.fill(&file, &path, &mut plain, broken)
        }
    }
}

/// The content of `from`, from its beginning, without its packing.
fn unpacked(packing: Packing, from: &File) -> io::Result<Box<dyn Read + '_>> {
    let mut from = from;
    io::Seek::seek(&mut from, io::SeekFrom::Start(0))?;
    let packed = BufReader::with_capacity(BUFFER_BYTES, from);
    Ok(match packing {
        Packing::None => Box::new(packed),
        Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(packed)),
        Packing::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(packed)),
        Packing::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(
            packed,
            true,
            XZ_MEMORY_KIB,
        )),
        Packing::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(packed)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes() {
        for (name, kind) in [
            ("a.tar", Some("tar")),
            ("a.tar.gz", Some("tar.gz")),
            ("a.TGZ", Some("tar.gz")),
            ("a.tbz2", Some("tar.bz2")),
            ("a.tar.bz2", Some("tar.bz2")),
            ("a.txz", Some("tar.xz")),
            ("a.tar.xz", Some("tar.xz")),
            ("a.tar.zst", Some("tar.zst")),
            ("a.zip", Some("zip")),
            ("a.gz", Some("gzip")),
            ("a.bz2", Some("bzip2")),
            ("a.xz", Some("xz")),
            ("a.zst", Some("zstd")),
            ("a.jar", None),
            ("a", None),
            (".gz", None),
            ("targz", None),
        ] {
            assert_eq!(Kind::of(name).map(Kind::words), kind, "{name}");
        }
    }
}
