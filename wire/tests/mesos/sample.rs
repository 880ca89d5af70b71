//! Messages made up from the tables, in protobuf.
//!
//! A sample is whole (its required fields are there), in canonical order, and as deep as asked.
//! Its values come from a stream of numbers: the same numbers give the same message.

use std::collections::{BTreeMap, BTreeSet};

use gantry_wire::mesos::descriptor::{Field, Kind, Label, Message};
use prost::encoding::encode_varint;

/// Which optional fields are set, and to what.
pub(crate) trait Choice {
    /// How often a field that is not required is there.
    fn count(&mut self, field: &Field, depth: usize) -> usize;
    /// A number for a value.
    fn number(&mut self, field: &Field) -> u64;
    /// Text for a value.
    fn text(&mut self, field: &Field) -> String;
}

/// A message. Fields are in the order of their numbers, as protobuf writes them.
pub(crate) fn message(message: &Message, depth: usize, choice: &mut dyn Choice) -> Vec<u8> {
    let mut out = Vec::new();
    let mut fields: Vec<&Field> = message.fields.iter().collect();
    fields.sort_by_key(|field| field.number);
    let is_entry = message.name.ends_with("Entry");
    let chosen = chosen(&fields, choice);
    for field in &fields {
        let count = match field.label {
            label if is_entry || label == Label::Required => 1,
            _ if field.oneof.is_some() => usize::from(chosen.contains(&field.number)),
            Label::Repeated => choice.count(field, depth),
            // Keys are made up, and those of a map must differ.
            _ => choice.count(field, depth).min(1),
        };
        for _ in 0..count {
            value(field, depth, choice, &mut out);
        }
    }
    out
}

/// The numbers of the fields that are set in their groups.
fn chosen(fields: &[&Field], choice: &mut dyn Choice) -> BTreeSet<u32> {
    let mut groups: BTreeMap<&str, Vec<&Field>> = BTreeMap::new();
    for field in fields {
        if let Some(group) = field.oneof {
            groups.entry(group).or_default().push(field);
        }
    }
    let pick = |fields: Vec<&Field>| {
        let at = choice.number(fields[0]) % fields.len() as u64;
        fields[at as usize].number
    };
    groups.into_values().map(pick).collect()
}

pub(crate) fn value(field: &Field, depth: usize, choice: &mut dyn Choice, out: &mut Vec<u8>) {
    let tag =
        |wire: u32, out: &mut Vec<u8>| encode_varint(u64::from(field.number << 3 | wire), out);
    let mut delimited = |bytes: &[u8]| {
        tag(2, out);
        encode_varint(bytes.len() as u64, out);
        out.extend_from_slice(bytes);
    };
    match field.kind {
        Kind::Message(inner) => delimited(&message(inner, depth.saturating_sub(1), choice)),
        Kind::String => delimited(choice.text(field).as_bytes()),
        Kind::Bytes => {
            let mut bytes = choice.text(field).into_bytes();
            bytes.extend(choice.number(field).to_be_bytes());
            delimited(&bytes);
        }
        Kind::Double => {
            tag(1, out);
            let number = choice.number(field) as i64;
            out.extend_from_slice(&(number as f64 / 8.0).to_le_bytes());
        }
        kind => {
            let number = choice.number(field);
            tag(0, out);
            encode_varint(fitting(kind, number), out);
        }
    }
}

fn fitting(kind: Kind, number: u64) -> u64 {
    match kind {
        Kind::Bool => number & 1,
        Kind::Uint32 => u64::from(number as u32),
        Kind::Int32 => i64::from(number as i32) as u64,
        Kind::Enum(names) => {
            let all: Vec<&str> = names.names().collect();
            let name = all[number as usize % all.len()];
            names.number(name).expect("a name of the enum") as u64
        }
        _ => number,
    }
}

/// Every field to a certain depth, each with a value that tells it from the others.
pub(crate) struct Full;

impl Choice for Full {
    fn count(&mut self, field: &Field, depth: usize) -> usize {
        match (depth, field.label, field.kind) {
            (0, _, Kind::Message(_)) => 0,
            (_, Label::Repeated, Kind::Message(_)) => 1,
            (_, Label::Repeated, _) => 2,
            _ => 1,
        }
    }

    fn number(&mut self, field: &Field) -> u64 {
        match field.kind {
            Kind::Bool | Kind::Enum(_) => 1,
            _ => u64::from(field.number),
        }
    }

    fn text(&mut self, field: &Field) -> String {
        format!("the {}", field.name)
    }
}

/// Random ones, from a seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// splitmix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Choice for Random {
    fn count(&mut self, field: &Field, depth: usize) -> usize {
        if depth == 0 && matches!(field.kind, Kind::Message(_)) {
            return 0;
        }
        [0, 0, 1, 1, 3][self.next() as usize % 5]
    }

    fn number(&mut self, _: &Field) -> u64 {
        let bits = self.next() % 64;
        self.next() >> bits
    }

    fn text(&mut self, _: &Field) -> String {
        let letters = [
            'a',
            'Z',
            '0',
            ' ',
            '/',
            '"',
            '\\',
            '\n',
            '\u{1f}',
            '\u{7f}',
            'é',
            '\u{10ffff}',
        ];
        let length = self.next() % 12;
        (0..length)
            .map(|_| letters[self.next() as usize % letters.len()])
            .collect()
    }
}
