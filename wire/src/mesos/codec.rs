//! A message into bytes and back, in either encoding.

use super::descriptor::Described;
use super::json;
use super::missing;

/// How messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// `application/json`
    Json,
    /// `application/x-protobuf`
    Protobuf,
}

/// Why bytes are not a message. The text is for the answer 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The text is not UTF-8.
    #[error("the body is not UTF-8 at byte {at}")]
    Utf8 {
        /// Where.
        at: usize,
    },
    /// The text is not JSON.
    #[error("the body is not JSON: {what} expected at byte {at}")]
    Syntax {
        /// Where.
        at: usize,
        /// What should be there.
        what: Syntax,
    },
    /// JSON, but no object.
    #[error("the body is not a JSON object")]
    NoObject,
    /// A field holds something else than its type says.
    #[error("{path}: {expected} expected")]
    Wrong {
        /// Which field.
        path: String,
        /// What should be there.
        expected: Expected,
    },
    /// Required fields are not there.
    #[error("missing required fields: {}{}", .paths.join(", "), and_more(*.more))]
    Missing {
        /// Their paths, at most [`super::MISSING_MAX`].
        paths: Vec<String>,
        /// How many others.
        more: usize,
    },
    /// More than [`super::DEPTH_MAX`] messages or values inside each other.
    #[error("the body is nested too deeply")]
    TooDeep,
    /// Not protobuf.
    #[error("the body is not protobuf of this message")]
    Malformed,
    /// Protobuf of another message.
    #[error("the body is not protobuf of this message")]
    Protobuf(#[source] prost::DecodeError),
}

fn and_more(more: usize) -> String {
    match more {
        0 => String::new(),
        more => format!(" and {more} more"),
    }
}

/// What JSON text lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Syntax {
    /// A value.
    #[error("a value")]
    Value,
    /// A number.
    #[error("a number")]
    Number,
    /// A string that ends, with known escapes.
    #[error("a well-formed string")]
    String,
    /// A name in an object.
    #[error("a name in quotes")]
    Name,
    /// A colon.
    #[error("a colon")]
    Colon,
    /// A comma or the end.
    #[error("a comma or the end of the list")]
    Separator,
    /// Nothing more.
    #[error("the end")]
    Trailing,
}

/// What a field should hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Expected {
    /// An object.
    #[error("an object")]
    Object,
    /// A string.
    #[error("a string")]
    String,
    /// Bytes.
    #[error("a string of base64")]
    Base64,
    /// A name of an enum.
    #[error("a name in quotes")]
    Name,
    /// A boolean.
    #[error("true or false")]
    Bool,
    /// A number.
    #[error("a number")]
    Number,
    /// An integer that fits.
    #[error("an integer in range")]
    Integer,
    /// One value.
    #[error("one value, not several,")]
    Once,
}

/// Reads a message and checks that its required fields are there. The caller bounds the size.
/// Errors: see [`DecodeError`].
pub fn decode<T>(encoding: Encoding, bytes: &[u8]) -> Result<T, DecodeError>
where
    T: prost::Message + Described + Default,
{
    match encoding {
        Encoding::Json => {
            let bytes = json::parse(T::descriptor(), bytes)?;
            T::decode(bytes.as_slice()).map_err(DecodeError::Protobuf)
        }
        Encoding::Protobuf => {
            missing::check(T::descriptor(), bytes)?;
            T::decode(bytes).map_err(DecodeError::Protobuf)
        }
    }
}

/// The bytes of a message.
#[must_use]
pub fn encode<T: prost::Message + Described>(encoding: Encoding, message: &T) -> Vec<u8> {
    let mut out = Vec::new();
    encode_into(encoding, message, &mut out);
    out
}

/// Appends the bytes of a message.
pub fn encode_into<T>(encoding: Encoding, message: &T, out: &mut Vec<u8>)
where
    T: prost::Message + Described,
{
    match encoding {
        Encoding::Protobuf => message
            .encode(out)
            .expect("a vector grows as far as it must"),
        Encoding::Json => json::print(T::descriptor(), &message.encode_to_vec(), out)
            .expect("prost writes what the tables say: both come from one schema"),
    }
}
