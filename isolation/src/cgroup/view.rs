//! Which of a container's groups it sees at `/sys/fs/cgroup`, and by which names: what language
//! runtimes read to find out how much memory and CPU there is for them.
//!
//! On v2 it is the one group. On v1 it is the five trees in which every container is; those that
//! only some have a group in (`blkio`, `hugetlb`, `devices`) no runtime asks for its size. Pure.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::Hierarchies;

/// What the directory that holds one view for each tree has in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ViewNames {
    /// Names of directories, as the trees' are called on this host.
    pub(crate) dirs: Vec<String>,
    /// Controllers that share a tree: name of the link, and of the directory.
    pub(crate) links: Vec<(String, String)>,
}

fn name(tree: &Path) -> Option<&str> {
    tree.file_name()?.to_str()
}

impl Hierarchies {
    /// Trees of v1 whose groups a container sees, each once.
    pub(super) fn shown(&self) -> BTreeSet<&Path> {
        if self.pure_v2 {
            return BTreeSet::new();
        }
        let trees = [
            &self.cpu,
            &self.cpuacct,
            &self.cpuset,
            &self.memory,
            &self.pids,
        ];
        trees.into_iter().flatten().map(PathBuf::as_path).collect()
    }

    /// The names of their views. A tree of several controllers is called after all of them, and
    /// each finds it by a link, as distributions have it.
    pub(crate) fn view_names(&self) -> ViewNames {
        let mut names = ViewNames::default();
        for dir in self.shown().into_iter().filter_map(name) {
            names.dirs.push(dir.to_owned());
            names.links.extend(links(dir));
        }
        names
    }
}

/// The links to a tree of this name.
pub(crate) fn links(dir: &str) -> impl Iterator<Item = (String, String)> {
    let controllers = dir.split(',').filter(move |controller| *controller != dir);
    controllers.map(move |controller| (controller.to_owned(), dir.to_owned()))
}

/// Names and directories of the groups among `joined` that are shown.
pub(super) fn of(hosts: &Hierarchies, joined: &[PathBuf]) -> Vec<(String, PathBuf)> {
    let in_tree = |tree: &Path| {
        let dir = joined.iter().find(|dir| dir.starts_with(tree))?;
        Some((name(tree)?.to_owned(), dir.clone()))
    };
    hosts.shown().into_iter().filter_map(in_tree).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_of_one_tree_are_links_to_it() {
        let tree = |name: &str| Some(Path::new("/cg").join(name));
        let hosts = Hierarchies {
            cpu: tree("cpu,cpuacct"),
            cpuset: tree("cpuset"),
            memory: tree("memory"),
            pids: tree("pids"),
            devices: tree("devices"),
            ..Hierarchies::default()
        };
        let names = hosts.view_names();
        assert_eq!(names.dirs, ["cpu,cpuacct", "cpuset", "memory", "pids"]);
        let link = |name: &str| (name.to_owned(), "cpu,cpuacct".to_owned());
        assert_eq!(names.links, [link("cpu"), link("cpuacct")]);
        let joined = ["/cg/memory/g/c", "/cg/devices/g", "/cg/cpu,cpuacct/g/c"];
        let shown = of(&hosts, &joined.map(PathBuf::from));
        let want = [("cpu,cpuacct", joined[2]), ("memory", joined[0])];
        assert_eq!(shown, want.map(|(n, d)| (n.to_owned(), PathBuf::from(d))));
        let v2 = Hierarchies {
            pure_v2: true,
            ..hosts
        };
        assert_eq!(v2.view_names(), ViewNames::default());
    }
}
