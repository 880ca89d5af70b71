//! Directories of tasks: made before a task starts, kept for a while after it is over. Decides
//! when a finished one goes: by age and by number, never one that is in use.
//!
//! Invariant: `finished` is ordered by the time of ending, and holds no sandbox of a live task.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use gantry_wire::ids::TaskId;

use crate::layout::private_dir;

/// Finished sandboxes kept at most.
pub(crate) const KEPT_MAX: usize = 1_000;
/// How long a finished sandbox is kept at most: a week, as Mesos does.
pub(crate) const KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 3600);
/// Mode of a sandbox whose task runs as root, and of any other: the directories above are closed
/// to everyone, so only the task itself gets there.
const MODE_ROOT: u32 = 0o755;
const MODE_OTHER: u32 = 0o1777;

#[derive(Debug, Default)]
pub(crate) struct Sandboxes {
    finished: VecDeque<(SystemTime, PathBuf)>,
}

/// Makes a sandbox, its parents, and `runs/latest`.
pub(crate) fn create(sandbox: &Path, as_root: bool) -> io::Result<()> {
    let runs = sandbox
        .parent()
        .ok_or_else(|| io::Error::other("a sandbox has a parent"))?;
    private_dir(runs)?;
    match fs::DirBuilder::new().mode(MODE_ROOT).create(sandbox) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let mode = if as_root { MODE_ROOT } else { MODE_OTHER };
    fs::set_permissions(sandbox, fs::Permissions::from_mode(mode))?;
    let (latest, new) = (runs.join("latest"), runs.join(".latest"));
    let name = sandbox.file_name().unwrap_or_default();
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::os::unix::fs::symlink(name, &new)?;
    fs::rename(&new, &latest)
}

impl Sandboxes {
    /// Finds those on disk that are not in `live`, and the tasks they belonged to.
    pub(crate) fn scan(slaves: &Path, live: &BTreeSet<PathBuf>) -> io::Result<(Self, Vec<TaskId>)> {
        let mut finished = Vec::new();
        let mut over = Vec::new();
        for task_dir in below(slaves, 5)? {
            for run in below(&task_dir.join("runs"), 1)? {
                if live.contains(&run) {
                    continue;
                }
                let modified = fs::metadata(&run)?
                    .modified()
                    .unwrap_or(SystemTime::UNIX_EPOCH);
                finished.push((modified, run));
                let name = task_dir.file_name().unwrap_or_default().to_string_lossy();
                over.extend(TaskId::parse(name).ok());
            }
        }
        finished.sort();
        Ok((
            Self {
                finished: finished.into(),
            },
            over,
        ))
    }

    /// A task ended; saying so again changes nothing.
    pub(crate) fn finish(&mut self, sandbox: PathBuf) {
        if self.finished.iter().any(|(_, path)| *path == sandbox) {
            return;
        }
        self.finished.push_back((SystemTime::now(), sandbox));
    }

    /// Those to remove now; they are forgotten here.
    pub(crate) fn due(&mut self, now: SystemTime) -> Vec<PathBuf> {
        let mut due = Vec::new();
        while let Some((ended, _)) = self.finished.front() {
            let age = now.duration_since(*ended).unwrap_or_default();
            if self.finished.len() <= KEPT_MAX && age <= KEPT_FOR {
                break;
            }
            due.extend(self.finished.pop_front().map(|(_, path)| path));
        }
        due
    }

    pub(crate) fn len(&self) -> usize {
        self.finished.len()
    }
}

/// Removes a sandbox and the directories above that held nothing else. Blocking. Never follows a
/// link that a task left (std's `remove_dir_all` works on directory descriptors).
pub(crate) fn remove(sandbox: &Path) -> io::Result<()> {
    match fs::remove_dir_all(sandbox) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let Some(runs) = sandbox.parent() else {
        return Ok(());
    };
    let others = below(runs, 1)?.len();
    if others == 0 {
        fs::remove_file(runs.join("latest"))?;
        fs::remove_dir(runs)?;
        if let Some(task) = runs.parent() {
            fs::remove_dir(task)?;
        }
    }
    Ok(())
}

/// Directories `depth` levels below; links are not followed, a missing `dir` is empty.
fn below(dir: &Path, depth: usize) -> io::Result<Vec<PathBuf>> {
    let mut level = vec![dir.to_owned()];
    for _ in 0..depth {
        let mut next = Vec::new();
        for dir in level {
            let entries = match fs::read_dir(&dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            for entry in entries {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    next.push(entry.path());
                }
            }
        }
        level = next;
    }
    Ok(level)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_by_number_and_age_and_removed_with_empty_parents() {
        let root = tempfile::tempdir().unwrap();
        let slaves = root.path().join("slaves");
        let run =
            |task: &str, c: &str| slaves.join(format!("a/frameworks/f/executors/{task}/runs/{c}"));
        for (task, c) in [("t1", "c1"), ("t1", "c2"), ("t2", "c3")] {
            create(&run(task, c), true).unwrap();
        }
        create(&run("t2", "c3"), false).unwrap();
        let latest = fs::read_link(run("t1", "latest")).unwrap();
        assert_eq!(latest, Path::new("c2"));
        let live = BTreeSet::from([run("t2", "c3")]);
        let (mut sandboxes, over) = Sandboxes::scan(&slaves, &live).unwrap();
        assert_eq!((sandboxes.len(), over.len()), (2, 2));
        let now = SystemTime::now();
        assert!(sandboxes.due(now).is_empty());
        let later = now + KEPT_FOR + Duration::from_secs(60);
        for path in sandboxes.due(later) {
            fs::write(path.join("stdout"), "x").unwrap();
            std::os::unix::fs::symlink(run("t2", "c3"), path.join("link")).unwrap();
            remove(&path).unwrap();
        }
        assert!(!slaves.join("a/frameworks/f/executors/t1").exists());
        assert!(run("t2", "c3").exists());
        for n in 0..KEPT_MAX + 3 {
            sandboxes.finish(PathBuf::from(format!("/{n}")));
        }
        assert_eq!(sandboxes.due(now), ["/0", "/1", "/2"].map(PathBuf::from));
    }
}
