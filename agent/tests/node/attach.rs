//! Sessions and terminals as clients of Mesos use them: by a client of its own here, with sockets,
//! chunks and records by hand, in JSON and in protobuf.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use gantry_wire::agent::{Launch, NetworkMode, Tty, to_agent};
use gantry_wire::task::TaskState;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::agent::{Node, processes, run};
use crate::coordinator::{PATIENCE, shell};

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/x-protobuf";
const RECORDIO: &str = "application/recordio";

/// One request and its answer, both of which may stream.
struct Exchange {
    stream: BufReader<TcpStream>,
    /// What came of the answer's body and is no whole record yet.
    body: Vec<u8>,
}

impl Exchange {
    /// Sends the head of a request whose body comes in chunks.
    async fn begin(node: &Node, headers: &[(&str, &str)]) -> Self {
        let url = node.url("");
        let address = url.trim_start_matches("http://");
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut head =
            format!("POST /api/v1 HTTP/1.1\r\nHost: {address}\r\nTransfer-Encoding: chunked\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        let mut stream = BufReader::new(stream);
        stream.write_all((head + "\r\n").as_bytes()).await.unwrap();
        let body = Vec::new();
        Self { stream, body }
    }

    async fn try_chunk(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
        chunk.extend_from_slice(bytes);
        chunk.extend_from_slice(b"\r\n");
        self.stream.write_all(&chunk).await
    }

    async fn chunk(&mut self, bytes: &[u8]) {
        self.try_chunk(bytes).await.unwrap();
    }

    async fn record(&mut self, bytes: &[u8]) {
        self.chunk(&framed(bytes)).await;
    }

    async fn end(&mut self) {
        self.chunk(b"").await;
    }

    /// Status and headers of the answer.
    async fn answer(&mut self) -> (u16, BTreeMap<String, String>) {
        let status = self.line().await;
        let status = status.split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = BTreeMap::new();
        loop {
            let line = self.line().await;
            let Some((name, value)) = line.split_once(": ") else {
                return (status, headers);
            };
            headers.insert(name.to_lowercase(), value.to_owned());
        }
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line);
        timeout(PATIENCE, read).await.unwrap().unwrap();
        line.trim_end().to_owned()
    }

    /// The status, and the words of an answer that is no stream.
    async fn words(&mut self) -> (u16, String) {
        let (status, headers) = self.answer().await;
        let length = headers.get("content-length").map_or("0", String::as_str);
        let mut body = vec![0; length.parse().unwrap()];
        self.stream.read_exact(&mut body).await.unwrap();
        (status, String::from_utf8(body).unwrap())
    }

    /// The next record of the answer; None at its end, also when the connection breaks.
    async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(newline) = self.body.iter().position(|&b| b == b'\n') {
                let digits = std::str::from_utf8(&self.body[..newline]).unwrap();
                let end = newline + 1 + digits.parse::<usize>().unwrap();
                if self.body.len() >= end {
                    let rest = self.body.split_off(end);
                    let record = std::mem::replace(&mut self.body, rest);
                    return Some(record[newline + 1..].to_vec());
                }
            }
            let size = usize::from_str_radix(&self.line().await, 16).ok()?;
            let mut chunk = vec![0; size + 2];
            let read = self.stream.read_exact(&mut chunk);
            timeout(PATIENCE, read).await.unwrap().ok()?;
            if size == 0 {
                return None;
            }
            self.body.extend_from_slice(&chunk[..size]);
        }
    }
}

fn framed(record: &[u8]) -> Vec<u8> {
    let mut framed = format!("{}\n", record.len()).into_bytes();
    framed.extend_from_slice(record);
    framed
}

/// How messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Protobuf,
}
use Format::{Json, Protobuf};

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    bytes.push(u8::try_from(value).unwrap());
    bytes
}

fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn part(field: u64, bytes: &[u8]) -> Vec<u8> {
    let length = u64::try_from(bytes.len()).unwrap();
    [varint(field << 3 | 2), varint(length), bytes.to_vec()].concat()
}

/// A session, by its own id and the container it is in.
#[derive(Debug, Clone, Copy)]
struct Id<'a>(&'a str, Option<&'a str>);

impl Id<'_> {
    fn json(self) -> Value {
        match self.1 {
            Some(parent) => json!({"value": self.0, "parent": {"value": parent}}),
            None => json!({"value": self.0}),
        }
    }

    fn protobuf(self) -> Vec<u8> {
        let parent = self.1.map(|parent| part(2, &part(1, parent.as_bytes())));
        [part(1, self.0.as_bytes()), parent.unwrap_or_default()].concat()
    }
}

impl Format {
    fn media_type(self) -> &'static str {
        match self {
            Json => JSON,
            Protobuf => PROTOBUF,
        }
    }

    /// A session of a shell line.
    fn launch(self, id: Id<'_>, line: &str, tty: Option<(u64, u64)>) -> Vec<u8> {
        if self == Json {
            let mut inner = json!({"container_id": id.json(), "command": {"value": line}});
            if let Some((rows, columns)) = tty {
                let size = json!({"rows": rows, "columns": columns});
                inner["container"] = json!({"type": "MESOS", "tty_info": {"window_size": size}});
            }
            let call = json!({"type": "LAUNCH_NESTED_CONTAINER_SESSION",
                              "launch_nested_container_session": inner});
            return call.to_string().into_bytes();
        }
        let container = tty.map(|(rows, columns)| {
            let size = [number(1, rows), number(2, columns)].concat();
            part(3, &[number(1, 2), part(10, &part(1, &size))].concat())
        });
        let inner = [
            part(1, &id.protobuf()),
            part(2, &part(3, line.as_bytes())),
            container.unwrap_or_default(),
        ];
        [number(1, 17), part(9, &inner.concat())].concat()
    }

    fn attach_output(self, id: Id<'_>) -> Vec<u8> {
        if self == Json {
            let inner = json!({"container_id": id.json()});
            let call = json!({"type": "ATTACH_CONTAINER_OUTPUT", "attach_container_output": inner});
            return call.to_string().into_bytes();
        }
        [number(1, 19), part(11, &part(1, &id.protobuf()))].concat()
    }

    fn attach_input(self, id: Id<'_>) -> Vec<u8> {
        if self == Json {
            let inner = json!({"type": "CONTAINER_ID", "container_id": id.json()});
            return input_json(&inner);
        }
        input_protobuf(&[number(1, 1), part(2, &id.protobuf())].concat())
    }

    fn typed(self, bytes: &[u8]) -> Vec<u8> {
        if self == Json {
            let data = json!({"type": "STDIN", "data": BASE64.encode(bytes)});
            let io = json!({"type": "DATA", "data": data});
            return input_json(&json!({"type": "PROCESS_IO", "process_io": io}));
        }
        let data = [number(1, 1), part(2, bytes)].concat();
        let io = [number(1, 1), part(2, &data)].concat();
        input_protobuf(&[number(1, 2), part(3, &io)].concat())
    }

    fn sized(self, rows: u64, columns: u64) -> Vec<u8> {
        if self == Json {
            let size = json!({"rows": rows, "columns": columns});
            let control = json!({"type": "TTY_INFO", "tty_info": {"window_size": size}});
            let io = json!({"type": "CONTROL", "control": control});
            return input_json(&json!({"type": "PROCESS_IO", "process_io": io}));
        }
        let size = [number(1, rows), number(2, columns)].concat();
        let control = [number(1, 1), part(2, &part(1, &size))].concat();
        let io = [number(1, 2), part(3, &control)].concat();
        input_protobuf(&[number(1, 2), part(3, &io)].concat())
    }

    fn heartbeat(self) -> Vec<u8> {
        if self == Json {
            let beat = json!({"interval": {"nanoseconds": 30_000_000_000_u64}});
            let control = json!({"type": "HEARTBEAT", "heartbeat": beat});
            let io = json!({"type": "CONTROL", "control": control});
            return input_json(&json!({"type": "PROCESS_IO", "process_io": io}));
        }
        let control = [number(1, 2), part(3, &part(1, &number(1, 30_000_000_000)))].concat();
        let io = [number(1, 2), part(3, &control)].concat();
        input_protobuf(&[number(1, 2), part(3, &io)].concat())
    }

    /// The bytes of a record of stdout; none of a heartbeat, whose interval is Mesos's.
    fn shown(self, record: &[u8]) -> Option<Vec<u8>> {
        if self == Json {
            let io: Value = serde_json::from_slice(record).unwrap();
            if io["type"] == "CONTROL" {
                let beat = json!({"type": "HEARTBEAT",
                                  "heartbeat": {"interval": {"nanoseconds": 30_000_000_000_u64}}});
                assert_eq!(io["control"], beat);
                return None;
            }
            assert_eq!(io["data"]["type"], "STDOUT");
            return Some(BASE64.decode(io["data"]["data"].as_str().unwrap()).unwrap());
        }
        let beat = [number(1, 2), part(3, &part(1, &number(1, 30_000_000_000)))].concat();
        if record == [number(1, 2), part(3, &beat)].concat() {
            return None;
        }
        let bytes = record.len();
        let found = (0..=bytes).rev().find_map(|length| {
            let data = [number(1, 2), part(2, &record[bytes - length..])].concat();
            let whole = [number(1, 1), part(2, &data)].concat();
            (whole == record).then(|| record[bytes - length..].to_vec())
        });
        Some(found.unwrap())
    }
}

fn input_json(inner: &Value) -> Vec<u8> {
    let call = json!({"type": "ATTACH_CONTAINER_INPUT", "attach_container_input": inner});
    call.to_string().into_bytes()
}

fn input_protobuf(inner: &[u8]) -> Vec<u8> {
    [number(1, 18), part(10, inner)].concat()
}

/// A call that is answered by a stream of output.
struct Output {
    exchange: Exchange,
    format: Format,
    text: String,
}

impl Output {
    async fn of(node: &Node, format: Format, call: &[u8]) -> Self {
        let kind = format.media_type();
        let headers = [
            ("Content-Type", kind),
            ("Accept", RECORDIO),
            ("Message-Accept", kind),
        ];
        let mut exchange = Exchange::begin(node, &headers).await;
        exchange.chunk(call).await;
        exchange.end().await;
        let (status, headers) = exchange.answer().await;
        assert_eq!(status, 200);
        assert_eq!(headers["content-type"], RECORDIO);
        assert_eq!(headers["message-content-type"], kind);
        assert_eq!(headers["transfer-encoding"], "chunked");
        let text = String::new();
        Self {
            exchange,
            format,
            text,
        }
    }

    /// Reads until `end` is there, and drops all up to it.
    async fn until(&mut self, end: &str) {
        while !self.text.contains(end) {
            assert!(self.more().await, "{:?}, not {end:?}", self.text);
        }
        let at = self.text.find(end).unwrap() + end.len();
        self.text.drain(..at);
    }

    async fn more(&mut self) -> bool {
        let Some(record) = self.exchange.next().await else {
            return false;
        };
        if let Some(bytes) = self.format.shown(&record) {
            self.text += &String::from_utf8_lossy(&bytes).replace('\r', "");
        }
        true
    }

    /// The rest, to the end.
    async fn rest(mut self) -> String {
        while self.more().await {}
        self.text
    }
}

/// A stream of input that has named its container.
async fn input(node: &Node, format: Format, id: Id<'_>) -> Exchange {
    let headers = [
        ("Content-Type", RECORDIO),
        ("Message-Content-Type", format.media_type()),
    ];
    let mut exchange = Exchange::begin(node, &headers).await;
    exchange.record(&format.attach_input(id)).await;
    exchange
}

/// A call of JSON that is answered by words.
async fn call(node: &Node, kind: &str, inner: &Value) -> (u16, String) {
    let mut exchange = Exchange::begin(node, &[("Content-Type", JSON)]).await;
    let body = json!({"type": kind, kind.to_lowercase(): inner}).to_string();
    exchange.chunk(body.as_bytes()).await;
    exchange.end().await;
    exchange.words().await
}

async fn exit_status(node: &Node, id: Id<'_>) -> i64 {
    let (status, words) = call(node, "WAIT_CONTAINER", &json!({"container_id": id.json()})).await;
    assert_eq!(status, 200, "{words}");
    let answer: Value = serde_json::from_str(&words).unwrap();
    answer["wait_container"]["exit_status"].as_i64().unwrap()
}

async fn started(node: &Node, task: Launch) -> String {
    let id = task.task_id.clone();
    node.coordinator.launch(task);
    let update = node.coordinator.update(&id, TaskState::TaskRunning).await;
    update.container_id
}

/// Processes with this argument vector.
fn count(argv: &[u8]) -> usize {
    let is = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line == argv
    };
    processes().iter().filter(|pid| is(pid)).count()
}

async fn gone(node: &Node, argv: &[u8]) {
    let left = |_: &_| (count(argv) == 0).then_some(());
    node.coordinator.until("the end of the process", left).await;
}

const DIALOGUE: &str = "tty; stty size; read -r a; stty size; echo \"got $a\"; exit 5";

pub(crate) fn terminals_in_both_formats() {
    run(async {
        let node = Node::start().await;
        let container = started(&node, shell("t", "sleep 1000")).await;
        for (format, name) in [(Json, "j"), (Protobuf, "p")] {
            let id = Id(name, Some(&container));
            let launch = format.launch(id, DIALOGUE, Some((10, 20)));
            let mut output = Output::of(&node, format, &launch).await;
            output.until("/dev/pts/").await;
            output.until("\n10 20\n").await;
            let mut keys = input(&node, format, id).await;
            keys.record(&format.heartbeat()).await;
            for rows in 1..=2000 {
                keys.record(&format.sized(rows, 44)).await;
            }
            let line = format.typed(b"hello\n");
            // Where chunks end means nothing.
            for byte in framed(&line).chunks(3) {
                keys.chunk(byte).await;
            }
            output.until("2000 44\ngot hello\n").await;
            assert_eq!(output.rest().await, "");
            // The process is gone, so the stream of input is answered though it has no end.
            assert_eq!(keys.words().await, (200, String::new()));
            assert_eq!(exit_status(&node, id).await, 5 << 8);
        }
        // Plain Accept has the same records, as older clients want them.
        let id = Id("plain", Some(&container));
        let headers = [("Content-Type", JSON), ("Accept", JSON)];
        let mut plain = Exchange::begin(&node, &headers).await;
        plain.chunk(&Json.launch(id, "printf hi", None)).await;
        plain.end().await;
        let (status, headers) = plain.answer().await;
        assert_eq!((status, headers["content-type"].as_str()), (200, JSON));
        let mut shown = Vec::new();
        while let Some(record) = plain.next().await {
            shown.extend(Json.shown(&record).unwrap_or_default());
        }
        assert_eq!(shown, b"hi");
        node.coordinator.kill("t", 0);
        node.coordinator.terminal("t").await;
    });
}

pub(crate) fn input_ends_waits_and_never_piles_up() {
    run(async {
        let node = Node::start().await;
        let container = started(&node, shell("t", "sleep 1000")).await;
        for (format, name) in [(Json, "j"), (Protobuf, "p")] {
            let id = Id(name, Some(&container));
            let launch = format.launch(id, "wc -c", None);
            let output = Output::of(&node, format, &launch).await;
            let mut keys = input(&node, format, id).await;
            for _ in 0..160 {
                keys.record(&format.typed(&[7; 64 << 10])).await;
            }
            keys.record(&format.typed(b"")).await;
            keys.end().await;
            assert_eq!(keys.words().await.0, 200);
            assert_eq!(output.rest().await.trim(), "10485760");
        }
        // A process that does not read holds its client up, and nothing else grows.
        let id = Id("deaf", Some(&container));
        let launch = Protobuf.launch(id, "exec sleep 31337", None);
        let output = Output::of(&node, Protobuf, &launch).await;
        let mut keys = input(&node, Protobuf, id).await;
        let before = resident_kib(&node);
        let record = framed(&Protobuf.typed(&[7; 64 << 10]));
        let mut taken = 0;
        while timeout(Duration::from_millis(500), keys.chunk(&record))
            .await
            .is_ok()
        {
            taken += 1;
            assert!(taken < 1000, "64 MiB went nowhere");
        }
        let grown = resident_kib(&node).saturating_sub(before);
        assert!(grown < 24 << 10, "grew by {grown} KiB");
        let kill = json!({"container_id": id.json()});
        assert_eq!(call(&node, "KILL_CONTAINER", &kill).await.0, 200);
        assert_eq!(output.rest().await, "");
        assert_eq!(exit_status(&node, id).await, 9);
        assert_eq!(keys.answer().await.0, 200);
        node.coordinator.kill("t", 0);
        node.coordinator.terminal("t").await;
    });
}

fn resident_kib(node: &Node) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

pub(crate) fn who_leaves_takes_the_process_along() {
    run(async {
        let node = Node::start().await;
        let container = started(&node, shell("t", "sleep 1000")).await;
        let jobs = "set -m; trap '' HUP; sleep 31338 & echo on; exec sleep 31338";
        for (name, tty) in [("pipes", None), ("terminal", Some((10, 20)))] {
            let line = if tty.is_some() {
                jobs
            } else {
                "echo on; exec sleep 31338"
            };
            let launch = Json.launch(Id(name, Some(&container)), line, tty);
            let mut output = Output::of(&node, Json, &launch).await;
            output.until("on\n").await;
            // What is said comes before what it speaks of.
            let all = if tty.is_some() { 2 } else { 1 };
            let sleeps = |_: &_| (count(b"sleep\x0031338\0") >= all).then_some(());
            node.coordinator.until("the command", sleeps).await;
            drop(output);
            gone(&node, b"sleep\x0031338\0").await;
        }
        node.coordinator.kill("t", 0);
        node.coordinator.terminal("t").await;
    });
}

pub(crate) fn several_watch_and_who_lags_is_cut_off() {
    run(async {
        let node = Node::start().await;
        let container = started(&node, shell("t", "sleep 1000")).await;
        let id = Id("s", Some(&container));
        // More than all sockets on the way hold.
        let line = "read -r a; echo $a; head -c 33554432 /dev/zero; echo end; read -r a";
        let mut own = Output::of(&node, Json, &Json.launch(id, line, None)).await;
        let mut awake = Output::of(&node, Protobuf, &Protobuf.attach_output(id)).await;
        let mut lazy = Output::of(&node, Json, &Json.attach_output(id)).await;
        let mut keys = input(&node, Json, id).await;
        keys.record(&Json.typed(b"hello\n")).await;
        own.until("hello\n").await;
        awake.until("hello\n").await;
        lazy.until("hello\n").await;
        drop(awake);
        let (mut total, all) = (0, (32 << 20) + "end\n".len());
        while total + own.text.len() < all {
            total += own.text.len();
            own.text.clear();
            assert!(own.more().await);
        }
        assert_eq!(total + own.text.len(), all);
        assert!(own.text.ends_with('\n'));
        let mut rest = 0;
        while lazy.more().await {
            rest += lazy.text.len();
            lazy.text.clear();
        }
        assert!(rest < all, "it was not cut off");
        keys.record(&Json.typed(b"\n")).await;
        own.text.clear();
        assert_eq!(own.rest().await, "");
        assert_eq!(exit_status(&node, id).await, 0);
        node.coordinator.kill("t", 0);
        node.coordinator.terminal("t").await;
    });
}

/// The answer to a stream of input that begins like this.
async fn refused(node: &Node, chunks: &[&[u8]]) -> (u16, String) {
    let headers = [("Content-Type", RECORDIO), ("Message-Content-Type", JSON)];
    let mut exchange = Exchange::begin(node, &headers).await;
    for chunk in chunks {
        exchange.chunk(chunk).await;
    }
    exchange.words().await
}

pub(crate) fn what_is_not_to_be_had_is_refused() {
    run(async {
        let node = Node::start().await;
        let mine = started(&node, shell("t1", "sleep 1000")).await;
        let other = started(&node, shell("t2", "sleep 1000")).await;
        let id = Id("s", Some(&mine));
        let mut own = Output::of(&node, Json, &Json.launch(id, "cat", None)).await;
        // Two cannot type, whatever they call it; nobody gets at a session by another parent.
        let mut keys = input(&node, Json, id).await;
        keys.record(&Json.typed(b"in\n")).await;
        own.until("in\n").await;
        let busy = "Multiple input connections are not allowed";
        let mut statuses = Vec::new();
        for wrong in [
            Id("s", Some(&other)),
            Id("s", None),
            Id("s", Some("made-up")),
            Id(&mine, Some(&other)),
        ] {
            let first = framed(&Json.attach_input(wrong));
            statuses.push(refused(&node, &[&first]).await.0);
            let inner = json!({"container_id": wrong.json()});
            statuses.push(call(&node, "ATTACH_CONTAINER_OUTPUT", &inner).await.0);
        }
        assert_eq!(statuses, [404; 8]);
        let dotted = json!({"container_id": Id("a.b", Some(&mine)).json()});
        assert_eq!(call(&node, "ATTACH_CONTAINER_OUTPUT", &dotted).await.0, 400);
        let first = framed(&Json.attach_input(id));
        assert_eq!(refused(&node, &[&first]).await, (409, busy.to_owned()));
        // A task without a terminal: the very words that clients look for.
        let words = "I/O switchboard server was disabled for this container".to_owned();
        let task = framed(&Json.attach_input(Id(&mine, None)));
        assert_eq!(refused(&node, &[&task]).await, (500, words.clone()));
        let inner = json!({"container_id": {"value": mine}});
        let output = call(&node, "ATTACH_CONTAINER_OUTPUT", &inner).await;
        assert_eq!(output, (500, words));
        // Records that are none, or none of these; the session goes on.
        let typed = framed(&Json.typed(b"x"));
        let health = framed(br#"{"type":"GET_HEALTH"}"#);
        for (chunks, status) in [
            (&[&b"garbage"[..]][..], 400),
            (&[b"18446744073709551615\n"], 400),
            (&[b"2000000\n"], 400),
            (&[b"4\n\xff\xff\xff\xff"], 400),
            (&[&typed], 400),
            (&[&health], 415),
        ] {
            assert_eq!(refused(&node, chunks).await.0, status, "{chunks:?}");
        }
        let mut bare = Exchange::begin(&node, &[("Content-Type", JSON)]).await;
        bare.chunk(&Json.attach_input(id)).await;
        bare.end().await;
        assert_eq!(bare.words().await.0, 415);
        keys.record(&Json.typed(b"still here")).await;
        keys.record(&Json.typed(b"")).await;
        assert_eq!(own.rest().await, "still here");
        for task in ["t1", "t2"] {
            node.coordinator.kill(task, 0);
            node.coordinator.terminal(task).await;
        }
    });
}

pub(crate) fn a_task_with_a_terminal_is_attached_to() {
    run(async {
        let mut node = Node::start().await;
        let line = "tty; stty size; while read -r a; do test \"$a\" = end && exit 6; \
                    echo \"said $a\"; stty size; done";
        let mut task = shell("t", line);
        (task.tty, task.user) = (
            Some(Tty {
                rows: 12,
                columns: 34,
            }),
            "1000:1000".to_owned(),
        );
        let container = started(&node, task).await;
        let update = node.coordinator.update("t", TaskState::TaskRunning).await;
        // What comes after this finds it waiting.
        let stdout = format!("{}/stdout", update.sandbox);
        node.holds(&stdout, "/dev/pts/0\r\n12 34\r\n").await;
        let id = Id(&container, None);
        let mut first = Output::of(&node, Json, &Json.attach_output(id)).await;
        let mut keys = input(&node, Json, id).await;
        keys.record(&Json.sized(33, 44)).await;
        keys.record(&Json.typed(b"one\n")).await;
        first.until("said one\n33 44\n").await;
        // The keeper has the terminal: it outlives the agent.
        node.kill_9();
        node.start_agent().await;
        let mut second = Output::of(&node, Protobuf, &Protobuf.attach_output(id)).await;
        let mut third = Output::of(&node, Json, &Json.attach_output(id)).await;
        let mut keys = input(&node, Protobuf, id).await;
        keys.record(&Protobuf.typed(b"two\n")).await;
        second.until("said two\n33 44\n").await;
        third.until("said two\n33 44\n").await;
        drop(third);
        keys.record(&Protobuf.typed(b"end\n")).await;
        second.until("end\n").await;
        assert_eq!(second.rest().await, "");
        assert_eq!(keys.words().await.0, 200);
        assert_eq!(exit_status(&node, id).await, 6 << 8);
        let update = node.coordinator.terminal("t").await;
        assert_eq!(update.state, TaskState::TaskFailed as i32, "{update:?}");
        let stdout = node.read(&format!("{}/stdout", update.sandbox)).await;
        let text = stdout.replace('\r', "");
        assert!(text.starts_with("/dev/pts/0\n12 34\n"), "{text}");
        assert!(
            text.contains("said one\n33 44\n") && text.contains("said two\n"),
            "{text}"
        );
    });
}

/// The container of a session or a member, inside one that is inside another.
fn inside(call: &[u8], around: &str) -> Vec<u8> {
    let mut call: Value = serde_json::from_slice(call).unwrap();
    let kind = call["type"].as_str().unwrap().to_lowercase();
    let inner = &mut call[kind];
    inner["container_id"]["parent"]["parent"] = json!({"value": around});
    call.to_string().into_bytes()
}

pub(crate) fn members_of_groups_are_joined() {
    run(async {
        let node = Node::start().await;
        let line = "while read -r a; do test \"$a\" = end && exit 6; echo \"said $a\"; done";
        let mut console = shell("console", line);
        console.tty = Some(Tty {
            rows: 12,
            columns: 34,
        });
        let tasks = [console, shell("plain", "sleep 1000")];
        let group = crate::group::group("pod", NetworkMode::Host, &tasks);
        node.coordinator.say(to_agent::Kind::LaunchGroup(group));
        let running = TaskState::TaskRunning;
        let console = node.coordinator.update("console", running).await;
        let plain = node.coordinator.update("plain", running).await;
        let state = reqwest::get(node.url("/state")).await.unwrap();
        let state: Value = serde_json::from_str(&state.text().await.unwrap()).unwrap();
        let executor = &state["frameworks"][0]["executors"][0]["container"];
        let executor = executor.as_str().unwrap();

        // A process inside a member, which is named with all that is around it.
        let session = Id("s", Some(&plain.container_id));
        let line = "read -r a; echo \"got $a\"; exit 5";
        let launch = inside(&Json.launch(session, line, None), executor);
        let mut output = Output::of(&node, Json, &launch).await;
        let short = json!({"container_id": session.json()});
        let (status, words) = call(&node, "ATTACH_CONTAINER_OUTPUT", &short).await;
        assert_eq!(status, 404, "{words}");
        let mut id = session.json();
        id["parent"]["parent"] = json!({"value": executor});
        let id = json!({"container_id": id});
        // One that runs is not removed.
        assert_eq!(call(&node, "REMOVE_CONTAINER", &id).await.0, 500);
        let headers = [
            ("Content-Type", RECORDIO),
            ("Message-Content-Type", Json.media_type()),
        ];
        let mut keys = Exchange::begin(&node, &headers).await;
        let first = inside(&Json.attach_input(session), executor);
        keys.record(&first).await;
        keys.record(&Json.typed(b"in\n")).await;
        output.until("got in\n").await;
        assert_eq!(output.rest().await, "");
        let (status, words) = call(&node, "WAIT_NESTED_CONTAINER", &id).await;
        assert_eq!(status, 200, "{words}");
        let answer: Value = serde_json::from_str(&words).unwrap();
        assert_eq!(answer["wait_nested_container"]["exit_status"], 5 << 8);
        // Its name is free again, when that was asked for.
        assert_eq!(call(&node, "REMOVE_NESTED_CONTAINER", &id).await.0, 200);
        assert_eq!(call(&node, "REMOVE_NESTED_CONTAINER", &id).await.0, 404);
        assert_eq!(call(&node, "WAIT_NESTED_CONTAINER", &id).await.0, 404);
        let launch = inside(&Json.launch(session, "echo again", None), executor);
        let output = Output::of(&node, Json, &launch).await;
        assert_eq!(output.rest().await, "again\n");

        // A member with a terminal ends with its code.
        let member = Id(&console.container_id, Some(executor));
        let mut output = Output::of(&node, Json, &Json.attach_output(member)).await;
        let mut keys = input(&node, Json, member).await;
        keys.record(&Json.typed(b"one\n")).await;
        output.until("said one\n").await;
        keys.record(&Json.typed(b"end\n")).await;
        output.until("end\n").await;
        assert_eq!(output.rest().await, "");
        assert_eq!(exit_status(&node, member).await, 6 << 8);
        let end = node.coordinator.terminal("console").await;
        assert_eq!(end.state, TaskState::TaskFailed as i32, "{end:?}");
        node.coordinator.terminal("plain").await;
        node.no_executors().await;
    });
}
