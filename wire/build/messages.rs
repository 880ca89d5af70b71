//! Writes the Rust types: one prost struct for each message, one enum for each enum, in modules as
//! packages and messages are nested.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::names::{camel, path, snake};
use crate::schema::{Enum, Field, Kind, Label, Message, Schema};

/// An optional message that is larger than this, in bytes, is boxed: most are absent.
const INLINE_MAX_BYTES: usize = 64;

#[derive(Default)]
struct Module {
    items: String,
    inner: BTreeMap<String, Module>,
}

impl Module {
    fn at(&mut self, path: &[String]) -> &mut Self {
        let folders = &path[..path.len() - 1];
        folders.iter().fold(self, |module, name| {
            module.inner.entry(name.clone()).or_default()
        })
    }

    fn print(&self, out: &mut String) {
        out.push_str(&self.items);
        for (name, module) in &self.inner {
            let _ = writeln!(out, "pub mod {name} {{");
            module.print(out);
            out.push_str("}\n");
        }
    }
}

/// All types of the schema.
pub(crate) fn write(schema: &Schema) -> String {
    let mut root = Module::default();
    let sizes = Sizes::of(schema);
    for (index, message) in schema.messages.iter().enumerate() {
        let path = path(&message.package, &message.name);
        let module = root.at(&path);
        module.items += &structure(schema, &sizes, index, message, &path);
        for group in groups(message) {
            let inner = module.inner.entry(snake(short(message))).or_default();
            inner.items += &oneof(schema, message, &group);
        }
    }
    for (index, one) in schema.enums.iter().enumerate() {
        let path = path(&one.package, &one.name);
        root.at(&path).items += &enumeration(index, one, &path);
    }
    let mut out = String::new();
    root.print(&mut out);
    out += &every(schema);
    out
}

fn short(message: &Message) -> &str {
    message.name.rsplit('.').next().unwrap_or_default()
}

fn absolute(package: &str, name: &str) -> String {
    format!("crate::mesos::v1::{}", path(package, name).join("::"))
}

fn groups(message: &Message) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for field in &message.fields {
        if let Label::Oneof(group) = &field.label
            && !found.contains(group)
        {
            found.push(group.clone());
        }
    }
    found
}

/// Estimates of the sizes of the structs.
struct Sizes(Vec<Option<usize>>);

impl Sizes {
    fn of(schema: &Schema) -> Self {
        let mut sizes = Self(vec![None; schema.messages.len()]);
        for index in 0..schema.messages.len() {
            sizes.measure(schema, index, &mut Vec::new());
        }
        sizes
    }

    fn measure(&mut self, schema: &Schema, index: usize, above: &mut Vec<usize>) -> usize {
        if let Some(size) = self.0[index] {
            return size;
        }
        if above.contains(&index) {
            return INLINE_MAX_BYTES + 1;
        }
        above.push(index);
        let mut size = 0;
        for field in &schema.messages[index].fields {
            let inline = match field.kind {
                Kind::String | Kind::Bytes => 24,
                Kind::Double | Kind::Int64 | Kind::Uint64 => 16,
                Kind::Bool | Kind::Int32 | Kind::Uint32 | Kind::Enum(_) => 8,
                Kind::Message(inner) => self.measure(schema, inner, above),
            };
            size += match field.label {
                Label::Repeated | Label::Map => 24,
                Label::Optional if inline > INLINE_MAX_BYTES => 8,
                Label::Required | Label::Optional | Label::Oneof(_) => inline,
            };
        }
        above.pop();
        self.0[index] = Some(size);
        size
    }

    fn boxed(&self, schema: &Schema, owner: usize, field: &Field) -> bool {
        match field.kind {
            Kind::Message(inner) if field.label == Label::Optional => {
                self.0[inner].is_none_or(|size| size > INLINE_MAX_BYTES)
                    || holds(schema, inner, owner, &mut Vec::new())
            }
            _ => false,
        }
    }
}

/// Whether a message is another one, or has it inside other than in a list.
fn holds(schema: &Schema, message: usize, other: usize, seen: &mut Vec<usize>) -> bool {
    if message == other || seen.contains(&message) {
        return message == other;
    }
    seen.push(message);
    let fields = &schema.messages[message].fields;
    fields.iter().any(|field| match (&field.label, field.kind) {
        (Label::Repeated | Label::Map, _) => false,
        (_, Kind::Message(inner)) => holds(schema, inner, other, seen),
        _ => false,
    })
}

/// The Rust type of one value, and what prost calls it.
fn kinds(schema: &Schema, kind: Kind) -> (String, String) {
    let same = |name: &str, prost: &str| (name.to_owned(), prost.to_owned());
    match kind {
        Kind::Double => same("f64", "double"),
        Kind::Bool => same("bool", "bool"),
        Kind::Int32 => same("i32", "int32"),
        Kind::Int64 => same("i64", "int64"),
        Kind::Uint32 => same("u32", "uint32"),
        Kind::Uint64 => same("u64", "uint64"),
        Kind::String => same("String", "string"),
        Kind::Bytes => same("Vec<u8>", "bytes = \"vec\""),
        Kind::Enum(index) => {
            let one = &schema.enums[index];
            let path = absolute(&one.package, &one.name);
            ("i32".to_owned(), format!("enumeration = \"{path}\""))
        }
        Kind::Message(index) => {
            let one = &schema.messages[index];
            (absolute(&one.package, &one.name), "message".to_owned())
        }
    }
}

fn structure(
    schema: &Schema,
    sizes: &Sizes,
    index: usize,
    message: &Message,
    path: &[String],
) -> String {
    let name = &path[path.len() - 1];
    let mut out = format!(
        "/// `{}.{}`\n#[derive(Clone, Debug, PartialEq, ::prost::Message)]\n#[prost(skip_debug)]\npub struct {name} {{\n",
        message.package, message.name
    );
    let mut seen: Vec<&str> = Vec::new();
    for field in &message.fields {
        if let Label::Oneof(group) = &field.label {
            if !seen.contains(&group.as_str()) {
                seen.push(group);
                out += &oneof_field(message, group);
            }
            continue;
        }
        out += &member(schema, sizes, index, field);
    }
    out += "}\n";
    let _ = writeln!(
        out,
        "impl crate::mesos::descriptor::Described for {name} {{
    fn descriptor() -> &'static crate::mesos::descriptor::Message {{ &crate::mesos::table::M{index} }}
}}"
    );
    if message.name.ends_with("Entry")
        && let [key, value] = message.fields.as_slice()
        && key.name == "key"
    {
        let (kind, _) = kinds(schema, value.kind);
        let _ = writeln!(
            out,
            "impl crate::mesos::entries::Entry for {name} {{
    type Value = {kind};
    fn new(key: String, value: {kind}) -> Self {{ Self {{ key, value }} }}
    fn pair(self) -> (String, {kind}) {{ (self.key, self.value) }}
    fn key(&self) -> &str {{ &self.key }}
    fn value(&self) -> &{kind} {{ &self.value }}
}}"
        );
    }
    out
}

fn member(schema: &Schema, sizes: &Sizes, owner: usize, field: &Field) -> String {
    let (kind, mut prost) = kinds(schema, field.kind);
    let rust = match field.label {
        Label::Required => {
            prost += ", required";
            kind
        }
        Label::Repeated | Label::Map => {
            prost += ", repeated";
            if !matches!(field.kind, Kind::String | Kind::Bytes | Kind::Message(_)) {
                prost += ", packed = \"false\"";
            }
            format!("Vec<{kind}>")
        }
        Label::Optional | Label::Oneof(_) if sizes.boxed(schema, owner, field) => {
            prost += ", optional, boxed";
            format!("Option<Box<{kind}>>")
        }
        Label::Optional | Label::Oneof(_) => {
            prost += ", optional";
            format!("Option<{kind}>")
        }
    };
    if let Some(default) = &field.default {
        let text = match field.kind {
            Kind::Enum(_) => camel(default),
            _ => default.clone(),
        };
        let _ = write!(prost, ", default = \"{text}\"");
    }
    let (name, number) = (snake(&field.name), field.number);
    format!("    #[prost({prost}, tag = \"{number}\")]\n    pub {name}: {rust},\n")
}

fn oneof_field(message: &Message, group: &str) -> String {
    let inner = format!("{}::{}", snake(short(message)), camel(group));
    let numbers = message
        .fields
        .iter()
        .filter_map(|field| match &field.label {
            Label::Oneof(other) if other == group => Some(field.number.to_string()),
            _ => None,
        });
    let tags = numbers.collect::<Vec<_>>().join(", ");
    let name = snake(group);
    format!(
        "    #[prost(oneof = \"{inner}\", tags = \"{tags}\")]\n    pub {name}: Option<{inner}>,\n"
    )
}

fn oneof(schema: &Schema, message: &Message, group: &str) -> String {
    let mut out = format!(
        "/// `{group}` of `{}.{}`\n#[derive(Clone, PartialEq, ::prost::Oneof)]\npub enum {} {{\n",
        message.package,
        message.name,
        camel(group)
    );
    for field in &message.fields {
        if field.label == Label::Oneof(group.to_owned()) {
            let (kind, prost) = kinds(schema, field.kind);
            let (name, number) = (camel(&field.name), field.number);
            let _ = writeln!(
                out,
                "    #[prost({prost}, tag = \"{number}\")]\n    {name}({kind}),"
            );
        }
    }
    out + "}\n"
}

fn enumeration(index: usize, one: &Enum, path: &[String]) -> String {
    let name = &path[path.len() - 1];
    let mut out = format!(
        "/// `{}.{}`
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ::prost::Enumeration)]
#[repr(i32)]
pub enum {name} {{\n",
        one.package, one.name
    );
    for (value, number) in &one.values {
        let _ = writeln!(out, "    {} = {number},", camel(value));
    }
    let _ = writeln!(
        out,
        "}}
impl {name} {{
    /// The name on the wire of JSON.
    #[must_use]
    pub fn name(self) -> &'static str {{
        crate::mesos::table::E{index}.name(self as i32).unwrap_or_default()
    }}
    /// By the name on the wire of JSON.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {{
        Self::try_from(crate::mesos::table::E{index}.number(name)?).ok()
    }}
}}"
    );
    out
}

/// A macro that calls another one with every message, for tests.
fn every(schema: &Schema) -> String {
    let mut out = "/// Calls a macro with each message of the schema.
#[doc(hidden)]\n#[macro_export]\nmacro_rules! every_mesos_message {\n    ($call:ident) => {\n"
        .to_owned();
    for message in &schema.messages {
        let path = path(&message.package, &message.name).join("::");
        let _ = writeln!(out, "        $call!($crate::mesos::v1::{path});");
    }
    out + "    };\n}\n"
}
