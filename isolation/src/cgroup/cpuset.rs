//! Which CPUs and memory nodes a container may use, as files of the `cpuset` controller.
//!
//! A v1 group has neither when it is new, and nothing can join it before it has both: what is not
//! asked for is that of the group above, which gets its own from the one above it.

use std::path::Path;

use super::Setting;
use crate::spec::Limits;

const CPUS: &str = "cpuset.cpus";
const MEMS: &str = "cpuset.mems";

/// What a v1 group begins with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    cpus: String,
    mems: String,
}

/// Both files, or none when nothing is asked.
pub(super) fn v1(limits: &Limits, above: &Lists) -> Vec<Setting> {
    if limits.cpuset_cpus.is_none() && limits.cpuset_mems.is_none() {
        return Vec::new();
    }
    let cpus = limits.cpuset_cpus.as_ref().unwrap_or(&above.cpus);
    let mems = limits.cpuset_mems.as_ref().unwrap_or(&above.mems);
    vec![
        Setting::new("cpuset_cpus", CPUS, cpus),
        Setting::new("cpuset_mems", MEMS, mems),
    ]
}

pub(super) fn v2(limits: &Limits) -> Vec<Setting> {
    let cpus = limits.cpuset_cpus.as_ref();
    let mems = limits.cpuset_mems.as_ref();
    let cpus = cpus.map(|list| Setting::new("cpuset_cpus", CPUS, list));
    let mems = mems.map(|list| Setting::new("cpuset_mems", MEMS, list));
    cpus.into_iter().chain(mems).collect()
}

/// What the v1 group at `dir` has; nothing where there is none.
pub(super) fn lists(dir: &Path) -> Lists {
    let read = |file: &str| std::fs::read_to_string(dir.join(file)).unwrap_or_default();
    Lists {
        cpus: read(CPUS).trim().to_owned(),
        mems: read(MEMS).trim().to_owned(),
    }
}

/// Gives the v1 group at `dir` what the group above it has, where it has nothing yet.
pub(super) fn inherit(dir: &Path) -> std::io::Result<()> {
    let own = lists(dir);
    let above = dir.parent().map(lists).unwrap_or_default();
    if own.cpus.is_empty() {
        std::fs::write(dir.join(CPUS), above.cpus)?;
    }
    if own.mems.is_empty() {
        std::fs::write(dir.join(MEMS), above.mems)?;
    }
    Ok(())
}

/// Gives the v1 group at `dir` what this process may use: joining it changes nothing.
pub(super) fn stay(tree: &Path, dir: &Path) -> std::io::Result<()> {
    let own = std::fs::read_to_string("/proc/self/cpuset").unwrap_or_default();
    let own = lists(&tree.join(own.trim().trim_start_matches('/')));
    if own.cpus.is_empty() || own.mems.is_empty() {
        // Out of sight, in a cgroup namespace.
        return inherit(dir);
    }
    std::fs::write(dir.join(CPUS), own.cpus)?;
    std::fs::write(dir.join(MEMS), own.mems)
}

#[cfg(test)]
mod tests {
    use super::super::shown;
    use super::*;

    #[test]
    fn v1_always_has_both_lists() {
        let above = Lists {
            cpus: "0-3".to_owned(),
            mems: "0".to_owned(),
        };
        let limits = Limits {
            cpuset_cpus: Some("0-1".to_owned()),
            ..Limits::default()
        };
        assert_eq!(shown(&v1(&limits, &above)), "cpuset.cpus=0-1 cpuset.mems=0");
        assert_eq!(shown(&v2(&limits)), "cpuset.cpus=0-1");
        assert_eq!(v1(&Limits::default(), &above), []);
    }

    #[test]
    fn a_new_group_gets_the_lists_of_the_one_above() {
        let above = tempfile::tempdir().unwrap();
        let dir = above.path().join("g");
        std::fs::create_dir(&dir).unwrap();
        for (file, list) in [(CPUS, "0-3\n"), (MEMS, "0\n")] {
            std::fs::write(above.path().join(file), list).unwrap();
            std::fs::write(dir.join(file), "\n").unwrap();
        }
        std::fs::write(dir.join(MEMS), "1\n").unwrap();
        inherit(&dir).unwrap();
        let found = lists(&dir);
        assert_eq!((found.cpus.as_str(), found.mems.as_str()), ("0-3", "1"));
    }
}
