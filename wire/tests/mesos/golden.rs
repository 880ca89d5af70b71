//! Every call, event and response of the four APIs, in both encodings, as files.
//!
//! The files hold what was written once and read over; a difference is a change of the wire. They are
//! made anew with `GANTRY_UPDATE_GOLDEN=1`, and then to be read again.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

use gantry_wire::mesos::Encoding::{Json, Protobuf};
use gantry_wire::mesos::descriptor::{Kind, Label, Message};
use prost::encoding::encode_varint;

use crate::sample::{Full, value};
use crate::{Codec, codec};

const UPDATE: &str = "GANTRY_UPDATE_GOLDEN";
/// How deep payloads are filled; below, only what is required.
const DEPTH: usize = 3;
const PACKAGES: [(&str, &[&str]); 4] = [
    ("scheduler", &["Call", "Event", "Response"]),
    ("executor", &["Call", "Event"]),
    ("master", &["Call", "Response", "Event"]),
    ("agent", &["Call", "Response", "ProcessIO"]),
];

/// A message of one type, with its payload and what else each one has.
fn sample(message: &Message, name: &str, number: i32) -> Vec<u8> {
    let payload = name.to_lowercase();
    let mut fields: Vec<_> = message.fields.iter().collect();
    fields.sort_by_key(|field| field.number);
    let mut out = Vec::new();
    for field in fields {
        if field.name == "type" {
            encode_varint(u64::from(field.number << 3), &mut out);
            encode_varint(number as u64, &mut out);
        } else if field.name == payload
            || field.name == "framework_id"
            || field.label == Label::Required
        {
            value(field, DEPTH, &mut Full, &mut out);
        }
    }
    out
}

fn render(codec: &Codec) -> String {
    let kind = codec.message.fields.iter().find(|f| f.name == "type");
    let Some(Kind::Enum(types)) = kind.map(|field| field.kind) else {
        panic!("{} has no type", codec.message.name);
    };
    let mut out = format!("# {}\n", codec.message.name);
    for name in types.names() {
        let bytes = sample(codec.message, name, types.number(name).unwrap());
        let json = (codec.convert)(Protobuf, &bytes, Json).unwrap();
        let bytes = (codec.convert)(Json, &json, Protobuf).unwrap();
        let mut hex = String::new();
        for byte in bytes {
            let _ = write!(hex, "{byte:02x}");
        }
        let json = String::from_utf8(json).unwrap();
        let _ = write!(out, "\n{name}\n{json}\n{hex}\n");
    }
    out
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<char> = hex.chars().collect();
    let byte = |pair: &[char]| pair.iter().fold(0, |b, d| b << 4 | d.to_digit(16).unwrap());
    digits.chunks(2).map(|pair| byte(pair) as u8).collect()
}

#[test]
fn calls_events_and_responses_are_as_recorded() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/mesos/golden");
    for (package, roots) in PACKAGES {
        for root in roots {
            let codec = codec(&format!("mesos.v1.{package}.{root}"));
            let path = folder.join(format!("{package}_{}.txt", root.to_lowercase()));
            let found = render(&codec);
            if env::var_os(UPDATE).is_some() {
                fs::write(&path, &found).unwrap();
            }
            let want = fs::read_to_string(&path).unwrap();
            let (found, recorded) = (found.lines(), want.lines());
            for (found, recorded) in found.clone().zip(recorded.clone()) {
                assert_eq!(found, recorded, "{}", path.display());
            }
            assert_eq!(found.count(), recorded.count(), "{}", path.display());
            read_back(&codec, &want);
        }
    }
}

/// What is recorded is read, from either encoding, as the same message.
fn read_back(codec: &Codec, recorded: &str) {
    let mut checked = 0;
    for block in recorded.split("\n\n").skip(1) {
        let mut lines = block.lines();
        let (name, json, hex) = (lines.next(), lines.next(), lines.next());
        let (json, hex) = (json.unwrap(), bytes(hex.unwrap()));
        for (encoding, from) in [(Json, json.as_bytes()), (Protobuf, &hex)] {
            let found = (codec.convert)(encoding, from, Json).unwrap();
            assert!(
                found == json.as_bytes(),
                "{name:?} of {}",
                codec.message.name
            );
            assert_eq!((codec.convert)(encoding, from, Protobuf).unwrap(), hex);
        }
        checked += 1;
    }
    assert!(checked > 1, "{} has {checked} records", codec.message.name);
}
