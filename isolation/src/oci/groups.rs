//! The cgroups of one OCI container: a directory in every tree of the host, at the path that the
//! configuration names.
//!
//! Trees are those of `/proc/self/cgroup`: a relative path lies below this process's own group, as
//! runc has it. Files of limits are [`super::limits`]' business. Invariant: a path never climbs, so
//! every directory lies in its tree (crun and runc refuse `..` for the same reason).

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::error::{OciError, call};
use crate::cgroup::{Freezer, kill_group, remove_group};

const ROOT: &str = "/sys/fs/cgroup";

/// One tree of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tree {
    /// Controllers or `name=…`, as `/proc/self/cgroup` writes them; empty for v2.
    pub(super) controllers: String,
    /// Where it is mounted.
    pub(super) mount: PathBuf,
    /// This process's own group.
    own: String,
}

impl Tree {
    /// Name of its directory below `/sys/fs/cgroup`.
    pub(super) fn name(&self) -> String {
        let name = self.mount.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }
}

/// The trees of this host.
pub(super) fn trees() -> Vec<Tree> {
    let text = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let pure = is_v2(Path::new(ROOT));
    text.lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, own) = (parts.next()?, parts.next()?);
            let mount = match controllers {
                "" if pure => PathBuf::from(ROOT),
                "" => Path::new(ROOT).join("unified"),
                named => {
                    let name = named.strip_prefix("name=").unwrap_or(named);
                    Path::new(ROOT).join(name)
                }
            };
            let there = if controllers.is_empty() {
                is_v2(&mount)
            } else {
                mount.is_dir()
            };
            there.then(|| Tree {
                controllers: controllers.to_owned(),
                mount,
                own: own.to_owned(),
            })
        })
        .collect()
}

fn is_v2(path: &Path) -> bool {
    const V2_MAGIC: u64 = 0x6367_7270;
    rustix::fs::statfs(path).is_ok_and(|fs| u64::try_from(fs.f_type) == Ok(V2_MAGIC))
}

/// Whether the v2 tree holds the controllers.
pub(super) fn pure_v2() -> bool {
    is_v2(Path::new(ROOT))
}

/// Where the configuration wants the groups.
pub(super) fn wanted_path(cgroups_path: &str, id: &str, systemd: bool) -> Result<String, OciError> {
    if !systemd {
        let path = if cgroups_path.is_empty() {
            id
        } else {
            cgroups_path
        };
        let climbs = Path::new(path)
            .components()
            .any(|part| matches!(part, Component::ParentDir));
        if climbs {
            return Err(OciError::Refused(format!(
                "cgroupsPath {path:?} must not contain \"..\""
            )));
        }
        return Ok(path.to_owned());
    }
    if !Path::new("/run/systemd/system").is_dir() {
        return Err(OciError::Refused(
            "systemd not running on this host, cannot use systemd cgroups manager".to_owned(),
        ));
    }
    let default = format!("system.slice:gantry:{id}");
    let text = if cgroups_path.is_empty() {
        &default
    } else {
        cgroups_path
    };
    let parts: Vec<&str> = text.split(':').collect();
    let [slice, prefix, name] = parts[..] else {
        return Err(OciError::Refused(format!(
            "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {text:?} instead"
        )));
    };
    if text.contains('/') || text.contains("..") {
        return Err(OciError::Refused(format!("invalid slice name: {text}")));
    }
    let slice = if slice.is_empty() {
        "system.slice"
    } else {
        slice
    };
    Ok(format!("/{}/{prefix}-{name}.scope", expand_slice(slice)))
}

/// `a-b.slice` lies in `a.slice` (systemd.slice(5)).
fn expand_slice(slice: &str) -> String {
    let name = slice.strip_suffix(".slice").unwrap_or(slice);
    if name.is_empty() || name == "-" {
        return String::new();
    }
    let mut path = Vec::new();
    let mut prefix = String::new();
    for part in name.split('-') {
        prefix.push_str(part);
        path.push(format!("{prefix}.slice"));
        prefix.push('-');
    }
    path.join("/")
}

/// The directory in one tree. On v2 a group that holds processes can have no limited ones below it,
/// so a relative path lies beside this process's own group, as runc has it.
fn below(tree: &Tree, path: &str) -> PathBuf {
    if path.starts_with('/') {
        return tree.mount.join(path.trim_start_matches('/'));
    }
    let own = Path::new(tree.own.trim_start_matches('/'));
    let own = if tree.controllers.is_empty() && pure_v2() {
        own.parent().unwrap_or(own)
    } else {
        own
    };
    // A group of an ancestor namespace shows as `/../…`.
    if own.components().any(|part| part == Component::ParentDir) {
        return tree.mount.join(path);
    }
    tree.mount.join(own).join(path)
}

/// A directory of a v1 tree and its open `tasks` file.
pub(super) type Door = (PathBuf, OwnedFd);

/// The directories of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Groups {
    /// Controllers and directory, v2 last if it is beside v1.
    pub(super) dirs: Vec<(String, PathBuf)>,
}

impl Groups {
    /// Where they will be.
    pub(super) fn new(trees: &[Tree], path: &str) -> Self {
        let dirs = trees
            .iter()
            .map(|tree| (tree.controllers.clone(), below(tree, path)))
            .collect();
        Self { dirs }
    }

    /// The directory of a v1 controller, or the v2 one.
    pub(super) fn dir(&self, controller: &str) -> Option<&Path> {
        let named = |list: &str| list.split(',').any(|name| name == controller);
        let found = self.dirs.iter().find(|(list, _)| named(list));
        found.map(|(_, dir)| dir.as_path())
    }

    /// The v2 directory.
    pub(super) fn unified(&self) -> Option<&Path> {
        self.dir("")
    }

    /// Makes the directories. What was made is named so that it can be undone.
    pub(super) fn make(&self) -> Result<(), OciError> {
        for (controllers, dir) in &self.dirs {
            make_dir(controllers, dir).map_err(call(format!("make cgroup {}", dir.display())))?;
        }
        Ok(())
    }

    /// Files of v1 trees that a process moves itself by, and the v2 directory to start it in.
    pub(super) fn doors(&self) -> Result<(Vec<Door>, Option<OwnedFd>), OciError> {
        let open = |path: &Path, flags: OFlags| {
            rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())
                .map_err(call(format!("open cgroup {}", path.display())))
        };
        let (mut doors, mut unified) = (Vec::new(), None);
        for (controllers, dir) in &self.dirs {
            if controllers.is_empty() {
                unified = Some(open(dir, OFlags::PATH | OFlags::DIRECTORY)?);
            } else {
                // `tasks` with "0" moves the writer alone, for which the kernel (5.6) skips the
                // lock that `cgroup.procs` waits a grace period for.
                doors.push((dir.clone(), open(&dir.join("tasks"), OFlags::WRONLY)?));
            }
        }
        Ok((doors, unified))
    }

    /// Removes the directories; goes on after a failure.
    pub(super) fn remove(&self) -> Result<(), OciError> {
        let mut failures = Vec::new();
        for (_, dir) in &self.dirs {
            if let Err(error) = remove_group(dir) {
                failures.push(format!("remove cgroup {}: {error}", dir.display()));
            }
        }
        if failures.is_empty() {
            Ok(())
        } else {
            Err(OciError::Refused(failures.join("; ")))
        }
    }

    /// A directory whose `cgroup.procs` lists every process: the v1 one where the container may
    /// have made groups of its own is as good as any.
    fn tracking(&self) -> Option<&Path> {
        let preferred = self.dir("devices").or_else(|| self.dir("memory"));
        preferred.or_else(|| self.unified())
    }

    /// All processes, those of groups below included.
    pub(super) fn processes(&self) -> Vec<i32> {
        let mut found = Vec::new();
        if let Some(dir) = self.tracking() {
            collect(dir, &mut found, 16);
        }
        found.sort_unstable();
        found
    }

    /// Sends a signal to every process.
    pub(super) fn signal(&self, signo: i32) -> Result<(), OciError> {
        if signo == libc::SIGKILL
            && let Some(dir) = self.unified()
            && kill_group(dir, signo).is_ok()
            && self.processes().is_empty()
        {
            return Ok(());
        }
        for pid in self.processes() {
            match crate::sys::kill(pid, signo) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(errno) => return Err(call(format!("signal process {pid}"))(errno)),
            }
        }
        Ok(())
    }

    /// Whether the processes are frozen.
    pub(super) fn frozen(&self) -> bool {
        let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
        if let Some(dir) = self.dir("freezer") {
            return matches!(
                read(dir.join("freezer.state")).trim(),
                "FROZEN" | "FREEZING"
            );
        }
        let unified = self.unified().filter(|_| pure_v2());
        unified.is_some_and(|dir| read(dir.join("cgroup.freeze")).trim() == "1")
    }

    /// Stops or lets go all processes.
    pub(super) fn freeze(&self, freeze: bool) -> Result<(), OciError> {
        let freezer = if let Some(dir) = self.dir("freezer") {
            // Every process is in there from its start.
            Freezer::V1 {
                dir: dir.to_owned(),
                tracking: dir.to_owned(),
            }
        } else if let Some(dir) = self.unified() {
            Freezer::V2(dir.to_owned())
        } else {
            return Err(OciError::Refused("this host has no freezer".to_owned()));
        };
        if freeze {
            freezer.freeze().map_err(call("freeze the container"))
        } else {
            freezer.thaw().map_err(call("thaw the container"))
        }
    }
}

fn collect(dir: &Path, found: &mut Vec<i32>, depth: usize) {
    let text = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    if depth == 0 {
        return;
    }
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), found, depth - 1);
        }
    }
}

/// Makes one directory and those above it. A v1 cpuset is empty when made, and a process can only
/// enter one that is not; a v2 group has only the controllers that the one above passes on.
fn make_dir(controllers: &str, dir: &Path) -> std::io::Result<()> {
    match std::fs::create_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if let Some(parent) = dir.parent() {
                make_dir(controllers, parent)?;
            }
            std::fs::create_dir(dir)?;
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        done => done?,
    }
    if controllers.split(',').any(|name| name == "cpuset") {
        inherit(dir, "cpuset.cpus")?;
        inherit(dir, "cpuset.mems")?;
    }
    if controllers.is_empty()
        && pure_v2()
        && let Some(parent) = dir.parent()
    {
        pass_on(parent);
    }
    Ok(())
}

fn inherit(dir: &Path, file: &str) -> std::io::Result<()> {
    let own = std::fs::read_to_string(dir.join(file))?;
    if !own.trim().is_empty() {
        return Ok(());
    }
    let parent = dir.parent().unwrap_or(dir);
    let value = std::fs::read_to_string(parent.join(file))?;
    std::fs::write(dir.join(file), value.trim())
}

/// Passes on every controller that can be; a limit that needs another one fails when it is written.
fn pass_on(parent: &Path) {
    let there = std::fs::read_to_string(parent.join("cgroup.controllers")).unwrap_or_default();
    let on = std::fs::read_to_string(parent.join("cgroup.subtree_control")).unwrap_or_default();
    for name in there.split_whitespace() {
        if !on.split_whitespace().any(|other| other == name) {
            let _ = std::fs::write(parent.join("cgroup.subtree_control"), format!("+{name}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_below_their_trees() {
        let tree = |controllers: &str, own: &str| Tree {
            controllers: controllers.to_owned(),
            mount: PathBuf::from("/cg").join(controllers),
            own: own.to_owned(),
        };
        for (own, path, dir) in [
            ("/", "c1", "/cg/memory/c1"),
            ("/a", "c1", "/cg/memory/a/c1"),
            ("/a", "/x/c1", "/cg/memory/x/c1"),
            ("/../a", "c1", "/cg/memory/c1"),
        ] {
            assert_eq!(below(&tree("memory", own), path), Path::new(dir));
        }
        assert!(wanted_path("/a/../../b", "c", false).is_err());
        assert_eq!(wanted_path("", "c", false).unwrap(), "c");
        assert_eq!(expand_slice("a-b.slice"), "a.slice/a-b.slice");
    }
}
