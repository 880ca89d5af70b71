//! A coordinator of a few lines: registers whoever comes, keeps what it hears, acknowledges it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use gantry_wire::agent::{
    Acknowledge, ExecutorEnded, ExecutorMessage, FromAgent, Kill, Launch, Register, Registered,
    ResourcesMessage, StatusUpdate, ToAgent, from_agent, to_agent,
};
use gantry_wire::task::TaskState;
use prost::Message as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};
use tokio_util::sync::CancellationToken;

/// Longest wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) registers: Vec<Register>,
    /// By task, each uuid once, in order.
    pub(crate) updates: BTreeMap<String, Vec<StatusUpdate>>,
    /// Between executors of frameworks' own and those.
    pub(crate) messages: Vec<ExecutorMessage>,
    pub(crate) ended: Vec<ExecutorEnded>,
    /// What it says that its cluster is.
    pub(crate) cluster: String,
    /// A task that it has killed as soon as an agent has registered.
    pub(crate) hostile_to: Option<String>,
    /// It acknowledges nothing.
    pub(crate) silent: bool,
    /// Everything that came, repeats included: task and uuid.
    pub(crate) came: Vec<(String, Vec<u8>)>,
    /// Whether it takes no status updates for now.
    pub(crate) deaf: bool,
    outbound: Option<mpsc::UnboundedSender<to_agent::Kind>>,
    connections: CancellationToken,
}

#[derive(Clone)]
pub(crate) struct Coordinator {
    pub(crate) socket: PathBuf,
    pub(crate) heard: Arc<Mutex<Heard>>,
}

impl Coordinator {
    pub(crate) fn listen(dir: &Path) -> Self {
        let socket = dir.join("agent.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let heard = Arc::new(Mutex::new(Heard::default()));
        let shared = heard.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, shared.clone()));
            }
        });
        Self { socket, heard }
    }

    pub(crate) fn say(&self, kind: to_agent::Kind) {
        // Said to a connection that is gone: as lost as on a real one.
        if let Some(outbound) = &self.heard.lock().unwrap().outbound {
            let _ = outbound.send(kind);
        }
    }

    /// Ends the connection, as a coordinator that is restarted.
    pub(crate) fn hang_up(&self) {
        let mut heard = self.heard.lock().unwrap();
        std::mem::take(&mut heard.connections).cancel();
    }

    pub(crate) fn launch(&self, launch: Launch) {
        self.say(to_agent::Kind::Launch(launch));
    }

    pub(crate) fn kill(&self, task: &str, grace_ms: u64) {
        self.say(to_agent::Kind::Kill(Kill {
            task_id: task.into(),
            grace_ms,
        }));
    }

    /// Waits until `look` finds something.
    pub(crate) async fn until<T>(
        &self,
        what: &str,
        mut look: impl FnMut(&Heard) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look(&self.heard.lock().unwrap()) {
                return found;
            }
            if Instant::now() > deadline {
                panic!(
                    "waited in vain for {what}; heard {:#?}",
                    self.heard.lock().unwrap().updates
                );
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn update(&self, task: &str, state: TaskState) -> StatusUpdate {
        self.until(&format!("{task} {}", state.name()), |heard| {
            let updates = heard.updates.get(task)?;
            updates.iter().find(|u| u.state == state as i32).cloned()
        })
        .await
    }

    pub(crate) async fn terminal(&self, task: &str) -> StatusUpdate {
        self.until(&format!("the end of {task}"), |heard| {
            let updates = heard.updates.get(task)?;
            updates.iter().find(|u| state(u).is_terminal()).cloned()
        })
        .await
    }

    pub(crate) fn states(&self, task: &str) -> Vec<TaskState> {
        let heard = self.heard.lock().unwrap();
        heard
            .updates
            .get(task)
            .into_iter()
            .flatten()
            .map(state)
            .collect()
    }
}

pub(crate) fn state(update: &StatusUpdate) -> TaskState {
    TaskState::try_from(update.state).unwrap()
}

/// A native task with small resources.
pub(crate) fn shell(task: &str, command: &str) -> Launch {
    Launch {
        task_id: task.into(),
        name: task.into(),
        framework_id: "fw".into(),
        shell: command.into(),
        resources: Some(ResourcesMessage {
            cpus_milli: 500,
            mem_bytes: 64 << 20,
            ..ResourcesMessage::default()
        }),
        kill_grace_ms: 1_000,
        ..Launch::default()
    }
}

async fn converse(stream: UnixStream, heard: Arc<Mutex<Heard>>) {
    let (reader, mut writer) = stream.into_split();
    let mut frames = FramedRead::new(reader, LengthDelimitedCodec::new());
    let (outbound, mut to_send) = mpsc::unbounded_channel();
    let hung_up = heard.lock().unwrap().connections.clone();
    let mut heartbeat = tokio::time::interval(Duration::from_secs(1));
    loop {
        let kind = tokio::select! {
            frame = frames.next() => {
                let Some(Ok(frame)) = frame else { return };
                let Some(kind) = FromAgent::decode(frame).unwrap().kind else { continue };
                hear(kind, &heard, &outbound);
                continue;
            }
            () = hung_up.cancelled() => return,
            Some(kind) = to_send.recv() => Some(kind),
            _ = heartbeat.tick() => None,
        };
        let bytes = ToAgent { kind }.encode_to_vec();
        let mut frame = u32::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
        frame.extend(bytes);
        if writer.write_all(&frame).await.is_err() {
            return;
        }
    }
}

fn hear(
    kind: from_agent::Kind,
    heard: &Mutex<Heard>,
    outbound: &mpsc::UnboundedSender<to_agent::Kind>,
) {
    let mut heard = heard.lock().unwrap();
    match kind {
        from_agent::Kind::Register(register) => {
            let agent_id = if register.agent_id.is_empty() {
                "S0"
            } else {
                &register.agent_id
            };
            let registered = Registered {
                agent_id: agent_id.to_owned(),
                cluster_id: heard.cluster.clone(),
            };
            outbound
                .send(to_agent::Kind::Registered(registered))
                .unwrap();
            if let Some(task_id) = heard.hostile_to.clone() {
                let grace_ms = 0;
                let kill = Kill { task_id, grace_ms };
                outbound.send(to_agent::Kind::Kill(kill)).unwrap();
            }
            heard.outbound = Some(outbound.clone());
            heard.registers.push(register);
        }
        from_agent::Kind::ExecutorMessage(message) => heard.messages.push(message),
        from_agent::Kind::ExecutorEnded(ended) => heard.ended.push(ended),
        from_agent::Kind::Status(_) if heard.deaf => {}
        from_agent::Kind::Status(update) => {
            let ack = Acknowledge {
                task_id: update.task_id.clone(),
                uuid: update.uuid.clone(),
            };
            let (id, uuid) = (update.task_id.clone(), update.uuid.clone());
            heard.came.push((id, uuid));
            let silent = heard.silent;
            let known = heard.updates.entry(update.task_id.clone()).or_default();
            if known.iter().all(|u| u.uuid != update.uuid) {
                assert!(
                    known.iter().all(|u| !state(u).is_terminal()),
                    "an update after the terminal one: {known:?} {update:?}"
                );
                known.push(update);
            }
            if !silent {
                outbound.send(to_agent::Kind::Acknowledge(ack)).unwrap();
            }
        }
    }
}
