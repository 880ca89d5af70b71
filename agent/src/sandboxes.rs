//! Directories of tasks: made before a task starts, with the limit that its `disk` resource is,
//! kept for a while after it is over. What the task writes to its root falls under the same limit.
//! Decides when a finished one goes: by age and by number, never one that is in use. How a file
//! system keeps a limit is `gantry_isolation::disk`'s business; what is only counted, `gauge` counts.
//!
//! The sandbox of an executor that tasks share holds theirs and goes with them. It is marked beside
//! it, in `runs/`, where no task gets: what tasks may have made to look alike is not trusted.
//!
//! Invariant: `finished` is ordered by the time of ending, and holds no sandbox of a live task.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use gantry_isolation::disk::{self, Backend, DiskError};
use gantry_isolation::spec::{ContainerSpec, RootLimit, User};
use gantry_wire::agent::Launch;
use gantry_wire::ids::{ContainerId, TaskId};

use crate::layout::{NESTED, NESTED_BY_TASK, nested_sandbox, private_dir};

/// Finished sandboxes kept at most.
pub(crate) const KEPT_MAX: usize = 1_000;
/// How long a finished sandbox is kept at most: a week, as Mesos does.
pub(crate) const KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 3600);
/// Mode of a sandbox whose task runs as root, and of any other: the directories above are closed
/// to everyone, so only the task itself gets there.
const MODE_ROOT: u32 = 0o755;
const MODE_OTHER: u32 = 0o1777;
/// In `runs/`, says that its sandboxes hold those of tasks.
const SHARED: &str = ".shared";
/// In `runs/`, says that they are those of an executor that is a program, not a task.
const CUSTOM: &str = ".custom";

#[derive(Debug)]
pub(crate) struct Sandboxes {
    finished: VecDeque<(SystemTime, PathBuf)>,
    backend: Backend,
    /// Whether one limit can hold for a sandbox and a root.
    spans: bool,
}

/// Where the roots of running containers lie on the host, when nothing but counting bounds them.
#[derive(Debug, Default)]
pub(crate) struct Layers {
    by_container: BTreeMap<String, PathBuf>,
}

impl Layers {
    pub(crate) fn note(&mut self, container: &str, layer: Option<PathBuf>) {
        if let Some(layer) = layer {
            self.by_container.insert(container.to_owned(), layer);
        }
    }

    pub(crate) fn of(&self, container: &str) -> Option<PathBuf> {
        self.by_container.get(container).cloned()
    }

    pub(crate) fn forget(&mut self, container: &str) {
        self.by_container.remove(container);
    }
}

/// What the sandbox of a task may hold; None is as much as there is, as in Mesos.
pub(crate) fn limit_bytes(launch: &Launch) -> Option<u64> {
    let resources = launch.resources.as_ref()?;
    Some(resources.disk_bytes).filter(|&bytes| bytes > 0)
}

/// Makes a sandbox, its parents, and `runs/latest`.
pub(crate) fn create(
    backend: Backend,
    sandbox: &Path,
    as_root: bool,
    limit: Option<u64>,
) -> io::Result<()> {
    let runs = above(sandbox)?;
    private_dir(runs)?;
    create_open(backend, sandbox, as_root, limit)?;
    let name = sandbox.file_name().unwrap_or_default();
    link(runs, "latest", Path::new(name))
}

fn above(sandbox: &Path) -> io::Result<&Path> {
    let above = sandbox.parent();
    above.ok_or_else(|| io::Error::other("a sandbox has a parent"))
}

/// Makes a sandbox that its task may use.
fn create_open(
    backend: Backend,
    sandbox: &Path,
    as_root: bool,
    limit: Option<u64>,
) -> io::Result<()> {
    create_limited(backend, sandbox, limit.filter(|_| backend.refuses_writes()))?;
    let mode = if as_root { MODE_ROOT } else { MODE_OTHER };
    fs::set_permissions(sandbox, fs::Permissions::from_mode(mode))
}

/// Makes or replaces a link in a directory of ours.
fn link(dir: &Path, name: &str, target: &Path) -> io::Result<()> {
    let new = dir.join(".link");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::os::unix::fs::symlink(target, &new)?;
    fs::rename(&new, dir.join(name))
}

/// Makes the sandbox of an executor that tasks share.
pub(crate) fn create_shared(backend: Backend, sandbox: &Path) -> io::Result<()> {
    create(backend, sandbox, true, None)?;
    private_dir(&sandbox.join(NESTED))?;
    private_dir(&sandbox.join(NESTED_BY_TASK))?;
    let mark = above(sandbox)?.join(SHARED);
    fs::File::create(mark).map(drop)
}

/// Says that sandboxes beside this one are of an executor of a framework's own, which is no task.
pub(crate) fn mark_custom(sandbox: &Path) -> io::Result<()> {
    fs::File::create(above(sandbox)?.join(CUSTOM)).map(drop)
}

/// Makes the sandbox of a task in that of its executor.
fn create_nested(
    backend: Backend,
    (executor, task, container): (&Path, &TaskId, &ContainerId),
    as_root: bool,
    limit: Option<u64>,
) -> io::Result<()> {
    let sandbox = nested_sandbox(executor, container);
    create_open(backend, &sandbox, as_root, limit)?;
    let target = Path::new("..").join(NESTED).join(container.as_str());
    link(&executor.join(NESTED_BY_TASK), task.as_str(), &target)
}

/// Makes a sandbox anew for what is placed there before its container is started; `nested`: in that
/// of an executor, which may not be there yet.
pub(crate) fn create_anew(
    backend: Backend,
    (sandbox, nested): (&Path, bool),
    as_root: bool,
    limit: Option<u64>,
) -> io::Result<()> {
    backend.remove(sandbox).map_err(|error| of_disk(&error))?;
    if !nested {
        return create(backend, sandbox, as_root, limit);
    }
    private_dir(above(sandbox)?)?;
    create_open(backend, sandbox, as_root, limit)
}

/// Makes a directory that tasks of an executor share, unless it is there, for any user of theirs.
pub(crate) fn create_volume(executor: &Path, name: &str) -> io::Result<PathBuf> {
    let dir = executor.join(name);
    create_limited(Backend::Accounting, &dir, None)?;
    fs::set_permissions(&dir, fs::Permissions::from_mode(MODE_OTHER))?;
    Ok(dir)
}

/// Whether a volume of this name would take the place of something else.
pub(crate) fn is_reserved(name: &str) -> bool {
    let output = name.starts_with("stdout") || name.starts_with("stderr");
    output || name == NESTED || name == NESTED_BY_TASK
}

/// Makes the directory itself. One that is there is of an earlier attempt to start the task: it is
/// taken as it is, or made anew when that attempt ended before its limit was set.
fn create_limited(backend: Backend, sandbox: &Path, limit: Option<u64>) -> io::Result<()> {
    let Some(limit) = limit else {
        return match fs::DirBuilder::new().mode(MODE_ROOT).create(sandbox) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        };
    };
    if sandbox.symlink_metadata().is_ok() {
        if backend.set_limit(sandbox, Some(limit)).is_ok() {
            return Ok(());
        }
        backend.remove(sandbox).map_err(|error| of_disk(&error))?;
    }
    backend
        .make(sandbox, Some(limit))
        .map_err(|error| of_disk(&error))
}

fn of_disk(error: &DiskError) -> io::Error {
    io::Error::other(crate::chain(error))
}

impl Sandboxes {
    /// How limits are kept here.
    pub(crate) fn backend(&self) -> Backend {
        self.backend
    }

    /// Makes the sandbox of a container that is about to start, whose root shares its limit;
    /// `executor` is the sandbox that it is in, if it is in one.
    pub(crate) fn make(
        &self,
        spec: &mut ContainerSpec,
        task: (&TaskId, &ContainerId, &Launch),
        executor: Option<&Path>,
    ) -> Result<(), String> {
        let Some(sandbox) = spec.sandbox.clone() else {
            return Ok(());
        };
        let (task, container, launch) = task;
        let as_root = spec.user == User::Root;
        let limit = limit_bytes(launch);
        let made = match executor {
            None => create(self.backend, &sandbox, as_root, limit),
            Some(executor) => {
                create_nested(self.backend, (executor, task, container), as_root, limit)
            }
        };
        made.map_err(|error| format!("making the sandbox {}: {error}", sandbox.display()))?;
        if limit.is_some() && self.spans {
            spec.root_limit = Some(RootLimit::With(sandbox));
        }
        Ok(())
    }

    /// Finds those on disk that are not in `live`, and the tasks they belonged to. `containers` is
    /// where roots are.
    pub(crate) fn scan(
        slaves: &Path,
        containers: &Path,
        live: &BTreeSet<PathBuf>,
    ) -> io::Result<(Self, Vec<TaskId>)> {
        let mut finished = Vec::new();
        let mut over = Vec::new();
        for task_dir in below(slaves, 5)? {
            let runs = task_dir.join("runs");
            let shared = runs.join(SHARED).symlink_metadata().is_ok();
            let custom = runs.join(CUSTOM).symlink_metadata().is_ok();
            for run in below(&runs, 1)? {
                if shared {
                    // Of those that live it is known that they do.
                    over.extend(names(&run.join(NESTED_BY_TASK))?);
                }
                if live.contains(&run) {
                    continue;
                }
                finished.push((ended(&run)?, run));
                if !shared && !custom {
                    let name = task_dir.file_name().unwrap_or_default().to_string_lossy();
                    over.extend(TaskId::parse(name).ok());
                }
            }
        }
        finished.sort();
        let backend = Backend::detect(slaves).map_err(|error| of_disk(&error))?;
        tracing::info!(?backend, "how limits on disk are kept");
        if let Some(advice) = disk::advice(slaves) {
            tracing::warn!("{advice}");
        }
        let spans = backend.spans(slaves, containers);
        let spans = spans.map_err(|error| of_disk(&error))?;
        Ok((
            Self {
                finished: finished.into(),
                backend,
                spans,
            },
            over,
        ))
    }

    /// A task ended; saying so again changes nothing.
    pub(crate) fn finish(&mut self, sandbox: PathBuf) {
        if self.finished.iter().any(|(_, path)| *path == sandbox) {
            return;
        }
        mark_ended(&sandbox);
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

/// When the task of a sandbox ended: kept as the time of the directory above, since a task may set
/// its sandbox's to anything.
fn ended(sandbox: &Path) -> io::Result<SystemTime> {
    let runs = sandbox.parent().unwrap_or(sandbox);
    fs::metadata(runs)?.modified()
}

/// Without it, the time at which the task began counts.
fn mark_ended(sandbox: &Path) {
    let runs = sandbox.parent().and_then(|runs| fs::File::open(runs).ok());
    if let Some(Err(error)) = runs.map(|runs| runs.set_modified(SystemTime::now())) {
        tracing::warn!(?sandbox, "noting when its task ended: {error}");
    }
}

/// Removes a sandbox with its limit, and the directories above that held nothing else. Blocking.
/// Never follows a link that a task left.
pub(crate) fn remove(backend: Backend, sandbox: &Path) -> io::Result<()> {
    let Some(runs) = sandbox.parent() else {
        return Ok(());
    };
    let mark = runs.join(SHARED);
    let shared = mark.symlink_metadata().is_ok();
    if shared {
        // Each has its limit.
        for nested in below(&sandbox.join(NESTED), 1)? {
            backend.remove(&nested).map_err(|error| of_disk(&error))?;
        }
    }
    backend.remove(sandbox).map_err(|error| of_disk(&error))?;
    let others = below(runs, 1)?.len();
    if others == 0 {
        if shared {
            fs::remove_file(mark)?;
        }
        match fs::remove_file(runs.join(CUSTOM)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::remove_file(runs.join("latest"))?;
        fs::remove_dir(runs)?;
        if let Some(task) = runs.parent() {
            fs::remove_dir(task)?;
        }
    }
    Ok(())
}

/// The tasks that have sandboxes by their names here.
fn names(dir: &Path) -> io::Result<Vec<TaskId>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        names.extend(TaskId::parse(name.to_string_lossy()).ok());
    }
    Ok(names)
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

    const PLAIN: Backend = Backend::Accounting;

    #[test]
    fn kept_by_number_and_age_and_removed_with_empty_parents() {
        let root = tempfile::tempdir().unwrap();
        let slaves = root.path().join("slaves");
        let run =
            |task: &str, c: &str| slaves.join(format!("a/frameworks/f/executors/{task}/runs/{c}"));
        for (task, c) in [("t1", "c1"), ("t1", "c2"), ("t2", "c3")] {
            create(PLAIN, &run(task, c), true, None).unwrap();
        }
        create(PLAIN, &run("t2", "c3"), false, Some(1)).unwrap();
        let latest = fs::read_link(run("t1", "latest")).unwrap();
        assert_eq!(latest, Path::new("c2"));
        let live = BTreeSet::from([run("t2", "c3")]);
        let (mut sandboxes, over) = Sandboxes::scan(&slaves, root.path(), &live).unwrap();
        assert_eq!((sandboxes.len(), over.len()), (2, 2));
        let now = SystemTime::now();
        assert!(sandboxes.due(now).is_empty());
        let later = now + KEPT_FOR + Duration::from_secs(60);
        for path in sandboxes.due(later) {
            fs::write(path.join("stdout"), "x").unwrap();
            std::os::unix::fs::symlink(run("t2", "c3"), path.join("link")).unwrap();
            remove(PLAIN, &path).unwrap();
        }
        assert!(!slaves.join("a/frameworks/f/executors/t1").exists());
        assert!(run("t2", "c3").exists());
        for n in 0..KEPT_MAX + 3 {
            sandboxes.finish(PathBuf::from(format!("/{n}")));
        }
        assert_eq!(sandboxes.due(now), ["/0", "/1", "/2"].map(PathBuf::from));
    }

    #[test]
    fn a_shared_sandbox_holds_those_of_its_tasks_and_goes_with_them() {
        let root = tempfile::tempdir().unwrap();
        let slaves = root.path().join("slaves");
        let executor = slaves.join("a/frameworks/f/executors/e/runs/c0");
        create_shared(PLAIN, &executor).unwrap();
        for (task, c) in [("t1", "c1"), ("t2", "c2")] {
            let (task, c) = (TaskId::parse(task).unwrap(), ContainerId::parse(c).unwrap());
            for _ in 0..2 {
                create_nested(PLAIN, (&executor, &task, &c), true, None).unwrap();
            }
            fs::write(
                executor.join("tasks").join(task.as_str()).join("stdout"),
                "x",
            )
            .unwrap();
        }
        let volume = create_volume(&executor, "data").unwrap();
        assert_eq!(create_volume(&executor, "data").unwrap(), volume);
        // A task's own directories of these names say nothing.
        let own = slaves.join("a/frameworks/f/executors/t3/runs/c3");
        create(PLAIN, &own, true, None).unwrap();
        fs::create_dir_all(own.join("tasks/t4")).unwrap();
        let over = |live: &[&PathBuf]| {
            let live = live.iter().map(|&path| path.clone()).collect();
            let (sandboxes, mut over) = Sandboxes::scan(&slaves, root.path(), &live).unwrap();
            over.sort();
            let over: Vec<String> = over.into_iter().map(String::from).collect();
            (sandboxes.len(), over)
        };
        let words = |list: &[&str]| list.iter().map(|&s| s.to_owned()).collect::<Vec<_>>();
        assert_eq!(over(&[]), (2, words(&["t1", "t2", "t3"])));
        assert_eq!(over(&[&executor, &own]), (0, words(&["t1", "t2"])));
        remove(PLAIN, &executor).unwrap();
        assert!(!slaves.join("a/frameworks/f/executors/e").exists());
        assert!(own.exists());
    }
}
