//! The connection to the coordinator: opens it, keeps it alive, opens it again. Frames as
//! [`gantry_wire::agent`] says, over anything that reads and writes.
//!
//! It deliberately knows nothing of tasks: what comes in goes to the loop, what the loop hands out
//! goes to the coordinator. Invariants: every buffer is bounded; a coordinator that is silent or
//! does not take what it is sent for [`SILENCE_MAX_MS`] is left and looked for again.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::StreamExt as _;
use gantry_wire::agent::{
    FRAME_MAX_BYTES, FromAgent, HEARTBEAT_MS, SILENCE_MAX_MS, ToAgent, to_agent,
};
use prost::Message as _;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};
use tokio_util::sync::CancellationToken;

use crate::coordinators::Connect;
use crate::inbox::Event;

/// Messages that may wait to be written; when full, the connection is given up and made anew.
pub(crate) const OUTBOUND_MAX: usize = 4_096;
/// Shortest and longest wait before the coordinator is tried again.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// For all coordinators together.
const CONNECT_MAX: Duration = Duration::from_secs(60);
const SILENCE_MAX: Duration = Duration::from_millis(SILENCE_MAX_MS);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the connection")]
    Io(#[from] io::Error),
    #[error("a message of the coordinator")]
    Message(#[from] prost::DecodeError),
    #[error("the coordinator was silent for {SILENCE_MAX_MS} ms")]
    Silent,
    #[error("the coordinator closed the connection")]
    Closed,
    #[error("the coordinator says that another one leads")]
    Elsewhere,
    #[error("given up by the agent: it ends, or has more to say than the coordinator takes")]
    Full,
    #[error("the agent ends")]
    Cancelled,
}

/// Connects again and again until cancelled.
pub(crate) async fn run<C: Connect>(
    coordinators: C,
    events: mpsc::Sender<Event>,
    cancel: CancellationToken,
) {
    let mut wait = RETRY_FIRST;
    let mut generation = 0;
    while !cancel.is_cancelled() {
        let connected = tokio::select! {
            connected = timeout(CONNECT_MAX, coordinators.connect()) => connected,
            () = cancel.cancelled() => return,
        };
        let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        match connected {
            Ok(stream) => {
                generation += 1;
                let talk = converse(stream, generation, (&coordinators, &events), &cancel);
                let (registered, ended) = talk.await;
                tracing::info!(
                    "session with the coordinator ended: {}",
                    crate::chain(&ended)
                );
                // A coordinator that refuses us is not hurried.
                if registered {
                    wait = RETRY_FIRST;
                }
                if events
                    .send(Event::SessionDown { generation })
                    .await
                    .is_err()
                {
                    return;
                }
            }
            Err(error) => tracing::debug!("reaching the coordinator: {error}"),
        }
        tokio::select! {
            () = sleep(jitter(wait)) => {}
            () = cancel.cancelled() => return,
        }
        wait = (wait * 2).min(RETRY_MAX);
    }
}

/// Half to one and a half of it, so that agents do not come back all at once.
fn jitter(wait: Duration) -> Duration {
    let random = uuid::Uuid::new_v4().as_bytes()[0];
    wait / 2 + wait * u32::from(random) / 255
}

/// One connection to its end; whether the registration was accepted on it.
async fn converse<C: Connect>(
    stream: C::Stream,
    generation: u64,
    (coordinators, events): (&C, &mpsc::Sender<Event>),
    cancel: &CancellationToken,
) -> (bool, Ended) {
    let (reader, mut writer) = tokio::io::split(stream);
    let codec = LengthDelimitedCodec::builder()
        .max_frame_length(FRAME_MAX_BYTES)
        .new_codec();
    let mut frames = FramedRead::new(reader, codec);
    let (outbound, mut to_send) = mpsc::channel(OUTBOUND_MAX);
    if events
        .send(Event::SessionUp {
            generation,
            outbound,
        })
        .await
        .is_err()
    {
        return (false, Ended::Cancelled);
    }
    let mut heartbeat = interval(Duration::from_millis(HEARTBEAT_MS));
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut registered = false;
    let mut silent_at = Instant::now() + SILENCE_MAX;
    loop {
        let step = tokio::select! {
            frame = frames.next() => {
                silent_at = Instant::now() + SILENCE_MAX;
                let taken = take(frame, generation, (coordinators, events)).await;
                taken.map(|accepted| registered |= accepted)
            }
            message = to_send.recv() => match message {
                Some(message) => write(&mut writer, message, &mut to_send).await,
                None => Err(Ended::Full),
            },
            _ = heartbeat.tick() => {
                write(&mut writer, FromAgent { kind: None }, &mut to_send).await
            }
            () = sleep_until(silent_at) => Err(Ended::Silent),
            () = cancel.cancelled() => Err(Ended::Cancelled),
        };
        if let Err(ended) = step {
            return (registered, ended);
        }
    }
}

async fn take(
    frame: Option<io::Result<BytesMut>>,
    generation: u64,
    (coordinators, events): (&impl Connect, &mpsc::Sender<Event>),
) -> Result<bool, Ended> {
    let frame = frame.ok_or(Ended::Closed)??;
    let Some(message) = ToAgent::decode(frame)?.kind else {
        return Ok(false);
    };
    if let to_agent::Kind::LeaderAt(address) = &message {
        coordinators.leader_at(address);
        return Err(Ended::Elsewhere);
    }
    let accepted = matches!(message, to_agent::Kind::Registered(_));
    if accepted {
        coordinators.accepted();
    }
    let sent = events
        .send(Event::Session {
            generation,
            message,
        })
        .await;
    sent.map(|()| accepted).map_err(|_| Ended::Cancelled)
}

/// Writes a message and whatever else is waiting, as one write.
async fn write<W: AsyncWrite + Unpin>(
    writer: &mut W,
    first: FromAgent,
    more: &mut mpsc::Receiver<FromAgent>,
) -> Result<(), Ended> {
    const WRITE_MAX_BYTES: usize = 64 * 1024;
    let mut buffer = Vec::new();
    let mut next = Some(first);
    while let Some(message) = next {
        let length = u32::try_from(message.encoded_len()).unwrap_or(u32::MAX);
        buffer.extend_from_slice(&length.to_be_bytes());
        message
            .encode(&mut buffer)
            .expect("a vector grows as needed");
        next = if buffer.len() < WRITE_MAX_BYTES {
            more.try_recv().ok()
        } else {
            None
        };
    }
    let write = async {
        writer.write_all(&buffer).await?;
        writer.flush().await
    };
    timeout(SILENCE_MAX, write)
        .await
        .map_err(|_| Ended::Silent)?
        .map_err(Ended::Io)
}
