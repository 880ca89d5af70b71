//! Protobuf bytes into JSON, by the tables. Fields come in the order of their declaration; an
//! unset one with a default that is not deprecated is printed with that default. Depth is not bounded
//! here: what is printed was a message in memory before.

use super::DecodeError;
use crate::mesos::base64;
use crate::mesos::descriptor::{Field, Kind, Label, Message};
use crate::mesos::fields::{Fields, Value};

/// Appends the JSON form of a message that prost wrote. Errors: the bytes are no such message.
pub(crate) fn print(
    message: &'static Message,
    bytes: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    let mut printer = Printer {
        out,
        found: Vec::new(),
    };
    printer.message(message, bytes)
}

/// Place of a field in its message, and a value of it.
type Found<'b> = (usize, Value<'b>);

struct Printer<'b, 'o> {
    out: &'o mut Vec<u8>,
    /// The fields of the messages that are being printed, those of the innermost last.
    found: Vec<Found<'b>>,
}

impl<'b> Printer<'b, '_> {
    fn message(&mut self, message: &'static Message, bytes: &'b [u8]) -> Result<(), DecodeError> {
        let start = self.found.len();
        for item in Fields::of(bytes) {
            let item = item?;
            if let Some(place) = message.numbered(item.number) {
                self.found.push((place, item.value));
            }
        }
        let found = &mut self.found[start..];
        if !found.is_sorted_by_key(|(place, _)| *place) {
            found.sort_by_key(|(place, _)| *place);
        }
        self.out.push(b'{');
        let mut at = start;
        let mut first = true;
        for (place, field) in message.fields.iter().enumerate() {
            let from = at;
            while self.found.get(at).is_some_and(|found| found.0 == place) {
                at += 1;
            }
            let before = self.out.len();
            if !first {
                self.out.push(b',');
            }
            self.out.push(b'"');
            self.out.extend_from_slice(field.name.as_bytes());
            self.out.extend_from_slice(b"\":");
            let printed = match field.label {
                Label::Repeated => self.list(field, from..at)?,
                Label::Map => self.map(field, from..at)?,
                Label::Optional | Label::Required => self.single(field, from..at)?,
            };
            if printed {
                first = false;
            } else {
                self.out.truncate(before);
            }
        }
        self.out.push(b'}');
        self.found.truncate(start);
        Ok(())
    }

    fn single(
        &mut self,
        field: &'static Field,
        range: std::ops::Range<usize>,
    ) -> Result<bool, DecodeError> {
        if let Some((_, value)) = range.last().map(|at| self.found[at])
            && self.value(field, value)?
        {
            return Ok(true);
        }
        match field.default {
            Some(default) => self.out.extend_from_slice(default.as_bytes()),
            None => return Ok(false),
        }
        Ok(true)
    }

    fn list(
        &mut self,
        field: &'static Field,
        range: std::ops::Range<usize>,
    ) -> Result<bool, DecodeError> {
        let start = self.out.len();
        self.out.push(b'[');
        for at in range {
            let (_, value) = self.found[at];
            match (field.kind, value) {
                (Kind::String | Kind::Bytes | Kind::Message(_), _) | (_, Value::Varint(_)) => {
                    self.element(field, value)?;
                }
                (_, Value::Delimited(bytes)) => {
                    for number in Fields::packed(bytes) {
                        self.element(field, Value::Varint(number?))?;
                    }
                }
                _ => {}
            }
        }
        if self.out.len() == start + 1 {
            return Ok(false);
        }
        // The comma behind the last element.
        self.out.pop();
        self.out.push(b']');
        Ok(true)
    }

    fn element(&mut self, field: &'static Field, value: Value<'b>) -> Result<(), DecodeError> {
        if self.value(field, value)? {
            self.out.push(b',');
        }
        Ok(())
    }

    fn map(
        &mut self,
        field: &'static Field,
        range: std::ops::Range<usize>,
    ) -> Result<bool, DecodeError> {
        let Kind::Message(entry) = field.kind else {
            return Ok(false);
        };
        let mut entries: Vec<(&'b [u8], Value<'b>)> = Vec::with_capacity(range.len());
        for at in range {
            if let (_, Value::Delimited(bytes)) = self.found[at] {
                entries.push(pair(bytes)?);
            }
        }
        // Of entries with the same key the last one counts.
        entries.reverse();
        entries.sort_by_key(|(key, _)| *key);
        entries.dedup_by_key(|(key, _)| *key);
        let [_, value] = entry.fields else {
            return Ok(false);
        };
        self.out.push(b'{');
        for (at, (key, content)) in entries.iter().enumerate() {
            if at > 0 {
                self.out.push(b',');
            }
            self.text(key)?;
            self.out.push(b':');
            if !self.value(value, *content)? {
                return Err(DecodeError::Malformed);
            }
        }
        self.out.push(b'}');
        Ok(!entries.is_empty())
    }

    /// Whether something was printed: an unknown number of an enum is not.
    fn value(&mut self, field: &'static Field, value: Value<'b>) -> Result<bool, DecodeError> {
        match (field.kind, value) {
            (Kind::Message(inner), Value::Delimited(bytes)) => self.message(inner, bytes)?,
            (Kind::String, Value::Delimited(bytes)) => self.text(bytes)?,
            (Kind::Bytes, Value::Delimited(bytes)) => {
                self.out.push(b'"');
                base64::encode(bytes, self.out);
                self.out.push(b'"');
            }
            (Kind::Enum(names), Value::Varint(number)) => {
                let Some(name) = names.name(number as i32) else {
                    return Ok(false);
                };
                self.out.push(b'"');
                self.out.extend_from_slice(name.as_bytes());
                self.out.push(b'"');
            }
            (Kind::Bool, Value::Varint(number)) => {
                let word: &[u8] = if number == 0 { b"false" } else { b"true" };
                self.out.extend_from_slice(word);
            }
            (Kind::Int32, Value::Varint(number)) => self.number(number as i32),
            (Kind::Int64, Value::Varint(number)) => self.number(number as i64),
            (Kind::Uint32, Value::Varint(number)) => self.number(number as u32),
            (Kind::Uint64, Value::Varint(number)) => self.number(number),
            (Kind::Double, Value::SixtyFour(bits)) => self.double(f64::from_bits(bits)),
            _ => return Err(DecodeError::Malformed),
        }
        Ok(true)
    }

    fn number(&mut self, number: impl serde::Serialize) {
        serde_json::to_writer(&mut *self.out, &number)
            .expect("a number can be written into memory");
    }

    fn double(&mut self, value: f64) {
        if value.is_finite() {
            self.number(value);
        } else if value.is_nan() {
            self.out.extend_from_slice(b"NaN");
        } else {
            let sign: &[u8] = if value < 0.0 { b"-" } else { b"" };
            self.out.extend_from_slice(sign);
            self.out.extend_from_slice(b"Infinity");
        }
    }

    fn text(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        if std::str::from_utf8(bytes).is_err() {
            return Err(DecodeError::Malformed);
        }
        self.out.push(b'"');
        let mut start = 0;
        for (at, &byte) in bytes.iter().enumerate() {
            if byte >= 0x20 && byte != b'"' && byte != b'\\' {
                continue;
            }
            self.out.extend_from_slice(&bytes[start..at]);
            start = at + 1;
            self.escape(byte);
        }
        self.out.extend_from_slice(&bytes[start..]);
        self.out.push(b'"');
        Ok(())
    }

    fn escape(&mut self, byte: u8) {
        let short = match byte {
            b'"' | b'\\' => byte,
            0x08 => b'b',
            0x0c => b'f',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            _ => {
                let digit = |half: u8| b"0123456789ABCDEF"[usize::from(half)];
                self.out.extend_from_slice(b"\\u00");
                self.out.push(digit(byte >> 4));
                self.out.push(digit(byte & 15));
                return;
            }
        };
        self.out.extend_from_slice(&[b'\\', short]);
    }
}

/// Key and value of an entry; what is not there is empty.
fn pair(bytes: &[u8]) -> Result<(&[u8], Value<'_>), DecodeError> {
    let (mut key, mut value): (&[u8], _) = (&[], Value::Delimited(&[]));
    for item in Fields::of(bytes) {
        let item = item?;
        match (item.number, item.value) {
            (1, Value::Delimited(bytes)) => key = bytes,
            (2, content) => value = content,
            _ => {}
        }
    }
    Ok((key, value))
}
