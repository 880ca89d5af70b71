//! Mesos's JSON as clients write it and read it: one line of each table is one rule.

use gantry_wire::mesos::Encoding::{Json, Protobuf};
use gantry_wire::mesos::{DecodeError, decode, encode, entries, v1};

use crate::codec;

/// What a text of a message is printed as.
fn printed(name: &str, text: &str) -> Result<String, DecodeError> {
    let json = (codec(&format!("mesos.v1.{name}")).convert)(Json, text.as_bytes(), Json)?;
    Ok(String::from_utf8(json).unwrap())
}

/// Message, text, and what is printed.
const PRINTED: &[(&str, &str, &str)] = &[
    // Defaults are printed, unless deprecated (`role`).
    (
        "FrameworkInfo",
        r#"{"user":"u","name":"n"}"#,
        r#"{"user":"u","name":"n","failover_timeout":0.0,"checkpoint":false}"#,
    ),
    (
        "FrameworkInfo",
        r#"{"user":"u","name":"n","role":"*","checkpoint":true}"#,
        r#"{"user":"u","name":"n","failover_timeout":0.0,"checkpoint":true,"role":"*"}"#,
    ),
    ("CommandInfo", "{}", r#"{"shell":true}"#),
    (
        "CommandInfo.URI",
        r#"{"value":"http://h/a"}"#,
        r#"{"value":"http://h/a","extract":true}"#,
    ),
    ("Filters", "{}", r#"{"refuse_seconds":5.0}"#),
    (
        "AgentInfo",
        r#"{"hostname":"h"}"#,
        r#"{"hostname":"h","port":5051}"#,
    ),
    ("LinuxInfo", "{}", r#"{"share_cgroups":true}"#),
    (
        "HealthCheck.TCPCheckInfo",
        r#"{"port":1}"#,
        r#"{"protocol":"IPv4","port":1}"#,
    ),
    (
        "CSIPluginInfo",
        r#"{"type":"t"}"#,
        r#"{"type":"t","name":"default"}"#,
    ),
    // Empty lists are not; empty messages are.
    ("TaskGroupInfo", r#"{"tasks":[]}"#, "{}"),
    ("CgroupInfo.Blkio.Statistics", "{}", "{}"),
    (
        "Resource",
        r#"{"name":"a","type":"SET","shared":{},"set":{}}"#,
        r#"{"name":"a","type":"SET","set":{},"shared":{}}"#,
    ),
    // Doubles keep a fraction; infinity is a bare word; integers are numbers.
    ("Value.Scalar", r#"{"value":15}"#, r#"{"value":15.0}"#),
    ("Value.Scalar", r#"{"value":0.1}"#, r#"{"value":0.1}"#),
    (
        "Value.Scalar",
        r#"{"value":"Infinity"}"#,
        r#"{"value":Infinity}"#,
    ),
    (
        "Value.Scalar",
        r#"{"value":-Infinity}"#,
        r#"{"value":-Infinity}"#,
    ),
    (
        "TimeInfo",
        r#"{"nanoseconds":-9223372036854775808}"#,
        r#"{"nanoseconds":-9223372036854775808}"#,
    ),
    (
        "Value.Range",
        r#"{"begin":0,"end":18446744073709551615}"#,
        r#"{"begin":0,"end":18446744073709551615}"#,
    ),
    // Bytes are base64 with padding; text is escaped as little as possible.
    ("UUID", r#"{"value":"/+8="}"#, r#"{"value":"/+8="}"#),
    (
        "FrameworkID",
        r#"{"value":"a\/\"\\\u0001\u00e9\ud83d\ude00\t"}"#,
        "{\"value\":\"a/\\\"\\\\\\u0001\u{e9}\u{1f600}\\t\"}",
    ),
    // Fields come in the order of declaration.
    (
        "Label",
        r#"{"value":"v","key":"k"}"#,
        r#"{"key":"k","value":"v"}"#,
    ),
    (
        "ExecutorInfo",
        r#"{"executor_id":{"value":"e"},"type":"DEFAULT"}"#,
        r#"{"type":"DEFAULT","executor_id":{"value":"e"}}"#,
    ),
    // Maps are objects.
    (
        "quota.QuotaConfig",
        r#"{"role":"r","limits":{"mem":{"value":1},"cpus":{"value":0}}}"#,
        r#"{"role":"r","limits":{"cpus":{"value":0.0},"mem":{"value":1.0}}}"#,
    ),
    // There is no short form of a duration.
    (
        "master.Call",
        r#"{"type":"DRAIN_AGENT","drain_agent":{"agent_id":{"value":"a"},"max_grace_period":{"seconds":600}}}"#,
        r#"{"type":"DRAIN_AGENT","drain_agent":{"agent_id":{"value":"a"},"max_grace_period":{"seconds":600},"mark_gone":false}}"#,
    ),
];

#[test]
fn what_is_printed() {
    for &(name, text, want) in PRINTED {
        assert_eq!(printed(name, text).as_deref(), Ok(want), "{name} {text}");
        assert_eq!(
            printed(name, want).as_deref(),
            Ok(want),
            "{name}: printed again"
        );
    }
}

/// Message, text as clients may write it, and what is printed.
const TAKEN: &[(&str, &str, &str)] = &[
    // Unknown names, other spellings, null.
    (
        "Label",
        r#"{"key":"k","Key":1,"x":{"y":[null]},"value":null}"#,
        r#"{"key":"k"}"#,
    ),
    (
        "scheduler.Call",
        r#"{"frameworkId":{"value":"f"},"type":"TEARDOWN"}"#,
        r#"{"type":"TEARDOWN"}"#,
    ),
    (
        "scheduler.Call",
        r#"{"type":"REVIVE","revive":null}"#,
        r#"{"type":"REVIVE"}"#,
    ),
    // Unknown names of an enum.
    ("scheduler.Call", r#"{"type":"NEW"}"#, "{}"),
    ("FrameworkInfo.Capability", r#"{"type":"NEW"}"#, "{}"),
    (
        "CapabilityInfo",
        r#"{"capabilities":["CHOWN","NEW","KILL"]}"#,
        r#"{"capabilities":["CHOWN","KILL"]}"#,
    ),
    (
        "NetworkInfo.IPAddress",
        r#"{"protocol":"IPv9"}"#,
        r#"{"protocol":"IPv4"}"#,
    ),
    // Numbers and booleans in quotes, whole numbers in other forms.
    ("Value.Scalar", r#"{"value":"1.5"}"#, r#"{"value":1.5}"#),
    (
        "Value.Scalar",
        r#"{"value":"-Infinity"}"#,
        r#"{"value":-Infinity}"#,
    ),
    (
        "TimeInfo",
        r#"{"nanoseconds":"12"}"#,
        r#"{"nanoseconds":12}"#,
    ),
    (
        "TimeInfo",
        r#"{"nanoseconds":1e3}"#,
        r#"{"nanoseconds":1000}"#,
    ),
    (
        "AgentInfo",
        r#"{"hostname":"h","port":"5052"}"#,
        r#"{"hostname":"h","port":5052}"#,
    ),
    (
        "AgentInfo",
        r#"{"hostname":"h","port":5052.0}"#,
        r#"{"hostname":"h","port":5052}"#,
    ),
    (
        "DrainConfig",
        r#"{"mark_gone":"true"}"#,
        r#"{"mark_gone":true}"#,
    ),
    // One value for a list of one; null in a list.
    (
        "Labels",
        r#"{"labels":{"key":"a"}}"#,
        r#"{"labels":[{"key":"a"}]}"#,
    ),
    (
        "Labels",
        r#"{"labels":[null,{"key":"a"},null]}"#,
        r#"{"labels":[{"key":"a"}]}"#,
    ),
    (
        "scheduler.Call.Revive",
        r#"{"roles":"a"}"#,
        r#"{"roles":["a"]}"#,
    ),
    // A map with nothing for a key.
    (
        "quota.QuotaConfig",
        r#"{"role":"r","limits":{"cpus":null}}"#,
        r#"{"role":"r"}"#,
    ),
    // Base64 without padding; blanks.
    ("UUID", r#"{"value":"/+8"}"#, r#"{"value":"/+8="}"#),
    ("Labels", " {\n\t\"labels\" : [ ] }\r\n", "{}"),
];

#[test]
fn what_is_taken() {
    for &(name, text, want) in TAKEN {
        assert_eq!(printed(name, text).as_deref(), Ok(want), "{name} {text}");
    }
}

/// Message, text, and the error.
const REFUSED: &[(&str, &str, &str)] = &[
    ("Label", r#"{"key":1}"#, "key: a string expected"),
    (
        "Labels",
        r#"{"labels":[{"key":"a"},{"key":{}}]}"#,
        "labels[1].key: a string expected",
    ),
    (
        "Labels",
        r#"{"labels":["a"]}"#,
        "labels[0]: an object expected",
    ),
    (
        "Labels",
        r#"{"labels":[[]]}"#,
        "labels[0]: an object expected",
    ),
    (
        "scheduler.Call",
        r#"{"type":1}"#,
        "type: a name in quotes expected",
    ),
    (
        "scheduler.Call",
        r#"{"framework_id":[{"value":"f"}]}"#,
        "framework_id: an object expected",
    ),
    (
        "Value.Range",
        r#"{"begin":1.5,"end":2}"#,
        "begin: an integer in range expected",
    ),
    (
        "Value.Range",
        r#"{"begin":-1,"end":2}"#,
        "begin: an integer in range expected",
    ),
    (
        "Value.Range",
        r#"{"begin":18446744073709551616,"end":2}"#,
        "begin: an integer in range expected",
    ),
    (
        "AgentInfo",
        r#"{"hostname":"h","port":2147483648}"#,
        "port: an integer in range expected",
    ),
    (
        "Value.Scalar",
        r#"{"value":"1,5"}"#,
        "value: a number expected",
    ),
    (
        "Value.Scalar",
        r#"{"value":"inf"}"#,
        "value: a number expected",
    ),
    (
        "DrainConfig",
        r#"{"mark_gone":1}"#,
        "mark_gone: true or false expected",
    ),
    (
        "UUID",
        r#"{"value":"a_b="}"#,
        "value: a string of base64 expected",
    ),
    (
        "quota.QuotaConfig",
        r#"{"role":"r","limits":[]}"#,
        "limits: an object expected",
    ),
    (
        "Label",
        r#"{"key":"a","key":"b"}"#,
        "key: one value, not several, expected",
    ),
    (
        "master.Call.DrainAgent",
        r#"{"agent_id":{"value":"a"},"max_grace_period":"10mins"}"#,
        "max_grace_period: an object expected",
    ),
    ("Labels", "[]", "the body is not a JSON object"),
    (
        "Labels",
        "",
        "the body is not JSON: a value expected at byte 0",
    ),
    (
        "Labels",
        "{} x",
        "the body is not JSON: the end expected at byte 3",
    ),
    (
        "Labels",
        "{\"a\":1,}",
        "the body is not JSON: a name in quotes expected at byte 7",
    ),
    (
        "Labels",
        r#"{"a" 1}"#,
        "the body is not JSON: a colon expected at byte 5",
    ),
    (
        "Labels",
        r#"{"a":[1 2]}"#,
        "the body is not JSON: a comma or the end of the list expected at byte 8",
    ),
    (
        "Labels",
        r#"{"a":"\ud800"}"#,
        "the body is not JSON: a well-formed string expected at byte 12",
    ),
    (
        "Labels",
        r#"{"a":-}"#,
        "the body is not JSON: a number expected at byte 6",
    ),
    // Missing fields, all of them.
    (
        "scheduler.Call",
        r#"{"type":"SUBSCRIBE","subscribe":{"framework_info":{}}}"#,
        "missing required fields: subscribe.framework_info.user, subscribe.framework_info.name",
    ),
    (
        "scheduler.Call",
        r#"{"type":"ACCEPT","accept":{"operations":[{"type":"LAUNCH","launch":{"task_infos":[{"name":"t"}]}}]}}"#,
        "missing required fields: accept.operations[0].launch.task_infos[0].task_id, \
         accept.operations[0].launch.task_infos[0].agent_id",
    ),
    (
        "TaskInfo",
        r#"{"name":"t","task_id":{"value":"t"},"agent_id":{"value":"a"},"limits":{"cpus":{}}}"#,
        "missing required fields: limits[0].value.value",
    ),
    (
        "Image",
        r#"{"type":"NEW"}"#,
        "missing required fields: type",
    ),
    (
        "FrameworkInfo",
        r#"{"user":null,"name":"n"}"#,
        "missing required fields: user",
    ),
];

#[test]
fn what_is_refused() {
    for &(name, text, want) in REFUSED {
        let found = printed(name, text).map_err(|e| e.to_string());
        assert_eq!(
            found.as_ref().map_err(String::as_str),
            Err(want),
            "{name} {text}"
        );
    }
    let latin = (codec("mesos.v1.Label").convert)(Json, b"{\"key\":\"\xe9\"}", Json);
    assert_eq!(latin, Err(DecodeError::Utf8 { at: 8 }));
}

#[test]
fn what_is_missing_is_missing_in_protobuf_too() {
    let call = v1::scheduler::Call {
        r#type: Some(v1::scheduler::call::Type::Acknowledge as i32),
        ..Default::default()
    };
    let mut bytes = encode(Protobuf, &call);
    bytes.extend([0x42, 2, 0x0a, 0]); // acknowledge { agent_id {} }
    let error = decode::<v1::scheduler::Call>(Protobuf, &bytes).unwrap_err();
    let want = "missing required fields: acknowledge.agent_id.value, acknowledge.task_id, acknowledge.uuid";
    assert_eq!(error.to_string(), want);
    // A required enum with a number that is not known.
    for bytes in [&[0x08, 9][..], &[0x08, 2, 0x08, 9]] {
        let error = decode::<v1::Image>(Protobuf, bytes).unwrap_err();
        assert_eq!(error.to_string(), "missing required fields: type");
    }
    // An optional one.
    let call: v1::scheduler::Call = decode(Protobuf, &[0x10, 99]).unwrap();
    assert_eq!(encode(Json, &call), b"{}");
    // Lists of numbers, packed and not.
    for bytes in [
        &[0x20, 1, 0x20, 200, 1, 8, 5][..],
        &[0x22, 3, 1, 200, 1, 8, 5],
    ] {
        let check: v1::health_check::HttpCheckInfo = decode(Protobuf, bytes).unwrap();
        assert_eq!(check.statuses, [1, 200]);
    }
    // The value of a map's entry is written although it is the default, and may be left out by
    // others unless it has required fields.
    let limits = v1::quota::QuotaConfig {
        role: "r".to_owned(),
        limits: entries::from_map([("cpus".to_owned(), v1::value::Scalar { value: 0.0 })].into()),
        ..Default::default()
    };
    let bytes = encode(Protobuf, &limits);
    let back: v1::quota::QuotaConfig = decode(Protobuf, &bytes).unwrap();
    assert_eq!(
        entries::get(&back.limits, "cpus").map(|s| s.value),
        Some(0.0)
    );
    let cut = [0x0a, 1, b'r', 0x1a, 3, 0x0a, 1, b'c'];
    let error = decode::<v1::quota::QuotaConfig>(Protobuf, &cut).unwrap_err();
    assert_eq!(
        error.to_string(),
        "missing required fields: limits[0].value"
    );
    let framework = [0x0a, 1, b'u', 0x12, 1, b'n', 0x6a, 3, 0x0a, 1, b'r'];
    let framework: v1::FrameworkInfo = decode(Protobuf, &framework).unwrap();
    assert_eq!(framework.offer_filters[0].key, "r");
}
