//! The agent's API: every call of v1 in JSON and protobuf, the endpoints from before it, its
//! numbers, and what it makes of nonsense and strangers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use gantry_wire::agent::NetworkMode;
use gantry_wire::mesos::v1::agent::call::{
    GetContainers, GetMetrics, ListFiles, PruneImages, ReadFile, SetLoggingLevel, Type,
};
use gantry_wire::mesos::v1::agent::{Call, Response};
use gantry_wire::mesos::v1::{DurationInfo, Metric, ResourceStatistics, TaskState as V1State};
use gantry_wire::mesos::{Encoding, decode, encode};
use gantry_wire::task::TaskState;
use serde_json::{Value, json};

use crate::agent::{Node, run};
use crate::coordinator::{PATIENCE, shell};
use crate::group::group;

const BOTH: [Encoding; 2] = [Encoding::Json, Encoding::Protobuf];

pub(crate) fn of(kind: Type) -> Call {
    Call {
        r#type: Some(kind as i32),
        ..Call::default()
    }
}

/// Sends a call in an encoding and takes the answer in it.
pub(crate) async fn send(node: &Node, encoding: Encoding, call: &Call) -> (u16, Vec<u8>) {
    let client = reqwest::Client::new();
    let request = client
        .post(node.url("/api/v1"))
        .header("Content-Type", encoding.media_type())
        .header("Accept", encoding.media_type())
        .body(encode(encoding, call));
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let kind = answer.headers().get("content-type").cloned();
    let body = answer.bytes().await.unwrap().to_vec();
    if status == 200 && !body.is_empty() {
        assert_eq!(kind.unwrap(), encoding.media_type());
    }
    (status, body)
}

/// The answer to a call, which must be one.
pub(crate) async fn ask(node: &Node, encoding: Encoding, call: &Call) -> Response {
    let (status, body) = send(node, encoding, call).await;
    let text = String::from_utf8_lossy(&body);
    assert_eq!(status, 200, "{}: {text}", call.r#type().name());
    let answer: Response = decode(encoding, &body).unwrap();
    assert_eq!(answer.r#type().name(), call.r#type().name());
    answer
}

async fn get(node: &Node, path: &str) -> (u16, String) {
    let answer = reqwest::get(node.url(path)).await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.text().await.unwrap())
}

async fn get_json(node: &Node, path: &str) -> Value {
    let (status, text) = get(node, path).await;
    assert_eq!(status, 200, "{path}: {text}");
    serde_json::from_str(&text).unwrap()
}

/// Asks until an answer has it.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn end(node: &Node, tasks: &[&str]) {
    for task in tasks {
        node.coordinator.kill(task, 0);
    }
    for task in tasks {
        node.coordinator.terminal(task).await;
    }
}

#[expect(clippy::too_many_lines, reason = "one story, or one table")]
pub(crate) fn every_question_in_both_encodings() {
    run(async {
        let mut node = Node::start().await;
        let mut alone = shell("alone", "sleep 1000");
        alone.labels.insert("tier".into(), "front".into());
        node.coordinator.launch(alone);
        let members = [shell("member", "sleep 1000")];
        node.launch_group(group("pod", NetworkMode::Host, &members));
        let running =
            async |task: &str| node.coordinator.update(task, TaskState::TaskRunning).await;
        let (alone, member) = (running("alone").await, running("member").await);
        for encoding in BOTH {
            what_it_is(&node, encoding).await;
            let answer = ask(&node, encoding, &of(Type::GetState)).await;
            let state = *answer.get_state.unwrap();
            let tasks = ask(&node, encoding, &of(Type::GetTasks))
                .await
                .get_tasks
                .unwrap();
            assert_eq!(state.get_tasks.unwrap(), tasks);
            let launched = &tasks.launched_tasks;
            let names: Vec<_> = launched
                .iter()
                .map(|task| task.task_id.value.as_str())
                .collect();
            assert_eq!(names, ["alone", "member"]);
            let first = &launched[0];
            assert_eq!(first.state(), V1State::TaskRunning);
            assert_eq!(
                (first.executor_id.as_ref(), first.agent_id.value.as_str()),
                (None, "S0")
            );
            assert_eq!(first.labels.as_ref().unwrap().labels[0].key, "tier");
            assert_eq!(first.resources[0].scalar.as_ref().unwrap().value, 0.5);
            let id = |task: usize| {
                let status = launched[task].statuses[0].container_status.as_ref();
                status.unwrap().container_id.clone().unwrap()
            };
            assert_eq!(id(0).value, alone.container_id);
            assert_eq!(
                (id(0).parent, id(1).value),
                (None, member.container_id.clone())
            );
            let executors = ask(&node, encoding, &of(Type::GetExecutors)).await;
            let executors = executors.get_executors.unwrap();
            assert_eq!(state.get_executors.unwrap(), executors);
            let infos = executors.executors.iter().map(|it| &it.executor_info);
            let ids: BTreeSet<_> = infos.map(|it| it.executor_id.value.as_str()).collect();
            assert_eq!(ids, BTreeSet::from(["alone", "pod"]));
            let frameworks = ask(&node, encoding, &of(Type::GetFrameworks)).await;
            let frameworks = frameworks.get_frameworks.unwrap();
            assert_eq!(state.get_frameworks.unwrap(), frameworks);
            assert_eq!(
                frameworks.frameworks[0]
                    .framework_info
                    .id
                    .as_ref()
                    .unwrap()
                    .value,
                "fw"
            );
            let around = id(1).parent.unwrap().value;
            let shown = async |nested| containers(&node, encoding, nested).await;
            let of_pod = (around.clone(), None);
            let of_alone = (alone.container_id.clone(), None);
            let of_member = (member.container_id.clone(), Some(around.clone()));
            assert_eq!(
                shown(false).await,
                BTreeSet::from([of_pod.clone(), of_alone.clone()])
            );
            assert_eq!(
                shown(true).await,
                BTreeSet::from([of_pod, of_alone, of_member])
            );
        }
        end(&node, &["alone", "member"]).await;
        node.no_executors().await;
        assert!(node.end(rustix::process::Signal::TERM));
    });
}

/// What does not depend on tasks.
async fn what_it_is(node: &Node, encoding: Encoding) {
    let health = ask(node, encoding, &of(Type::GetHealth)).await.get_health;
    assert!(health.unwrap().healthy);
    let version = ask(node, encoding, &of(Type::GetVersion)).await.get_version;
    assert_eq!(
        version.unwrap().version_info.version,
        env!("CARGO_PKG_VERSION")
    );
    let flags = ask(node, encoding, &of(Type::GetFlags))
        .await
        .get_flags
        .unwrap();
    let flag = |name: &str| {
        let found = flags.flags.iter().find(|flag| flag.name == name);
        found.unwrap().value.clone().unwrap()
    };
    assert_eq!(flag("work_dir"), node.data().to_string_lossy());
    assert!(node.url("").ends_with(&flag("port")), "{}", flag("port"));
    let agent = ask(node, encoding, &of(Type::GetAgent)).await.get_agent;
    let info = agent.unwrap().agent_info.unwrap();
    assert_eq!(
        (info.id.unwrap().value.as_str(), info.hostname),
        ("S0", flag("hostname"))
    );
    assert_eq!(info.port.unwrap().to_string(), flag("port"));
    let names: Vec<_> = info.resources.iter().map(|it| it.name.as_str()).collect();
    assert!(names.starts_with(&["cpus", "mem", "disk"]), "{names:?}");
    let none = ask(node, encoding, &of(Type::GetOperations)).await;
    assert!(none.get_operations.unwrap().operations.is_empty());
    let none = ask(node, encoding, &of(Type::GetResourceProviders)).await;
    assert!(
        none.get_resource_providers
            .unwrap()
            .resource_providers
            .is_empty()
    );
    for kind in [
        Type::AddResourceProviderConfig,
        Type::UpdateResourceProviderConfig,
        Type::RemoveResourceProviderConfig,
        Type::MarkResourceProviderGone,
    ] {
        let (status, body) = send(node, encoding, &of(kind)).await;
        let text = String::from_utf8_lossy(&body);
        assert!(
            status == 501 && text.contains("no resource providers"),
            "{text}"
        );
    }
    let prune = Call {
        prune_images: Some(PruneImages::default()),
        ..of(Type::PruneImages)
    };
    assert_eq!(send(node, encoding, &prune).await, (200, Vec::new()));
}

/// The containers that are shown: each with the one around it.
async fn containers(
    node: &Node,
    encoding: Encoding,
    nested: bool,
) -> BTreeSet<(String, Option<String>)> {
    let call = Call {
        get_containers: Some(GetContainers {
            show_nested: Some(nested),
            show_standalone: Some(false),
        }),
        ..of(Type::GetContainers)
    };
    let answer = ask(node, encoding, &call).await.get_containers.unwrap();
    let shown = answer.containers.into_iter();
    let pair = shown.map(|it| {
        assert!(it.resource_statistics.is_some());
        assert!(it.container_status.unwrap().executor_pid.unwrap() > 1);
        let id = it.container_id;
        (id.value, id.parent.map(|parent| parent.value))
    });
    pair.collect()
}

/// Busy, with 24 MiB of memory of its own, and a full quota.
const BUSY: &str = "exec perl -e '$x = \"x\" x (24 << 20); 1 while $x'";

pub(crate) fn what_containers_use_is_told() {
    run(async {
        let node = Node::start().await;
        let mut task = shell("busy", BUSY);
        task.network = NetworkMode::Bridge as i32;
        task.resources.as_mut().unwrap().cpus_milli = 200;
        task.resources.as_mut().unwrap().disk_bytes = 8 << 20;
        node.coordinator.launch(task);
        let running = node
            .coordinator
            .update("busy", TaskState::TaskRunning)
            .await;
        let call = of(Type::GetContainers);
        let enough = |it: &ResourceStatistics| {
            it.cpus_nr_throttled() > 0
                && it.mem_rss_bytes() > 24 << 20
                && it.cpus_user_time_secs() + it.cpus_system_time_secs() > 0.1
        };
        let found = until("statistics of a busy container", async || {
            let answer = ask(&node, Encoding::Protobuf, &call).await;
            let containers = answer.get_containers.unwrap().containers;
            let statistics = containers[0].resource_statistics.as_deref()?;
            enough(statistics).then(|| statistics.clone())
        })
        .await;
        assert!(found.timestamp > 1e9 && found.cpus_throttled_time_secs() > 0.0);
        assert_eq!(
            (found.cpus_limit(), found.mem_limit_bytes()),
            (0.2, 64 << 20)
        );
        assert!(found.mem_total_bytes() >= found.mem_rss_bytes());
        assert_eq!(
            (found.disk_limit_bytes(), found.threads() > 0),
            (8 << 20, true)
        );
        assert!(found.net_tx_errors.is_some() && found.net_rx_bytes.is_some());
        for path in ["/monitor/statistics", "/slave(1)/monitor/statistics.json"] {
            let old = get_json(&node, path).await;
            assert_eq!(old[0]["source"], "busy");
            assert!(old[0]["statistics"]["mem_rss_bytes"].as_u64().unwrap() > 24 << 20);
        }
        let id = &running.container_id;
        let one = get_json(&node, &format!("/containers?container_id={id}")).await;
        assert_eq!(one[0]["container_id"], **id);
        assert_eq!(one[0]["status"]["executor_pid"], running.pid);
        assert_eq!(
            get_json(&node, "/containers?container_id=no").await,
            json!([])
        );
        let label = format!("container_id=\"{id}\"");
        let (_, text) = get(&node, "/metrics").await;
        let rows: BTreeMap<String, f64> = families(&text);
        for name in [
            "cpu_seconds_total",
            "memory_rss_bytes",
            "threads",
            "network_bytes_total",
        ] {
            let name = format!("gantry_agent_container_{name}{{{label}");
            assert!(
                rows.keys().any(|row| row.starts_with(&name)),
                "{name}\n{text}"
            );
        }
        end(&node, &["busy"]).await;
        until("the end of its series", async || {
            let (_, text) = get(&node, "/metrics").await;
            (!text.contains(&label)).then_some(())
        })
        .await;
    });
}

/// Reads the text format, as strictly as Prometheus: samples by name and labels.
fn families(text: &str) -> BTreeMap<String, f64> {
    let mut rows = BTreeMap::new();
    let (mut name, mut seen) = (String::new(), BTreeSet::new());
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            name = help.split(' ').next().unwrap().to_owned();
            assert!(seen.insert(name.clone()), "{name} comes twice");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (of, kind) = kind.split_once(' ').unwrap();
            assert_eq!(of, name);
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
        } else {
            let (row, value) = line.rsplit_once(' ').unwrap();
            assert_eq!(row.split('{').next().unwrap(), name);
            assert!(
                rows.insert(row.to_owned(), value.parse().unwrap())
                    .is_none(),
                "{row}"
            );
        }
    }
    assert!(text.ends_with('\n'));
    rows
}

pub(crate) fn numbers_are_the_same_everywhere() {
    run(async {
        let node = Node::start().await;
        node.coordinator.launch(shell("good", "true"));
        node.coordinator.launch(shell("bad", "exit 3"));
        node.coordinator.launch(shell("stays", "sleep 1000"));
        node.coordinator.terminal("good").await;
        node.coordinator.terminal("bad").await;
        node.coordinator
            .update("stays", TaskState::TaskRunning)
            .await;
        let snapshot = get_json(&node, "/metrics/snapshot?timeout=5secs").await;
        for (name, want) in [
            ("slave/tasks_finished", 1.0),
            ("slave/tasks_failed", 1.0),
            ("slave/tasks_killed", 0.0),
            ("slave/tasks_running", 1.0),
            ("slave/cpus_used", 0.5),
            ("slave/mem_used", 64.0),
            ("slave/registered", 1.0),
            ("slave/frameworks_active", 1.0),
            ("slave/executors_running", 1.0),
            ("gc/path_removals_failed", 0.0),
        ] {
            assert_eq!(snapshot[name], want, "{name}");
        }
        for name in [
            "slave/cpus_total",
            "slave/uptime_secs",
            "system/mem_total_bytes",
        ] {
            assert!(snapshot[name].as_f64().unwrap() > 0.0, "{name}");
        }
        let names: BTreeSet<String> = snapshot.as_object().unwrap().keys().cloned().collect();
        for encoding in BOTH {
            let timeout = Some(DurationInfo {
                nanoseconds: 5_000_000_000,
            });
            let call = Call {
                get_metrics: Some(GetMetrics { timeout }),
                ..of(Type::GetMetrics)
            };
            let metrics = ask(&node, encoding, &call)
                .await
                .get_metrics
                .unwrap()
                .metrics;
            let name = |metric: &Metric| metric.name.clone();
            assert_eq!(metrics.iter().map(name).collect::<BTreeSet<_>>(), names);
        }
        let (_, text) = get(&node, "/metrics").await;
        let rows = families(&text);
        assert_eq!(rows["gantry_agent_tasks_finished_total"], 1.0);
        assert_eq!(rows["gantry_agent_tasks_running"], 1.0);
        assert_eq!(rows["gantry_agent_containers_left_out"], 0.0);
        let stats = get_json(&node, "/system/stats.json").await;
        assert_eq!(stats["mem_total_bytes"], snapshot["system/mem_total_bytes"]);
        assert!(stats["avg_load_1min"].is_number());
        for bad in ["5", "secs", "-1secs", "1e9999secs", "5parsecs"] {
            let (status, text) = get(&node, &format!("/metrics/snapshot?timeout={bad}")).await;
            assert!(status == 400 && text.contains("timeout"), "{bad}: {text}");
        }
        end(&node, &["stays"]).await;
        assert_eq!(
            get_json(&node, "/metrics/snapshot").await["slave/tasks_killed"],
            1.0
        );
    });
}

pub(crate) fn the_log_says_more_for_a_while() {
    run(async {
        let node = Node::start().await;
        let level = async |encoding| {
            let answer = ask(&node, encoding, &of(Type::GetLoggingLevel)).await;
            answer.get_logging_level.unwrap().level
        };
        let set = |level, seconds: i64| Call {
            set_logging_level: Some(SetLoggingLevel {
                level,
                duration: DurationInfo {
                    nanoseconds: seconds * 1_000_000_000,
                },
            }),
            ..of(Type::SetLoggingLevel)
        };
        let debugs = || {
            let log = std::fs::read_to_string(node.log()).unwrap();
            log.lines().filter(|line| line.contains(" DEBUG ")).count()
        };
        assert_eq!((level(Encoding::Json).await, debugs()), (0, 0));
        for encoding in BOTH {
            let before = debugs();
            assert_eq!(
                send(&node, encoding, &set(1, 3_600)).await,
                (200, Vec::new())
            );
            assert_eq!(level(encoding).await, 1);
            until("a line that is not always there", async || {
                // A connection that ends in the middle of a request is worth such a line.
                let address = node.url("").replace("http://", "");
                let mut stream = std::net::TcpStream::connect(address).unwrap();
                std::io::Write::write_all(&mut stream, b"GET / HT").unwrap();
                drop(stream);
                (debugs() > before).then_some(())
            })
            .await;
            assert_eq!(send(&node, encoding, &set(1, 0)).await.0, 200);
            until("the usual level", async || {
                (level(encoding).await == 0).then_some(())
            })
            .await;
            assert_eq!(send(&node, encoding, &set(1, -1)).await.0, 400);
        }
        let client = reqwest::Client::new();
        let toggle = async |query: &str| {
            let url = node.url(&format!("/logging/toggle{query}"));
            client.post(url).send().await.unwrap().status().as_u16()
        };
        assert_eq!(get(&node, "/logging/toggle").await, (200, "0\n".to_owned()));
        assert_eq!(toggle("?level=2&duration=1hrs").await, 200);
        assert_eq!(get(&node, "/logging/toggle").await.1, "2\n");
        assert_eq!(toggle("?level=2").await, 400);
        assert_eq!(toggle("?level=-1&duration=1secs").await, 400);
        // A page of another site may send a GET, so that changes nothing.
        assert_eq!(
            get(&node, "/logging/toggle?level=0&duration=1secs").await.0,
            400
        );
        assert_eq!(level(Encoding::Json).await, 2);
    });
}

pub(crate) fn files_as_calls() {
    run(async {
        let node = Node::start().await;
        let command = "printf '0123\\0\\377' > f; mkdir d; echo ready; sleep 1000";
        node.armed("t", command).await;
        let sandbox = node
            .coordinator
            .update("t", TaskState::TaskRunning)
            .await
            .sandbox;
        let list = |path: &str| Call {
            list_files: Some(ListFiles { path: path.into() }),
            ..of(Type::ListFiles)
        };
        let read = |path: &str, offset, length| Call {
            read_file: Some(ReadFile {
                path: path.into(),
                offset,
                length,
            }),
            ..of(Type::ReadFile)
        };
        for encoding in BOTH {
            let files = ask(&node, encoding, &list(&sandbox))
                .await
                .list_files
                .unwrap();
            let file = |name: &str| {
                let path = format!("{sandbox}/{name}");
                files.file_infos.iter().find(|it| it.path == path).unwrap()
            };
            assert_eq!(
                (file("f").size(), file("d").mode() & 0o170_000),
                (6, 0o040_000)
            );
            assert!(file("f").mtime.as_ref().unwrap().nanoseconds > 1_000_000_000_000_000_000);
            let f = format!("{sandbox}/f");
            for (offset, length, want) in [
                (0, None, &b"0123\0\xff"[..]),
                (1, Some(3), b"123"),
                (4, Some(u64::MAX), b"\0\xff"),
                (6, None, b""),
                (u64::MAX, Some(1), b""),
            ] {
                let piece = ask(&node, encoding, &read(&f, offset, length)).await;
                let piece = piece.read_file.unwrap();
                assert_eq!((piece.size, piece.data.as_slice()), (6, want), "{offset}");
            }
            let d = format!("{sandbox}/d");
            for (call, want) in [
                (read(&d, 0, None), 400),
                (list(&f), 400),
                (read("/etc/passwd", 0, None), 404),
                (list("/"), 404),
                (list(&format!("{sandbox}/../../../..")), 404),
                (read(&format!("{sandbox}/f\0"), 0, None), 404),
                (read(&format!("{sandbox}/none"), 0, None), 404),
            ] {
                assert_eq!(send(&node, encoding, &call).await.0, want, "{call:?}");
            }
        }
        let debug = get_json(&node, "/files/debug").await;
        assert!(
            debug
                .as_object()
                .unwrap()
                .values()
                .any(|path| *path == *sandbox)
        );
        end(&node, &["t"]).await;
    });
}

pub(crate) fn nonsense_and_strangers() {
    run(async {
        let node = Node::start().await;
        let client = reqwest::Client::new();
        let health = encode(Encoding::Json, &of(Type::GetHealth));
        let (json, proto) = ("application/json", "application/x-protobuf");
        let big = vec![b' '; (1 << 20) + 1];
        let deep = format!("{{\"type\":{}", "[".repeat(100_000)).into_bytes();
        type Row<'r> = (Option<&'r str>, Option<&'r str>, &'r [u8], u16);
        let rows: &[Row<'_>] = &[
            (Some(json), None, &health, 200),
            (Some(json), Some("text/html, */*;q=0.1"), &health, 200),
            (None, None, &health, 400),
            (Some("application/json;charset=utf-8"), None, &health, 415),
            (Some("text/plain"), None, &health, 415),
            (Some(proto), None, &health, 400),
            (Some(proto), None, b"\x08\x01", 200),
            (Some(proto), None, b"\x08\x63", 400),
            (Some(proto), None, &[0xff; 64], 400),
            (Some(json), Some("text/html"), &health, 406),
            (Some(json), Some("application/recordio"), &health, 406),
            (Some(json), None, b"", 400),
            (Some(json), None, b"{\"type\":", 400),
            (Some(json), None, b"{}", 400),
            (Some(json), None, b"{\"type\":1}", 400),
            (Some(json), None, b"{\"type\":\"GET_NOTHING\"}", 400),
            (Some(json), None, b"{\"type\":\"READ_FILE\"}", 400),
            (
                Some(json),
                None,
                b"{\"type\":\"READ_FILE\",\"read_file\":{\"path\":\"/x\"}}",
                400,
            ),
            (Some(json), None, &deep, 400),
            (Some(json), None, &big, 413),
        ];
        for (content, accept, body, want) in rows {
            let mut request = client.post(node.url("/api/v1")).body(body.to_vec());
            if let Some(content) = content {
                request = request.header("Content-Type", *content);
            }
            if let Some(accept) = accept {
                request = request.header("Accept", *accept);
            }
            let answer = request.send().await.unwrap();
            let status = answer.status().as_u16();
            let start = String::from_utf8_lossy(&body[..body.len().min(40)]);
            assert_eq!(status, *want, "{content:?} {accept:?} {start}");
            if status != 200 {
                let text = answer.text().await.unwrap();
                assert!(!text.is_empty() && text.len() < 1_000, "{start}: {text}");
            }
        }
        strangers(&node, &health).await;
        spellings(&node).await;
        for id in ["a/b", "../x", "", ".", "a\nb", &"x".repeat(300)] {
            let container = json!({"value": id, "parent": {"value": "p"}});
            for kind in ["WAIT_CONTAINER", "KILL_CONTAINER", "WAIT_NESTED_CONTAINER"] {
                let field = kind.to_lowercase();
                let call = json!({"type": kind, field: {"container_id": container}}).to_string();
                let request = client
                    .post(node.url("/api/v1"))
                    .header("Content-Type", json);
                let status = request.body(call).send().await.unwrap().status().as_u16();
                assert!([400, 404].contains(&status), "{kind} {id:?}: {status}");
            }
        }
        assert_eq!(get(&node, "/health").await, (200, String::new()));
    });
}

/// Pages of other sites.
async fn strangers(node: &Node, health: &[u8]) {
    let client = reqwest::Client::new();
    for (name, value) in [
        ("Origin", "http://evil.example"),
        ("Origin", "null"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Host", "evil.example"),
    ] {
        let request = client.post(node.url("/api/v1")).header(name, value);
        let request = request.header("Content-Type", "application/json");
        let answer = request.body(health.to_vec()).send().await.unwrap();
        assert_eq!(answer.status(), 403, "{name}: {value}");
        let request = client
            .get(node.url("/state?jsonp=steal"))
            .header(name, value);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 403, "{name}: {value}");
    }
    let put = client.put(node.url("/api/v1")).send().await.unwrap();
    assert_eq!(
        (put.status().as_u16(), &put.headers()["allow"]),
        (405, &"POST".parse().unwrap())
    );
}

async fn spellings(node: &Node) {
    for path in [
        "/state",
        "/slave(1)/state",
        "/slave%281%29/state.json",
        "/state/",
        "/state/x",
    ] {
        assert_eq!(get_json(node, path).await["id"], "S0", "{path}");
        let (status, text) = get(node, &format!("{path}?jsonp=back")).await;
        let inner = text
            .strip_prefix("back(")
            .and_then(|text| text.strip_suffix(");"));
        let inner: Value = serde_json::from_str(inner.unwrap()).unwrap();
        assert_eq!((status, &inner["id"]), (200, &json!("S0")));
    }
    for path in [
        "/slave(2)/state",
        "/stateful",
        "/",
        "/slave(1)",
        "/metrics/nothing",
    ] {
        assert_eq!(get(node, path).await.0, 404, "{path}");
    }
    let (status, _) = get(node, "/state?jsonp=alert(1)//").await;
    assert_eq!(status, 400);
    assert_eq!(
        get_json(node, "/containerizer/debug").await,
        json!({"pending": []})
    );
    let flags = get_json(node, "/slave(1)/flags").await;
    assert_eq!(flags["flags"]["work_dir"], *node.data().to_string_lossy());
    assert!(get_json(node, "/version").await["version"].is_string());
}
