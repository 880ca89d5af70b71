//! What is made, written and joined on each kind of host.

use std::collections::{BTreeMap, BTreeSet};

use super::super::DeviceKind;
use super::*;
use crate::spec::{Access, HugePageLimit, IoLimit};

fn tree(name: &str) -> Option<PathBuf> {
    Some(PathBuf::from("/cg").join(name))
}

fn hybrid() -> Hierarchies {
    Hierarchies {
        unified: tree("unified"),
        controllers: BTreeSet::from(["hugetlb".to_owned()]),
        cpu: tree("cpu"),
        cpuset: tree("cpuset"),
        memory: tree("memory"),
        pids: tree("pids"),
        devices: tree("devices"),
        blkio: tree("blkio"),
        huge_pages: BTreeSet::from([2 << 20]),
        ..Hierarchies::default()
    }
}

fn v2() -> Hierarchies {
    let controllers = ["cpu", "memory", "pids", "io"];
    Hierarchies {
        unified: Some(PathBuf::from("/cg")),
        pure_v2: true,
        controllers: controllers.map(ToOwned::to_owned).into(),
        device_programs: true,
        ..Hierarchies::default()
    }
}

fn group(hosts: &Hierarchies, limits: &Limits) -> Group {
    Group::new(hosts, "gantry-x", "c1", limits, &[]).unwrap()
}

fn refusal(hosts: &Hierarchies, limits: &Limits) -> String {
    let refused = Group::new(hosts, "p", "c", limits, &[]).unwrap_err();
    refused.to_string()
}

fn weighed() -> Limits {
    Limits {
        io_weight: Some(100),
        ..Limits::default()
    }
}

const FUSE: DeviceRule = DeviceRule {
    kind: DeviceKind::Char,
    major: Some(10),
    minor: Some(229),
    access: Access {
        read: true,
        write: true,
        make: true,
    },
};

#[test]
fn a_hybrid_group_is_tracked_in_the_unified_tree_and_limited_in_the_others() {
    let limits = Limits {
        memory_bytes: Some(1 << 20),
        ..Limits::default()
    };
    let group = group(&hybrid(), &limits);
    assert_eq!(
        group.unified.as_deref(),
        Some(Path::new("/cg/unified/gantry-x/c1"))
    );
    let made = ["cpu", "memory", "pids"].map(|name| format!("/cg/{name}/gantry-x/c1"));
    assert_eq!(group.make, made.map(PathBuf::from));
    assert_eq!(
        group.join.last().map(PathBuf::as_path),
        Some(Path::new("/cg/devices/gantry-x"))
    );
    assert_eq!(
        group.oom_file.as_deref(),
        Some(Path::new("/cg/memory/gantry-x/c1/memory.oom_control"))
    );
    assert_eq!(group.dirs().len(), 4);
    let shared = PathBuf::from("/cg/cpuset/gantry-x-cpuset");
    assert!(group.join.contains(&shared));
    let shown = group.shown.iter().map(|(name, dir)| (name.as_str(), dir));
    let own = ["cpu", "memory", "pids"].into_iter().zip(&group.make);
    let mut want: Vec<_> = own.chain([("cpuset", &shared)]).collect();
    want.sort_unstable();
    assert_eq!(shown.collect::<Vec<_>>(), want);
    assert_eq!(
        group.freezer,
        Some(Freezer::V2("/cg/unified/gantry-x/c1".into()))
    );
}

#[test]
fn trees_that_few_need_get_a_directory_only_for_them() {
    let limits = Limits {
        cpuset_cpus: Some("0".to_owned()),
        huge_pages: vec![HugePageLimit {
            page_bytes: 2 << 20,
            bytes: 0,
        }],
        ..weighed()
    };
    let group = group(&hybrid(), &limits);
    let others: Vec<&PathBuf> = group
        .make
        .iter()
        .filter(|d| !d.starts_with("/cg/cpu"))
        .collect();
    assert!(others.contains(&&PathBuf::from("/cg/blkio/gantry-x/c1")));
    assert!(group.make.contains(&"/cg/cpuset/gantry-x/c1".into()));
    let cpuset = group
        .join
        .iter()
        .filter(|dir| dir.starts_with("/cg/cpuset"));
    assert_eq!(cpuset.count(), 1);
    assert!(
        group
            .shown
            .contains(&("cpuset".to_owned(), "/cg/cpuset/gantry-x/c1".into()))
    );
    // The only controller of the v2 tree here: the groups above must hand it down.
    let enable = ["/cg/unified/", "/cg/unified/gantry-x/"].map(|dir| {
        (
            PathBuf::from(format!("{dir}cgroup.subtree_control")),
            "+hugetlb".to_owned(),
        )
    });
    assert_eq!(group.enable, enable);
    let (dir, last) = group.settings.last().unwrap();
    assert_eq!(dir, Path::new("/cg/unified/gantry-x/c1"));
    assert_eq!((&*last.file, last.value.as_str()), ("hugetlb.2MB.max", "0"));
}

#[test]
fn controllers_that_share_a_tree_share_the_directory() {
    let hosts = Hierarchies {
        cpu: tree("cpu,cpuset"),
        cpuset: tree("cpu,cpuset"),
        ..Hierarchies::default()
    };
    let limits = Limits {
        cpu_shares: Some(5),
        cpuset_cpus: Some("0".to_owned()),
        ..Limits::default()
    };
    let group = group(&hosts, &limits);
    assert_eq!(group.make.len(), 1);
    assert_eq!(group.join.len(), 1);
    assert_eq!(group.settings.len(), 3);
}

#[test]
fn a_v2_group_has_one_directory() {
    let limits = Limits {
        memory_bytes: Some(4096),
        pids_max: Some(7),
        raw: BTreeMap::from([("memory.oom.group".to_owned(), "1".to_owned())]),
        ..weighed()
    };
    let group = Group::new(&v2(), "p", "c", &limits, &[]).unwrap();
    assert!(group.make.is_empty() && group.join.is_empty());
    let names: Vec<&str> = group.settings.iter().map(|(_, s)| &*s.file).collect();
    assert_eq!(
        names,
        [
            "memory.max",
            "memory.swap.max",
            "pids.max",
            "io.weight",
            "io.bfq.weight",
            "memory.oom.group"
        ]
    );
    let enable = ["/cg/", "/cg/p/"].map(|dir| {
        (
            PathBuf::from(format!("{dir}cgroup.subtree_control")),
            "+io".to_owned(),
        )
    });
    assert_eq!(group.enable, enable);
    assert_eq!(group.dirs(), [PathBuf::from("/cg/p/c")]);
    assert_eq!(group.filter, Some(GroupFilter::Usual));
}

#[test]
fn without_a_memory_limit_nothing_is_read_at_exit() {
    assert_eq!(group(&hybrid(), &Limits::default()).oom_file, None);
}

#[test]
fn what_the_host_lacks_is_refused_by_name() {
    let mut hosts = hybrid();
    hosts.blkio = None;
    let refused = refusal(&hosts, &weighed());
    assert_eq!(
        refused,
        "this host has no cgroup controller blkio (limit io_weight)"
    );
    hosts.blkio = tree("blkio");
    let files = BTreeSet::from(["blkio.throttle.read_bps_device".to_owned()]);
    hosts.files.insert("/cg/blkio".into(), files);
    let refused = refusal(&hosts, &weighed());
    assert_eq!(
        refused,
        "this host's cgroup controller blkio has no file blkio.bfq.weight (limit io_weight)"
    );
    let rates = Limits {
        io_devices: vec![IoLimit {
            read_bytes: Some(1),
            ..IoLimit::default()
        }],
        ..Limits::default()
    };
    assert!(Group::new(&hosts, "p", "c", &rates, &[]).is_ok());
    let limits = Limits {
        cpuset_mems: Some("0".to_owned()),
        ..Limits::default()
    };
    let refused = refusal(&v2(), &limits);
    assert_eq!(
        refused,
        "this host has no cgroup controller cpuset (limit cpuset_mems)"
    );
    let limits = Limits {
        raw: BTreeMap::from([("memory.high".to_owned(), "1".to_owned())]),
        ..Limits::default()
    };
    let refused = refusal(&hosts, &limits);
    assert_eq!(
        refused,
        "this host has no cgroup controller memory in its v2 tree (limit raw)"
    );
    hosts.devices = None;
    assert!(Group::new(&hosts, "p", "c", &Limits::default(), &[]).is_ok());
    let refused = Group::new(&hosts, "p", "c", &Limits::default(), &[FUSE]);
    assert!(refused.unwrap_err().to_string().contains("device programs"));
}

#[test]
fn devices_of_its_own_are_a_group_of_its_own_beside_the_shared_filter() {
    let group = Group::new(&hybrid(), "p", "c", &Limits::default(), &[FUSE]).unwrap();
    let own = PathBuf::from("/cg/devices/p-devices/c");
    assert!(group.make.contains(&own) && group.join.contains(&own));
    assert!(!group.join.contains(&"/cg/devices/p".into()));
    let (dir, last) = group.settings.last().unwrap();
    assert_eq!((dir, last.value.as_str()), (&own, "c 10:229 rwm"));
    let group = Group::new(&v2(), "p", "c", &Limits::default(), &[FUSE]).unwrap();
    let filter = DeviceFilter::with(&[FUSE]);
    assert_eq!(group.filter, Some(GroupFilter::Own(filter)));
}

#[test]
fn a_group_at_any_path_filters_as_told() {
    let path = CgroupPath::new("/a/b").unwrap();
    let open = Group::at(&hybrid(), &path, &Limits::default(), None).unwrap();
    assert!(!open.join.iter().any(|dir| dir.starts_with("/cg/devices")));
    let filter = Some(DeviceFilter::all(false));
    let shut = Group::at(&hybrid(), &path, &weighed(), filter).unwrap();
    assert!(shut.join.contains(&"/cg/devices/a/b".into()));
    assert!(shut.make.contains(&"/cg/blkio/a/b".into()));
}

#[test]
fn what_is_shown_to_others_has_a_directory_in_their_trees_too() {
    let hosts = Hierarchies {
        others: ["cpuset", "cpu", "systemd"]
            .into_iter()
            .filter_map(tree)
            .collect(),
        ..hybrid()
    };
    let path = CgroupPath::new("/a/b").unwrap();
    let group = Group::at(&hosts, &path, &Limits::default(), None).unwrap();
    let made = ["cpu", "memory", "pids", "cpuset", "systemd"];
    assert_eq!(
        group.make,
        made.map(|name| PathBuf::from(format!("/cg/{name}/a/b")))
    );
    assert_eq!(group.join, group.make);
    assert_eq!(group.cpuset, Some("/cg/cpuset/a/b".into()));
}

#[test]
fn raw_files_of_v1_are_those_of_two_controllers() {
    let raw = |file: &str| Limits {
        raw_v1: BTreeMap::from([(file.to_owned(), "1".to_owned())]),
        ..Limits::default()
    };
    let group = group(&hybrid(), &raw("memory.swappiness"));
    let (dir, setting) = group.settings.last().unwrap();
    assert_eq!(
        (dir.to_str(), &*setting.file),
        (Some("/cg/memory/gantry-x/c1"), "memory.swappiness")
    );
    for (hosts, file) in [(hybrid(), "devices.allow"), (v2(), "memory.swappiness")] {
        let refused = refusal(&hosts, &raw(file));
        assert!(refused.contains("of version 1 (limit raw_v1)"), "{refused}");
    }
}

#[test]
fn the_kernel_is_given_one_line_at_a_time() {
    let limits = Limits {
        raw: BTreeMap::from([(
            "io.max".to_owned(),
            "8:0 rbps=1\n\n8:16 rbps=2\n".to_owned(),
        )]),
        ..Limits::default()
    };
    let group = Group::new(&v2(), "p", "c", &limits, &[]).unwrap();
    let values: Vec<&str> = group
        .settings
        .iter()
        .map(|(_, s)| s.value.as_str())
        .collect();
    assert_eq!(values, ["8:0 rbps=1", "8:16 rbps=2"]);
}

#[test]
fn where_only_v1_is_there_the_freezer_is_a_directory_made_later() {
    let hosts = Hierarchies {
        unified: None,
        freezer: tree("freezer"),
        ..hybrid()
    };
    let group = group(&hosts, &Limits::default());
    let dir = PathBuf::from("/cg/freezer/gantry-x/c1");
    assert!(!group.make.contains(&dir));
    assert_eq!(group.dirs().last(), Some(&dir));
    let tracking = "/cg/cpu/gantry-x/c1".into();
    assert_eq!(group.freezer, Some(Freezer::V1 { dir, tracking }));
}
