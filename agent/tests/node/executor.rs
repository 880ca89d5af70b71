//! An executor of a framework's own: the program that tests have launched, in the JSON or the
//! protobuf form of the v1 executor API, over the socket in its container or over TCP. What it does
//! with a task the task's `data` says: words, each done in turn (see `Executor::launched`).
//!
//! The client below is the tests' own as well, for calls that no honest executor makes.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use gantry_wire::mesos::v1::executor::{Call, Event, call, event};
use gantry_wire::mesos::v1::{ExecutorId, FrameworkId, TaskInfo, TaskState, TaskStatus};
use gantry_wire::mesos::{Encoding, decode, encode, recordio, v1};

pub(crate) trait Wire: Read + Write + Send {}
impl<T: Read + Write + Send> Wire for T {}

/// Where an agent is, and how it is spoken to.
#[derive(Clone)]
pub(crate) struct Agent {
    /// A path of a socket, or `ip:port`.
    pub(crate) address: String,
    pub(crate) encoding: Encoding,
    pub(crate) token: Option<String>,
    pub(crate) path: String,
}

/// The answer to a call, its body unread.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    reader: BufReader<Box<dyn Wire>>,
    decoder: recordio::Decoder,
    encoding: Encoding,
    chunk: Vec<u8>,
}

impl Agent {
    pub(crate) fn at(address: &str, encoding: Encoding) -> Self {
        Self {
            address: address.to_owned(),
            encoding,
            token: None,
            path: "/api/v1/executor".to_owned(),
        }
    }

    pub(crate) fn connect(&self) -> std::io::Result<Box<dyn Wire>> {
        Ok(if self.address.starts_with('/') {
            Box::new(UnixStream::connect(&self.address)?)
        } else {
            let stream = TcpStream::connect(&self.address)?;
            stream.set_nodelay(true)?;
            Box::new(stream)
        })
    }

    pub(crate) fn call(&self, call: &Call) -> std::io::Result<Reply> {
        self.post(&encode(self.encoding, call), &[])
    }

    /// With headers in place of the usual ones of the same name.
    pub(crate) fn post(&self, body: &[u8], headers: &[(&str, &str)]) -> std::io::Result<Reply> {
        let mut wire = self.connect()?;
        wire.write_all(&self.request(body, headers))?;
        Reply::read(wire, self.encoding)
    }

    pub(crate) fn request(&self, body: &[u8], headers: &[(&str, &str)]) -> Vec<u8> {
        let media_type = self.encoding.media_type();
        let length = body.len().to_string();
        let token = self.token.as_ref().map(|token| format!("Bearer {token}"));
        let mut all = BTreeMap::from([
            ("Host", "agent"),
            ("Content-Type", media_type),
            ("Accept", media_type),
            ("Content-Length", &length),
        ]);
        all.extend(
            token
                .as_ref()
                .map(|token| ("Authorization", token.as_str())),
        );
        all.extend(headers.iter().copied());
        let mut text = format!("POST {} HTTP/1.1\r\n", self.path);
        for (name, value) in all.iter().filter(|(_, value)| !value.is_empty()) {
            text += &format!("{name}: {value}\r\n");
        }
        let mut request = text.into_bytes();
        request.extend_from_slice(b"\r\n");
        request.extend_from_slice(body);
        request
    }
}

impl Reply {
    pub(crate) fn read(wire: Box<dyn Wire>, encoding: Encoding) -> std::io::Result<Self> {
        let mut reader = BufReader::new(wire);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let ended = || std::io::Error::other("the connection ended");
        let mut headers = BTreeMap::new();
        loop {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Err(ended());
            }
            let Some((name, value)) = line.trim().split_once(": ") else {
                break;
            };
            headers.insert(name.to_lowercase(), value.to_owned());
        }
        Ok(Self {
            status: status.ok_or_else(ended)?,
            headers,
            reader,
            decoder: recordio::Decoder::new(64 << 20),
            encoding,
            chunk: Vec::new(),
        })
    }

    /// The next event of a stream; None when it has ended.
    pub(crate) fn next(&mut self) -> Option<Event> {
        loop {
            let mut input = self.chunk.as_slice();
            let record = self.decoder.next(&mut input).unwrap();
            self.chunk = input.to_vec();
            if let Some(record) = record {
                return Some(decode(self.encoding, &record).unwrap());
            }
            let mut line = String::new();
            self.reader.read_line(&mut line).ok()?;
            let length = usize::from_str_radix(line.trim(), 16).ok()?;
            let mut chunk = vec![0; length + 2];
            self.reader.read_exact(&mut chunk).ok()?;
            chunk.truncate(length);
            if chunk.is_empty() {
                return None;
            }
            self.chunk = chunk;
        }
    }
}

/// Who speaks.
#[derive(Clone)]
pub(crate) struct Name {
    pub(crate) framework: String,
    pub(crate) executor: String,
}

impl Name {
    pub(crate) fn call(&self, kind: call::Type) -> Call {
        Call {
            executor_id: ExecutorId {
                value: self.executor.clone(),
            },
            framework_id: FrameworkId {
                value: self.framework.clone(),
            },
            r#type: Some(kind as i32),
            ..Call::default()
        }
    }

    pub(crate) fn subscribe(&self, subscribe: call::Subscribe) -> Call {
        Call {
            subscribe: Some(subscribe),
            ..self.call(call::Type::Subscribe)
        }
    }

    pub(crate) fn update(&self, status: TaskStatus) -> Call {
        Call {
            update: Some(call::Update { status }.into()),
            ..self.call(call::Type::Update)
        }
    }

    pub(crate) fn message(&self, data: Vec<u8>) -> Call {
        Call {
            message: Some(call::Message { data }),
            ..self.call(call::Type::Message)
        }
    }
}

/// What an executor says of a task.
pub(crate) fn status(task: &str, state: TaskState, uuid: u128) -> TaskStatus {
    TaskStatus {
        task_id: v1::TaskId {
            value: task.to_owned(),
        },
        state: state as i32,
        source: Some(v1::task_status::Source::SourceExecutor as i32),
        uuid: Some(uuid.to_be_bytes().to_vec()),
        ..TaskStatus::default()
    }
}

struct Executor {
    agent: Agent,
    name: Name,
    tasks: BTreeMap<String, TaskInfo>,
    running: Vec<String>,
    updates: BTreeMap<Vec<u8>, TaskStatus>,
}

/// `executor json|protobuf`: over the socket in the container, or with `tcp` behind that over TCP.
pub(crate) fn main(args: &[String]) -> ExitCode {
    let env = |name: &str| std::env::var(name).unwrap();
    let encoding = if args[0] == "json" {
        Encoding::Json
    } else {
        Encoding::Protobuf
    };
    let tcp = args.get(1).is_some_and(|word| word.starts_with("tcp"));
    let address = env(if tcp {
        "MESOS_AGENT_ENDPOINT"
    } else {
        "MESOS_DOMAIN_SOCKET"
    });
    let token = env("MESOS_EXECUTOR_AUTHENTICATION_TOKEN");
    let agent = Agent {
        token: (args.get(1).is_none_or(|word| word != "tcp-without-token")).then_some(token),
        path: "/slave(1)/api/v1/executor".to_owned(),
        ..Agent::at(&address, encoding)
    };
    let mut executor = Executor {
        agent,
        name: Name {
            framework: env("MESOS_FRAMEWORK_ID"),
            executor: env("MESOS_EXECUTOR_ID"),
        },
        tasks: BTreeMap::new(),
        running: Vec::new(),
        updates: BTreeMap::new(),
    };
    if args.get(1).is_some_and(|word| word == "mute") {
        println!("ready");
        loop {
            std::thread::park();
        }
    }
    loop {
        executor.converse();
        println!("disconnected");
        if env("MESOS_CHECKPOINT") == "0" {
            return ExitCode::SUCCESS;
        }
        // Before the next try: the agent may be on its way.
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Executor {
    fn converse(&mut self) {
        let subscribe = self.name.subscribe(call::Subscribe {
            unacknowledged_tasks: self.tasks.values().cloned().collect(),
            unacknowledged_updates: self
                .updates
                .values()
                .map(|status| call::Update {
                    status: status.clone(),
                })
                .collect(),
        });
        let Ok(mut reply) = self.agent.call(&subscribe) else {
            return;
        };
        if reply.status != 200 {
            println!("subscribe {}", reply.status);
            return;
        }
        while let Some(event) = reply.next() {
            self.hear(event);
        }
    }

    fn hear(&mut self, event: Event) {
        println!("event {}", event.r#type().name());
        match event.r#type() {
            event::Type::Subscribed => {
                let subscribed = event.subscribed.unwrap();
                assert_eq!(
                    subscribed.framework_info.id.as_ref().unwrap().value,
                    self.name.framework
                );
                let data = subscribed.executor_info.data.unwrap_or_default();
                println!("data {}", String::from_utf8(data).unwrap());
            }
            event::Type::Launch => self.launched(event.launch.unwrap().task),
            event::Type::LaunchGroup => {
                for task in event.launch_group.unwrap().task_group.tasks {
                    self.launched(task);
                }
            }
            event::Type::Kill => {
                let task = event.kill.unwrap().task_id.value;
                self.running.retain(|running| *running != task);
                self.say(&task, TaskState::TaskKilled, "");
            }
            event::Type::Acknowledged => {
                let acknowledged = event.acknowledged.unwrap();
                self.tasks.remove(&acknowledged.task_id.value);
                self.updates.remove(&acknowledged.uuid);
            }
            event::Type::Message => {
                let mut data = event.message.unwrap().data;
                data.reverse();
                self.agent.call(&self.name.message(data)).unwrap();
            }
            event::Type::Shutdown => {
                for task in std::mem::take(&mut self.running) {
                    if !task.starts_with("stubborn") {
                        self.say(&task, TaskState::TaskKilled, "shutdown");
                    }
                }
                if std::env::var("STUBBORN").is_err() {
                    std::process::exit(0);
                }
            }
            event::Type::Error | event::Type::Unknown | event::Type::Heartbeat => {}
        }
    }

    /// Words: `run`, `finish`, `exit=N`, `say=TEXT` (a message), `silent`, `updates=N`.
    fn launched(&mut self, task: TaskInfo) {
        let id = task.task_id.value.clone();
        let words = String::from_utf8(task.data.clone().unwrap_or_default()).unwrap();
        println!("launched {id} {words}");
        self.tasks.insert(id.clone(), task);
        for word in words.split_whitespace() {
            let (word, value) = word.split_once('=').unwrap_or((word, ""));
            match word {
                "run" => {
                    self.running.push(id.clone());
                    self.say(&id, TaskState::TaskRunning, "it runs");
                }
                "finish" => self.say(&id, TaskState::TaskFinished, ""),
                "exit" => std::process::exit(value.parse().unwrap()),
                "say" => {
                    let message = self.name.message(value.into());
                    assert_eq!(self.agent.call(&message).unwrap().status, 202);
                }
                "updates" => {
                    for _ in 0..value.parse().unwrap() {
                        self.say(&id, TaskState::TaskRunning, "again");
                    }
                }
                _ => {}
            }
        }
    }

    fn say(&mut self, task: &str, state: TaskState, message: &str) {
        let mut status = status(task, state, uuid::Uuid::new_v4().as_u128());
        status.message = Some(message.to_owned());
        let uuid = status.uuid.clone().unwrap();
        self.updates.insert(uuid, status.clone());
        match self.agent.call(&self.name.update(status)) {
            Ok(reply) => println!("update {task} {} {}", state.name(), reply.status),
            // It goes with the next SUBSCRIBE.
            Err(error) => println!("update {task} {}: {error}", state.name()),
        }
    }
}
