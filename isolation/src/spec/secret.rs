//! Bytes that must not be seen: they never appear in debug text, and leave memory when dropped.
//!
//! It deliberately does not lock memory: the bytes live in the keeper from the request's arrival to
//! the container's start. Serialized they are hexadecimal text, two characters a byte, so that no
//! parser makes a copy of its own.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The content of a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

/// Overwrites bytes that are about to be freed. The compiler must take them for read afterwards, so
/// it cannot leave the writes out.
pub(crate) fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    std::hint::black_box(bytes);
}

impl Secret {
    /// Takes the bytes.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Overwrites the bytes.
    pub(crate) fn wipe(&mut self) {
        wipe(&mut self.0);
    }

    /// Shows the bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.wipe();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = String::with_capacity(2 * self.0.len());
        for byte in &self.0 {
            text.push(char::from(DIGITS[usize::from(byte >> 4)]));
            text.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        let done = serializer.serialize_str(&text);
        wipe(&mut text.into_bytes());
        done
    }
}

struct Hexadecimal;

impl Visitor<'_> for Hexadecimal {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("pairs of hexadecimal digits")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Secret, E> {
        // The text itself is not in the words.
        let wrong = || E::custom("a secret that is not pairs of hexadecimal digits");
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let mut secret = Secret(Vec::with_capacity(pairs.len()));
        for [high, low] in pairs {
            let digit = |byte: u8| char::from(byte).to_digit(16).ok_or_else(wrong);
            let value = digit(*high)? << 4 | digit(*low)?;
            secret.0.push(u8::try_from(value).map_err(|_| wrong())?);
        }
        if rest.is_empty() {
            Ok(secret)
        } else {
            Err(wrong())
        }
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Hexadecimal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_travel_and_are_never_shown() {
        let secret = Secret::new(vec![0, 1, 0xab, 0xff, b'x']);
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        let text = serde_json::to_string(&secret).unwrap();
        assert_eq!(text, "\"0001abff78\"");
        assert_eq!(serde_json::from_str::<Secret>(&text).unwrap(), secret);
        for wrong in ["\"0\"", "\"0g\"", "\"+1\"", "7", "\"\u{e9}\""] {
            let error = serde_json::from_str::<Secret>(wrong).unwrap_err();
            assert!(!error.to_string().contains("0g"), "{error}");
        }
    }
}
