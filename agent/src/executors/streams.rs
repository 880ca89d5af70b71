//! The events on their way to one executor: encoded, framed, bounded. One that does not read is cut
//! off, and has to subscribe again; it is told then what it must know.
//!
//! Decides nothing else. Invariant: what waits is at most [`EVENTS_MAX`] events and
//! [`EVENTS_MAX_BYTES`] bytes, and one more event.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use gantry_wire::mesos::v1::executor::Event;
use gantry_wire::mesos::{Encoding, encode, recordio};
use tokio::sync::mpsc;

/// Events that may wait for an executor.
pub(crate) const EVENTS_MAX: usize = 1_024;
/// Their bytes.
const EVENTS_MAX_BYTES: usize = 16 << 20;

/// The writing end.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Tells the streams of one agent apart.
    pub(crate) number: u64,
    encoding: Encoding,
    records: mpsc::Sender<Bytes>,
    waiting_bytes: Arc<AtomicUsize>,
}

/// The reading end.
#[derive(Debug)]
pub(crate) struct Events {
    pub(crate) number: u64,
    pub(crate) encoding: Encoding,
    records: mpsc::Receiver<Bytes>,
    waiting_bytes: Arc<AtomicUsize>,
}

pub(crate) fn pair(number: u64, encoding: Encoding) -> (Stream, Events) {
    let (sender, records) = mpsc::channel(EVENTS_MAX);
    let waiting_bytes = Arc::new(AtomicUsize::new(0));
    let stream = Stream {
        number,
        encoding,
        records: sender,
        waiting_bytes: waiting_bytes.clone(),
    };
    let events = Events {
        number,
        encoding,
        records,
        waiting_bytes,
    };
    (stream, events)
}

impl Stream {
    /// Whether there was room, and someone to read.
    pub(crate) fn send(&self, event: &Event) -> bool {
        if self.waiting_bytes.load(Ordering::Relaxed) > EVENTS_MAX_BYTES {
            return false;
        }
        let record = record(self.encoding, event);
        self.waiting_bytes
            .fetch_add(record.len(), Ordering::Relaxed);
        self.records.try_send(record).is_ok()
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.records.is_closed()
    }
}

impl Events {
    /// The next record; None when the stream was cut.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        let record = self.records.recv().await?;
        self.waiting_bytes
            .fetch_sub(record.len(), Ordering::Relaxed);
        Some(record)
    }
}

/// As it goes over the wire.
pub(crate) fn record(encoding: Encoding, event: &Event) -> Bytes {
    let mut framed = Vec::new();
    recordio::frame(&encode(encoding, event), &mut framed);
    Bytes::from(framed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_wire::mesos::v1::executor::event;

    fn message(bytes: usize) -> Event {
        Event {
            message: Some(event::Message {
                data: vec![0; bytes],
            }),
            ..Event::default()
        }
    }

    #[tokio::test]
    async fn who_does_not_read_is_cut_by_number_and_by_bytes() {
        let (stream, mut events) = pair(1, Encoding::Protobuf);
        let taken = (0..2 * EVENTS_MAX).take_while(|_| stream.send(&message(1)));
        assert_eq!(taken.count(), EVENTS_MAX);
        for _ in 0..EVENTS_MAX {
            events.next().await.unwrap();
        }
        assert!(stream.send(&message(1)));
        let (stream, events) = pair(2, Encoding::Json);
        let taken = (0..100).take_while(|_| stream.send(&message(1 << 20)));
        assert_eq!(taken.count(), 12, "base64 adds a third");
        assert!(stream.is_open());
        drop(events);
        assert!(!stream.is_open() && !stream.send(&message(1)));
    }
}
