//! What the messages of the Mesos v1 API are made of, as tables: JSON is read and written by them,
//! and required fields are checked by them. The tables are made from `mesos-v1.schema`.

/// A message.
#[derive(Debug)]
pub struct Message {
    /// The full name, such as `mesos.v1.Offer.Operation`.
    pub name: &'static str,
    /// The fields in the order in which JSON prints them; at most 64.
    pub fields: &'static [Field],
    /// By number: the place in `fields` plus one, or 0.
    pub(crate) by_number: &'static [u8],
    /// Places in `fields`, in the order of names.
    pub(crate) by_name: &'static [u8],
    /// A bit for each field that must be there, by its place.
    pub(crate) required: u64,
    /// Whether this message or one inside it has required fields.
    pub(crate) demands: bool,
}

/// A field of a message.
#[derive(Debug)]
pub struct Field {
    /// The number on the wire.
    pub number: u32,
    /// How often it may be there.
    pub label: Label,
    /// What it holds.
    pub kind: Kind,
    /// The name in JSON.
    pub name: &'static str,
    /// The group of which only one may be set.
    pub oneof: Option<&'static str>,
    /// What JSON prints when it is not set.
    pub default: Option<&'static str>,
}

/// How often a field may be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Label {
    /// At most once.
    Optional,
    /// Exactly once.
    Required,
    /// Any number of times; an array.
    Repeated,
    /// Entries with `key` and `value`; an object.
    Map,
}

/// What a field holds.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// A number with a fraction.
    Double,
    /// True or false.
    Bool,
    /// A number of 32 bits.
    Int32,
    /// A number of 64 bits.
    Int64,
    /// A number of 32 bits without a sign.
    Uint32,
    /// A number of 64 bits without a sign.
    Uint64,
    /// Text.
    String,
    /// Bytes; base64 in JSON.
    Bytes,
    /// A name in JSON, a number in protobuf.
    Enum(&'static Enum),
    /// A message.
    Message(&'static Message),
}

/// An enum.
#[derive(Debug)]
pub struct Enum {
    /// The full name, such as `mesos.v1.TaskState`.
    pub name: &'static str,
    /// In the order of names.
    pub(crate) by_name: &'static [(&'static str, i32)],
    /// In the order of numbers.
    pub(crate) by_number: &'static [(i32, &'static str)],
}

/// A type that has a table.
pub trait Described {
    /// Its table.
    fn descriptor() -> &'static Message;
}

impl<T: Described> Described for Box<T> {
    fn descriptor() -> &'static Message {
        T::descriptor()
    }
}

impl Message {
    /// The place in `fields` of the field with that number.
    #[must_use]
    pub fn numbered(&self, number: u32) -> Option<usize> {
        let place = *self.by_number.get(usize::try_from(number).ok()?)?;
        usize::from(place).checked_sub(1)
    }

    /// The place in `fields` of the field with that name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<usize> {
        let order = |place: &u8| self.fields[usize::from(*place)].name.cmp(name);
        let at = self.by_name.binary_search_by(order).ok()?;
        Some(usize::from(self.by_name[at]))
    }

    /// The required fields that a set of places lacks.
    pub(crate) fn lacking(&self, seen: u64) -> impl Iterator<Item = &'static Field> {
        let lacking = self.required & !seen;
        let numbered = self.fields.iter().enumerate();
        numbered.filter_map(move |(at, field)| (lacking >> at & 1 == 1).then_some(field))
    }
}

impl Enum {
    /// The name of a number.
    #[must_use]
    pub fn name(&self, number: i32) -> Option<&'static str> {
        let at = self.by_number.binary_search_by_key(&number, |v| v.0).ok()?;
        Some(self.by_number[at].1)
    }

    /// The number of a name.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<i32> {
        let at = self.by_name.binary_search_by(|v| v.0.cmp(name)).ok()?;
        Some(self.by_name[at].1)
    }

    /// All names, in the order of their numbers.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.by_number.iter().map(|(_, name)| *name)
    }
}
