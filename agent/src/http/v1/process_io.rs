//! Records of `ProcessIO`, which is how Mesos streams what processes write. Decides nothing.

use std::time::Duration;

use bytes::Bytes;
use gantry_wire::mesos::v1::DurationInfo;
use gantry_wire::mesos::v1::agent::ProcessIo;
use gantry_wire::mesos::v1::agent::process_io::control::{Heartbeat, Type as ControlType};
use gantry_wire::mesos::v1::agent::process_io::data::Type as DataType;
use gantry_wire::mesos::v1::agent::process_io::{Control, Data, Type};
use gantry_wire::mesos::{Encoding, encode, recordio};

/// Which output a record is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// What is told to whoever is attached.
#[derive(Debug, Clone, Copy)]
pub(super) enum Piece<'p> {
    Data(Stream, &'p [u8]),
    /// So that nobody takes the connection for dead; with the time to the next one.
    Heartbeat(Duration),
}

impl Piece<'_> {
    pub(super) fn record(self, encoding: Encoding) -> Bytes {
        match self {
            Self::Data(stream, bytes) => data(encoding, stream, bytes),
            Self::Heartbeat(interval) => heartbeat(encoding, interval),
        }
    }
}

fn data(encoding: Encoding, stream: Stream, bytes: &[u8]) -> Bytes {
    let kind = match stream {
        Stream::Stdout => DataType::Stdout,
        Stream::Stderr => DataType::Stderr,
    };
    let data = Data {
        r#type: Some(kind as i32),
        data: Some(bytes.to_vec()),
    };
    let io = ProcessIo {
        r#type: Some(Type::Data as i32),
        data: Some(data),
        ..ProcessIo::default()
    };
    record(encoding, &io)
}

fn heartbeat(encoding: Encoding, interval: Duration) -> Bytes {
    let nanoseconds = i64::try_from(interval.as_nanos()).unwrap_or(i64::MAX);
    let heartbeat = Heartbeat {
        interval: Some(DurationInfo { nanoseconds }),
    };
    let control = Control {
        r#type: Some(ControlType::Heartbeat as i32),
        heartbeat: Some(heartbeat),
        ..Control::default()
    };
    let io = ProcessIo {
        r#type: Some(Type::Control as i32),
        control: Some(control),
        ..ProcessIo::default()
    };
    record(encoding, &io)
}

fn record(encoding: Encoding, io: &ProcessIo) -> Bytes {
    let mut framed = Vec::new();
    recordio::frame(&encode(encoding, io), &mut framed);
    framed.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn framed_as_mesos_does() {
        let text = r#"{"type":"DATA","data":{"type":"STDERR","data":"AP8="}}"#;
        assert_eq!(
            data(Encoding::Json, Stream::Stderr, &[0, 255]),
            format!("{}\n{text}", text.len())
        );
        let bytes = b"\x08\x01\x12\x06\x08\x03\x12\x02\x00\xff";
        assert_eq!(
            data(Encoding::Protobuf, Stream::Stderr, &[0, 255])[..],
            [&b"10\n"[..], bytes].concat()
        );
    }
}
