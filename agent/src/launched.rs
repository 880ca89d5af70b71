//! Containers that somebody asked the agent's API for, inside another container or for itself:
//! which there are, who waits for them, and what of them outlives the agent. They are no tasks: no
//! one is told of their end but who asks.
//!
//! ```text
//! begin ─▶ Starting ─▶ Running ─▶ Ended ─▶ gone: by REMOVE, with the container around it, or when
//!             └──▶ gone: it could not be started              there are ENDED_MAX of them
//! ```
//! It decides names and bounds; the loop speaks to the keeper. Invariant: one is on disk before the
//! keeper is asked for it, and until it is gone.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use gantry_isolation::spec::{ContainerId, ExitStatus};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::durable;

/// Such containers at a time, ended ones not counted.
const LIVE_MAX: usize = 1_000;
/// Ended ones that can be asked for; the oldest goes first.
const ENDED_MAX: usize = 1_000;
/// Who may wait for one.
const WAITERS_MAX: usize = 16;
/// Containers inside each other, as in Mesos.
pub(crate) const DEPTH_MAX: usize = 32;
/// Longest file about one.
const FILE_MAX_BYTES: u64 = 64 * 1024;
const SUFFIX: &str = ".json";
/// SIGKILL, signal(7): how one ended of which nothing else is known.
const SIGKILL: i32 = 9;

/// How one ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct End {
    pub(crate) status: ExitStatus,
    pub(crate) oom_killed: bool,
    /// Counts ends, so that the oldest is known.
    turn: u64,
}

/// What is known of one for as long as it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Saved {
    pub(crate) id: ContainerId,
    /// As it was named by who asked for it: the outermost first.
    pub(crate) chain: Vec<String>,
    /// The container that it is inside of.
    pub(crate) parent: Option<ContainerId>,
    pub(crate) framework: String,
    pub(crate) executor: String,
    pub(crate) sandbox: PathBuf,
    pub(crate) ended: Option<End>,
}

/// Why one is not launched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LaunchRefusal {
    #[error("Container '{0}' cannot be found")]
    NoParent(String),
    #[error("{0}")]
    Unsupported(String),
    #[error("There are {LIVE_MAX} such containers already")]
    TooMany,
    #[error("{0}")]
    Failed(String),
    #[error("The agent ends")]
    Stopping,
}

/// Whether one was made, or there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Launch {
    Made,
    WasThere,
}

pub(crate) type LaunchReply = oneshot::Sender<Result<Launch, LaunchRefusal>>;

#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) saved: Saved,
    /// 0: not yet.
    pub(crate) pid: u32,
    /// The container around it has ended: when this one has, nobody can ask for it.
    doomed: bool,
    started: Option<LaunchReply>,
    waiters: Vec<oneshot::Sender<End>>,
}

#[derive(Debug)]
pub(crate) struct Launched {
    dir: PathBuf,
    records: BTreeMap<ContainerId, Record>,
    turns: u64,
}

impl Launched {
    /// Those of a former life. A file that cannot be read is of none.
    pub(crate) fn open(dir: PathBuf) -> io::Result<Self> {
        let mut records = BTreeMap::new();
        let mut turns = 0;
        for entry in std::fs::read_dir(&dir)? {
            let path = entry?.path();
            if !path.to_string_lossy().ends_with(SUFFIX) {
                continue;
            }
            let read = durable::read_bounded(&path, FILE_MAX_BYTES);
            let parsed = read.and_then(|text| Ok(serde_json::from_slice::<Saved>(&text)?));
            match parsed {
                Ok(saved) => {
                    turns = turns.max(saved.ended.map_or(0, |end| end.turn));
                    records.insert(saved.id.clone(), Record::of(saved));
                }
                Err(error) => {
                    tracing::error!(?path, "a container that was launched is not known: {error}");
                    std::fs::remove_file(&path)?;
                }
            }
        }
        Ok(Self {
            dir,
            records,
            turns,
        })
    }

    pub(crate) fn get(&self, id: &ContainerId) -> Option<&Record> {
        self.records.get(id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    /// Whether one more may begin.
    pub(crate) fn has_room(&self) -> bool {
        let live = self.iter().filter(|record| record.saved.ended.is_none());
        live.count() < LIVE_MAX
    }

    /// Remembers one before it is started.
    pub(crate) fn begin(&mut self, saved: Saved) -> io::Result<()> {
        self.save(&saved)?;
        durable::sync_dir(&self.dir)?;
        let id = saved.id.clone();
        self.records.insert(id, Record::of(saved));
        Ok(())
    }

    /// Who is told whether it was started.
    pub(crate) fn tell(&mut self, id: &ContainerId, reply: LaunchReply) {
        if let Some(record) = self.records.get_mut(id) {
            record.started = Some(reply);
        }
    }

    pub(crate) fn started(&mut self, id: &ContainerId, pid: u32) {
        if let Some(record) = self.records.get_mut(id) {
            record.pid = pid;
            if let Some(reply) = record.started.take() {
                // Nobody may be waiting any more.
                let _ = reply.send(Ok(Launch::Made));
            }
        }
    }

    /// It ended; the sandbox to keep for a while, if that is news.
    pub(crate) fn ended(&mut self, id: &ContainerId, how: (ExitStatus, bool)) -> Option<PathBuf> {
        self.turns += 1;
        let end = End {
            status: how.0,
            oom_killed: how.1,
            turn: self.turns,
        };
        let record = self.records.get_mut(id)?;
        if record.saved.ended.is_some() {
            return None;
        }
        record.saved.ended = Some(end);
        record.pid = 0;
        if let Some(reply) = record.started.take() {
            let _ = reply.send(Ok(Launch::Made));
        }
        for waiter in record.waiters.drain(..) {
            let _ = waiter.send(end);
        }
        let saved = record.saved.clone();
        if let Err(error) = self.save(&saved) {
            tracing::error!(%id, "noting the end of a container: {error}");
        }
        self.make_room();
        Some(saved.sandbox)
    }

    /// The container around it has ended.
    pub(crate) fn doom(&mut self, id: &ContainerId) {
        if let Some(record) = self.records.get_mut(id) {
            record.doomed = true;
        }
    }

    /// Forgets one that has ended, if the container around it has, too.
    pub(crate) fn bury(&mut self, id: &ContainerId) {
        let buried = |record: &Record| record.doomed && !record.is_live();
        if self.records.get(id).is_some_and(buried) {
            self.forget(id);
        }
    }

    /// One of which nothing is known was lost with its keeper.
    pub(crate) fn lost(&mut self, id: &ContainerId) -> Option<PathBuf> {
        self.ended(id, (ExitStatus::Signal(SIGKILL), false))
    }

    fn make_room(&mut self) {
        let ended = self.records.values();
        let ended = ended.filter_map(|record| Some((record.saved.ended?.turn, &record.saved.id)));
        let mut ended: Vec<(u64, ContainerId)> =
            ended.map(|(turn, id)| (turn, id.clone())).collect();
        ended.sort();
        let over = ended.len().saturating_sub(ENDED_MAX);
        for (_, id) in ended.into_iter().take(over) {
            self.forget(&id);
        }
    }

    /// Forgets one, which was not started or has ended; why is told to who asked for it.
    pub(crate) fn failed(&mut self, id: &ContainerId, why: String) {
        let record = self.records.get_mut(id);
        if let Some(reply) = record.and_then(|record| record.started.take()) {
            let _ = reply.send(Err(LaunchRefusal::Failed(why)));
        }
        self.forget(id);
    }

    pub(crate) fn forget(&mut self, id: &ContainerId) {
        if self.records.remove(id).is_none() {
            return;
        }
        match std::fs::remove_file(self.path(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::error!(%id, "forgetting a container: {error}");
            }
            _ => {}
        }
    }

    /// Answers at the end; drops the question of one too many.
    pub(crate) fn wait(&mut self, id: &ContainerId, reply: oneshot::Sender<End>) {
        let Some(record) = self.records.get_mut(id) else {
            return;
        };
        match record.saved.ended {
            Some(end) => {
                let _ = reply.send(end);
            }
            None if record.waiters.len() < WAITERS_MAX => record.waiters.push(reply),
            None => {}
        }
    }

    fn save(&self, saved: &Saved) -> io::Result<()> {
        let text = serde_json::to_vec(saved)?;
        durable::replace(&self.path(&saved.id), &text, true)
    }

    fn path(&self, id: &ContainerId) -> PathBuf {
        self.dir.join(format!("{id}{SUFFIX}"))
    }
}

impl Record {
    fn of(saved: Saved) -> Self {
        Self {
            saved,
            pid: 0,
            doomed: false,
            started: None,
            waiters: Vec::new(),
        }
    }

    pub(crate) fn is_live(&self) -> bool {
        self.saved.ended.is_none()
    }

    pub(crate) fn is_below(&self, parent: &str) -> bool {
        self.saved
            .parent
            .as_ref()
            .is_some_and(|it| it.as_str() == parent)
    }
}

/// Whether the processes of another one have the host's users: those of a user namespace see a map
/// of less than all (user_namespaces(7)).
pub(crate) fn has_host_ids(pid: u32) -> io::Result<bool> {
    let map = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("uid_map"))?;
    let numbers: Vec<&str> = map.split_whitespace().collect();
    Ok(numbers == ["0", "0", "4294967295"])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved(id: &str) -> Saved {
        Saved {
            id: ContainerId::try_from(id).unwrap(),
            chain: vec![id.to_owned()],
            parent: None,
            framework: String::new(),
            executor: String::new(),
            sandbox: "/s".into(),
            ended: None,
        }
    }

    #[test]
    fn what_ended_is_known_after_a_restart_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let mut launched = Launched::open(dir.path().to_owned()).unwrap();
        let id = |place: usize| ContainerId::try_from(format!("c{place}")).unwrap();
        for place in 0..ENDED_MAX + 2 {
            launched.begin(saved(&format!("c{place}"))).unwrap();
            if place != 1 {
                let how = (ExitStatus::Code(7), false);
                assert!(launched.ended(&id(place), how).is_some());
                assert!(launched.ended(&id(place), how).is_none());
            }
        }
        std::fs::write(dir.path().join("bad.json"), "{").unwrap();
        let mut again = Launched::open(dir.path().to_owned()).unwrap();
        assert_eq!(again.iter().count(), ENDED_MAX + 1);
        // The oldest ended one is gone, the one that lives is not.
        assert!(again.get(&id(0)).is_none() && again.get(&id(1)).unwrap().is_live());
        assert!(again.lost(&id(1)).is_some());
        let (reply, mut answer) = oneshot::channel();
        again.wait(&id(1), reply);
        assert_eq!(
            answer.try_recv().unwrap().status,
            ExitStatus::Signal(SIGKILL)
        );
        again.forget(&id(1));
        assert!(!dir.path().join("c1.json").exists());
    }
}
