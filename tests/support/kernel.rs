//! What the kernel holds for one node: cgroups, processes, links, nftables, mounts. Read with the
//! system's own tools and files, not with the code under test.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Runs a program and returns stdout; panics unless it exits 0.
pub fn run(program: &str, args: &[&str]) -> String {
    let out = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert!(
        out.status.success(),
        "{program} {args:?}: {}\n{stderr}",
        out.status
    );
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// The node's tag, read from the cgroup of one of its tasks (`…/gantry-<tag>/…`).
pub fn tag_of(pid: u32) -> String {
    let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("the task runs");
    cgroups
        .split('/')
        .find_map(|part| part.strip_prefix("gantry-"))
        .unwrap_or_else(|| panic!("no gantry cgroup in:\n{cgroups}"))
        .trim()
        .to_owned()
}

/// The namespace of a process, such as `pid:[4026531836]`.
pub fn namespace(pid: &str, kind: &str) -> String {
    let link = std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("a namespace link");
    link.to_string_lossy().into_owned()
}

/// A file of the task's cgroup in the controller's hierarchy.
pub fn cgroup_file(pid: u32, controller: &str, file: &str) -> String {
    let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("the task runs");
    let path = cgroups
        .lines()
        .find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (names, path) = (parts.next()?, parts.next()?);
            names
                .split(',')
                .any(|n| n == controller)
                .then(|| path.to_owned())
        })
        .unwrap_or_else(|| panic!("no {controller} in:\n{cgroups}"));
    let full = format!("/sys/fs/cgroup/{controller}{path}/{file}");
    std::fs::read_to_string(&full)
        .unwrap_or_else(|e| panic!("{full}: {e}"))
        .trim()
        .to_owned()
}

/// Everything that exists for a node, as sorted lines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holdings {
    /// Cgroup directories of containers.
    pub cgroups: BTreeSet<String>,
    /// Links: the bridge and its ports.
    pub links: BTreeSet<String>,
    /// Lines of the node's nftables tables: of its network, and of what keeps tasks from the API.
    pub nft: BTreeSet<String>,
    /// Mounts of the machine below the data directory.
    pub mounts: BTreeSet<String>,
    /// Processes in the node's cgroups, by pid.
    pub processes: BTreeSet<u32>,
}

impl Holdings {
    /// Looks.
    pub fn look(tag: &str, data_dir: &Path) -> Self {
        Self {
            cgroups: cgroups(tag),
            links: links(tag),
            nft: nft_table(&format!("gantry-{tag}"))
                .into_iter()
                .chain(nft_table(&format!("gantry-{tag}-api")))
                .collect(),
            mounts: mounts(data_dir),
            processes: processes(tag),
        }
    }
}

fn cgroups(tag: &str) -> BTreeSet<String> {
    let Ok(hierarchies) = std::fs::read_dir("/sys/fs/cgroup") else {
        return BTreeSet::new();
    };
    let mut found = BTreeSet::new();
    for hierarchy in hierarchies.flatten() {
        let parent = hierarchy.path().join(format!("gantry-{tag}"));
        for child in std::fs::read_dir(parent).into_iter().flatten().flatten() {
            if child.path().is_dir() {
                found.insert(child.path().to_string_lossy().into_owned());
            }
        }
    }
    found
}

fn links(tag: &str) -> BTreeSet<String> {
    let bridge = format!("gantry-{}", &tag[..6]);
    let all: Value = serde_json::from_str(&run("ip", &["-j", "link"])).expect("ip speaks JSON");
    let name = |l: &Value| l["ifname"].as_str().unwrap_or_default().to_owned();
    all.as_array()
        .into_iter()
        .flatten()
        .filter(|l| name(l) == bridge || l["master"] == bridge.as_str())
        .map(name)
        .collect()
}

fn nft_table(name: &str) -> BTreeSet<String> {
    let out = Command::new("nft")
        .args(["list", "table", "ip", name])
        .output()
        .expect("nft starts");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    text.lines()
        .map(|l| l.trim().to_owned())
        .filter(|l| !l.is_empty())
        .collect()
}

fn mounts(data_dir: &Path) -> BTreeSet<String> {
    let dir = data_dir.to_string_lossy().into_owned();
    let info = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    info.lines()
        .filter(|l| l.contains(&dir))
        .map(str::to_owned)
        .collect()
}

fn processes(tag: &str) -> BTreeSet<u32> {
    let needle = format!("/gantry-{tag}/");
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir("/proc").expect("proc").flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let cgroups = std::fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        if cgroups.contains(&needle) {
            found.insert(pid);
        }
    }
    found
}
