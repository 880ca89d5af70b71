//! One task at a time: running, ending, being killed, its limits, and a clean stop.

use gantry_wire::agent::{HostVolume, Launch, PortMapping, ResourcesMessage};
use gantry_wire::task::{Reason, TaskState};
use rustix::process::Signal;

use crate::agent::{Node, run};
use crate::coordinator::{shell, state};

/// What the task of `a_native_task_runs_to_its_end` left, by every way to read it.
async fn files_and_state(node: &Node, sandbox: &str) {
    let stdout = node.read(&format!("{sandbox}/stdout")).await;
    for line in [
        "out",
        "MESOS_TASK_ID=t1",
        "MESOS_SANDBOX=/mnt/mesos/sandbox",
        "FROM=scheduler",
        "MESOS_FRAMEWORK_ID=fw",
        "/mnt/mesos/sandbox",
    ] {
        assert!(stdout.lines().any(|l| l == line), "{line} in {stdout}");
    }
    let virtual_path = "/frameworks/fw/executors/t1/runs/latest";
    assert_eq!(node.read(&format!("{virtual_path}/stderr")).await, "err\n");
    assert_eq!(
        node.read(&format!("{virtual_path}/own")).await,
        "scheduler\n"
    );
    let url = node.url(&format!("/files/browse?path={virtual_path}"));
    let listing = reqwest::get(url).await.unwrap().text().await.unwrap();
    assert!(listing.contains(r#""path":"/frameworks/fw/executors/t1/runs/latest/own""#));
    let url = node.url(&format!("/files/download?path={virtual_path}/own"));
    assert_eq!(
        reqwest::get(url).await.unwrap().text().await.unwrap(),
        "scheduler\n"
    );
    let state = reqwest::get(node.url("/state"))
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(state.contains(r#""id":"S0""#), "{state}");
    let metrics = reqwest::get(node.url("/metrics/snapshot")).await.unwrap();
    assert!(
        metrics
            .text()
            .await
            .unwrap()
            .contains(r#""slave/registered":1.0"#)
    );
}

pub(crate) fn a_native_task_runs_to_its_end() {
    run(async {
        let mut node = Node::start().await;
        let mut launch = shell(
            "t1",
            "echo out; echo err >&2; env; pwd; echo $FROM > own; exit 0",
        );
        launch.env.insert("FROM".into(), "scheduler".into());
        let host = node.beside("host");
        launch.volumes = vec![HostVolume {
            host_path: host.to_string_lossy().into_owned(),
            container_path: "/volume".into(),
            read_only: true,
        }];
        node.coordinator.launch(launch.clone());
        node.coordinator.launch(launch.clone());
        let end = node.coordinator.terminal("t1").await;
        assert_eq!(
            node.coordinator.states("t1"),
            [
                TaskState::TaskStarting,
                TaskState::TaskRunning,
                TaskState::TaskFinished
            ]
        );
        assert_eq!(
            (end.exit_code, end.message.as_str()),
            (Some(0), "Command exited with status 0")
        );
        let running = node.coordinator.update("t1", TaskState::TaskRunning).await;
        assert!(running.pid > 0 && running.container_id == end.container_id);

        files_and_state(&node, &end.sandbox).await;

        // Over and acknowledged: the checkpoint goes, and a launch that comes again is old news.
        let checkpoint = node.data().join("tasks/t1.json");
        node.coordinator
            .until("the checkpoint to go", |_| {
                (!checkpoint.exists()).then_some(())
            })
            .await;
        node.coordinator.launch(launch.clone());
        node.kill_9();
        node.start_agent().await;
        node.coordinator.launch(launch);
        node.coordinator.launch(shell("t2", "true"));
        node.coordinator.terminal("t2").await;
        assert_eq!(node.coordinator.states("t1").len(), 3, "not run again");
    });
}

type Ending = (Launch, Reason, &'static str);

fn arg(task: &str, args: &[&str]) -> Launch {
    let args = args.iter().map(|&arg| arg.to_owned()).collect();
    Launch {
        args,
        shell: String::new(),
        ..shell(task, "")
    }
}

fn command_endings() -> Vec<Ending> {
    let command = Reason::ReasonCommandExecutorFailed;
    vec![
        (
            shell("exit3", "exit 3"),
            command,
            "Command exited with status 3",
        ),
        (shell("segv", "kill -SEGV $$"), command, "SIGSEGV"),
        (
            shell("shell127", "no-such-command"),
            command,
            "Command exited with status 127",
        ),
    ]
}

fn launch_failures(taken: u32) -> Vec<Ending> {
    let port = PortMapping {
        host_port: taken,
        ..PortMapping::default()
    };
    let volume = |task: &str, host: &str| {
        let (host_path, container_path) = (host.into(), "v".into());
        let volumes = vec![HostVolume {
            host_path,
            container_path,
            read_only: true,
        }];
        Launch {
            volumes,
            ..shell(task, "true")
        }
    };
    let image = |task: &str, image: &str| Launch {
        image: image.into(),
        ..shell(task, "true")
    };
    let in_use = Launch {
        ports: vec![port],
        ..shell("port", "true")
    };
    let nobody = Launch {
        user: "nobody-here".into(),
        ..shell("user", "true")
    };
    [
        (arg("missing", &["/no/such/command"]), "/no/such/command"),
        (arg("nothing", &[]), "neither a command nor arguments"),
        (in_use, "is already in use on this node"),
        (volume("rel", "rel"), "not absolute"),
        (
            volume("dir", "/no/dir"),
            "'/no/dir' of a volume cannot be used",
        ),
        (nobody, "nobody-here"),
        (image("name", "a b"), "a b"),
        (image("registry", "localhost:1/none"), "localhost:1/none"),
    ]
    .map(|(launch, words)| (launch, Reason::ReasonContainerLaunchFailed, words))
    .to_vec()
}

pub(crate) fn endings_say_why() {
    run(async {
        let node = Node::start().await;
        let held = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let taken = u32::from(held.local_addr().unwrap().port());
        for (launch, reason, words) in command_endings().into_iter().chain(launch_failures(taken)) {
            let task = launch.task_id.clone();
            node.coordinator.launch(launch);
            let end = node.coordinator.terminal(&task).await;
            assert_eq!(state(&end), TaskState::TaskFailed, "{task}: {end:?}");
            assert_eq!(end.reason, Some(reason as i32), "{task}: {end:?}");
            assert!(end.message.contains(words), "{task}: {}", end.message);
        }
        node.coordinator.launch(Launch {
            task_id: "../x".into(),
            ..shell("", "true")
        });
        let end = node
            .coordinator
            .until("refusal", |h| h.updates.get("../x")?.first().cloned())
            .await;
        assert_eq!(state(&end), TaskState::TaskError);
    });
}

pub(crate) fn kills() {
    run(async {
        let node = Node::start().await;
        let c = &node.coordinator;
        let forever = "while :; do sleep 0.1; done";
        let polite = format!("trap 'echo bye; exit 0' TERM; echo up; {forever}");
        node.armed("polite", &polite).await;
        c.kill("polite", 10_000);
        let end = c.terminal("polite").await;
        assert_eq!(
            (state(&end), end.exit_code),
            (TaskState::TaskKilled, Some(0)),
            "{end:?}"
        );
        assert_eq!(
            node.read(&format!("{}/stdout", end.sandbox)).await,
            "up\nbye\n"
        );

        let deaf = format!("trap '' TERM; echo up; {forever}");
        node.armed("deaf", &deaf).await;
        c.kill("deaf", 300);
        let end = c.terminal("deaf").await;
        assert_eq!(
            (state(&end), end.exit_code),
            (TaskState::TaskKilled, Some(137)),
            "{end:?}"
        );

        // A second kill brings the end forward.
        node.armed("slow", &deaf).await;
        c.kill("slow", 3_600_000);
        c.kill("slow", 100);
        assert_eq!(state(&c.terminal("slow").await), TaskState::TaskKilled);

        // Everything the command started goes with it.
        c.launch(shell("family", "setsid sleep 7777 & sleep 7777"));
        c.update("family", TaskState::TaskRunning).await;
        c.kill("family", 5_000);
        c.terminal("family").await;

        // Before it was started, and before it was even launched.
        c.launch(shell("early", "sleep 1000"));
        c.kill("early", 0);
        assert_eq!(state(&c.terminal("early").await), TaskState::TaskKilled);
        c.kill("never", 0);
        assert_eq!(state(&c.terminal("never").await), TaskState::TaskKilled);
        c.launch(shell("never", "true"));
        c.launch(shell("after", "true"));
        c.terminal("after").await;
        assert_eq!(c.states("never").len(), 1);
    });
}

pub(crate) fn limits_are_enforced() {
    run(async {
        let node = Node::start().await;
        let c = &node.coordinator;
        let mut hungry = shell("hungry", "exec tail /dev/zero");
        hungry.resources = Some(ResourcesMessage {
            cpus_milli: 1_000,
            mem_bytes: 32 << 20,
            ..ResourcesMessage::default()
        });
        c.launch(hungry);
        let end = c.terminal("hungry").await;
        assert_eq!(
            end.reason,
            Some(Reason::ReasonContainerLimitationMemory as i32),
            "{end:?}"
        );
        assert!(end.message.starts_with("Memory limit exceeded"), "{end:?}");

        c.launch(shell("view", "id -u; hostname; ps ax | wc -l; ls -A /root; ls /tmp; grep NoNewPrivs /proc/self/status"));
        let end = c.terminal("view").await;
        let seen = node.read(&format!("{}/stdout", end.sandbox)).await;
        assert!(
            seen.starts_with("0\n") && seen.contains("NoNewPrivs:\t1"),
            "{seen}"
        );
        // The agent's own directory is covered.
        let tasks = node.data().join("tasks");
        c.launch(shell(
            "nosy",
            &format!("ls {} || echo hidden", tasks.display()),
        ));
        let end = c.terminal("nosy").await;
        let seen = node.read(&format!("{}/stdout", end.sandbox)).await;
        assert_eq!(seen, "hidden\n");
        c.launch(Launch {
            user: "nobody".into(),
            ..shell("user", "id -un; touch mine && echo ok")
        });
        let end = c.terminal("user").await;
        let seen = node.read(&format!("{}/stdout", end.sandbox)).await;
        assert_eq!(seen, "nobody\nok\n");
    });
}

pub(crate) fn stopping_leaves_nothing() {
    run(async {
        let mut node = Node::start().await;
        for n in 0..5 {
            node.coordinator
                .launch(shell(&format!("t{n}"), "trap '' TERM; sleep 1000"));
        }
        for n in 0..5 {
            node.coordinator
                .update(&format!("t{n}"), TaskState::TaskRunning)
                .await;
        }
        assert!(node.keeper().is_some() && !node.cgroups().is_empty());
        assert!(
            node.end(Signal::TERM),
            "the agent says that it left nothing"
        );
        for n in 0..5 {
            let end = node.coordinator.terminal(&format!("t{n}")).await;
            assert_eq!(state(&end), TaskState::TaskKilled);
        }
        assert_eq!(node.keeper(), None);
        assert_eq!(node.cgroups(), Vec::<std::path::PathBuf>::new());
        assert_eq!(node.mounts(), Vec::<String>::new());
        let left = std::fs::read_dir(node.data().join("containers"))
            .unwrap()
            .count();
        assert_eq!(left, 0);
        assert_eq!(
            std::fs::read_dir(node.data().join("tasks"))
                .unwrap()
                .count(),
            0
        );
    });
}

pub(crate) fn no_volume_shows_the_nodes_own_data() {
    run(async {
        let node = Node::start().await;
        let host = node.beside("host");
        std::fs::write(host.join("f"), "").unwrap();
        let link = host.join("link");
        std::os::unix::fs::symlink(node.data(), &link).unwrap();
        let with = |task: &str, host_path: &std::path::Path, script: &str| Launch {
            volumes: vec![HostVolume {
                host_path: host_path.to_string_lossy().into_owned(),
                container_path: "/v".into(),
                read_only: false,
            }],
            ..shell(task, script)
        };
        let (data, c) = (node.data(), &node.coordinator);
        for (task, path) in [
            ("same", &data),
            ("below", &data.join("tasks")),
            ("linked", &link),
        ] {
            c.launch(with(task, path, "true"));
            let end = c.terminal(task).await;
            assert_eq!(state(&end), TaskState::TaskFailed, "{end:?}");
            let words = "lies in this node's own data, which no task may see";
            assert!(end.message.contains(words), "{end:?}");
        }
        // Above it, everything is there but the data; the way through the link is covered as well.
        let above = data.parent().unwrap();
        let within = data.strip_prefix(std::path::Path::new("/")).unwrap();
        for (task, source, dir) in [
            ("parent", above, std::path::Path::new("/v/agent").to_owned()),
            (
                "root",
                std::path::Path::new("/"),
                std::path::Path::new("/v").join(within),
            ),
        ] {
            let dir = dir.display();
            let script = format!(
                "ls -A {dir}; ls {dir}/../host/f && echo beside; ls {dir}/tasks; > {dir}/new; \
                 exit 0"
            );
            c.launch(with(task, source, &script));
            let end = c.terminal(task).await;
            assert_eq!(state(&end), TaskState::TaskFinished, "{end:?}");
            let seen = node.read(&format!("{}/stdout", end.sandbox)).await;
            assert_eq!(seen, format!("{dir}/../host/f\nbeside\n"), "{task}");
            let errors = node.read(&format!("{}/stderr", end.sandbox)).await;
            assert!(errors.contains("Read-only file system"), "{errors}");
        }
    });
}

/// Tasks launched at once.
const MANY: usize = 200;

pub(crate) fn many_at_once() {
    run(async {
        let mut node = Node::start().await;
        let started = std::time::Instant::now();
        for n in 0..MANY {
            node.coordinator.launch(shell(&format!("t{n}"), "exit 0"));
        }
        for n in 0..MANY {
            let end = node.coordinator.terminal(&format!("t{n}")).await;
            assert_eq!(state(&end), TaskState::TaskFinished, "{end:?}");
        }
        println!(
            "{MANY} tasks from launch to FINISHED in {:?}",
            started.elapsed()
        );
        assert!(node.end(Signal::TERM));
        assert_eq!(
            std::fs::read_dir(node.data().join("containers"))
                .unwrap()
                .count(),
            0
        );
        assert_eq!(
            std::fs::read_dir(node.data().join("tasks"))
                .unwrap()
                .count(),
            0
        );
    });
}
