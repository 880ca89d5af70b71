//! Sessions over an in-memory stream: what a wrong or slow peer can do.

use std::time::Duration;

use gantry_wire::agent::{FromAgent, Register, StatusUpdate, ToAgent, from_agent, to_agent};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;

const SOON: Duration = Duration::from_secs(20);

fn connect() -> (DuplexStream, mpsc::Receiver<AgentEvent>, JoinHandle<String>) {
    let (ours, theirs) = tokio::io::duplex(1_024);
    let (events, inbox) = mpsc::channel(16);
    let session = serve(SessionId(7), ours, events);
    (
        theirs,
        inbox,
        tokio::spawn(async move { session.await.to_string() }),
    )
}

async fn say(stream: &mut DuplexStream, kind: from_agent::Kind) {
    let bytes = FromAgent { kind: Some(kind) }.encode_to_vec();
    stream
        .write_u32(u32::try_from(bytes.len()).unwrap())
        .await
        .unwrap();
    stream.write_all(&bytes).await.unwrap();
}

async fn hear(stream: &mut DuplexStream) -> Option<to_agent::Kind> {
    loop {
        let length = stream.read_u32().await.ok()?;
        let mut bytes = vec![0; length as usize];
        stream.read_exact(&mut bytes).await.ok()?;
        let message = ToAgent::decode(&bytes[..]).unwrap();
        if message.kind.is_some() {
            return message.kind;
        }
    }
}

async fn opened(inbox: &mut mpsc::Receiver<AgentEvent>) -> Outgoing {
    match timeout(SOON, inbox.recv()).await.unwrap() {
        Some(AgentEvent::Opened { outgoing, .. }) => outgoing,
        other => panic!("{other:?}"),
    }
}

async fn closed(inbox: &mut mpsc::Receiver<AgentEvent>) -> String {
    match timeout(SOON, inbox.recv()).await.unwrap() {
        Some(AgentEvent::Closed {
            session: SessionId(7),
            reason,
        }) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn messages_go_both_ways_and_the_end_is_told() {
    let (mut agent, mut inbox, session) = connect();
    say(&mut agent, from_agent::Kind::Register(Register::default())).await;
    let outgoing = opened(&mut inbox).await;
    let refused = to_agent::Kind::Refused("just a test".to_owned());
    outgoing
        .send(ToAgent {
            kind: Some(refused.clone()),
        })
        .unwrap();
    assert_eq!(hear(&mut agent).await, Some(refused));
    let update = StatusUpdate {
        task_id: "a".to_owned(),
        ..StatusUpdate::default()
    };
    say(&mut agent, from_agent::Kind::Status(update.clone())).await;
    match timeout(SOON, inbox.recv()).await.unwrap() {
        Some(AgentEvent::Status {
            session: SessionId(7),
            update: got,
        }) => {
            assert_eq!(*got, update);
        }
        other => panic!("{other:?}"),
    }
    drop(agent);
    closed(&mut inbox).await;
    session.await.unwrap();
}

#[tokio::test]
async fn what_is_queued_is_sent_before_a_dropped_session_ends() {
    let (mut agent, mut inbox, session) = connect();
    say(&mut agent, from_agent::Kind::Register(Register::default())).await;
    let outgoing = opened(&mut inbox).await;
    for number in 0..100 {
        let kind = to_agent::Kind::Refused(number.to_string());
        outgoing.send(ToAgent { kind: Some(kind) }).unwrap();
    }
    drop(outgoing);
    for number in 0..100 {
        assert_eq!(
            hear(&mut agent).await,
            Some(to_agent::Kind::Refused(number.to_string()))
        );
    }
    assert_eq!(closed(&mut inbox).await, "the leader has ended the session");
    session.await.unwrap();
}

#[tokio::test]
async fn garbage_closes_the_session_with_a_reason() {
    let register = from_agent::Kind::Register(Register::default());
    let table: [(&[u8], bool, &str); 5] = [
        (
            b"\xff\xff\xff\xffGET / HTTP/1.1",
            false,
            "frame size too big",
        ),
        (b"\x00\x00\x00\x03\xff\xff\xff", false, "not a message"),
        (b"\x00\x00\x00\x00", false, "not a registration"),
        (b"\x00\x00\x00\x03\xff\xff\xff", true, "not a message"),
        (b"\x00\x00\x00\x02\x0a\x00", true, "second registration"),
    ];
    for (bytes, registered, reason) in table {
        let (mut agent, mut inbox, session) = connect();
        if registered {
            say(&mut agent, register.clone()).await;
            let _outgoing = opened(&mut inbox).await;
            agent.write_all(bytes).await.unwrap();
            assert!(closed(&mut inbox).await.contains(reason), "{reason}");
        } else {
            agent.write_all(bytes).await.unwrap();
            assert!(
                timeout(SOON, inbox.recv()).await.unwrap().is_none(),
                "never opened"
            );
        }
        let ended = timeout(SOON, session).await.unwrap().unwrap();
        assert!(ended.contains(reason), "{ended}");
    }
}

#[tokio::test]
async fn an_agent_that_does_not_read_overflows_and_is_cut_at_once() {
    let (mut agent, mut inbox, session) = connect();
    say(&mut agent, from_agent::Kind::Register(Register::default())).await;
    let outgoing = opened(&mut inbox).await;
    let message = ToAgent {
        kind: Some(to_agent::Kind::Refused("x".repeat(100))),
    };
    let mut sent = 0;
    while outgoing.send(message.clone()).is_ok() {
        sent += 1;
        assert!(sent <= OUTGOING_MAX + 1_000, "no limit");
        if sent % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    outgoing.cut("too slow");
    let reason = timeout(Duration::from_secs(5), session)
        .await
        .unwrap()
        .unwrap();
    assert!(reason.contains("too slow"), "{reason}");
    assert!(closed(&mut inbox).await.contains("too slow"));
}
