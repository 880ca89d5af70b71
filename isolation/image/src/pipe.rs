//! The pipes between the stages that a layer flows through: network → inflater → unpacker.
//!
//! Each stage has a thread of its own, so that receiving, inflating and writing overlap. Invariant:
//! the end of the content is said, never inferred; a sender that vanishes (a cancelled pull, a
//! broken connection) is an error for the reader, so that a cut stream is not taken for a short one.

use std::io::{self, BufRead, Read};
use std::sync::mpsc as blocking;

use bytes::Bytes;
use tokio::sync::mpsc;

/// Chunks in flight from the network; a chunk is what one read of the socket gave (≤ 64 KiB).
const NETWORK_CHUNKS: usize = 64;
/// Buffers in flight between inflater and unpacker, and their size in bytes.
const PLAIN_BUFFERS: usize = 8;
const PLAIN_BUFFER_BYTES: usize = 256 * 1024;

/// Something that flows, or its end.
pub(crate) enum Flow<T> {
    Data(T),
    End,
}

/// From the network task to the inflating thread.
pub(crate) fn network() -> (mpsc::Sender<Flow<Bytes>>, ChunkReader) {
    let (sender, receiver) = mpsc::channel(NETWORK_CHUNKS);
    (
        sender,
        ChunkReader {
            receiver,
            chunk: Bytes::new(),
            ended: false,
        },
    )
}

/// The reading end on a blocking thread.
pub(crate) struct ChunkReader {
    receiver: mpsc::Receiver<Flow<Bytes>>,
    chunk: Bytes,
    ended: bool,
}

impl BufRead for ChunkReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.chunk.is_empty() && !self.ended {
            match self.receiver.blocking_recv() {
                Some(Flow::Data(chunk)) => self.chunk = chunk,
                Some(Flow::End) => self.ended = true,
                None => return Err(cut()),
            }
        }
        Ok(&self.chunk)
    }

    fn consume(&mut self, amount: usize) {
        let _ = self.chunk.split_to(amount.min(self.chunk.len()));
    }
}

impl Read for ChunkReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        copy_out(self, into)
    }
}

/// A buffer whose first `length` bytes count.
struct Filled {
    buffer: Vec<u8>,
    length: usize,
}

/// From the inflating thread to the unpacking thread.
pub(crate) fn plain() -> (PlainSender, PlainReader) {
    let (sender, receiver) = blocking::sync_channel(PLAIN_BUFFERS);
    let (give_back, empty) = blocking::sync_channel(PLAIN_BUFFERS);
    (
        PlainSender { sender, empty },
        PlainReader {
            receiver,
            give_back,
            buffer: Vec::new(),
            at: 0,
            end: 0,
            ended: false,
        },
    )
}

pub(crate) struct PlainSender {
    sender: blocking::SyncSender<Flow<Filled>>,
    /// Buffers that were read; allocating and clearing them anew is what malloc would do.
    empty: blocking::Receiver<Vec<u8>>,
}

impl PlainSender {
    /// Reads `input` to its end into the pipe; returns quietly if nobody reads any more.
    pub(crate) fn drain(self, mut input: impl Read) -> io::Result<()> {
        loop {
            let recycled = self.empty.try_recv();
            let mut buffer = recycled.unwrap_or_else(|_| vec![0; PLAIN_BUFFER_BYTES]);
            let length = fill(&mut input, &mut buffer)?;
            let is_end = length == 0;
            let flow = if is_end {
                Flow::End
            } else {
                Flow::Data(Filled { buffer, length })
            };
            if self.sender.send(flow).is_err() || is_end {
                return Ok(());
            }
        }
    }
}

/// Reads until the buffer is full or the input ends.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match input.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

/// The reading end of [`plain`].
pub(crate) struct PlainReader {
    receiver: blocking::Receiver<Flow<Filled>>,
    give_back: blocking::SyncSender<Vec<u8>>,
    buffer: Vec<u8>,
    at: usize,
    end: usize,
    ended: bool,
}

impl BufRead for PlainReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.at >= self.end && !self.ended {
            match self.receiver.recv() {
                Ok(Flow::Data(Filled { buffer, length })) => {
                    let read = std::mem::replace(&mut self.buffer, buffer);
                    (self.at, self.end) = (0, length);
                    if !read.is_empty() {
                        // Nobody needs it any more at the end.
                        let _ = self.give_back.try_send(read);
                    }
                }
                Ok(Flow::End) => self.ended = true,
                Err(_) => return Err(cut()),
            }
        }
        Ok(self.buffer.get(self.at..self.end).unwrap_or_default())
    }

    fn consume(&mut self, amount: usize) {
        self.at = self.at.saturating_add(amount).min(self.end);
    }
}

impl Read for PlainReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        copy_out(self, into)
    }
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the content was cut off")
}

fn copy_out(input: &mut impl BufRead, into: &mut [u8]) -> io::Result<usize> {
    let mut available = input.fill_buf()?;
    let read = available.read(into)?;
    input.consume(read);
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_that_vanishes_is_an_error() {
        let (sender, mut reader) = network();
        sender
            .blocking_send(Flow::Data(Bytes::from_static(b"abc")))
            .unwrap();
        drop(sender);
        let mut text = Vec::new();
        let error = reader.read_to_end(&mut text).unwrap_err();
        assert_eq!(
            (text.as_slice(), error.kind()),
            (&b"abc"[..], io::ErrorKind::UnexpectedEof)
        );
    }

    #[test]
    fn everything_arrives_in_order() {
        let content: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let (sender, mut reader) = plain();
        let expected = content.clone();
        let thread = std::thread::spawn(move || sender.drain(content.as_slice()));
        let mut seen = Vec::new();
        reader.read_to_end(&mut seen).unwrap();
        thread.join().unwrap().unwrap();
        assert!(seen == expected);
    }
}
