//! Reads `mesos-v1.schema`: which messages and enums there are, and what each field is.
//!
//! It knows nothing of Rust or of encodings. Names are resolved: a field's kind is an index. A map
//! is a repeated message of its own, as on the wire, with the fields `key` and `value`.

use std::collections::BTreeMap;

/// Everything in the file, in its order; the entries of maps come last.
#[derive(Debug)]
pub(crate) struct Schema {
    /// All messages.
    pub(crate) messages: Vec<Message>,
    /// All enums.
    pub(crate) enums: Vec<Enum>,
}

/// A message.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    /// Such as `mesos.v1`.
    pub(crate) package: String,
    /// The name inside the package, such as `Offer.Operation`.
    pub(crate) name: String,
    /// In the order of declaration.
    pub(crate) fields: Vec<Field>,
}

/// An enum.
#[derive(Debug, Clone)]
pub(crate) struct Enum {
    /// Such as `mesos.v1`.
    pub(crate) package: String,
    /// The name inside the package.
    pub(crate) name: String,
    /// Names and numbers; the first is the default.
    pub(crate) values: Vec<(String, i32)>,
}

/// A field of a message.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    /// The number on the wire.
    pub(crate) number: u32,
    /// How often it may be there.
    pub(crate) label: Label,
    /// What it holds.
    pub(crate) kind: Kind,
    /// The name in JSON.
    pub(crate) name: String,
    /// The declared default, as written.
    pub(crate) default: Option<String>,
    /// Whether its default is not printed.
    pub(crate) deprecated: bool,
}

/// How often a field may be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Label {
    /// At most once.
    Optional,
    /// Exactly once.
    Required,
    /// Any number of times.
    Repeated,
    /// Any number of times, as entries of a map.
    Map,
    /// At most once, and no other of the group.
    Oneof(String),
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `double`
    Double,
    /// `bool`
    Bool,
    /// `int32`
    Int32,
    /// `int64`
    Int64,
    /// `uint32`
    Uint32,
    /// `uint64`
    Uint64,
    /// `string`
    String,
    /// `bytes`
    Bytes,
    /// An index in [`Schema::enums`].
    Enum(usize),
    /// An index in [`Schema::messages`].
    Message(usize),
}

/// A field whose type is not yet looked up.
struct Raw {
    field: Field,
    kind: String,
    line: usize,
}

impl Schema {
    /// Reads the text of a schema. Errors: a sentence with the number of the line.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut schema = Self {
            messages: Vec::new(),
            enums: Vec::new(),
        };
        let mut raws: Vec<Vec<Raw>> = Vec::new();
        let (mut package, mut in_enum) = ("", false);
        for (index, full) in text.lines().enumerate() {
            let line = index + 1;
            let words: Vec<&str> = full.split_whitespace().collect();
            match words.as_slice() {
                [] | ["#", ..] => {}
                ["package", name] => package = name,
                ["enum", name] => {
                    in_enum = true;
                    schema.enums.push(Enum {
                        package: package.to_owned(),
                        name: (*name).to_owned(),
                        values: Vec::new(),
                    });
                }
                ["message", name] => {
                    in_enum = false;
                    raws.push(Vec::new());
                    schema.messages.push(Message {
                        package: package.to_owned(),
                        name: (*name).to_owned(),
                        fields: Vec::new(),
                    });
                }
                [name, "=", number] if in_enum => {
                    let number = number
                        .parse()
                        .map_err(|_| format!("line {line}: '{number}' is no number"))?;
                    let last = schema.enums.last_mut();
                    let last = last.ok_or_else(|| format!("line {line}: a value of no enum"))?;
                    last.values.push(((*name).to_owned(), number));
                }
                words => {
                    let last = raws.last_mut().filter(|_| !in_enum);
                    let last = last.ok_or_else(|| format!("line {line}: a field of no message"))?;
                    last.push(read_field(words, line)?);
                }
            }
        }
        schema.resolve(raws)?;
        Ok(schema)
    }

    fn resolve(&mut self, raws: Vec<Vec<Raw>>) -> Result<(), String> {
        let full = |package: &str, name: &str| format!("{package}.{name}");
        let mut known: BTreeMap<String, Kind> = BTreeMap::new();
        let messages = self.messages.iter().enumerate();
        known.extend(messages.map(|(i, m)| (full(&m.package, &m.name), Kind::Message(i))));
        let enums = self.enums.iter().enumerate();
        known.extend(enums.map(|(i, e)| (full(&e.package, &e.name), Kind::Enum(i))));
        for (index, fields) in raws.into_iter().enumerate() {
            for Raw { field, kind, line } in fields {
                let package = self.messages[index].package.clone();
                let places = [full(&package, &kind), full("mesos.v1", &kind), kind.clone()];
                let kind = plain(&kind)
                    .or_else(|| places.iter().find_map(|name| known.get(name).copied()))
                    .ok_or_else(|| format!("line {line}: there is no type '{kind}'"))?;
                let kind = if field.label == Label::Map {
                    self.entry(index, &field.name, kind)
                } else {
                    kind
                };
                self.messages[index].fields.push(Field { kind, ..field });
            }
        }
        Ok(())
    }

    /// Adds the message of a map's entries.
    fn entry(&mut self, owner: usize, map: &str, value: Kind) -> Kind {
        let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
        let map: String = map.split('_').map(capital).collect();
        let field = |number, name: &str, kind| Field {
            number,
            label: Label::Required,
            kind,
            name: name.to_owned(),
            default: None,
            deprecated: false,
        };
        let owner = &self.messages[owner];
        self.messages.push(Message {
            package: owner.package.clone(),
            name: format!("{}.{map}Entry", owner.name),
            fields: vec![field(1, "key", Kind::String), field(2, "value", value)],
        });
        Kind::Message(self.messages.len() - 1)
    }
}

fn plain(kind: &str) -> Option<Kind> {
    Some(match kind {
        "double" => Kind::Double,
        "bool" => Kind::Bool,
        "int32" => Kind::Int32,
        "int64" => Kind::Int64,
        "uint32" => Kind::Uint32,
        "uint64" => Kind::Uint64,
        "string" => Kind::String,
        "bytes" => Kind::Bytes,
        _ => return None,
    })
}

fn read_field(words: &[&str], line: usize) -> Result<Raw, String> {
    let [number, label, kind, name, rest @ ..] = words else {
        return Err(format!(
            "line {line}: number, label, type and name expected"
        ));
    };
    let label = match *label {
        "optional" => Label::Optional,
        "required" => Label::Required,
        "repeated" => Label::Repeated,
        "map" => Label::Map,
        other => match other.strip_prefix("oneof:") {
            Some(group) => Label::Oneof(group.to_owned()),
            None => return Err(format!("line {line}: '{other}' is no label")),
        },
    };
    let (default, deprecated) = match rest {
        [] => (None, false),
        ["deprecated"] => (None, true),
        ["=", value] => (Some((*value).to_owned()), false),
        ["=", value, "deprecated"] => (Some((*value).to_owned()), true),
        _ => return Err(format!("line {line}: '{}' not understood", rest.join(" "))),
    };
    let number = number
        .parse()
        .map_err(|_| format!("line {line}: '{number}' is no number"))?;
    Ok(Raw {
        field: Field {
            number,
            label,
            kind: Kind::Bool,
            name: (*name).to_owned(),
            default,
            deprecated,
        },
        kind: (*kind).to_owned(),
        line,
    })
}
