//! One session, from the first byte to the reason of its end.

use std::time::Duration;

use futures_util::StreamExt;
use gantry_wire::agent::{
    FRAME_MAX_BYTES, FromAgent, HEARTBEAT_MS, Register, SILENCE_MAX_MS, ToAgent, from_agent,
};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};

use super::{AgentEvent, Incoming, Outgoing, SessionId};

/// Messages that go into one write.
const WRITE_AT_ONCE: usize = 64;
const SILENCE: Duration = Duration::from_millis(SILENCE_MAX_MS);

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    #[error("the agent closed the connection")]
    Closed,
    #[error("the connection failed ({0})")]
    Io(std::io::Error),
    #[error("nothing came for {SILENCE_MAX_MS} ms")]
    Silent,
    #[error("the agent did not take a message for {SILENCE_MAX_MS} ms")]
    Stuck,
    #[error("a frame is not a message ({0})")]
    Garbage(prost::DecodeError),
    #[error("the first message is not a registration")]
    NotRegistered,
    #[error("a second registration on one connection")]
    RegisteredTwice,
    #[error("the leader has ended the session")]
    Dropped,
    #[error("the leader has cut the connection: {0}")]
    Cut(&'static str),
    #[error("the coordinator is stopping")]
    Stopping,
}

type Reader<S> = FramedRead<ReadHalf<S>, LengthDelimitedCodec>;

fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder()
        .max_frame_length(FRAME_MAX_BYTES)
        .new_codec()
}

async fn next<S: AsyncRead>(reader: &mut Reader<S>) -> Result<FromAgent, Ended> {
    let frame = timeout(SILENCE, reader.next())
        .await
        .map_err(|_| Ended::Silent)?;
    let frame = frame.ok_or(Ended::Closed)?.map_err(Ended::Io)?;
    FromAgent::decode(frame).map_err(Ended::Garbage)
}

async fn first<S: AsyncRead>(reader: &mut Reader<S>) -> Result<Register, Ended> {
    match next(reader).await?.kind {
        Some(from_agent::Kind::Register(register)) => Ok(register),
        _ => Err(Ended::NotRegistered),
    }
}

async fn read<S: AsyncRead>(
    id: SessionId,
    mut reader: Reader<S>,
    events: &mpsc::Sender<AgentEvent>,
) -> Ended {
    loop {
        let update = match next(&mut reader).await {
            // Of what executors of frameworks say nobody is told yet.
            Ok(FromAgent {
                kind:
                    None
                    | Some(from_agent::Kind::ExecutorMessage(_) | from_agent::Kind::ExecutorEnded(_)),
            }) => continue,
            Ok(FromAgent {
                kind: Some(from_agent::Kind::Status(update)),
            }) => Box::new(update),
            Ok(FromAgent {
                kind: Some(from_agent::Kind::Register(_)),
            }) => {
                return Ended::RegisteredTwice;
            }
            Err(ended) => return ended,
        };
        if events
            .send(AgentEvent::Status {
                session: id,
                update,
            })
            .await
            .is_err()
        {
            return Ended::Stopping;
        }
    }
}

/// One frame: the length, then the message.
fn encode(buffer: &mut Vec<u8>, message: &ToAgent) {
    let length = u32::try_from(message.encoded_len()).expect("messages are far below 4 GiB");
    buffer.extend_from_slice(&length.to_be_bytes());
    message.encode(buffer).expect("a vector grows as needed");
}

async fn write(
    mut writer: impl AsyncWrite + Unpin,
    messages: &mut mpsc::Receiver<ToAgent>,
) -> Ended {
    let mut heartbeat = interval(Duration::from_millis(HEARTBEAT_MS));
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut batch = Vec::with_capacity(WRITE_AT_ONCE);
    let mut buffer = Vec::new();
    loop {
        tokio::select! {
            count = messages.recv_many(&mut batch, WRITE_AT_ONCE) => if count == 0 {
                return Ended::Dropped;
            },
            _ = heartbeat.tick() => batch.push(ToAgent { kind: None }),
        }
        buffer.clear();
        for message in batch.drain(..) {
            encode(&mut buffer, &message);
        }
        let written = async {
            writer.write_all(&buffer).await?;
            writer.flush().await
        };
        match timeout(SILENCE, written).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Ended::Io(error),
            Err(_) => return Ended::Stuck,
        }
    }
}

/// Runs a session over the stream until it ends; answers why.
pub(crate) async fn serve<S>(id: SessionId, stream: S, events: mpsc::Sender<AgentEvent>) -> Ended
where
    S: AsyncRead + AsyncWrite,
{
    let (read_half, write_half) = tokio::io::split(stream);
    let mut reader: Reader<S> = FramedRead::new(read_half, codec());
    let register = match first(&mut reader).await {
        Ok(register) => Box::new(register),
        Err(ended) => return ended,
    };
    let (outgoing, Incoming { mut messages, cut }) = Outgoing::new(id);
    // A leader that only drops its end wants what is queued to be sent first.
    let cut = async {
        match cut.await {
            Ok(reason) => Ended::Cut(reason),
            Err(_) => std::future::pending().await,
        }
    };
    if events
        .send(AgentEvent::Opened { outgoing, register })
        .await
        .is_err()
    {
        return Ended::Stopping;
    }
    let ended = tokio::select! {
        ended = read(id, reader, &events) => ended,
        ended = write(write_half, &mut messages) => ended,
        ended = cut => ended,
    };
    drop(messages);
    let closed = AgentEvent::Closed {
        session: id,
        reason: ended.to_string(),
    };
    match events.send(closed).await {
        Ok(()) => ended,
        Err(_) => Ended::Stopping,
    }
}
