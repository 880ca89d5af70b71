//! What holds for every message of the schema.

use proptest::prelude::*;

use crate::sample::{Full, Random, message};
use crate::{Codec, codecs};
use gantry_wire::mesos::Encoding::{Json, Protobuf};
use gantry_wire::mesos::descriptor::{Kind, Label};

const CASES: u32 = 16;
const DEPTH: usize = 3;

/// Protobuf and JSON are the same message, and both are stable.
fn survives(codec: &Codec, bytes: &[u8]) -> Result<(), TestCaseError> {
    let name = codec.message.name;
    let convert = |from, bytes: &[u8], to| {
        let result = (codec.convert)(from, bytes, to);
        result.map_err(|e| TestCaseError::fail(format!("{name}: {e}")))
    };
    let again = convert(Protobuf, bytes, Protobuf)?;
    let json = convert(Protobuf, bytes, Json)?;
    let text = String::from_utf8_lossy(&json).into_owned();
    prop_assert_eq!(&again, bytes, "{}: {}", name, text);
    let back = convert(Json, &json, Protobuf)?;
    prop_assert_eq!(
        &convert(Protobuf, &back, Json)?,
        &json,
        "{}: printed again",
        name
    );
    prop_assert_eq!(&convert(Json, &json, Json)?, &json);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(CASES) })]

    #[test]
    fn every_message_survives_both_encodings(seed: u64) {
        for codec in codecs() {
            let bytes = message(codec.message, DEPTH, &mut Random(seed));
            survives(&codec, &bytes)?;
        }
    }
}

#[test]
fn every_field_survives_both_encodings() {
    let codecs = codecs();
    assert!(codecs.len() > 300, "{} messages", codecs.len());
    for codec in codecs {
        let bytes = message(codec.message, 2, &mut Full);
        survives(&codec, &bytes).unwrap();
        // Nothing is left out: with all fields set, each name is printed.
        let json = (codec.convert)(Protobuf, &bytes, Json).unwrap();
        let json = String::from_utf8(json).unwrap();
        for field in codec.message.fields.iter().filter(|f| f.oneof.is_none()) {
            let name = format!("\"{}\":", field.name);
            assert!(
                json.contains(&name),
                "{}: no {name} in {json}",
                codec.message.name
            );
        }
    }
}

#[test]
fn defaults_are_printed_as_set_by_default() {
    for codec in codecs() {
        let message = codec.message;
        if message.name.ends_with("Entry") {
            continue;
        }
        let required = message.fields.iter().any(|f| f.label == Label::Required);
        if required {
            assert!(
                (codec.convert)(Json, b"{}", Json).is_err(),
                "{}",
                message.name
            );
            continue;
        }
        let json = (codec.convert)(Json, b"{}", Json).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let printed = json.as_object().unwrap();
        let defaults = message.fields.iter().filter(|f| f.default.is_some());
        assert_eq!(printed.len(), defaults.clone().count(), "{}", message.name);
        for field in defaults {
            let value: serde_json::Value = serde_json::from_str(field.default.unwrap()).unwrap();
            assert_eq!(printed[field.name], value);
            if let Kind::Double = field.kind {
                assert!(field.default.unwrap().contains('.'));
            }
        }
    }
}
