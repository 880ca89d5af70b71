//! A request's body that is a stream of records, one call each, for as long as its client likes.
//!
//! Invariants: a record is bounded, the stream is not; a client that says nothing for [`SILENCE_MAX`],
//! not even a heartbeat, is gone. While nobody asks for the next record, nothing is read.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::{Buf as _, Bytes};
use futures_util::StreamExt as _;
use gantry_wire::mesos::recordio::Decoder;
use gantry_wire::mesos::v1::agent::Call;
use gantry_wire::mesos::{Encoding, decode};
use tokio::time::timeout;

use super::super::problem::Problem;

/// Longest record. Clients send some KiB at a time.
const RECORD_MAX_BYTES: usize = 1 << 20;
/// Longest silence. Clients of Mesos send a heartbeat every 30 seconds.
const SILENCE_MAX: Duration = Duration::from_secs(300);

/// A stream of calls.
pub(super) struct Records {
    body: BodyDataStream,
    encoding: Encoding,
    decoder: Decoder,
    /// What came and is not looked at.
    rest: Bytes,
}

impl Records {
    pub(super) fn new(body: Body, encoding: Encoding) -> Self {
        Self {
            body: body.into_data_stream(),
            encoding,
            decoder: Decoder::new(RECORD_MAX_BYTES),
            rest: Bytes::new(),
        }
    }

    /// The next call; None at the end of the stream.
    pub(super) async fn next(&mut self) -> Result<Option<Call>, Problem> {
        loop {
            let mut input = &self.rest[..];
            let record = self.decoder.next(&mut input);
            let taken = self.rest.len() - input.len();
            self.rest.advance(taken);
            if let Some(record) = record.map_err(|error| unreadable(&error))? {
                let call = decode(self.encoding, &record);
                return call.map(Some).map_err(|error| unreadable(&error));
            }
            match timeout(SILENCE_MAX, self.body.next()).await {
                Ok(Some(Ok(bytes))) => self.rest = bytes,
                Ok(None) => {
                    let whole = self.decoder.finish();
                    return whole.map(|()| None).map_err(|error| unreadable(&error));
                }
                // The connection broke: nobody reads the answer.
                Ok(Some(Err(_))) => return Ok(None),
                Err(_) => return Err(Problem::TooSlow(SILENCE_MAX)),
            }
        }
    }
}

fn unreadable(error: &dyn std::fmt::Display) -> Problem {
    Problem::BadRequest(format!("Failed to parse a record: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(chunks: &[&'static [u8]]) -> Records {
        let chunks: Vec<_> = chunks
            .iter()
            .map(|c| Ok::<_, std::io::Error>(Bytes::from_static(c)))
            .collect();
        let body = Body::from_stream(futures_util::stream::iter(chunks));
        Records::new(body, Encoding::Json)
    }

    #[tokio::test]
    async fn calls_come_one_by_one_wherever_chunks_end() {
        let mut records = records(&[
            b"2",
            b"1\n{\"type\":\"GET_HEALTH\"}21\n{\"type\"",
            b":\"GET_HEALTH\"}",
        ]);
        for _ in 0..2 {
            let call = records.next().await.unwrap().unwrap();
            assert_eq!(call.r#type().name(), "GET_HEALTH");
        }
        assert_eq!(records.next().await.unwrap(), None);
    }

    #[tokio::test]
    async fn garbage_and_endless_records_are_refused_at_once() {
        for (chunk, words) in [
            (&b"hello"[..], "length"),
            (b"99999999999999999999999\n", "length"),
            (b"1048577\n", "too long"),
            (b"18446744073709551615\n", "too long"),
            (b"3\n{}}", "parse"),
            (b"10\n{}", "inside a record"),
        ] {
            let problem = records(&[chunk]).next().await.unwrap_err();
            assert!(
                matches!(&problem, Problem::BadRequest(text) if text.contains(words)),
                "{problem:?}"
            );
        }
    }
}
