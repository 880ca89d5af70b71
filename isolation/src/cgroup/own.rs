//! Where this process itself is, as `/proc/self/cgroup` tells: its group in every tree (cgroups(7)).
//!
//! For a runtime whose containers lie below its own groups, and in trees of which the keeper's have no
//! need. Invariant: a group of an ancestor namespace, which shows as `/../…`, counts as the tree's root,
//! so no path leaves its tree.

use std::path::{Component, Path, PathBuf};

use super::Hierarchies;
use super::hierarchies::ROOT;

/// One tree and this process's group in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnTree {
    /// Controllers or `name=…`; empty for v2.
    pub(crate) controllers: String,
    /// Where the tree is mounted.
    pub(crate) mount: PathBuf,
    /// This process's group, below the mount.
    own: PathBuf,
}

impl OwnTree {
    /// Those of a process. `pure_v2` says where the v2 tree is.
    pub(crate) fn all(text: &str, pure_v2: bool) -> Vec<Self> {
        text.lines()
            .filter_map(|line| Self::parse(line, pure_v2))
            .collect()
    }

    fn parse(line: &str, pure_v2: bool) -> Option<Self> {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, own) = (parts.next()?, parts.next()?);
        let root = Path::new(ROOT);
        let mount = match controllers {
            "" if pure_v2 => root.to_owned(),
            "" => root.join("unified"),
            named => root.join(named.strip_prefix("name=").unwrap_or(named)),
        };
        let own = Path::new(own.trim_start_matches('/'));
        let climbs = own.components().any(|part| part == Component::ParentDir);
        let own = if climbs { Path::new("") } else { own };
        // On v2 a group that holds processes can have no limited ones below it, so a container lies
        // beside this process's own, as runc has it.
        let own = match own.parent() {
            Some(parent) if pure_v2 && controllers.is_empty() => parent,
            _ => own,
        };
        Some(Self {
            controllers: controllers.to_owned(),
            mount,
            own: own.to_owned(),
        })
    }

    /// Name of its directory below `/sys/fs/cgroup`.
    pub(crate) fn name(&self) -> String {
        let name = self.mount.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// Whether it has no controller and only tracks.
    pub(crate) fn is_named(&self) -> bool {
        self.controllers.starts_with("name=")
    }

    /// Whether it is of cgroup v1.
    pub(crate) fn is_v1(&self) -> bool {
        !self.controllers.is_empty()
    }
}

impl Hierarchies {
    /// The same trees as seen from this process's own groups: paths are then below those.
    pub(crate) fn below(mut self, own: &[OwnTree]) -> Self {
        let trees = [
            &mut self.unified,
            &mut self.cpu,
            &mut self.cpuacct,
            &mut self.cpuset,
            &mut self.memory,
            &mut self.pids,
            &mut self.devices,
            &mut self.blkio,
            &mut self.hugetlb,
            &mut self.freezer,
        ];
        for tree in trees.into_iter().flatten().chain(&mut self.others) {
            if let Some(found) = own.iter().find(|own| own.mount == *tree) {
                *tree = tree.join(&found.own);
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_below_the_own_group_of_each_tree() {
        let text = "3:name=systemd:/s\n2:memory:/a/b\n1:cpu,cpuacct:/../x\n0::/u\n";
        let own = OwnTree::all(text, false);
        let hosts = Hierarchies {
            unified: Some("/sys/fs/cgroup/unified".into()),
            memory: Some("/sys/fs/cgroup/memory".into()),
            cpu: Some("/sys/fs/cgroup/cpu,cpuacct".into()),
            pids: Some("/sys/fs/cgroup/pids".into()),
            others: vec!["/sys/fs/cgroup/systemd".into()],
            ..Hierarchies::default()
        };
        let below = hosts.below(&own);
        let shown = [&below.unified, &below.memory, &below.cpu, &below.pids];
        let wanted = ["unified/u", "memory/a/b", "cpu,cpuacct", "pids"];
        for (tree, wanted) in shown.into_iter().zip(wanted) {
            assert_eq!(tree.as_deref(), Some(&*Path::new(ROOT).join(wanted)));
        }
        assert_eq!(below.others, [Path::new("/sys/fs/cgroup/systemd/s")]);
        let named: Vec<bool> = own.iter().map(OwnTree::is_named).collect();
        assert_eq!(named, [true, false, false, false]);
    }

    #[test]
    fn on_v2_they_are_beside_it() {
        let own = OwnTree::all("0::/a/b\n", true);
        let hosts = Hierarchies {
            unified: Some(ROOT.into()),
            pure_v2: true,
            ..Hierarchies::default()
        };
        let below = hosts.below(&own).unified;
        assert_eq!(below.as_deref(), Some(&*Path::new(ROOT).join("a")));
    }
}
