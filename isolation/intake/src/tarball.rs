//! Reading a tar stream entry by entry: headers, long names, PAX records; nothing is written here.
//!
//! It decides what an archive says, strictly and within bounds. Our own reader over the `tar`
//! crate's header type, because the crate's iterator reads extension records of any length into
//! memory, and in its raw mode cannot apply a PAX `size`. Names are bytes, and checked by whoever
//! uses them.

use std::io::{self, BufRead, Read};

use tar::{EntryType, Header};

use self::pax::Pax;

mod pax;

const BLOCK: usize = 512;
/// Most bytes of extension records (long names, PAX) before one entry.
const MAX_EXTENSION_BYTES: u64 = 1 << 20;
/// Most extension records before one entry: long name, long link, PAX, and a spare.
const MAX_EXTENSIONS: usize = 4;
/// The uid that chown takes for "leave it as it is".
const NO_ID: u64 = u32::MAX as u64;

/// Why an archive is refused.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The stream broke off or could not be inflated.
    #[error("the archive could not be read")]
    Read(#[source] io::Error),
    /// The checksum of a header does not hold: not a tar archive, or a broken one.
    #[error("it is not a tar archive (a header's checksum is wrong)")]
    Checksum,
    /// A number in a header or record is none, or beyond its range.
    #[error("an entry of the archive has a bad {0}")]
    Field(&'static str),
    /// Extension records that are too long or too many.
    #[error("the archive has unreasonable extension records")]
    Extension,
    /// A kind of entry that this reader does not know.
    #[error("an entry of the archive is of the unsupported type {0:?}")]
    Type(char),
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    Fifo,
    /// Character or block device.
    Device,
}

/// One entry, without its content.
#[derive(Debug, Clone)]
pub struct Entry {
    pub kind: Kind,
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime_s: i64,
    pub mtime_ns: u32,
    pub size_bytes: u64,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A tar stream. After [`Tarball::next_entry`], up to `size_bytes` can be taken by [`Tarball::data`];
/// what is not taken is skipped.
pub struct Tarball<R> {
    input: R,
    /// Content bytes of the current entry not yet taken, and the padding after them.
    remaining: u64,
    padding: u64,
}

/// Records that change the next entry.
#[derive(Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Pax,
}

impl<R: BufRead> Tarball<R> {
    pub fn new(input: R) -> Self {
        Self {
            input,
            remaining: 0,
            padding: 0,
        }
    }

    pub fn input(&mut self) -> &mut R {
        &mut self.input
    }

    pub fn into_inner(self) -> R {
        self.input
    }

    /// The next entry; `None` at the end of the archive.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extensions = Extensions::default();
        for _ in 0..=MAX_EXTENSIONS {
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            let size = number(&header.as_old().size).and_then(|size| u64::try_from(size).ok());
            let size = size.ok_or(TarError::Field("size"))?;
            let kind = header.entry_type();
            if matches!(kind, EntryType::GNULongName | EntryType::GNULongLink)
                || matches!(kind, EntryType::XHeader | EntryType::XGlobalHeader)
            {
                let bytes = self.extension(size)?;
                match kind {
                    EntryType::GNULongName => extensions.name = Some(until_nul(&bytes)),
                    EntryType::GNULongLink => extensions.link = Some(until_nul(&bytes)),
                    EntryType::XHeader => extensions.pax = Pax::parse(&bytes)?,
                    // Global records are comments in practice (git archive); nothing to apply.
                    _ => {}
                }
                continue;
            }
            let entry = entry(&header, size, extensions)?;
            self.begin(if entry.kind == Kind::File {
                entry.size_bytes
            } else {
                size
            });
            return Ok(Some(entry));
        }
        Err(TarError::Extension)
    }

    /// The next piece of the current entry's content; empty at its end.
    pub fn data(&mut self) -> Result<&[u8], TarError> {
        if self.remaining == 0 {
            return Ok(&[]);
        }
        let available = self.input.fill_buf().map_err(TarError::Read)?;
        if available.is_empty() {
            return Err(cut());
        }
        let length = usize::try_from(self.remaining)
            .unwrap_or(usize::MAX)
            .min(available.len());
        Ok(&available[..length])
    }

    /// Marks bytes that [`Tarball::data`] gave as taken.
    pub fn consume(&mut self, amount: usize) {
        let amount = amount.min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
        self.input.consume(amount);
        self.remaining -= amount as u64;
    }

    fn begin(&mut self, size: u64) {
        self.remaining = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    /// Skips what is left of the content (which must be there) and the padding after it. Some tools
    /// (umoci's `insert`) leave out the last padding, and every other reader lets them.
    fn skip(&mut self) -> Result<(), TarError> {
        self.discard(self.remaining)?
            .then_some(())
            .ok_or_else(cut)?;
        self.discard(self.padding)?;
        (self.remaining, self.padding) = (0, 0);
        Ok(())
    }

    /// Whether there was as much to discard.
    fn discard(&mut self, mut left: u64) -> Result<bool, TarError> {
        while left > 0 {
            let available = self.input.fill_buf().map_err(TarError::Read)?.len();
            if available == 0 {
                return Ok(false);
            }
            let step = usize::try_from(left).unwrap_or(usize::MAX).min(available);
            self.input.consume(step);
            left -= step as u64;
        }
        Ok(true)
    }

    fn header(&mut self) -> Result<Option<Header>, TarError> {
        self.skip()?;
        if self.input.fill_buf().map_err(TarError::Read)?.is_empty() {
            return Ok(None);
        }
        let mut header = Header::new_old();
        self.input
            .read_exact(header.as_mut_bytes())
            .map_err(TarError::Read)?;
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let stored = number(&header.as_old().cksum).ok_or(TarError::Checksum)?;
        if stored != i64::from(checksum(header.as_bytes())) {
            return Err(TarError::Checksum);
        }
        Ok(Some(header))
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > MAX_EXTENSION_BYTES {
            return Err(TarError::Extension);
        }
        self.begin(size);
        let mut bytes = Vec::new();
        self.input
            .by_ref()
            .take(size)
            .read_to_end(&mut bytes)
            .map_err(TarError::Read)?;
        if bytes.len() as u64 != size {
            return Err(cut());
        }
        self.remaining = 0;
        Ok(bytes)
    }
}

fn entry(header: &Header, size: u64, extensions: Extensions) -> Result<Entry, TarError> {
    let Extensions { name, link, pax } = extensions;
    let path = pax
        .path
        .or(name)
        .unwrap_or_else(|| header.path_bytes().into_owned());
    let link = pax.link.or(link);
    let link = link.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
    let kind = match header.entry_type() {
        EntryType::Regular | EntryType::Continuous if path.ends_with(b"/") => Kind::Directory,
        EntryType::Regular | EntryType::Continuous => Kind::File,
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => Kind::Symlink,
        EntryType::Link => Kind::HardLink,
        EntryType::Fifo => Kind::Fifo,
        EntryType::Char | EntryType::Block => Kind::Device,
        other => return Err(TarError::Type(char::from(other.as_byte()))),
    };
    let fields = header.as_old();
    let id = |pax: Option<u64>, field: &[u8], name| {
        let id = pax.or_else(|| number(field).and_then(|id| u64::try_from(id).ok()));
        let id = id
            .filter(|id| *id < NO_ID)
            .and_then(|id| u32::try_from(id).ok());
        id.ok_or(TarError::Field(name))
    };
    let mode = number(&fields.mode).and_then(|mode| u32::try_from(mode & 0o7777).ok());
    let (mtime_s, mtime_ns) = match pax.mtime {
        Some(mtime) => mtime,
        None => (number(&fields.mtime).ok_or(TarError::Field("time"))?, 0),
    };
    Ok(Entry {
        kind,
        path,
        link: link.unwrap_or_default(),
        mode: mode.ok_or(TarError::Field("mode"))?,
        uid: id(pax.uid, &fields.uid, "user id")?,
        gid: id(pax.gid, &fields.gid, "group id")?,
        mtime_s,
        mtime_ns,
        size_bytes: pax.size.unwrap_or(size),
        xattrs: pax.xattrs,
    })
}

/// The sum of the header's bytes with the checksum field (148..156) taken as spaces.
fn checksum(header: &[u8; BLOCK]) -> u32 {
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    sum(&header[..148]) + 8 * u32::from(b' ') + sum(&header[156..])
}

/// A numeric field: octal text, or two's complement in base 256 if the first bit is set (GNU).
fn number(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 == 0 {
        let text = field
            .split(|byte| *byte == 0)
            .next()
            .unwrap_or_default()
            .trim_ascii();
        return text.iter().try_fold(0_i64, |value, digit| match digit {
            b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
            _ => None,
        });
    }
    let sign = if first & 0x40 == 0 { 0 } else { -1 };
    let head = i64::from(first & 0x3f) | (sign << 6);
    field[1..].iter().try_fold(head, |value, byte| {
        value.checked_mul(256).map(|value| value | i64::from(*byte))
    })
}

fn cut() -> TarError {
    TarError::Read(io::ErrorKind::UnexpectedEof.into())
}

fn until_nul(bytes: &[u8]) -> Vec<u8> {
    bytes
        .split(|byte| *byte == 0)
        .next()
        .unwrap_or_default()
        .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (field, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"777777777777", Some(0o777_777_777_777)),
            (b"12x", None),
            (b"-1", None),
            (b"9", None),
            (&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0], Some(256)),
            (&[0xff; 12], Some(-1)),
            (
                &[
                    0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                ],
                None,
            ),
            (&[0xbf; 8], Some(0x3fbf_bfbf_bfbf_bfbf)),
        ] {
            assert_eq!(number(field), value, "{field:?}");
        }
    }

    #[test]
    fn garbage_is_refused_and_nothing_panics() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for length in (0..4096).step_by(7) {
            let bytes: Vec<u8> = (0..length)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state.to_le_bytes()[0]
                })
                .collect();
            let mut tarball = Tarball::new(bytes.as_slice());
            assert!(length == 0 || tarball.next_entry().is_err());
        }
    }

    #[test]
    fn endless_extensions_are_refused() {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::GNULongName);
        header.set_size(MAX_EXTENSION_BYTES + 1);
        header.set_cksum();
        let long = header.as_bytes().chain(io::repeat(0));
        let result = Tarball::new(io::BufReader::new(long)).next_entry();
        assert!(matches!(result, Err(TarError::Extension)));
        header.set_size(0);
        header.set_cksum();
        let many = header.as_bytes().repeat(10);
        assert!(matches!(
            Tarball::new(many.as_slice()).next_entry(),
            Err(TarError::Extension)
        ));
    }
}
