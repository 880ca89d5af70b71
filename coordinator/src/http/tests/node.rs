//! An agent for tests: registers, and answers each launch with RUNNING and each kill with KILLED.

use std::path::Path;

use axum::Router;
use axum::extract::Request;
use gantry_wire::agent::{FromAgent, Register, StatusUpdate, ToAgent, from_agent, to_agent};
use gantry_wire::resources::{PortRange, PortRanges, Resources};
use gantry_wire::task::TaskState;
use gantry_wire::units::{Bytes, MilliCpu};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};

/// Connects an agent; it lives as long as the test's runtime. Returns the address of its HTTP
/// listener, which answers every request with its path and query.
pub(super) async fn connect(socket: &Path) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let echo = async |request: Request| request.uri().to_string();
    let router = Router::new().fallback(echo);
    tokio::spawn(async move { axum::serve(listener, router).await });
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let ports = PortRanges::new([PortRange {
        begin: 31000,
        end: 31009,
    }]);
    let resources = Resources {
        cpus: MilliCpu(4000),
        mem: Bytes(4 << 30),
        disk: Bytes(8 << 30),
        gpus: 0,
        ports,
    };
    let register = Register {
        hostname: "10.1.2.3".to_owned(),
        http_address: address.clone(),
        resources: Some((&resources).into()),
        version: "test".to_owned(),
        ..Register::default()
    };
    send(&mut stream, from_agent::Kind::Register(register)).await;
    tokio::spawn(serve(stream));
    address
}

async fn serve(mut stream: UnixStream) {
    while let Ok(length) = stream.read_u32().await {
        let mut frame = vec![0; length as usize];
        stream.read_exact(&mut frame).await.unwrap();
        match ToAgent::decode(frame.as_slice()).unwrap().kind {
            Some(to_agent::Kind::Launch(launch)) => {
                report(&mut stream, &launch.task_id, TaskState::TaskRunning).await;
            }
            Some(to_agent::Kind::Kill(kill)) => {
                report(&mut stream, &kill.task_id, TaskState::TaskKilled).await;
            }
            // A heartbeat is answered by one.
            None => write(&mut stream, &FromAgent { kind: None }).await,
            Some(_) => {}
        }
    }
}

async fn report(stream: &mut UnixStream, task_id: &str, state: TaskState) {
    let update = StatusUpdate {
        task_id: task_id.to_owned(),
        uuid: uuid::Uuid::new_v4().as_bytes().to_vec(),
        state: state.into(),
        timestamp_ms: crate::mint::now().0,
        sandbox: format!("/data/{task_id}"),
        ..StatusUpdate::default()
    };
    send(stream, from_agent::Kind::Status(update)).await;
}

async fn send(stream: &mut UnixStream, kind: from_agent::Kind) {
    write(stream, &FromAgent { kind: Some(kind) }).await;
}

async fn write(stream: &mut UnixStream, message: &FromAgent) {
    let bytes = message.encode_to_vec();
    stream
        .write_u32(u32::try_from(bytes.len()).unwrap())
        .await
        .unwrap();
    stream.write_all(&bytes).await.unwrap();
}
