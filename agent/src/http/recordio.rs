//! Records of `ProcessIO` as Mesos streams them: RecordIO framing (length in decimal, newline,
//! JSON; `src/common/recordio.hpp`) around base64. Decides nothing.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde_json::{Value, json};

/// Which output a record is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

pub(super) fn data(stream: Stream, bytes: &[u8]) -> Bytes {
    let name = match stream {
        Stream::Stdout => "STDOUT",
        Stream::Stderr => "STDERR",
    };
    record(&json!({"type": "DATA", "data": {"type": name, "data": BASE64.encode(bytes)}}))
}

pub(super) fn heartbeat(interval: Duration) -> Bytes {
    let nanoseconds = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
    let heartbeat = json!({"interval": {"nanoseconds": nanoseconds}});
    record(&json!({"type": "CONTROL", "control": {"type": "HEARTBEAT", "heartbeat": heartbeat}}))
}

fn record(value: &Value) -> Bytes {
    let text = value.to_string();
    Bytes::from(format!("{}\n{text}", text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn framed_as_mesos_does() {
        let text = r#"{"data":{"data":"AP8=","type":"STDERR"},"type":"DATA"}"#;
        assert_eq!(
            data(Stream::Stderr, &[0, 255]),
            format!("{}\n{text}", text.len())
        );
    }
}
