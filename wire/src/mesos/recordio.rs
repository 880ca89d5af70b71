//! RecordIO: a stream of records, each its length in ASCII digits, a line feed, and that many bytes.
//! Where the chunks of a body begin and end means nothing.
//!
//! Neither side does I/O. The decoder holds at most the one record that is not yet complete, and
//! takes no memory for bytes that were announced but have not come.

/// Digits of the largest 64-bit number.
const DIGITS_MAX: usize = 20;

/// Why a stream is not RecordIO.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Something else than the digits of a length.
    #[error("a record does not begin with its length")]
    Length,
    /// Longer than the decoder allows.
    #[error("a record of {0} bytes is too long")]
    TooLong(u64),
    /// The stream ended inside a record.
    #[error("the stream ends inside a record")]
    Cut,
}

/// Appends a record.
pub fn frame(record: &[u8], out: &mut Vec<u8>) {
    let length = record.len().to_string();
    out.reserve(length.len() + 1 + record.len());
    out.extend_from_slice(length.as_bytes());
    out.push(b'\n');
    out.extend_from_slice(record);
}

/// Takes records out of a stream.
#[derive(Debug)]
pub struct Decoder {
    max_bytes: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Digits of a length so far.
    Length { digits: usize, value: u64 },
    /// A record that lacks some bytes.
    Record { length: usize, bytes: Vec<u8> },
    /// The stream is of no use any more.
    Broken(RecordError),
}

const START: State = State::Length {
    digits: 0,
    value: 0,
};

impl Decoder {
    /// Refuses records over `max_bytes`.
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            state: START,
        }
    }

    /// The next record, out of what came before and the front of `input`, which moves on. `None`
    /// when all of `input` is taken and the record is not complete. Errors: the stream is no
    /// RecordIO; it stays so.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Vec<u8>>, RecordError> {
        loop {
            match &mut self.state {
                State::Broken(error) => return Err(*error),
                State::Length { digits, value } => {
                    let Some((&byte, rest)) = input.split_first() else {
                        return Ok(None);
                    };
                    *input = rest;
                    match byte {
                        b'0'..=b'9' if *digits < DIGITS_MAX => {
                            *digits += 1;
                            *value = value
                                .saturating_mul(10)
                                .saturating_add(u64::from(byte - b'0'));
                        }
                        b'\n' if *digits > 0 => self.state = announced(*value, self.max_bytes),
                        _ => self.state = State::Broken(RecordError::Length),
                    }
                }
                State::Record { length, bytes } => {
                    let lacking = *length - bytes.len();
                    let (taken, rest) = input.split_at(lacking.min(input.len()));
                    bytes.extend_from_slice(taken);
                    *input = rest;
                    if bytes.len() < *length {
                        return Ok(None);
                    }
                    let record = std::mem::take(bytes);
                    self.state = START;
                    return Ok(Some(record));
                }
            }
        }
    }

    /// Whether the stream may end here. Errors: it is inside a record, or was no RecordIO.
    pub fn finish(&self) -> Result<(), RecordError> {
        match self.state {
            State::Length { digits: 0, .. } => Ok(()),
            State::Broken(error) => Err(error),
            State::Length { .. } | State::Record { .. } => Err(RecordError::Cut),
        }
    }
}

fn announced(length: u64, max_bytes: usize) -> State {
    match usize::try_from(length) {
        Ok(length) if length <= max_bytes => State::Record {
            length,
            bytes: Vec::new(),
        },
        _ => State::Broken(RecordError::TooLong(length)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(decoder: &mut Decoder, mut chunk: &[u8]) -> Result<Vec<Vec<u8>>, RecordError> {
        let mut records = Vec::new();
        while let Some(record) = decoder.next(&mut chunk)? {
            records.push(record);
        }
        assert!(chunk.is_empty());
        Ok(records)
    }

    #[test]
    fn chunk_borders_mean_nothing() {
        let mut stream = Vec::new();
        let records: [&[u8]; 4] = [b"{\"type\":\"HEARTBEAT\"}", b"", b"\n12\n", &[0xff; 300]];
        for record in records {
            frame(record, &mut stream);
        }
        assert!(stream.starts_with(b"20\n{\"type\""));
        for size in [1, 2, 3, 7, 100, stream.len()] {
            let mut decoder = Decoder::new(300);
            let mut found = Vec::new();
            for chunk in stream.chunks(size) {
                found.extend(all(&mut decoder, chunk).unwrap());
            }
            assert_eq!(found, records, "{size}");
            assert_eq!(decoder.finish(), Ok(()));
        }
    }

    #[test]
    fn junk_is_refused_and_stays_so() {
        for (text, want) in [
            ("{\"type\"", RecordError::Length),
            ("\n", RecordError::Length),
            ("-1\n", RecordError::Length),
            ("+1\n", RecordError::Length),
            (" 1\n", RecordError::Length),
            ("1\r\n", RecordError::Length),
            ("0x10\n", RecordError::Length),
            ("11\n", RecordError::TooLong(11)),
            ("18446744073709551615\n", RecordError::TooLong(u64::MAX)),
            ("99999999999999999999\n", RecordError::TooLong(u64::MAX)),
            ("000000000000000000001\n", RecordError::Length),
        ] {
            let mut decoder = Decoder::new(10);
            let mut input = text.as_bytes();
            assert_eq!(decoder.next(&mut input), Err(want), "{text}");
            assert_eq!(decoder.next(&mut &b"1\na"[..]), Err(want), "{text}");
            assert_eq!(decoder.finish(), Err(want));
        }
        for text in ["1", "2\na"] {
            let mut decoder = Decoder::new(10);
            assert_eq!(decoder.next(&mut text.as_bytes()), Ok(None));
            assert_eq!(decoder.finish(), Err(RecordError::Cut));
        }
    }
}
