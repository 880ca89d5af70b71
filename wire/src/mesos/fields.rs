//! The fields of a protobuf message, one after the other, without knowing which they are.

use super::DecodeError;

/// How deep unknown groups may be nested.
const GROUPS_MAX: usize = 32;

/// A field as it lies in the bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Item<'b> {
    /// Its number.
    pub(crate) number: u32,
    /// What it holds.
    pub(crate) value: Value<'b>,
}

/// What a field holds, by wire type.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Value<'b> {
    Varint(u64),
    SixtyFour(u64),
    Delimited(&'b [u8]),
    /// A wire type that no field of the schema has.
    Other,
}

/// Iterates over the fields of a message.
pub(crate) struct Fields<'b> {
    left: &'b [u8],
}

const MALFORMED: DecodeError = DecodeError::Malformed;

impl<'b> Fields<'b> {
    pub(crate) fn of(bytes: &'b [u8]) -> Self {
        Self { left: bytes }
    }

    /// The varints in a packed list.
    pub(crate) fn packed(bytes: &'b [u8]) -> impl Iterator<Item = Result<u64, DecodeError>> {
        let mut fields = Self::of(bytes);
        std::iter::from_fn(move || {
            if fields.left.is_empty() {
                return None;
            }
            let value = fields.varint();
            if value.is_err() {
                fields.left = &[];
            }
            Some(value)
        })
    }

    fn varint(&mut self) -> Result<u64, DecodeError> {
        if let [byte @ 0..0x80, rest @ ..] = self.left {
            self.left = rest;
            return Ok(u64::from(*byte));
        }
        prost::encoding::decode_varint(&mut self.left).map_err(|_| MALFORMED)
    }

    fn take(&mut self, count: u64) -> Result<&'b [u8], DecodeError> {
        let count = usize::try_from(count).map_err(|_| MALFORMED)?;
        let (taken, left) = self.left.split_at_checked(count).ok_or(MALFORMED)?;
        self.left = left;
        Ok(taken)
    }

    fn item(&mut self, groups: usize) -> Result<Item<'b>, DecodeError> {
        let key = u32::try_from(self.varint()?).map_err(|_| MALFORMED)?;
        let number = key >> 3;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => {
                let bytes = self.take(8)?.try_into().map_err(|_| MALFORMED)?;
                Value::SixtyFour(u64::from_le_bytes(bytes))
            }
            2 => {
                let length = self.varint()?;
                Value::Delimited(self.take(length)?)
            }
            3 => {
                self.group(number, groups.checked_sub(1).ok_or(DecodeError::TooDeep)?)?;
                Value::Other
            }
            5 => {
                self.take(4)?;
                Value::Other
            }
            _ => return Err(MALFORMED),
        };
        if number == 0 {
            return Err(MALFORMED);
        }
        Ok(Item { number, value })
    }

    /// Passes over a group, to its end.
    fn group(&mut self, number: u32, groups: usize) -> Result<(), DecodeError> {
        loop {
            let before = self.left;
            let key = self.varint()?;
            if key & 7 == 4 {
                let ends = key >> 3 == u64::from(number);
                return ends.then_some(()).ok_or(MALFORMED);
            }
            self.left = before;
            self.item(groups)?;
        }
    }
}

impl<'b> Iterator for Fields<'b> {
    type Item = Result<Item<'b>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left.is_empty() {
            return None;
        }
        let item = self.item(GROUPS_MAX);
        if item.is_err() {
            self.left = &[];
        }
        Some(item)
    }
}
