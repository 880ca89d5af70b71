//! Protobuf's own compiler reads what is written here, and writes the same bytes.
//!
//! The schema is rendered as `.proto` files. One wrapper message holds a sample of every message, so
//! that two runs of the compiler do for all.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, fs, thread};

use gantry_wire::mesos::Encoding::Protobuf;
use prost::encoding::encode_varint;

use crate::codecs;
use crate::sample::{Full, Random, message};
use crate::schema::{Field, Kind, Label, Schema};

/// Random samples of each message.
const SEEDS: u64 = 8;

fn schema() -> Schema {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/mesos-v1.schema");
    Schema::parse(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The text of one type and of those inside it.
fn nested(schema: &Schema, package: &str, prefix: &str, out: &mut String) {
    let inner = |name: &str| {
        let rest = name.strip_prefix(prefix);
        rest.filter(|rest| !rest.is_empty() && !rest.contains('.'))
            .map(str::to_owned)
    };
    for one in schema.enums.iter().filter(|e| e.package == package) {
        if let Some(name) = inner(&one.name) {
            let _ = writeln!(out, "enum {name} {{");
            for (value, number) in &one.values {
                let _ = writeln!(out, "{value} = {number};");
            }
            out.push_str("}\n");
        }
    }
    for message in schema.messages.iter().filter(|m| m.package == package) {
        let is_entry = message.name.ends_with("Entry");
        if let Some(name) = inner(&message.name).filter(|_| !is_entry) {
            let _ = writeln!(out, "message {name} {{");
            nested(schema, package, &format!("{}.", message.name), out);
            fields(schema, &message.fields, out);
            out.push_str("}\n");
        }
    }
}

fn fields(schema: &Schema, fields: &[Field], out: &mut String) {
    let mut open = None;
    for field in fields {
        let group = match &field.label {
            Label::Oneof(group) => Some(group),
            _ => None,
        };
        if open != group {
            out.push_str(if open.is_some() { "}\n" } else { "" });
            if let Some(group) = group {
                let _ = writeln!(out, "oneof {group} {{");
            }
            open = group;
        }
        let label = match &field.label {
            Label::Optional => "optional ",
            Label::Required => "required ",
            Label::Repeated => "repeated ",
            Label::Map | Label::Oneof(_) => "",
        };
        let kind = match (&field.label, field.kind) {
            (Label::Map, Kind::Message(entry)) => {
                let value = schema.messages[entry].fields[1].kind;
                format!("map<string, {}>", kind(schema, value))
            }
            (_, other) => kind(schema, other),
        };
        let default = field.default.as_ref().map(|default| match field.kind {
            Kind::String => format!("default = \"{default}\""),
            _ => format!("default = {default}"),
        });
        let deprecated = field.deprecated.then(|| "deprecated = true".to_owned());
        let options: Vec<String> = default.into_iter().chain(deprecated).collect();
        let options = match options.as_slice() {
            [] => String::new(),
            options => format!(" [{}]", options.join(", ")),
        };
        let _ = writeln!(
            out,
            "{label}{kind} {} = {}{options};",
            field.name, field.number
        );
    }
    out.push_str(if open.is_some() { "}\n" } else { "" });
}

fn kind(schema: &Schema, kind: Kind) -> String {
    match kind {
        Kind::Enum(index) => {
            let one = &schema.enums[index];
            format!(".{}.{}", one.package, one.name)
        }
        Kind::Message(index) => {
            let one = &schema.messages[index];
            format!(".{}.{}", one.package, one.name)
        }
        plain => format!("{plain:?}").to_lowercase(),
    }
}

/// Writes a file for each package, and the wrapper. Packages name each other, files must not: the
/// schema has no cycle between packages.
fn render(schema: &Schema, folder: &Path) {
    let mut packages: Vec<&str> = Vec::new();
    for message in &schema.messages {
        if !packages.contains(&message.package.as_str()) {
            packages.push(&message.package);
        }
    }
    for (at, package) in packages.iter().enumerate() {
        let mut text = format!("syntax = \"proto2\";\npackage {package};\n");
        for earlier in &packages[..at] {
            let _ = writeln!(text, "import \"{earlier}.proto\";");
        }
        nested(schema, package, "", &mut text);
        fs::write(folder.join(format!("{package}.proto")), text).unwrap();
    }
    let mut wrapper = "syntax = \"proto2\";\n".to_owned();
    for package in &packages {
        let _ = writeln!(wrapper, "import \"{package}.proto\";");
    }
    wrapper += "message Everything {\n";
    for (at, codec) in codecs().iter().enumerate() {
        if !codec.message.name.ends_with("Entry") {
            let _ = writeln!(
                wrapper,
                "repeated .{} f{at} = {};",
                codec.message.name,
                at + 1
            );
        }
    }
    fs::write(folder.join("everything.proto"), wrapper + "}\n").unwrap();
}

fn protoc(folder: &Path, action: &str, input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("protoc")
        .arg(format!("--{action}=Everything"))
        .arg(format!("--proto_path={}", folder.display()))
        .arg("everything.proto")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("protoc is there (tests/support/packages installs it)");
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "protoc --{action}: {errors}");
    writer.join().unwrap().unwrap();
    output.stdout
}

#[test]
fn protoc_reads_what_is_written() {
    let folder = env::temp_dir().join(format!("gantry-wire-protoc-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    render(&schema(), &folder);
    let mut everything = Vec::new();
    let mut names = BTreeSet::new();
    for (at, codec) in codecs().iter().enumerate() {
        if codec.message.name.ends_with("Entry") {
            continue;
        }
        let mut samples = vec![message(codec.message, 2, &mut Full)];
        let seeds = (0..SEEDS).map(|seed| seed << 32 | at as u64);
        samples.extend(seeds.map(|seed| message(codec.message, 3, &mut Random(seed))));
        for bytes in samples {
            // Through the types, so that of a oneof one field is left.
            let bytes = (codec.convert)(Protobuf, &bytes, Protobuf).unwrap();
            encode_varint((at as u64 + 1) << 3 | 2, &mut everything);
            encode_varint(bytes.len() as u64, &mut everything);
            everything.extend(bytes);
        }
        names.extend(codec.message.fields.iter().map(|field| field.name));
    }
    let text = protoc(&folder, "decode", &everything);
    let back = protoc(&folder, "encode", &text);
    let text = String::from_utf8(text).unwrap();
    fs::remove_dir_all(&folder).unwrap();
    // A field that protoc does not know has a number for a name.
    let words: BTreeSet<&str> = text
        .lines()
        .filter_map(|l| l.split_whitespace().next())
        .collect();
    let unknown = |word: &&&str| word.chars().next().is_some_and(|c| c.is_ascii_digit());
    assert_eq!(words.iter().find(unknown), None);
    let unused: Vec<_> = names
        .iter()
        .filter(|name| !words.contains(**name) && !words.contains(format!("{name}:").as_str()))
        .collect();
    assert!(unused.is_empty(), "no sample has {unused:?}");
    assert!(back == everything, "protoc writes other bytes than we do");
}
