//! Calls to the executor API that are not what they should be: senseless ones, those of somebody
//! else, and far too many. Executors whose place the tests take at their door.

use std::io::Write as _;

use gantry_wire::agent::{ExecutorMessage, to_agent};
use gantry_wire::mesos::v1::executor::call;
use gantry_wire::mesos::v1::{self, TaskState as V1State};
use gantry_wire::mesos::{Encoding, encode};
use gantry_wire::task::TaskState;

use crate::agent::{Node, run};
use crate::custom::{environment, executor, kinds, launch, me, puppet, subscribed, task};
use crate::executor::{Agent, Name, Reply, status};

/// Calls that make no sense, each with the answer of Mesos.
pub(crate) fn calls_that_are_refused() {
    run(async {
        let node = Node::start().await;
        let door = puppet(&node, "puppet", &[task("r1", ""), task("r2", "")]).await;
        let (agent, name) = (Agent::at(&door, Encoding::Json), me("puppet"));
        let update = |change: &dyn Fn(&mut v1::TaskStatus)| {
            let mut status = status("r1", V1State::TaskRunning, 1);
            change(&mut status);
            agent.call(&name.update(status)).unwrap().status
        };
        let heartbeat = Name {
            executor: "any".into(),
            framework: "one".into(),
        };
        let heartbeat = heartbeat.call(call::Type::Heartbeat);
        assert_eq!(agent.call(&heartbeat).unwrap().status, 202);
        assert_eq!(update(&|_| {}), 403, "not subscribed");
        let stream = subscribed(&agent, &name, &["r1", "r2"]);
        assert_eq!(update(&|status| status.uuid = None), 400);
        assert_eq!(update(&|status| status.uuid = Some(vec![1; 15])), 400);
        assert_eq!(update(&|status| status.source = None), 400);
        assert_eq!(update(&|status| status.source = Some(1)), 400);
        assert_eq!(
            update(&|status| status.state = V1State::TaskStaging as i32),
            400
        );
        let other = Some(v1::ExecutorId { value: "o".into() });
        assert_eq!(update(&|status| status.executor_id = other.clone()), 400);
        assert_eq!(update(&|status| status.task_id.value = "never".into()), 400);
        assert_eq!(update(&|status| status.data = Some(vec![0; 1 << 20])), 400);

        let mut untyped = name.call(call::Type::Update);
        untyped.r#type = None;
        assert_eq!(agent.call(&untyped).unwrap().status, 400);
        for (kind, want) in [
            (call::Type::Update, 400),
            (call::Type::Message, 400),
            (call::Type::Subscribe, 400),
            (call::Type::Unknown, 501),
        ] {
            assert_eq!(
                agent.call(&name.call(kind)).unwrap().status,
                want,
                "{kind:?}"
            );
        }
        for stranger in [me("none"), me("../x")] {
            let reply = agent.call(&stranger.call(call::Type::Subscribe)).unwrap();
            assert_eq!(reply.status, 400);
        }
        headers_and_paths(&agent, &encode(Encoding::Json, &heartbeat));
        assert_eq!(
            node.coordinator.states("r1"),
            [],
            "nothing of that was passed on"
        );
        drop(stream);
    });
}

/// A call that is well in itself.
fn headers_and_paths(agent: &Agent, body: &[u8]) {
    for (headers, want) in [
        ([("Content-Type", "text/plain")], 415),
        ([("Content-Type", "application/json; charset=utf-8")], 415),
        ([("Content-Type", "")], 400),
        ([("Accept", "text/plain")], 406),
        ([("Authorization", "Bearer x.y.z")], 401),
        ([("Accept", "")], 202),
    ] {
        let reply = agent.post(body, &headers).unwrap();
        assert_eq!(reply.status, want, "{headers:?}");
    }
    assert_eq!(agent.post(b"{\"type\":", &[]).unwrap().status, 400);
    for (path, want) in [
        ("/slave(1)/api/v1/executor", 202),
        ("/slave%281%29/api/v1/executor", 202),
        ("/api/v1/executor/", 202),
        ("/api/v1", 404),
        ("/state", 404),
        ("/files/browse?path=/", 404),
    ] {
        let path = path.to_owned();
        let at = Agent {
            path,
            ..agent.clone()
        };
        assert_eq!(at.post(body, &[]).unwrap().status, want, "{}", at.path);
    }
    let mut wire = agent.connect().unwrap();
    wire.write_all(b"GET /api/v1/executor HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    let reply = Reply::read(wire, Encoding::Json).unwrap();
    assert_eq!(
        (reply.status, reply.headers["allow"].as_str()),
        (405, "POST")
    );
}

/// Executors with the ids, the socket or the token of another; and without any.
pub(crate) fn nobody_speaks_for_another() {
    run(async {
        let node = Node::start().await;
        node.launch_custom(launch(&executor("honest", "json"), &[task("h1", "run")]));
        let honest = node.coordinator.update("h1", TaskState::TaskRunning).await;
        let env = environment(&honest);
        let token = env["MESOS_EXECUTOR_AUTHENTICATION_TOKEN"].clone();
        let endpoint = env["MESOS_AGENT_ENDPOINT"].as_str();
        let evil = launch(&executor("evil", "json"), &[task("e1", "run")]);
        node.launch_custom(evil);
        let evil = node.coordinator.update("e1", TaskState::TaskRunning).await;
        let lie = me("honest").update(status("h1", V1State::TaskFinished, 9));
        let at = |address: &str, token: Option<&str>| Agent {
            token: token.map(str::to_owned),
            ..Agent::at(address, Encoding::Protobuf)
        };
        let (evil_door, honest_door) = (node.door(&evil), node.door(&honest));
        let api = node.url("").trim_start_matches("http://").to_owned();
        let evil_env = environment(&evil);
        let evil_token = evil_env.get("MESOS_EXECUTOR_AUTHENTICATION_TOKEN");
        let evil_token = evil_token.map(String::as_str);
        for (address, token, want) in [
            (evil_door.as_str(), None, 403),
            (&evil_door, Some(token.as_str()), 403),
            (&honest_door, evil_token, 403),
            (endpoint, evil_token, 403),
            (endpoint, None, 401),
            (endpoint, Some("x"), 401),
            (&api, evil_token, 403),
            (&api, None, 401),
        ] {
            for call in [
                lie.clone(),
                me("honest").subscribe(call::Subscribe::default()),
                me("honest").message(b"lie".to_vec()),
            ] {
                let headers = [("Host", "127.0.0.1")];
                let body = encode(Encoding::Protobuf, &call);
                let reply = at(address, token).post(&body, &headers).unwrap();
                assert_eq!(
                    reply.status,
                    want,
                    "{address} {token:?} {:?}",
                    call.r#type()
                );
                let challenge = reply.headers.contains_key("www-authenticate");
                assert_eq!(challenge, want == 401);
            }
        }
        // Its own task it may end, another's not, whoever it says that it is.
        let theft = me("evil").update(status("h1", V1State::TaskFinished, 8));
        assert_eq!(at(&evil_door, None).call(&theft).unwrap().status, 400);
        assert_eq!(node.coordinator.states("h1"), [TaskState::TaskRunning]);
        let own = me("evil").update(status("e1", V1State::TaskFinished, 7));
        assert_eq!(
            at(&api, evil_token)
                .post(&encode(Encoding::Protobuf, &own), &[("Host", "127.0.0.1")],)
                .unwrap()
                .status,
            202
        );
        node.coordinator.terminal("e1").await;

        nothing_leaks(&node, [&token, evil_token.unwrap()], [&api, endpoint]).await;
    });
}

/// Neither the secret nor a token is in the log; and a task has the API no nearer than before.
async fn nothing_leaks(node: &Node, tokens: [&str; 2], [api, endpoint]: [&str; 2]) {
    let log = std::fs::read_to_string(node.log()).unwrap();
    assert!(tokens.iter().all(|token| !log.contains(token)));
    let key = std::fs::read(node.data().join("executor.key")).unwrap();
    assert_eq!(key.len(), 32);
    let probe = format!(
        "for port in {api} {endpoint}; do perl -MIO::Socket::INET -e \
         '$s=IO::Socket::INET->new(PeerAddr=>$ARGV[0],PeerPort=>$ARGV[1]);print $s?\"open\\n\":\"shut\\n\"' \
         ${{port%:*}} ${{port#*:}}; done"
    );
    node.coordinator
        .launch(crate::coordinator::shell("probe", &probe));
    let done = node.coordinator.terminal("probe").await;
    node.holds(&format!("{}/stdout", done.sandbox), "shut\nopen\n")
        .await;
}

/// Many messages, many updates that nobody acknowledges, one who does not read, calls that are too
/// long: memory stays bounded, others are served, and what counts is not lost.
pub(crate) fn floods_are_bounded() {
    run(async {
        let node = Node::start().await;
        let door = puppet(&node, "flood", &[task("f1", ""), task("f2", "")]).await;
        let (agent, name) = (Agent::at(&door, Encoding::Protobuf), me("flood"));
        let mut stream = subscribed(&agent, &name, &[]);
        assert_eq!(kinds(&mut stream, 2), ["LAUNCH"; 2]);

        // A call that is too long, and one whose records never end.
        let huge = name.message(vec![0; (1 << 20) + 1]);
        assert_eq!(agent.call(&huge).unwrap().status, 413);
        let body = vec![b' '; 5 << 20];
        match agent.post(&body, &[]) {
            Ok(reply) => assert_eq!(reply.status, 413),
            // Refused before it was read to the end.
            Err(error) => println!("{error}"),
        }

        updates_of_nobodys_interest(&node, (&agent, &name), &mut stream);
        // One who does not read is cut off; others are served meanwhile.
        let told = ExecutorMessage {
            framework_id: "fw".into(),
            executor_id: "flood".into(),
            data: vec![7; 64 << 10],
        };
        for _ in 0..800 {
            node.coordinator
                .say(to_agent::Kind::ExecutorMessage(told.clone()));
        }
        node.coordinator
            .until("the end of the stream", |_| {
                let beat = name.message(b"x".to_vec());
                (agent.call(&beat).unwrap().status == 403).then_some(())
            })
            .await;
        let mut read = 0;
        while stream.next().is_some() {
            read += 1;
        }
        assert!(read < 800, "{read}");

        // Back again, it is served as before; its framework too.
        let mut stream = subscribed(&agent, &name, &["f2"]);
        let last = ExecutorMessage {
            data: b"last".to_vec(),
            ..told
        };
        node.coordinator
            .say(to_agent::Kind::ExecutorMessage(last.clone()));
        while stream.next().unwrap().message.unwrap().data != last.data {}
        node.coordinator.heard.lock().unwrap().deaf = false;
        messages_in_a_row(&agent, &name, 5_000);
        let running = name.update(status("f2", V1State::TaskRunning, 5));
        assert_eq!(agent.call(&running).unwrap().status, 202);
        assert_eq!(kinds(&mut stream, 1), ["ACKNOWLEDGED"]);
        node.coordinator.update("f2", TaskState::TaskRunning).await;
        let memory = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
        let peak = memory
            .lines()
            .find(|line| line.starts_with("VmHWM"))
            .unwrap();
        let peak_kib: u64 = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!(peak_kib < 300 << 10, "{peak}");
        let registers = node.coordinator.heard.lock().unwrap().registers.len();
        assert_eq!(
            registers, 1,
            "the flood did not cost the agent its coordinator"
        );
    });
}

/// The framework is away: what waits is bounded, and the last word always gets in.
fn updates_of_nobodys_interest(node: &Node, (agent, name): (&Agent, &Name), stream: &mut Reply) {
    node.coordinator.heard.lock().unwrap().deaf = true;
    let mut full = 0;
    for n in 0..100_u128 {
        let update = name.update(status("f1", V1State::TaskRunning, n));
        let code = agent.call(&update).unwrap().status;
        full += usize::from(code == 503);
        assert_eq!(code, if n < 64 { 202 } else { 503 }, "{n}");
    }
    assert_eq!(full, 36);
    let last = name.update(status("f1", V1State::TaskFinished, 1_000));
    assert_eq!(agent.call(&last).unwrap().status, 202);
    assert_eq!(kinds(stream, 65), ["ACKNOWLEDGED"; 65]);
}

/// Over one connection, as fast as the agent answers.
fn messages_in_a_row(agent: &Agent, name: &Name, count: usize) {
    use std::io::Read as _;

    let body = encode(Encoding::Protobuf, &name.message(b"m".to_vec()));
    let request = agent.request(&body, &[]);
    let mut wire = agent.connect().unwrap();
    let mut buffer = [0; 4_096];
    for _ in 0..count {
        wire.write_all(&request).unwrap();
        let length = wire.read(&mut buffer).unwrap();
        assert!(buffer[..length].starts_with(b"HTTP/1.1 202"));
    }
}
