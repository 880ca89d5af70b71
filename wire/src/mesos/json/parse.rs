//! JSON into protobuf bytes, by the tables.
//!
//! Unknown names are passed over; `null` is unset; an enum's unknown name is unset; numbers and
//! booleans may be quoted; one value may stand for a list of one. What Mesos lets through by
//! accident (a name twice, a fraction for an integer, a number out of range) is refused.

use super::reader::{Reader, Token};
use super::{DecodeError, Expected};
use crate::mesos::base64;
use crate::mesos::descriptor::{Enum, Field, Kind, Label, Message};
use crate::mesos::missing::{DEPTH_MAX, Missing, Path};

const VARINT: u32 = 0;
const SIXTY_FOUR: u32 = 1;
const DELIMITED: u32 = 2;

/// The protobuf form of a message. Errors: see [`DecodeError`].
pub(crate) fn parse(message: &'static Message, text: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let text = std::str::from_utf8(text).map_err(|e| DecodeError::Utf8 {
        at: e.valid_up_to(),
    })?;
    let mut parser = Parser {
        reader: Reader::new(text),
        out: Vec::with_capacity(text.len() / 2),
        missing: Missing::default(),
    };
    if parser.reader.peek()? != Token::Object {
        return Err(DecodeError::NoObject);
    }
    parser.message(message, None, DEPTH_MAX)?;
    parser.reader.end()?;
    parser.missing.none()?;
    Ok(parser.out)
}

struct Parser<'t> {
    reader: Reader<'t>,
    out: Vec<u8>,
    missing: Missing,
}

fn wrong(path: &Path<'_>, expected: Expected) -> DecodeError {
    DecodeError::Wrong {
        path: path.to_string(),
        expected,
    }
}

impl Parser<'_> {
    fn varint(&mut self, value: u64) {
        prost::encoding::encode_varint(value, &mut self.out);
    }

    fn tag(&mut self, field: &Field, wire: u32) {
        self.varint(u64::from(field.number << 3 | wire));
    }

    /// Puts the length before what `write` appends.
    fn delimited<T>(
        &mut self,
        field: &Field,
        write: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        self.tag(field, DELIMITED);
        let start = self.out.len();
        // Most are shorter than 128 bytes; the longer ones are moved.
        self.out.push(0);
        let result = write(self)?;
        let length = self.out.len() - start - 1;
        if length < 0x80 {
            self.out[start] = length as u8;
        } else {
            let end = self.out.len();
            self.varint(length as u64);
            let digits = self.out.len() - end;
            self.out[start + 1..].rotate_right(digits);
            self.out.remove(start);
        }
        Ok(result)
    }

    fn message(
        &mut self,
        message: &'static Message,
        up: Option<&Path<'_>>,
        depth: usize,
    ) -> Result<(), DecodeError> {
        let depth = depth.checked_sub(1).ok_or(DecodeError::TooDeep)?;
        let mut seen = 0_u64;
        let mut more = self.reader.open(b'}');
        while more {
            let key = self.reader.key()?;
            match message.named(&key) {
                None => self.reader.skip(depth)?,
                Some(_) if self.reader.peek()? == Token::Null => self.reader.null()?,
                Some(place) => {
                    let field = &message.fields[place];
                    let path = Path::new(up, field);
                    if seen >> place & 1 == 1 {
                        return Err(wrong(&path, Expected::Once));
                    }
                    seen |= u64::from(self.field(field, path, depth)?) << place;
                }
            }
            more = self.reader.more(b'}')?;
        }
        for field in message.lacking(seen) {
            self.missing.add(&Path::new(up, field));
        }
        Ok(())
    }

    /// Whether the field is set now.
    fn field(
        &mut self,
        field: &'static Field,
        mut path: Path<'_>,
        depth: usize,
    ) -> Result<bool, DecodeError> {
        let is_array = self.reader.peek()? == Token::Array;
        match field.label {
            Label::Optional | Label::Required => self.value(field, &path, depth),
            Label::Map => self.map(field, path, depth).map(|()| true),
            Label::Repeated if !is_array => {
                path.index = Some(0);
                self.value(field, &path, depth).map(|_| true)
            }
            Label::Repeated => {
                let (mut index, mut more) = (0, self.reader.open(b']'));
                while more {
                    path.index = Some(index);
                    if self.reader.peek()? == Token::Null {
                        self.reader.null()?;
                    } else {
                        index += usize::from(self.value(field, &path, depth)?);
                    }
                    more = self.reader.more(b']')?;
                }
                Ok(true)
            }
        }
    }

    fn map(
        &mut self,
        field: &'static Field,
        mut path: Path<'_>,
        depth: usize,
    ) -> Result<(), DecodeError> {
        let (Kind::Message(entry), Token::Object) = (field.kind, self.reader.peek()?) else {
            return Err(wrong(&path, Expected::Object));
        };
        let [key, value] = entry.fields else {
            return Err(wrong(&path, Expected::Object));
        };
        let depth = depth.checked_sub(1).ok_or(DecodeError::TooDeep)?;
        let (mut index, mut more) = (0, self.reader.open(b'}'));
        while more {
            path.index = Some(index);
            let name = self.reader.key()?;
            if self.reader.peek()? == Token::Null {
                self.reader.null()?;
            } else {
                self.delimited(field, |parser| {
                    parser.bytes(key, name.as_bytes());
                    parser.value(value, &Path::new(Some(&path), value), depth)
                })?;
                index += 1;
            }
            more = self.reader.more(b'}')?;
        }
        Ok(())
    }

    fn bytes(&mut self, field: &Field, bytes: &[u8]) {
        self.tag(field, DELIMITED);
        self.varint(bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }

    /// One value; whether something was written.
    fn value(
        &mut self,
        field: &'static Field,
        path: &Path<'_>,
        depth: usize,
    ) -> Result<bool, DecodeError> {
        let token = self.reader.peek()?;
        match (field.kind, token) {
            (Kind::Message(inner), Token::Object) => {
                self.delimited(field, |parser| parser.message(inner, Some(path), depth))?;
            }
            (Kind::Message(_), _) => return Err(wrong(path, Expected::Object)),
            (Kind::String, Token::String) => {
                let text = self.reader.string()?;
                self.bytes(field, text.as_bytes());
            }
            (Kind::String, _) => return Err(wrong(path, Expected::String)),
            (Kind::Bytes, Token::String) => {
                let text = self.reader.string()?;
                let read = |p: &mut Self| {
                    base64::decode(&text, &mut p.out).ok_or_else(|| wrong(path, Expected::Base64))
                };
                self.delimited(field, read)?;
            }
            (Kind::Bytes, _) => return Err(wrong(path, Expected::Base64)),
            (Kind::Enum(names), Token::String) => return self.name(field, names),
            (Kind::Enum(_), _) => return Err(wrong(path, Expected::Name)),
            (Kind::Bool, _) => {
                let value = self
                    .truth(token)
                    .ok_or_else(|| wrong(path, Expected::Bool))?;
                self.tag(field, VARINT);
                self.varint(u64::from(value));
            }
            (Kind::Double, _) => {
                let value = self.digits(token)?.as_deref().and_then(double);
                let value = value.ok_or_else(|| wrong(path, Expected::Number))?;
                self.tag(field, SIXTY_FOUR);
                self.out.extend_from_slice(&value.to_le_bytes());
            }
            (kind, _) => {
                let digits = self.digits(token)?;
                let value = digits.as_deref().and_then(|digits| integer(kind, digits));
                let value = value.ok_or_else(|| wrong(path, Expected::Integer))?;
                self.tag(field, VARINT);
                self.varint(value);
            }
        }
        Ok(true)
    }

    fn name(&mut self, field: &Field, names: &Enum) -> Result<bool, DecodeError> {
        let name = self.reader.string()?;
        let Some(number) = names.number(&name) else {
            return Ok(false);
        };
        self.tag(field, VARINT);
        self.varint(i64::from(number) as u64);
        Ok(true)
    }

    fn truth(&mut self, token: Token) -> Option<bool> {
        match token {
            Token::Bool => self.reader.bool().ok(),
            Token::String => match self.reader.string().ok()?.trim() {
                "true" => Some(true),
                "false" => Some(false),
                _ => None,
            },
            _ => None,
        }
    }

    /// The text of a number, bare or quoted.
    fn digits(&mut self, token: Token) -> Result<Option<std::borrow::Cow<'_, str>>, DecodeError> {
        Ok(match token {
            Token::Number => Some(self.reader.number()?.into()),
            Token::String => Some(self.reader.string()?),
            _ => None,
        })
    }
}

/// As JSON writes numbers: Rust's own parser takes more, such as `inf`.
fn is_number(text: &str) -> bool {
    let mut reader = Reader::new(text);
    reader.number().is_ok() && reader.end().is_ok()
}

fn double(text: &str) -> Option<f64> {
    let text = text.trim();
    match text {
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        "NaN" => Some(f64::NAN),
        _ if is_number(text) => text.parse().ok(),
        _ => None,
    }
}

/// An integer as the varint of its kind.
fn integer(kind: Kind, text: &str) -> Option<u64> {
    let text = text.trim();
    if !is_number(text) {
        return None;
    }
    let value = match text.parse::<i128>() {
        Ok(value) => value,
        Err(_) => whole(text.parse().ok()?)?,
    };
    match kind {
        Kind::Int32 => i32::try_from(value).ok().map(|v| i64::from(v) as u64),
        Kind::Int64 => i64::try_from(value).ok().map(|v| v as u64),
        Kind::Uint32 => u32::try_from(value).ok().map(u64::from),
        Kind::Uint64 => u64::try_from(value).ok(),
        _ => None,
    }
}

/// `5051.0` and `5e3` are integers.
fn whole(value: f64) -> Option<i128> {
    (value.is_finite() && value.fract() == 0.0).then_some(value as i128)
}
