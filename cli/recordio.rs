//! RecordIO, as Mesos streams it: the decimal length of a record, a line feed, the record.
//!
//! Pure. Invariant: never holds more than one record beyond what was pushed, and refuses a record
//! longer than [`RECORD_MAX_BYTES`].

/// Longest record in bytes. The agent sends at most some tens of KiB at a time.
pub(crate) const RECORD_MAX_BYTES: usize = 4 << 20;
/// Digits of the longest length.
const DIGITS_MAX: usize = 20;

/// Cuts a byte stream into records.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    buffer: Vec<u8>,
}

/// Bytes that are no RecordIO.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotRecordIo;

impl Decoder {
    /// Takes the next bytes of the stream.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole record; nothing when more bytes are needed.
    pub(crate) fn next(&mut self) -> Result<Option<Vec<u8>>, NotRecordIo> {
        let Some(end) = self
            .buffer
            .iter()
            .take(DIGITS_MAX + 1)
            .position(|b| *b == b'\n')
        else {
            let digits = self.buffer.iter().all(u8::is_ascii_digit);
            return if digits && self.buffer.len() <= DIGITS_MAX {
                Ok(None)
            } else {
                Err(NotRecordIo)
            };
        };
        let digits = std::str::from_utf8(&self.buffer[..end]).map_err(|_| NotRecordIo)?;
        let length: usize = digits.parse().map_err(|_| NotRecordIo)?;
        if length > RECORD_MAX_BYTES {
            return Err(NotRecordIo);
        }
        let total = end + 1 + length;
        if self.buffer.len() < total {
            return Ok(None);
        }
        let record = self.buffer[end + 1..total].to_vec();
        self.buffer.drain(..total);
        Ok(Some(record))
    }

    /// Whether the stream ended between records.
    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_found_wherever_the_chunks_end() {
        let stream = b"5\nhello0\n11\n{\"a\":\"\n\"}!!";
        for size in 1..=stream.len() {
            let (mut decoder, mut records) = (Decoder::default(), Vec::new());
            for chunk in stream.chunks(size) {
                decoder.push(chunk);
                while let Some(record) = decoder.next().unwrap() {
                    records.push(record);
                }
            }
            assert_eq!(
                records,
                [
                    b"hello".to_vec(),
                    b"".to_vec(),
                    b"{\"a\":\"\n\"}!!".to_vec()
                ]
            );
            assert!(decoder.is_empty());
        }
    }

    #[test]
    fn other_streams_are_refused() {
        for bytes in [
            &b"<html>\n"[..],
            b"{}",
            b"-1\n",
            b"99999999999\n",
            b"123456789012345678901",
        ] {
            let mut decoder = Decoder::default();
            decoder.push(bytes);
            assert_eq!(decoder.next(), Err(NotRecordIo), "{bytes:?}");
        }
        let mut decoder = Decoder::default();
        decoder.push(b"12");
        assert_eq!(decoder.next(), Ok(None));
        assert!(!decoder.is_empty());
    }
}
