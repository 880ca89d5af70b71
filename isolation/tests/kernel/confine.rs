//! What a container may call, reach and use: filters of system calls, Landlock, resource limits.

use gantry_isolation::keeper::{Event, ExecSpec, Request};
use gantry_isolation::seccomp::Seccomp;
use gantry_isolation::spec::{ContainerSpec, Ids, Landlock, RLIM_INFINITY, Resource, Rlimit, User};
use gantry_isolation::{caps, spec::ExitStatus};

use crate::node::{Node, id};

/// As root of the host, as one of its own, and as nobody special in both.
fn everyone(node: &Node, script: &str) -> Vec<ContainerSpec> {
    let mut all = Vec::new();
    for (ids, word) in [(Ids::Host, "host"), (Ids::Private, "private")] {
        for uid in [0, 1000] {
            let mut spec = node.shell(&format!("{word}-{uid}"), script);
            spec.ids = ids.clone();
            spec.user = User::Ids { uid, gid: uid };
            all.push(spec);
        }
    }
    all
}

/// `AF_ALG`, which the built-in filter refuses to everyone.
const SOCKET_38: &str = "python3 -c 'import socket; socket.socket(38, 5, 0)' 2>&1 | tail -1; grep Seccomp: /proc/self/status";

#[test]
fn the_built_in_filter_is_there_unless_told_otherwise() {
    let mut node = Node::new();
    for spec in everyone(&node, SOCKET_38) {
        let out = node.run(&spec).stdout;
        assert!(
            out.contains("Operation not permitted"),
            "{}: {out}",
            spec.id
        );
        assert!(out.ends_with("Seccomp:\t2\n"), "{out}");
        let mut free = spec;
        free.seccomp = Seccomp::Unconfined;
        let out = node.run(&free).stdout;
        let last = out.lines().last().unwrap_or_default();
        assert_eq!(last, "Seccomp:\t0", "{out}");
    }
}

#[test]
fn a_profile_is_carried_out_with_and_without_no_new_privileges() {
    let mut node = Node::new();
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]}"#;
    for ids in [Ids::Host, Ids::Private] {
        for no_new_privileges in [true, false] {
            let name = format!("c-{}-{no_new_privileges}", ids == Ids::Host);
            let script = "mkdir /tmp/x; grep -E 'NoNewPrivs|Seccomp:' /proc/self/status";
            let mut spec = node.shell(&name, script);
            spec.ids = ids.clone();
            spec.seccomp = Seccomp::Profile(profile.to_owned());
            spec.no_new_privileges = no_new_privileges;
            let ended = node.run(&spec);
            assert!(ended.stderr.contains("No space left"), "{name}: {ended:?}");
            let flag = u8::from(no_new_privileges);
            assert_eq!(ended.stdout, format!("NoNewPrivs:\t{flag}\nSeccomp:\t2\n"));
        }
    }
    let mut spec = node.shell("bad", "true");
    spec.seccomp = Seccomp::Profile("{".to_owned());
    node.start(&spec);
    let words = node.start_failure("bad");
    assert!(
        words.starts_with("make the system call filter: "),
        "{words}"
    );
}

#[test]
fn a_session_has_the_filter_the_groups_and_the_users_of_its_container() {
    let mut node = Node::new();
    let mut spec = node.native("c1", &["sleep", "1000"]);
    spec.ids = Ids::Private;
    spec.groups = vec![77];
    node.start(&spec);
    node.started("c1");
    let script = format!(
        "{SOCKET_38}; id -u; id -G; cat /proc/self/uid_map; touch /tmp/f; stat -c %u /tmp/f; \
                          stat -c %u:%g .; echo x > /dev/stdout"
    );
    let exec = ExecSpec {
        session: id("s1"),
        id: id("c1"),
        argv: ["sh", "-c", &script].map(str::to_owned).to_vec(),
        env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
        cwd: Some("/made/in/exec".into()),
        user: User::Root,
        tty: false,
        window: None,
        capabilities: caps::default_set(),
    };
    let null = std::fs::File::open("/dev/null").unwrap();
    let (mut read, write) = std::io::pipe().unwrap();
    use std::os::fd::AsFd;
    let request = Request::Exec {
        exec: Box::new(exec),
    };
    let fds = [null.as_fd(), write.as_fd(), write.as_fd()];
    node.client.request(&request, &fds).unwrap();
    drop(write);
    let status = node.wait("the session's end", |event| match event {
        Event::ExecExited { status, .. } => Some(Ok(*status)),
        Event::ExecFailed { step, error, .. } => Some(Err(format!("{step}: {error}"))),
        _ => None,
    });
    let mut text = String::new();
    std::io::Read::read_to_string(&mut read, &mut text).unwrap();
    assert_eq!(status, Ok(ExitStatus::Code(0)), "{text}");
    assert!(
        text.contains("not permitted\nSeccomp:\t2\n0\n0 77\n"),
        "{text}"
    );
    assert!(text.contains(" 65536\n0\n0:0\nx\n"), "{text}");
}

#[test]
fn landlock_leaves_what_is_listed() {
    let mut node = Node::new();
    let script = "cat /etc/passwd > /dev/null && echo read; echo x > /tmp/f && echo wrote; \
                  echo x >> /etc/passwd || echo kept; ls /root || echo hidden";
    for spec in everyone(&node, script) {
        let mut spec = spec;
        let paths = ["/usr", "/lib", "/lib64", "/bin", "/etc", "/proc"];
        spec.landlock = Some(Landlock {
            read_only: paths.map(Into::into).to_vec(),
            read_write: ["/tmp", "/dev/null"].map(Into::into).to_vec(),
        });
        spec.cwd = Some("/tmp".into());
        let ended = node.run(&spec);
        assert_eq!(
            ended.stdout, "read\nwrote\nkept\nhidden\n",
            "{}: {ended:?}",
            spec.id
        );
    }
    let mut spec = node.shell("c2", "true");
    spec.landlock = Some(Landlock {
        read_only: vec!["/nowhere".into()],
        read_write: Vec::new(),
    });
    node.start(&spec);
    let words = "make the Landlock rules for /nowhere (read-only): No such file or directory";
    assert_eq!(node.start_failure("c2"), words);
}

#[test]
fn every_resource_limit_reaches_the_command_and_not_its_init() {
    let mut node = Node::new();
    let current = std::fs::read_to_string("/proc/self/limits").unwrap();
    let hard = |name: &str| -> u64 {
        let line = current.lines().find(|line| line.starts_with(name)).unwrap();
        let text = line[name.len()..].split_whitespace().nth(1).unwrap();
        text.parse().unwrap_or(RLIM_INFINITY)
    };
    let names = [
        (Resource::As, "Max address space"),
        (Resource::Core, "Max core file size"),
        (Resource::Cpu, "Max cpu time"),
        (Resource::Data, "Max data size"),
        (Resource::Fsize, "Max file size"),
        (Resource::Locks, "Max file locks"),
        (Resource::Memlock, "Max locked memory"),
        (Resource::Msgqueue, "Max msgqueue size"),
        (Resource::Nice, "Max nice priority"),
        (Resource::Nofile, "Max open files"),
        (Resource::Nproc, "Max processes"),
        (Resource::Rss, "Max resident set"),
        (Resource::Rtprio, "Max realtime priority"),
        (Resource::Rttime, "Max realtime timeout"),
        (Resource::Sigpending, "Max pending signals"),
        (Resource::Stack, "Max stack size"),
    ];
    assert_eq!(names.len(), Resource::ALL.len());
    // Large enough for a shell, and lower than what there is, which needs no privilege.
    let rlimits: Vec<Rlimit> = names
        .iter()
        .map(|(resource, name)| {
            let hard = hard(name).min(1 << 32);
            let soft = hard - hard / 4;
            Rlimit {
                resource: *resource,
                soft,
                hard,
            }
        })
        .collect();
    for ids in [Ids::Host, Ids::Private] {
        let name = if ids == Ids::Host { "host" } else { "private" };
        let mut spec = node.shell(name, "cat /proc/self/limits; exec sleep 1000");
        spec.ids = ids;
        spec.rlimits = rlimits.clone();
        node.start(&spec);
        let init = node.started(name);
        let out = crate::node::until("the limits", || {
            Some(node.output(name, "stdout")).filter(|out| out.contains("timeout"))
        });
        for (limit, (_, words)) in rlimits.iter().zip(names) {
            let line = out.lines().find(|line| line.starts_with(words)).unwrap();
            let mut values = line[words.len()..]
                .split_whitespace()
                .map(|v| v.parse().unwrap_or(RLIM_INFINITY));
            let pair = (values.find(|_| !line.is_empty()), values.next());
            assert_eq!(pair, (Some(limit.soft), Some(limit.hard)), "{line}");
        }
        let inits = std::fs::read_to_string(format!("/proc/{init}/limits")).unwrap();
        let stack = |text: &str| {
            text.lines()
                .find(|line| line.starts_with("Max stack"))
                .unwrap()
                .to_owned()
        };
        assert_ne!(stack(&inits), stack(&out));
    }
}

#[test]
fn a_raise_that_the_keeper_may_not_make_is_told() {
    let mut node = Node::new();
    let mut spec = node.shell("c1", "true");
    // Even CAP_SYS_RESOURCE does not raise it above fs.nr_open.
    let most = Rlimit {
        resource: Resource::Nofile,
        soft: RLIM_INFINITY,
        hard: RLIM_INFINITY,
    };
    spec.rlimits = vec![most];
    node.start(&spec);
    let words = "set RLIMIT_NOFILE to unlimited:unlimited: Operation not permitted";
    assert_eq!(node.start_failure("c1"), words);
}

#[test]
fn a_score_and_groups_are_the_commands() {
    let mut node = Node::new();
    for ids in [Ids::Host, Ids::Private] {
        let name = if ids == Ids::Host { "host" } else { "private" };
        let mut spec = node.shell(name, "cat /proc/self/oom_score_adj; id -G");
        spec.ids = ids;
        spec.oom_score_adj = Some(123);
        spec.groups = vec![4242, 7];
        assert_eq!(node.run(&spec).stdout, "123\n0 7 4242\n");
    }
}

#[test]
fn without_no_new_privileges_a_set_user_id_program_works() {
    let mut node = Node::new();
    let layer = node.layer("layer");
    std::fs::copy("/usr/bin/id", layer.join("su-id")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o4755);
    std::fs::set_permissions(layer.join("su-id"), mode).unwrap();
    let root = gantry_isolation::spec::Root::Layers(vec![layer, "/".into()]);
    for ids in [Ids::Host, Ids::Private] {
        for (flag, euid) in [(true, "1000"), (false, "0")] {
            let name = format!("c-{}-{flag}", ids == Ids::Host);
            let mut spec = node.spec(&name, root.clone(), &["/su-id", "-u"]);
            spec.ids = ids.clone();
            spec.user = User::Ids {
                uid: 1000,
                gid: 1000,
            };
            spec.no_new_privileges = flag;
            assert_eq!(node.run(&spec).stdout.trim(), euid, "{name}");
        }
    }
}
