//! Golden plans: the whole list of steps as a person reads it.

use std::path::PathBuf;

use super::*;
use crate::spec::{
    ContainerId, Files, Limits, Mount, MountKind, Output, RLIM_INFINITY, Resource, Rlimit, Secret,
    TimeOffsets, User,
};

fn host() -> HostFacts {
    let tree = |name: &str| Some(PathBuf::from("/cg").join(name));
    HostFacts {
        hierarchies: Hierarchies {
            unified: tree("unified"),
            cpu: tree("cpu"),
            cpuset: tree("cpuset"),
            memory: tree("memory"),
            pids: tree("pids"),
            devices: tree("devices"),
            ..Hierarchies::default()
        },
        cgroup_top: Rc::default(),
        shared_cgroup_top: None,
        device_program: None,
        cgroup_parent: "gantry-t".to_owned(),
        layer_by_layer: true,
        landlock: Some(7),
        guarded: vec![
            Guard {
                base: GuardBase::Proc,
                path: c("kcore").unwrap(),
                how: GuardHow::MaskFile,
            },
            Guard {
                base: GuardBase::Proc,
                path: c("sys").unwrap(),
                how: GuardHow::ReadOnly,
            },
        ],
    }
}

fn slot() -> Slot {
    Slot {
        dir: "/d/.slots/1".into(),
        fresh: true,
        limit: None,
    }
}

/// With the host's ids.
fn container(
    host: &HostFacts,
    spec: &ContainerSpec,
    slot: &Slot,
    devices: &[Node],
) -> Result<(Plan, Group), PlanError> {
    super::container(host, spec, slot, devices, &Inherited::new(spec, None, None))
}

fn spec(root: Root) -> ContainerSpec {
    let id = ContainerId::try_from("c1").unwrap();
    ContainerSpec::new(id, root, "/d/c1".into(), vec!["true".to_owned()])
}

#[test]
fn without_a_command_there_is_little_to_make() {
    let root = Root::Host {
        hide: vec!["/d".into()],
    };
    let mut spec = ContainerSpec {
        argv: Vec::new(),
        network: Network::New,
        ..spec(root)
    };
    let (plan, _) = container(&host(), &spec, &slot(), &[]).unwrap();
    let text = plan.to_string();
    let steps: Vec<&str> = text
        .lines()
        .filter(|line| !line.contains("cgroup"))
        .collect();
    let golden = [
        "bring loopback up",
        "allow ping and every port",
        "detach from the host's mounts",
        "make the slot /d/.slots/1",
        "mount the root over /",
        "mount tmpfs of 1073741824 bytes at /tmp",
        "mount tmpfs of 1073741824 bytes at /run",
        "hide /d",
        "change the root",
        "set the host name c1",
        "join a session keyring of its own",
        "hold the namespaces",
    ];
    assert_eq!(steps, golden);
    // Nobody would hold them.
    spec.init = false;
    assert!(container(&host(), &spec, &slot(), &[]).is_err());
}

#[test]
fn an_image_with_everything() {
    let mut spec = spec(Root::Layers(vec!["/l/2".into(), "/l/1".into()]));
    spec.sandbox = Some("/s/c1".into());
    spec.user = User::Name("web".to_owned());
    spec.hostname = Some("box".to_owned());
    spec.network = Network::Namespace;
    spec.limits = Limits {
        cpu_shares: Some(102),
        cpu_quota_us: Some(10_000),
        memory_bytes: Some(33_554_432),
        pids_max: Some(64),
        ..Limits::default()
    };
    spec.mounts = vec![Mount {
        target: "/data".into(),
        read_only: true,
        kind: MountKind::Bind {
            source: "/h".into(),
            cover: vec!["/h/gantry".into(), "/h/a/b".into()],
            recursive: true,
        },
    }];
    spec.files = Files {
        hosts: Some("127.0.0.1 localhost\n".to_owned()),
        resolv_conf: None,
    };
    let (plan, _) = container(&host(), &spec, &slot(), &[]).unwrap();
    let golden = "\
make cgroup /cg/cpu/gantry-t/c1
make cgroup /cg/memory/gantry-t/c1
make cgroup /cg/pids/gantry-t/c1
enter the network namespace
detach from the host's mounts
make the slot /d/.slots/1
mount the root over /l/2:/l/1
write /etc/hosts
mount /s/c1 at /mnt/mesos/sandbox
mount /h at /data, read-only
cover /h/gantry in the volume
cover /h/a/b in the volume
mount /proc
mount /sys
mount its own cgroups cpu cpuset memory pids
mount /dev
protect /proc/sys
mask /proc/kcore
open the working directory /mnt/mesos/sandbox
find user web in the container
give the streams to the user
set /cg/cpu/gantry-t/c1/cpu.shares to 102
set /cg/cpu/gantry-t/c1/cpu.cfs_quota_us to 10000
set /cg/memory/gantry-t/c1/memory.limit_in_bytes to 33554432
set /cg/pids/gantry-t/c1/pids.max to 64
join cgroup /cg/cpu/gantry-t/c1/tasks
join cgroup /cg/memory/gantry-t/c1/tasks
join cgroup /cg/pids/gantry-t/c1/tasks
join cgroup /cg/cpuset/gantry-t-cpuset/tasks
join cgroup /cg/devices/gantry-t/tasks
make the cgroup namespace
change the root
set the host name box
join a session keyring of its own
fork from the init
drop privileges to 0xa80405fb
allow no new privileges
exec true
";
    assert_eq!(plan.to_string(), golden);
}

#[test]
fn users_of_its_own_are_entered_when_the_hosts_root_is_no_longer_needed() {
    let mut spec = spec(Root::Layers(vec![
        "/l/2".into(),
        "/m/3".into(),
        "/l/1".into(),
        "/".into(),
    ]));
    spec.network = Network::New;
    spec.namespaces.time = Some(TimeOffsets::default());
    spec.oom_score_adj = Some(500);
    spec.rlimits = vec![Rlimit {
        resource: Resource::Nofile,
        soft: 64,
        hard: RLIM_INFINITY,
    }];
    spec.groups = vec![7, 8];
    spec.terminal = true;
    spec.output = Output::files("/out", 0, 0);
    let inherited = Inherited::new(&spec, Some(1_048_576), None);
    let (plan, _) = super::container(&host(), &spec, &slot(), &[], &inherited).unwrap();
    let text = plan.to_string();
    let golden_start = "\
make cgroup /cg/cpu/gantry-t/c1
make cgroup /cg/memory/gantry-t/c1
make cgroup /cg/pids/gantry-t/c1
bring loopback up
allow ping and every port
make the time namespace
set oom_score_adj to 500
detach from the host's mounts
make the slot /d/.slots/1
map the ids of /
map the ids of /l
map the ids of /m/3
map the ids of the slot
make files as user 1048576 of the host
mount the root over /l/2:/m/3:/l/1:/proc/self/fd/8
mount /proc
";
    assert!(text.starts_with(golden_start), "{text}");
    let golden_end = "\
make the terminal
open the working directory /
add groups [7, 8]
give the streams to the user
make files as root of the host
join cgroup /cg/cpu/gantry-t/c1/tasks
";
    assert!(text.contains(golden_end), "{text}");
    let golden_last = "\
join a session keyring of its own
fork from the init
take the terminal
set RLIMIT_NOFILE to 64:unlimited
enter the user namespace
drop privileges to 0xa80405fb
allow no new privileges
exec true
";
    assert!(text.ends_with(golden_last), "{text}");
}

#[test]
fn a_native_command_sees_the_host_without_our_data() {
    let mut spec = spec(Root::Host {
        hide: vec!["/var/gantry".into()],
    });
    spec.init = false;
    let (plan, _) = container(&host(), &spec, &slot(), &[]).unwrap();
    let text = plan.to_string();
    let from = text.find("detach from").unwrap();
    let to = text.find("mount /proc").unwrap();
    let golden = "\
detach from the host's mounts
make the slot /d/.slots/1
mount the root over /
mount tmpfs of 1073741824 bytes at /tmp
mount tmpfs of 1073741824 bytes at /run
hide /var/gantry
";
    assert_eq!(&text[from..to], golden);
    assert!(text.ends_with(
        "join a session keyring of its own\ndrop privileges to 0xa80405fb\nallow no new privileges\nexec true\n"
    ));
}

#[test]
fn without_a_device_controller_no_node_can_be_made() {
    let hosts = HostFacts {
        hierarchies: Hierarchies {
            unified: Some("/cg".into()),
            pure_v2: true,
            ..Hierarchies::default()
        },
        ..host()
    };
    let (plan, group) =
        container(&hosts, &spec(Root::Layers(vec!["/l".into()])), &slot(), &[]).unwrap();
    let text = plan.to_string();
    assert!(text.contains("drop privileges to 0xa00405fb"));
    assert!(
        text.contains("mount /sys\nmount its own cgroups\nmount /dev"),
        "{text}"
    );
    assert!(group.join.is_empty());
}

#[test]
fn the_image_cannot_choose_what_our_own_mounts_cover() {
    let (plan, _) = container(
        &host(),
        &spec(Root::Layers(vec!["/l".into()])),
        &slot(),
        &[],
    )
    .unwrap();
    let text = plan.to_string();
    let at = |what: &str| text.find(what).unwrap();
    assert!(at("mount the root") < at("mount /proc"));
    assert!(at("open the working directory") < at("change the root"));
    let mut bad = spec(Root::Layers(vec!["/l".into()]));
    for target in ["/proc/sys", "/dev", "/", "/a/../proc", "relative"] {
        bad.mounts = vec![Mount::bind("/h", target, false)];
        assert!(container(&host(), &bad, &slot(), &[]).is_err(), "{target}");
    }
}

#[test]
fn an_older_kernel_gets_all_layers_in_one_text() {
    let hosts = HostFacts {
        layer_by_layer: false,
        ..host()
    };
    let (plan, _) = container(
        &hosts,
        &spec(Root::Layers(vec!["/b".into(), "/a".into()])),
        &slot(),
        &[],
    )
    .unwrap();
    let text = c("lowerdir=/b:/a,upperdir=upper,workdir=work").unwrap();
    assert!(plan.steps.iter().any(
        |step| matches!(step, Step::Overlay { options: Some(options), .. } if *options == text)
    ));
    assert!(
        container(
            &hosts,
            &spec(Root::Layers(vec!["/a,b".into()])),
            &slot(),
            &[]
        )
        .is_err()
    );
}

#[test]
fn every_kind_of_mount_is_a_step_and_a_secret_is_never_shown() {
    let mut spec = spec(Root::Layers(vec!["/l".into()]));
    let mount = |target: &str, read_only, kind| Mount {
        target: target.into(),
        read_only,
        kind,
    };
    let secret = |content: &str| MountKind::Secret {
        content: Secret::new(content.as_bytes().to_vec()),
    };
    let image = |layers: &[&str]| MountKind::Image {
        layers: layers.iter().map(PathBuf::from).collect(),
    };
    let tmpfs = MountKind::Tmpfs {
        bytes: 4096,
        mode: 0o1777,
    };
    spec.mounts = vec![
        mount("/scratch", false, tmpfs),
        mount("/key", false, secret("hunter2")),
        mount("/one", false, image(&["/i/1"])),
        mount("/two", false, image(&["/i/2", "/i/1"])),
        mount("/other key", false, secret("swordfish")),
    ];
    spec.user = User::Name("web".to_owned());
    spec.read_only_root = true;
    spec.masked_paths = Some(vec!["/proc/keys".into(), "/data/x".into()]);
    spec.read_only_paths = Some(vec!["/etc".into()]);
    let (plan, _) = container(&host(), &spec, &slot(), &[]).unwrap();
    let text = plan.to_string();
    let from = text.find("mount tmpfs").unwrap();
    let to = text.find("join cgroup").unwrap();
    let golden = "\
mount tmpfs of 4096 bytes at /scratch
make 8192 bytes for secrets
mount a secret at /key
mount /i/1 at /one, read-only
mount the layers /i/2:/i/1 at /two, read-only
mount a secret at /other key
mount /proc
mount /sys
mount its own cgroups cpu cpuset memory pids
mount /dev
protect /etc
mask /proc/keys
mask /data/x
open the working directory /
find user web in the container
give the secrets to the user
make the root read-only
give the streams to the user
";
    assert_eq!(&text[from..to], golden);
    let debug = format!("{plan:?} {spec:?}");
    assert!(!debug.contains("hunter2") && !debug.contains("swordfish"));
    assert!(!debug.contains(&format!("{:?}", b"hunter2")));
}

#[test]
fn a_limited_slot_and_devices_are_steps_of_their_own() {
    let mut spec = spec(Root::Layers(vec!["/l".into()]));
    spec.shm_bytes = Some(1 << 20);
    let node = Node {
        target: "/dev/deep/er/x".into(),
        kind: rustix::fs::FileType::CharacterDevice,
        major: 10,
        minor: 237,
        access: crate::spec::Access::try_from("r".to_owned()).unwrap(),
    };
    let slot = Slot {
        dir: "/d/.slots/limited-2".into(),
        fresh: true,
        limit: Some(RootLimit::Bytes(4096)),
    };
    let (plan, group) = container(&host(), &spec, &slot, &[node]).unwrap();
    let text = plan.to_string();
    let (from, to) = (text.find("make the slot"), text.find("protect /proc"));
    let golden = "\
make the slot /d/.slots/limited-2 for 4096 bytes
mount the root over /l
mount /proc
mount /sys
mount its own cgroups cpu cpuset memory pids
mount /dev
make the device /dev/deep/er/x
";
    assert_eq!(&text[from.unwrap()..to.unwrap()], golden);
    let shm = c("1048576").unwrap();
    let sized = |step: &Step| matches!(step, Step::Dev { shm: size, .. } if *size == shm);
    assert!(plan.steps.iter().any(sized));
    let own = |(_, setting): &(PathBuf, crate::cgroup::Setting)| setting.value == "c 10:237 r";
    assert!(group.settings.iter().any(own));
}

#[test]
fn what_would_mean_no_limit_or_too_much_is_refused() {
    let mut spec = spec(Root::Layers(vec!["/l".into()]));
    let kinds = [
        MountKind::Tmpfs { bytes: 0, mode: 0 },
        MountKind::Tmpfs {
            bytes: 1,
            mode: 0o4755,
        },
        MountKind::Secret {
            content: Secret::new(vec![0; crate::spec::MAX_SECRET_BYTES + 1]),
        },
        MountKind::Image { layers: Vec::new() },
    ];
    for kind in kinds {
        spec.mounts = vec![Mount {
            target: "/x".into(),
            read_only: false,
            kind,
        }];
        assert!(spec.check().is_err(), "{:?}", spec.mounts);
    }
    spec.mounts.clear();
    spec.shm_bytes = Some(0);
    assert!(spec.check().is_err());
    spec.shm_bytes = None;
    spec.masked_paths = Some(vec!["/".into()]);
    assert!(spec.check().is_err());
}
