//! Changing the limits of a container that runs, and freezing it.
//!
//! The kernel refuses some orders (a memory limit above the one that counts swap, a burst above the
//! quota) and accepts others, depending on what is there: whatever is refused is tried again after
//! the rest, until nothing moves any more. Then what was written is put back as it was.
//! It waits for the kernel, so it runs in an errand, never in the keeper's own process.

use std::fs::File;
use std::io::{Error, ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::{Freezer, Group, Setting, cpuset, gather, kill_stopped};

/// What is to be done to a container.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// Stop every process.
    Freeze(Freezer),
    /// Let them go on.
    Thaw(Freezer),
    /// End every process, where the kernel cannot at one stroke.
    Kill {
        /// How they are stopped first.
        freezer: Freezer,
        /// A group that lists them.
        tracking: PathBuf,
    },
    /// Write other limits.
    Update(Update),
}

/// The way from one set of limits to another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Update {
    enable: Vec<(PathBuf, String)>,
    make: Vec<PathBuf>,
    settings: Vec<(PathBuf, Setting)>,
    join: Vec<PathBuf>,
    cpuset: Option<PathBuf>,
    tracking: PathBuf,
}

/// What could not be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    /// Not within the time there is, or refused.
    #[error("freeze")]
    Freeze(#[source] Error),
    /// Refused.
    #[error("thaw")]
    Thaw(#[source] Error),
    /// Some are left.
    #[error("kill")]
    Kill(#[source] Error),
    /// A directory for a controller that the container had no limit of.
    #[error("make cgroup {0:?}")]
    Make(PathBuf, #[source] Error),
    /// Its processes cannot be moved there.
    #[error("join cgroup {0:?}")]
    Join(PathBuf, #[source] Error),
    /// The kernel refuses the value.
    #[error("set {file:?} to {value}")]
    Set {
        /// Which file.
        file: PathBuf,
        /// To what.
        value: String,
        /// Why.
        #[source]
        source: Error,
    },
}

impl Update {
    /// What is in `to` and not in `from`; None when nothing is.
    pub(crate) fn between(from: &Group, to: &Group) -> Option<Self> {
        let new = |dir: &&PathBuf| !from.join.contains(dir);
        let changed = |setting: &&(PathBuf, Setting)| !from.settings.contains(setting);
        let update = Self {
            enable: to.enable.clone(),
            make: to.make.iter().filter(new).cloned().collect(),
            settings: to.settings.iter().filter(changed).cloned().collect(),
            join: to.join.iter().filter(new).cloned().collect(),
            cpuset: to.cpuset.clone(),
            tracking: to.tracking()?.to_owned(),
        };
        let some = !update.settings.is_empty() || !update.make.is_empty();
        some.then_some(update)
    }

    fn apply(&self) -> Result<(), ChangeError> {
        write_all(self.enable.clone(), |_, _| ())?;
        for dir in &self.make {
            let cpuset = self.cpuset.as_ref() == Some(dir);
            make_dir(dir, cpuset).map_err(|error| ChangeError::Make(dir.clone(), error))?;
        }
        let done = self.settle().and_then(|()| {
            self.join.iter().try_for_each(|dir| {
                gather(&self.tracking, dir).map_err(|error| ChangeError::Join(dir.clone(), error))
            })
        });
        if done.is_err() {
            for dir in &self.make {
                // Those that were joined stay, until the container's end.
                let _ = std::fs::remove_dir(dir);
            }
        }
        done
    }

    /// Writes all settings, or puts back what it wrote.
    fn settle(&self) -> Result<(), ChangeError> {
        let mut before: Vec<(PathBuf, String)> = Vec::new();
        let wanted = self.settings.iter();
        let wanted = wanted.map(|(dir, setting)| (dir.join(&*setting.file), setting.value.clone()));
        let written = write_all(wanted.collect(), |file, value| {
            // A file that cannot be read has nothing to be put back.
            before.extend(earlier(file, value).map(|earlier| (file.to_owned(), earlier)));
        });
        if written.is_err() {
            before.reverse();
            // As far as possible; the first failure is the news.
            let _ = write_all(before, |_, _| ());
        }
        written
    }
}

/// Writes each in turn, those that are refused again after the others, as long as one is accepted.
/// `note` sees each file before it is written.
pub(super) fn write_all(
    mut pending: Vec<(PathBuf, String)>,
    mut note: impl FnMut(&Path, &str),
) -> Result<(), ChangeError> {
    loop {
        let count = pending.len();
        let mut failure = None;
        let mut open = None;
        let mut refused = Vec::new();
        for (file, value) in pending {
            note(&file, &value);
            if let Err(error) = set(&file, &value, &mut open) {
                failure.get_or_insert(error);
                refused.push((file, value));
            }
        }
        match failure {
            None => return Ok(()),
            Some(error) if refused.len() == count => return Err(error),
            Some(_) => pending = refused,
        }
    }
}

/// Makes one directory and those above it; what is there stays as it is. Nothing can join a v1 group
/// of `cpuset` before it has what the one above has.
pub(super) fn make_dir(dir: &Path, cpuset: bool) -> std::io::Result<()> {
    match std::fs::create_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if let Some(parent) = dir.parent() {
                make_dir(parent, cpuset)?;
            }
            std::fs::create_dir(dir)?;
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        done => done?,
    }
    if cpuset { cpuset::inherit(dir) } else { Ok(()) }
}

/// Writes to a file that stays open for the next line: each is taken by itself (kernfs), and a device
/// filter is a dozen of them.
fn set(file: &Path, value: &str, open: &mut Option<(PathBuf, File)>) -> Result<(), ChangeError> {
    let mut write = || {
        make_room(file, value)?;
        let known = open.take().filter(|(path, _)| path == file);
        let (path, mut opened) = match known {
            Some(known) => known,
            None => (file.to_owned(), File::create(file)?),
        };
        opened.write_all(value.as_bytes())?;
        *open = Some((path, opened));
        Ok(())
    };
    write().map_err(|source| ChangeError::Set {
        file: file.to_owned(),
        value: value.to_owned(),
        source,
    })
}

/// v1 refuses a limit below what is used and cannot be reclaimed; v2 would kill. There, what is too
/// much is reclaimed first (`memory.reclaim`, Linux 5.19), and the limit refused if that is not enough.
fn make_room(file: &Path, value: &str) -> std::io::Result<()> {
    if !file.ends_with("memory.max") {
        return Ok(());
    }
    let Ok(max) = value.parse::<u64>() else {
        return Ok(());
    };
    let used = || {
        let text = std::fs::read_to_string(file.with_file_name("memory.current"));
        text.ok()?.trim().parse::<u64>().ok()
    };
    if let Some(excess) = used().and_then(|used| used.checked_sub(max))
        && excess > 0
    {
        // It says so when it could not reclaim all; what counts is how much is left.
        let _ = std::fs::write(file.with_file_name("memory.reclaim"), excess.to_string());
    }
    if used().is_some_and(|used| used > max) {
        return Err(ErrorKind::ResourceBusy.into());
    }
    Ok(())
}

/// What to write to `file` to undo writing `value`.
fn earlier(file: &Path, value: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let key = value.split(' ').next().filter(|key| key.contains(':'));
    let Some(key) = key else {
        return Some(match text.trim().strip_prefix("default ") {
            // A list of weights: the first line is the one for all devices.
            Some(rest) => format!("default {}", rest.lines().next().unwrap_or_default()),
            None => text.trim().to_owned(),
        });
    };
    let own = |line: &&str| line.split(' ').next() == Some(key);
    let line = text.lines().find(own).map(ToOwned::to_owned);
    Some(
        line.unwrap_or_else(|| match file.file_name().and_then(|name| name.to_str()) {
            Some("io.max") => format!("{key} rbps=max wbps=max riops=max wiops=max"),
            Some(name) if name.starts_with("io.") => format!("{key} default"),
            _ => format!("{key} 0"),
        }),
    )
}

impl Change {
    /// Does it.
    pub(crate) fn make(&self) -> Result<(), ChangeError> {
        match self {
            Self::Freeze(freezer) => freezer.freeze().map_err(ChangeError::Freeze),
            Self::Thaw(freezer) => freezer.thaw().map_err(ChangeError::Thaw),
            Self::Kill { freezer, tracking } => {
                kill_stopped(tracking, freezer).map_err(ChangeError::Kill)
            }
            Self::Update(update) => update.apply(),
        }
    }

    /// Directories that it may leave behind when the container is gone meanwhile.
    pub(crate) fn dirs(&self) -> Vec<PathBuf> {
        match self {
            Self::Freeze(freezer) | Self::Thaw(freezer) | Self::Kill { freezer, .. } => {
                freezer.dir().map(Path::to_owned).into_iter().collect()
            }
            Self::Update(update) => update.make.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
