//! Writes the descriptors: static tables that say of each message what its fields are.

use std::fmt::Write as _;

use crate::schema::{Enum, Field, Kind, Label, Message, Schema};

/// Presence of fields is a bit each.
const FIELDS_MAX: usize = 64;

/// All tables. Errors: a sentence that names the message that does not fit.
pub(crate) fn write(schema: &Schema) -> Result<String, String> {
    let mut out = "use super::descriptor::{Enum, Field, Kind, Label, Message};\n".to_owned();
    for (index, message) in schema.messages.iter().enumerate() {
        out += &table(schema, index, message)?;
    }
    for (index, one) in schema.enums.iter().enumerate() {
        out += &enumeration(index, one);
    }
    Ok(out)
}

fn table(schema: &Schema, index: usize, message: &Message) -> Result<String, String> {
    let full = format!("{}.{}", message.package, message.name);
    if message.fields.len() > FIELDS_MAX {
        return Err(format!("{full} has more than {FIELDS_MAX} fields"));
    }
    let (mut fields, mut required) = (String::new(), 0_u64);
    for (at, field) in message.fields.iter().enumerate() {
        let must = is_required(schema, message, field);
        required |= u64::from(must) << at;
        fields += &entry(schema, message, field, must)?;
    }
    let numbers = message.fields.iter().map(|f| f.number as usize);
    let mut by_number = vec![0_usize; numbers.max().map_or(0, |n| n + 1)];
    for (at, field) in message.fields.iter().enumerate() {
        by_number[field.number as usize] = at + 1;
    }
    let mut by_name: Vec<usize> = (0..message.fields.len()).collect();
    by_name.sort_by_key(|at| &message.fields[*at].name);
    let deep = demands(schema, index, &mut Vec::new());
    Ok(format!(
        "pub(crate) static M{index}: Message = Message {{ name: {full:?}, fields: &[\n{fields}], \
         by_number: &{by_number:?}, by_name: &{by_name:?}, required: {required}, demands: {deep} }};\n"
    ))
}

/// An entry of a map without its value holds the default, which is whole unless a field of its own
/// is required.
fn is_required(schema: &Schema, message: &Message, field: &Field) -> bool {
    let is_entry = message.name.ends_with("Entry");
    if !is_entry {
        return field.label == Label::Required;
    }
    match field.kind {
        Kind::Message(inner) => {
            let inner = &schema.messages[inner];
            inner.fields.iter().any(|f| f.label == Label::Required)
        }
        _ => false,
    }
}

/// Whether a message or one inside it has required fields.
fn demands(schema: &Schema, index: usize, above: &mut Vec<usize>) -> bool {
    if above.contains(&index) {
        return false;
    }
    above.push(index);
    let message = &schema.messages[index];
    let found = message.fields.iter().any(|field| {
        is_required(schema, message, field)
            || matches!(field.kind, Kind::Message(inner) if demands(schema, inner, above))
    });
    above.pop();
    found
}

fn entry(
    schema: &Schema,
    message: &Message,
    field: &Field,
    required: bool,
) -> Result<String, String> {
    let label = match field.label {
        Label::Repeated => "Repeated",
        Label::Map => "Map",
        Label::Required if required => "Required",
        Label::Required | Label::Optional | Label::Oneof(_) => "Optional",
    };
    let kind = match field.kind {
        Kind::Double => "Double".to_owned(),
        Kind::Bool => "Bool".to_owned(),
        Kind::Int32 => "Int32".to_owned(),
        Kind::Int64 => "Int64".to_owned(),
        Kind::Uint32 => "Uint32".to_owned(),
        Kind::Uint64 => "Uint64".to_owned(),
        Kind::String => "String".to_owned(),
        Kind::Bytes => "Bytes".to_owned(),
        Kind::Enum(index) => format!("Enum(&E{index})"),
        Kind::Message(index) => format!("Message(&M{index})"),
    };
    let default = match &field.default {
        Some(text) if !field.deprecated => Some(printed(schema, message, field, text)?),
        _ => None,
    };
    let oneof = match &field.label {
        Label::Oneof(group) => Some(group),
        _ => None,
    };
    Ok(format!(
        "    Field {{ number: {}, label: Label::{label}, kind: Kind::{kind}, name: {:?}, oneof: {oneof:?}, default: {default:?} }},\n",
        field.number, field.name
    ))
}

/// A default as JSON prints it.
fn printed(
    schema: &Schema,
    message: &Message,
    field: &Field,
    text: &str,
) -> Result<String, String> {
    let wrong = || format!("{}.{}: '{text}' is no default", message.name, field.name);
    Ok(match field.kind {
        Kind::Double => format!("{:?}", text.parse::<f64>().map_err(|_| wrong())?),
        Kind::Bool => text.parse::<bool>().map_err(|_| wrong())?.to_string(),
        Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64 => {
            text.parse::<u32>().map_err(|_| wrong())?.to_string()
        }
        Kind::String => format!("{text:?}"),
        Kind::Enum(index) => {
            let values = &schema.enums[index].values;
            let known = values.iter().any(|(name, _)| name == text);
            known.then(|| format!("{text:?}")).ok_or_else(wrong)?
        }
        Kind::Bytes | Kind::Message(_) => return Err(wrong()),
    })
}

fn enumeration(index: usize, one: &Enum) -> String {
    let mut by_name = one.values.clone();
    by_name.sort();
    let mut by_number = one.values.clone();
    by_number.sort_by_key(|(_, number)| *number);
    let mut out = format!(
        "pub(crate) static E{index}: Enum = Enum {{ name: \"{}.{}\", by_name: &{by_name:?}, by_number: &[",
        one.package, one.name
    );
    for (name, number) in by_number {
        let _ = write!(out, "({number}, {name:?}), ");
    }
    out + "] };\n"
}
