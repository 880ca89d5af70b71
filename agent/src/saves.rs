//! Makes "nothing after a save happens before it is on disk" true for a batch of actions: all
//! saves of a batch are written first, together; the actions of a unit whose checkpoint cannot be
//! written (disk full) are withheld, and only of that unit, until a later try succeeds.
//!
//! Signals are never withheld: a full disk must not keep a task from being killed. It says so in
//! the log when writing begins to fail and when it works again, in between once a minute.

use std::collections::BTreeMap;

use gantry_agent_core::{Action, Tasks, Unit};
use gantry_wire::ids::{ContainerId, TaskId};

use crate::checkpoints::{Checkpoints, ToSave};

/// How long until a failed write is tried again, in milliseconds.
const RETRY_MS: u64 = 1_000;
/// How often the log is told that writing still fails, in milliseconds.
const REMIND_MS: u64 = 60_000;

#[derive(Debug)]
pub(crate) struct Saves {
    checkpoints: Checkpoints,
    withheld: BTreeMap<Unit, Vec<Action>>,
    retry_at_ms: Option<u64>,
    trouble: Trouble,
}

/// What was said in the log about writes that fail.
#[derive(Debug, Default)]
struct Trouble {
    /// When it was last said that they do; None while they do not.
    said_at_ms: Option<u64>,
}

/// What the log is to hear.
#[derive(Debug, PartialEq, Eq)]
enum Word {
    Failing,
    StillFailing,
    Over,
}

impl Trouble {
    /// After a settling that left `waiting` tasks without a checkpoint.
    fn word(&mut self, waiting: usize, now_ms: u64) -> Option<Word> {
        let word = match self.said_at_ms {
            None if waiting == 0 => return None,
            Some(_) if waiting == 0 => {
                self.said_at_ms = None;
                return Some(Word::Over);
            }
            None => Word::Failing,
            Some(at) if now_ms >= at.saturating_add(REMIND_MS) => Word::StillFailing,
            Some(_) => return None,
        };
        self.said_at_ms = Some(now_ms);
        Some(word)
    }
}

impl Saves {
    pub(crate) fn new(checkpoints: Checkpoints) -> Self {
        Self {
            checkpoints,
            withheld: BTreeMap::new(),
            retry_at_ms: None,
            trouble: Trouble::default(),
        }
    }

    pub(crate) fn remove(&self, task: &TaskId) -> std::io::Result<()> {
        self.checkpoints.remove(task)
    }

    pub(crate) fn remove_executor(&self, container: &ContainerId) -> std::io::Result<()> {
        self.checkpoints.remove_executor(container)
    }

    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        self.retry_at_ms
    }

    /// Writes what the batch and earlier failures ask for; gives back what may be done now, in
    /// order, without the saves.
    pub(crate) fn settle(&mut self, tasks: &Tasks, batch: Vec<Action>, now_ms: u64) -> Vec<Action> {
        let mut wanted: BTreeMap<Unit, bool> = BTreeMap::new();
        if self.retry_at_ms.is_some_and(|at| at <= now_ms) {
            self.retry_at_ms = None;
            wanted.extend(self.withheld.keys().map(|unit| (unit.clone(), true)));
        }
        for action in &batch {
            if let Action::Save { unit, sync } = action {
                *wanted.entry(unit.clone()).or_default() |= sync;
            }
        }
        let to_save = |unit: &Unit| match unit {
            Unit::Task(task) => tasks
                .checkpoint(task)
                .map(|saved| ToSave::Task(Box::new(saved))),
            Unit::Executor(key) => {
                let custom = tasks.custom_checkpoint(key);
                let custom = custom.map(|saved| ToSave::Custom(Box::new(saved)));
                let shared = || tasks.executor_checkpoint(key);
                custom.or_else(|| shared().map(|saved| ToSave::Executor(Box::new(saved))))
            }
        };
        let checkpoint = |(unit, sync): (&Unit, &bool)| Some((to_save(unit)?, *sync));
        let writes: Vec<_> = wanted.iter().filter_map(checkpoint).collect();
        let failed = if writes.is_empty() {
            Vec::new()
        } else {
            self.checkpoints.write(&writes)
        };
        let mut ready = Vec::new();
        for unit in wanted
            .keys()
            .filter(|unit| failed.iter().all(|(f, _)| f != *unit))
        {
            ready.extend(self.withheld.remove(unit).unwrap_or_default());
        }
        let example = failed
            .first()
            .map(|(unit, error)| (unit.clone(), error.to_string()));
        for (unit, _) in failed {
            self.withheld.entry(unit).or_default();
            self.retry_at_ms = Some(now_ms.saturating_add(RETRY_MS));
        }
        self.tell(example, now_ms);
        for action in batch {
            // Mostly nothing is: then nothing has to be looked up.
            let held = if self.withheld.is_empty() {
                None
            } else {
                unit_of(&action, tasks).and_then(|unit| self.withheld.get_mut(&unit))
            };
            match (held, action) {
                (_, Action::Save { .. }) => {}
                (Some(held), action) => held.push(action),
                (None, action) => ready.push(action),
            }
        }
        ready
    }
}

impl Saves {
    /// `example` is one of the writes that failed just now.
    fn tell(&mut self, example: Option<(Unit, String)>, now_ms: u64) {
        let waiting = self.withheld.len();
        // A word about failures waits for one, so that it can say why.
        if waiting > 0 && example.is_none() {
            return;
        }
        let (unit, error) = example
            .map(|(unit, error)| (unit.to_string(), error))
            .unwrap_or_default();
        match self.trouble.word(waiting, now_ms) {
            None => {}
            Some(Word::Failing) => tracing::error!(
                unit,
                waiting,
                "writing checkpoints: {error}; tasks without theirs wait"
            ),
            Some(Word::StillFailing) => tracing::error!(
                unit,
                waiting,
                "checkpoints still cannot be written: {error}; tasks without theirs wait"
            ),
            Some(Word::Over) => tracing::info!("checkpoints can be written again"),
        }
    }
}

/// What must be on disk before the action.
fn unit_of(action: &Action, tasks: &Tasks) -> Option<Unit> {
    let of = |task: &TaskId| tasks.unit(task).unwrap_or_else(|| Unit::Task(task.clone()));
    match action {
        Action::Save { unit, .. } => Some(unit.clone()),
        Action::Discard { task }
        | Action::Pull { task }
        | Action::CancelPull { task }
        | Action::Attach { task }
        | Action::Start { task }
        | Action::Release { task, .. } => Some(of(task)),
        Action::AttachExecutor { executor }
        | Action::StartExecutor { executor }
        | Action::ReleaseExecutor { executor, .. }
        | Action::DiscardExecutor { executor, .. }
        | Action::Welcome { executor, .. }
        | Action::Deliver { executor, .. }
        | Action::Resize { executor }
        | Action::TellMessage { executor, .. }
        | Action::TellEnded { executor, .. } => Some(Unit::Executor(executor.clone())),
        Action::Send(update) => Some(of(&TaskId::parse(update.task_id.clone()).ok()?)),
        Action::Probe { .. }
        | Action::Signal { .. }
        | Action::Destroy { .. }
        | Action::Forget { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_agent_core::{Event, Now};
    use gantry_wire::agent::Launch;
    use gantry_wire::ids::ContainerId;
    use gantry_wire::time::Millis;

    #[test]
    fn a_full_disk_is_logged_when_it_begins_once_a_minute_and_when_it_ends() {
        let mut trouble = Trouble::default();
        let mut said = Vec::new();
        // A minute and a half of tries, with a task more each second.
        for second in 0..90 {
            said.extend(trouble.word(second + 1, second as u64 * RETRY_MS));
        }
        assert_eq!(said, [Word::Failing, Word::StillFailing]);
        assert_eq!(trouble.word(0, 90_000), Some(Word::Over));
        assert_eq!(trouble.word(0, 91_000), None);
        assert_eq!(trouble.word(1, 91_000), Some(Word::Failing));
    }

    #[test]
    fn what_cannot_be_saved_waits_and_nothing_else_does() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("tasks");
        let executors = root.path().join("executors");
        std::fs::create_dir(&dir).unwrap();
        std::fs::create_dir(&executors).unwrap();
        let (checkpoints, _) =
            Checkpoints::open(dir.clone(), (executors.clone(), executors), root.path()).unwrap();
        let mut saves = Saves::new(checkpoints);
        let mut tasks = Tasks::default();
        let now = Now {
            wall: Millis(0),
            uptime_ms: 0,
            seed: 1,
        };
        let mut launch = |name: &str| {
            let mut actions = Vec::new();
            let event = Event::Launch {
                task: TaskId::parse(name).unwrap(),
                launch: Box::new(Launch {
                    task_id: name.into(),
                    ..Launch::default()
                }),
                container: ContainerId::parse(format!("c-{name}")).unwrap(),
                sandbox: String::new(),
            };
            tasks.step(now, event, &mut actions);
            actions
        };
        let (mut a, b) = (launch("a"), launch("b"));
        // A directory of that name cannot be replaced by a file.
        std::fs::create_dir_all(dir.join("a.json/x")).unwrap();
        a.extend(b);
        let attach = |name: &str| Action::Attach {
            task: TaskId::parse(name).unwrap(),
        };
        assert_eq!(saves.settle(&tasks, a, 0), [attach("b")]);
        assert_eq!(saves.deadline_ms(), Some(RETRY_MS));
        assert!(saves.settle(&tasks, Vec::new(), RETRY_MS).is_empty());
        std::fs::remove_dir_all(dir.join("a.json")).unwrap();
        assert_eq!(
            saves.settle(&tasks, Vec::new(), 2 * RETRY_MS),
            [attach("a")]
        );
        assert_eq!(saves.deadline_ms(), None);
    }
}
