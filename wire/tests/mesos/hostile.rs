//! No bytes make the decoders panic, recurse without end, or answer at length.

use proptest::prelude::*;

use crate::sample::{Random, message};
use crate::{codec, codecs};
use gantry_wire::mesos::Encoding::{Json, Protobuf};
use gantry_wire::mesos::recordio::Decoder;
use gantry_wire::mesos::{
    DecodeError, attributes, negotiation, resources_text, routes, value_text,
};

/// Longest error, in bytes: 64 paths of at most 256 characters each, and some words.
const ERROR_MAX_BYTES: usize = 20_000;

const ROOTS: [&str; 8] = [
    "mesos.v1.scheduler.Call",
    "mesos.v1.scheduler.Event",
    "mesos.v1.executor.Call",
    "mesos.v1.executor.Event",
    "mesos.v1.master.Call",
    "mesos.v1.master.Response",
    "mesos.v1.agent.Call",
    "mesos.v1.agent.Response",
];

fn try_all(root: &str, bytes: &[u8]) {
    let codec = codec(root);
    for encoding in [Json, Protobuf] {
        if let Err(error) = (codec.convert)(encoding, bytes, Json) {
            assert!(error.to_string().len() < ERROR_MAX_BYTES);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn random_bytes_are_harmless(bytes: Vec<u8>, root in 0..ROOTS.len()) {
        try_all(ROOTS[root], &bytes);
        let mut input = bytes.as_slice();
        let mut records = Decoder::new(64);
        while let Ok(Some(record)) = records.next(&mut input) {
            prop_assert!(record.len() <= 64);
        }
    }

    #[test]
    fn damaged_messages_are_harmless(seed: u64, root in 0..ROOTS.len(), at: usize, byte: u8, cut: usize) {
        let codec = codec(ROOTS[root]);
        let bytes = message(codec.message, 3, &mut Random(seed));
        let json = (codec.convert)(Protobuf, &bytes, Json).unwrap();
        for mut bytes in [bytes, json] {
            if bytes.is_empty() {
                continue;
            }
            let (at, cut) = (at % bytes.len(), cut % bytes.len());
            bytes[at] = byte;
            try_all(ROOTS[root], &bytes);
            try_all(ROOTS[root], &bytes[..cut]);
        }
    }

    #[test]
    fn random_text_is_harmless(text: String) {
        let _ = value_text::parse(&text);
        let _ = attributes::parse(&text);
        let _ = resources_text::parse(&text, "*");
        let _ = routes::resolve(routes::Daemon::Agent, &text, &["/state"]);
        let _ = negotiation::accepted(Some(&text));
    }

    #[test]
    fn values_are_read_as_they_are_printed(text in r"[a-z0-9.,\-\[\]{}]{0,12}") {
        if let Ok(value) = value_text::parse(&text) {
            prop_assert_eq!(value_text::parse(&value_text::print(&value)).ok(), Some(value));
        }
    }
}

#[test]
fn unknown_fields_are_passed_over() {
    // Field 4000 as a varint, as text, as 8 bytes, as 4 bytes, and as a group with a field in it.
    let extra: [&[u8]; 5] = [
        &[0x80, 0xfa, 0x01, 0x96, 0x01],
        &[0x82, 0xfa, 0x01, 3, b'a', b'b', b'c'],
        &[0x81, 0xfa, 0x01, 1, 2, 3, 4, 5, 6, 7, 8],
        &[0x85, 0xfa, 0x01, 1, 2, 3, 4],
        &[0x83, 0xfa, 0x01, 0x08, 1, 0x84, 0xfa, 0x01],
    ];
    for codec in codecs() {
        let bytes = message(codec.message, 2, &mut Random(7));
        let json = (codec.convert)(Protobuf, &bytes, Json).unwrap();
        for extra in extra {
            let with = [extra, bytes.as_slice(), extra].concat();
            assert_eq!((codec.convert)(Protobuf, &with, Json).as_ref(), Ok(&json));
        }
        let rest = std::str::from_utf8(&json[1..]).unwrap();
        let comma = if rest == "}" { "" } else { "," };
        let unknown =
            r#""Type":1,"frameworkInfo":{"a":[1,{"b":null}],"type":5},"ünknown":"\ud83d\ude00""#;
        let with = format!("{{{unknown}{comma}{rest}");
        assert_eq!(
            (codec.convert)(Json, with.as_bytes(), Json).as_ref(),
            Ok(&json)
        );
    }
}

#[test]
fn depth_is_bounded() {
    let root = codec("mesos.v1.ContainerID");
    for (depth, fits) in [
        (1, true),
        (32, true),
        (99, true),
        (101, false),
        (100_000, false),
    ] {
        let json = [
            r#"{"value":"a","parent":"#.repeat(depth - 1),
            r#"{"value":"a"}"#.to_owned(),
            "}".repeat(depth - 1),
        ]
        .concat();
        let found = (root.convert)(Json, json.as_bytes(), Protobuf);
        assert_eq!(found.is_ok(), fits, "{depth}");
        let mut bytes = vec![0x0a, 1, b'a'];
        for _ in 1..depth.min(5000) {
            let mut outer = vec![0x0a, 1, b'a', 0x12];
            prost::encoding::encode_varint(bytes.len() as u64, &mut outer);
            outer.extend(bytes);
            bytes = outer;
        }
        assert_eq!(
            (root.convert)(Protobuf, &bytes, Json).is_ok(),
            fits,
            "{depth}"
        );
    }
    for deep in ["[", "{\"a\":"] {
        let text = format!("{{\"unknown\":{}", deep.repeat(1_000_000));
        let found = (root.convert)(Json, text.as_bytes(), Json);
        assert_eq!(found, Err(DecodeError::TooDeep));
    }
    let groups = [0x1b].repeat(1_000_000);
    let found = (root.convert)(Protobuf, &groups, Json);
    assert_eq!(found, Err(DecodeError::TooDeep));
}

#[test]
fn errors_are_bounded() {
    let root = codec("mesos.v1.scheduler.Call");
    let ids = "{},".repeat(100_000);
    let json = format!(r#"{{"type":"ACCEPT","accept":{{"offer_ids":[{ids}{{}}]}}}}"#);
    let error = (root.convert)(Json, json.as_bytes(), Json).unwrap_err();
    let DecodeError::Missing { paths, more } = &error else {
        panic!("{error}");
    };
    assert_eq!((paths.len(), *more), (64, 100_001 - 64));
    assert_eq!(paths[1], "accept.offer_ids[1].value");
    assert!(error.to_string().ends_with("and 99937 more"));
    assert!(error.to_string().len() < ERROR_MAX_BYTES);
}
