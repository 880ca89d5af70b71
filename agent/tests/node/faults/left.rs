//! What is there that should not be: in the kernel and on disk, of the tasks of a node while it goes
//! on, and of a node after its end.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::agent::Node;

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.collect()
}

/// Of tasks, on a node that has none any more.
pub(super) fn of_tasks(node: &Node, port: u32) -> Vec<String> {
    let data = node.data();
    let mut left = Vec::new();
    for dir in ["tasks", "executors", "images/held"] {
        let found = names(&data.join(dir)).into_iter();
        left.extend(found.map(|name| format!("{dir}/{name}")));
    }
    // The keeper's slots stay as long as it does.
    let containers = names(&data.join("containers")).into_iter();
    left.extend(containers.filter(|name| !name.starts_with('.')));
    for parent in node.cgroups() {
        let entries = std::fs::read_dir(&parent).into_iter().flatten().flatten();
        let groups = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        left.extend(groups.map(|group| group.path().to_string_lossy().into_owned()));
    }
    let bridge = format!("gantry-{}", &node.tag()[..6]);
    let links = node.links().into_iter();
    left.extend(links.filter(|link| *link != bridge));
    left.extend(node.mounts());
    if left.is_empty() {
        let rules = output(
            "nft",
            &["list", "table", "ip", &format!("gantry-{}", node.tag())],
        );
        let port = port.to_string();
        left.extend(
            rules
                .lines()
                .filter(|line| line.contains(&port))
                .map(str::to_owned),
        );
    }
    left
}

/// Of a node that has ended with its tasks.
pub(super) fn at_all(node: &Node) -> Vec<String> {
    let data = node.data();
    let mut left = Vec::new();
    for dir in [
        "tasks",
        "executors",
        "containers",
        "images/held",
        "tasks.corrupt",
    ] {
        let found = names(&data.join(dir)).into_iter();
        left.extend(found.map(|name| format!("{dir}/{name}")));
    }
    let tag = format!("gantry-{}", node.tag());
    let root = Path::new("/sys/fs/cgroup");
    for hierarchy in names(root).iter().map(String::as_str).chain([""]) {
        let groups = names(&root.join(hierarchy)).into_iter();
        let own = groups.filter(|group| group.starts_with(&tag));
        left.extend(own.map(|group| format!("cgroup {hierarchy}/{group}")));
    }
    left.extend(node.links());
    left.extend(node.mounts());
    let tables = output("nft", &["list", "tables"]);
    left.extend(
        tables
            .lines()
            .filter(|line| line.contains(&tag))
            .map(str::to_owned),
    );
    left
}

/// Processes of a node that has ended; `born` are some that it had.
pub(super) fn processes(node: &Node, born: &[u32]) -> Vec<String> {
    let mut left = Vec::new();
    left.extend(node.keeper().map(|pid| format!("keeper {pid:?}")));
    for pid in born {
        let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if comm.starts_with("gantry") && !status.contains(") Z ") {
            left.push(format!("process {pid} {}", comm.trim()));
        }
    }
    left
}

/// Every path below a data directory but of sandboxes, which are kept for a while.
pub(super) fn files(data: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut dirs = vec![data.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let below = path
                .strip_prefix(data)
                .unwrap()
                .to_string_lossy()
                .into_owned();
            if below == "slaves" || below == "images/layers" {
                continue;
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                dirs.push(path);
            }
            found.insert(below);
        }
    }
    found
}

fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}
