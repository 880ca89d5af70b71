//! PAX extended header records (POSIX.1-2001): `length key=value\n`, values binary.
//!
//! It decides which keys count: names, size, owner, time and extended attributes. Others are
//! comments to us, except those that would change how the content is to be read (sparse files).

use super::TarError;

const XATTR: &[u8] = b"SCHILY.xattr.";
const SPARSE: &[u8] = b"GNU.sparse.";

/// The records of one extended header that matter.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    /// Seconds and nanoseconds.
    pub(super) mtime: Option<(i64, u32)>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Pax {
    pub(super) fn parse(mut records: &[u8]) -> Result<Self, TarError> {
        let mut pax = Self::default();
        while !records.is_empty() {
            let (key, value, rest) = record(records).ok_or(TarError::Field("PAX record"))?;
            records = rest;
            match key {
                b"path" => pax.path = Some(value.to_vec()),
                b"linkpath" => pax.link = Some(value.to_vec()),
                b"size" => pax.size = Some(whole(value, "size")?),
                b"uid" => pax.uid = Some(whole(value, "user id")?),
                b"gid" => pax.gid = Some(whole(value, "group id")?),
                b"mtime" => pax.mtime = Some(time(value).ok_or(TarError::Field("time"))?),
                key if key.starts_with(SPARSE) => return Err(TarError::Type('S')),
                key => {
                    if let Some(name) = key.strip_prefix(XATTR) {
                        pax.xattrs.push((name.to_vec(), value.to_vec()));
                    }
                }
            }
        }
        Ok(pax)
    }
}

/// Key, value and what follows. The length counts the whole record, itself included.
fn record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = records.iter().take(20).position(|byte| *byte == b' ')?;
    let length = usize::try_from(digits(&records[..space])?).ok()?;
    let record = records.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], &records[length..]))
}

fn digits(text: &[u8]) -> Option<u64> {
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text)
        .ok()
        .filter(|_| is_number)?
        .parse()
        .ok()
}

fn whole(value: &[u8], name: &'static str) -> Result<u64, TarError> {
    digits(value).ok_or(TarError::Field(name))
}

/// Seconds with an optional sign and fraction. Before 1970 the fraction is dropped.
fn time(value: &[u8]) -> Option<(i64, u32)> {
    let (negative, value) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let mut parts = value.splitn(2, |byte| *byte == b'.');
    let seconds = i64::try_from(digits(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or(b"0");
    digits(&fraction[..fraction.len().min(18)])?;
    let nanos = (0..9).fold(0, |nanos, at| {
        nanos * 10 + fraction.get(at).map_or(0, |digit| u32::from(digit - b'0'))
    });
    Some(if negative {
        (-seconds, 0)
    } else {
        (seconds, nanos)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read() {
        let text = b"14 path=a/b/c\n19 mtime=12.345678\n31 SCHILY.xattr.user.x=1\n2\n34\n\n10 uid=70\n8 gid=\n";
        // The last record is broken on purpose; without it everything is read.
        assert!(Pax::parse(text).is_err());
        let pax = Pax::parse(&text[..text.len() - 7]).unwrap();
        assert_eq!(pax.path.as_deref(), Some(&b"a/b/c"[..]));
        assert_eq!(pax.mtime, Some((12, 345_678_000)));
        assert_eq!(pax.uid, Some(70));
        assert_eq!(pax.xattrs, [(b"user.x".to_vec(), b"1\n2\n34\n".to_vec())]);
    }

    #[test]
    fn bad_records_are_refused() {
        for text in [
            &b"5 a=b"[..],
            b"999 a=b\n",
            b"0 a=b\n",
            b"3 a=b\n",
            b"a=b\n",
            b" \n",
            b"6 ab\n\n",
            b"18446744073709551616 a=b\n",
            b"+6 a=b\n",
            b"12 size=-10\n",
            b"13 size=0x10\n",
            b"12 mtime=1.-\n",
            b"22 GNU.sparse.major=1\n",
        ] {
            assert!(
                Pax::parse(text).is_err(),
                "{:?}",
                String::from_utf8_lossy(text)
            );
        }
        assert_eq!(time(b"-1.5"), Some((-1, 0)));
        assert_eq!(time(b"1"), Some((1, 0)));
        assert_eq!(time(b"1.000000001999999999999"), Some((1, 1)));
        assert_eq!(time(b"1.5x"), None);
    }
}
