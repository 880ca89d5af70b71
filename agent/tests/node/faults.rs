//! Deaths at every step: the agent, its keeper, and what these make, are each killed just before one
//! of the calls by which they change something outside of themselves, over the whole life of a node
//! with one task: start, launch, run, update of limits, kill, removal, stop. Then the agent is
//! started as by a supervisor; what is told of the task, and what is left in the kernel and on disk,
//! must be what it should be.
//!
//! `GANTRY_FAULTS=all` visits every step; without it, some of each sort, drawn by `GANTRY_SEED`.

mod kinds;
mod left;

use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant, SystemTime};

use gantry_isolation::keeper::{Client, Event, Received, Request};
use gantry_isolation::spec::{ContainerId, Limits};
use gantry_wire::agent::StatusUpdate;
use gantry_wire::task::{Reason, TaskState};
use rustix::process::Signal;

use crate::agent::{Node, run};
use crate::coordinator::{PATIENCE, state};
use crate::image;
use crate::tracer::Role;
use kinds::{KINDS, Kind};

/// Steps of each sort that are visited without `GANTRY_FAULTS=all`.
const SOME: u64 = 2;
/// Between two looks at what a round waits for.
const LOOK_EVERY: Duration = Duration::from_millis(3);
/// Ports of the node that bridged tasks get: each run of this program has its own.
const PORTS: std::ops::Range<u32> = 20_000..30_000;
/// One life of a node with one launch, and perhaps one death.
struct Round<'a> {
    node: &'a mut Node,
    kind: Kind,
    deaths: (Role, Role),
    number: u64,
    image: &'a str,
    tasks: Vec<String>,
    tracer: Child,
    report: PathBuf,
    /// Registrations that were answered with what is wanted.
    told: usize,
}

/// What a round did.
struct Done {
    steps: u64,
    /// At which one somebody was killed.
    killed: Option<String>,
}

pub(crate) fn port() -> u32 {
    PORTS.start + std::process::id() % (PORTS.end - PORTS.start)
}

fn seed() -> u64 {
    let given = std::env::var("GANTRY_SEED").ok();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = u64::from(now.unwrap().subsec_nanos());
    let seed = given.and_then(|text| text.parse().ok()).unwrap_or(now);
    println!("GANTRY_SEED={seed}");
    seed
}

/// Which of `total` steps are visited.
fn chosen(total: u64, seed: u64) -> Vec<u64> {
    if std::env::var("GANTRY_FAULTS").is_ok_and(|which| which == "all") {
        // A run may have some more than the one that was counted.
        return (1..=total + total / 20).collect();
    }
    let stride = (total / SOME).max(1);
    let first = seed % stride + 1;
    (first..=total)
        .step_by(usize::try_from(stride).unwrap())
        .collect()
}

/// Whether a part of the sweep is wanted: all are, unless `GANTRY_FAULTS_ONLY` names some.
fn wanted(name: &str) -> bool {
    std::env::var("GANTRY_FAULTS_ONLY").map_or(true, |only| name.contains(&only))
}

pub(crate) fn a_death_at_any_step_leaves_nothing() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let mut node = Node::start().await;
        let (_registry, image) = image::registry(&node, dir.path()).await;
        let seed = seed();
        // One whole life first, so that there is what is kept for good.
        assert!(node.end(Signal::TERM));
        let mut failed = Vec::new();
        for kind in KINDS {
            let mut kept = None;
            for deaths in kind.deaths().iter().copied() {
                let name = format!("{kind:?} {} {}", deaths.0.name(), deaths.1.name());
                if !wanted(&name) {
                    continue;
                }
                let quiet = Round::play(&mut node, kind, deaths, 0, &image).await;
                let quiet = quiet.unwrap_or_else(|why| panic!("{name}, without a death: {why}"));
                let kept = kept.get_or_insert_with(|| left::files(&node.data()));
                let numbers = chosen(quiet.steps, seed);
                println!("{name}: {} steps, visiting {}", quiet.steps, numbers.len());
                for number in numbers {
                    let began = Instant::now();
                    let done = Round::play(&mut node, kind, deaths, number, &image).await;
                    let files = left::files(&node.data());
                    let strange: Vec<_> = files.symmetric_difference(kept).collect();
                    let done = done.and_then(|done| match strange.as_slice() {
                        [] => Ok(done),
                        _ => Err(format!("files that differ: {strange:?}")),
                    });
                    let took = began.elapsed().as_millis();
                    match done {
                        Ok(done) => println!(
                            "{name} {number}/{}: {} {took} ms",
                            done.steps,
                            done.killed.as_deref().unwrap_or("not reached")
                        ),
                        Err(why) => {
                            println!("{name} {number}: FAILED {why}");
                            failed.push(format!("{name} {number}: {why}"));
                        }
                    }
                }
            }
        }
        assert!(failed.is_empty(), "{failed:#?}");
    });
}

impl<'a> Round<'a> {
    async fn play(
        node: &'a mut Node,
        kind: Kind,
        deaths: (Role, Role),
        number: u64,
        image: &'a str,
    ) -> Result<Done, String> {
        let report = node.beside("reports").join("report");
        let (watched, victim) = deaths;
        let id = format!("{kind:?}-{}-{}-{number}", watched.name(), victim.name());
        // One that counted before is another one.
        let again = {
            let heard = node.coordinator.heard.lock().unwrap();
            heard
                .updates
                .keys()
                .filter(|key| key.starts_with(&id))
                .count()
        };
        let id = format!("{id}.{again}");
        let tasks = match kind {
            Kind::Group => vec![format!("{id}-a"), format!("{id}-b")],
            _ => vec![id],
        };
        kinds::prepare(node, kind, &tasks, image).await;
        let told = node.coordinator.heard.lock().unwrap().registers.len();
        let plan = [watched.name(), victim.name(), &number.to_string()];
        let tracer = node.spawn_traced(plan, &report);
        let mut round = Self {
            node,
            kind,
            deaths,
            number,
            image,
            tasks,
            tracer,
            report,
            told,
        };
        let outcome = round.live().await;
        let (steps, killed) = round.reported();
        let at = killed.clone().unwrap_or_default();
        round.tracer.kill().unwrap();
        round.tracer.wait().unwrap();
        if let Err(why) = outcome {
            round.save_log();
            round.clean().await;
            return Err(format!("{why} (killed before {at})"));
        }
        Ok(Done { steps, killed })
    }

    async fn live(&mut self) -> Result<(), String> {
        self.until("the task to run", Self::launch, |round| {
            round.all(|states| {
                states.contains(&TaskState::TaskRunning)
                    || states.iter().any(|state| state.is_terminal())
            })
        })
        .await?;
        self.written().await?;
        self.update_limits();
        self.told = 0;
        self.until("the task to end", Self::kill, |round| {
            round.all(|states| states.iter().any(|state| state.is_terminal()))
        })
        .await?;
        self.judge()?;
        self.until(
            "all of the task to go",
            |_| (),
            |round| left::of_tasks(round.node, port()).is_empty(),
        )
        .await
        .map_err(|why| format!("{why}: left {:?}", left::of_tasks(self.node, port())))?;
        self.stop().await
    }

    /// Ends the node with all that it has, however often that takes.
    async fn stop(&mut self) -> Result<(), String> {
        for _ in 0..3 {
            self.node.signal(Signal::TERM);
            let deadline = Instant::now() + PATIENCE;
            let status = loop {
                if let Some(status) = self.node.ended() {
                    break status;
                }
                if Instant::now() > deadline {
                    return Err("the agent does not end".to_owned());
                }
                tokio::time::sleep(LOOK_EVERY).await;
            };
            if status.success() {
                let left = left::at_all(self.node);
                if !left.is_empty() {
                    return Err(format!("left after the end: {left:?}"));
                }
                return self.processes_gone().await;
            }
            self.excused(&status.to_string())?;
            self.node.start_agent().await;
        }
        Err("the node cannot be stopped".to_owned())
    }

    /// Who has nothing any more may take a moment to end.
    async fn processes_gone(&self) -> Result<(), String> {
        let born = self.born();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = left::processes(self.node, &born);
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("left after the end: {left:?}"));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits as a supervisor does: an agent that ended is started again. `tell` says what is wanted
    /// to each agent that registers.
    async fn until(
        &mut self,
        what: &str,
        tell: impl Fn(&Self),
        done: impl Fn(&Self) -> bool,
    ) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.node.ended() {
                self.excused(&status.to_string())?;
                self.node.spawn();
            }
            let registers = self.node.coordinator.heard.lock().unwrap().registers.len();
            if registers > self.told {
                self.told = registers;
                tell(self);
            }
            if done(self) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!(
                    "waited in vain for {what}; states {:?}",
                    self.states()
                ));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// An agent may end only if it was killed, or with what it started.
    fn excused(&self, how: &str) -> Result<(), String> {
        let may = matches!(self.deaths.1, Role::Agent | Role::Foreground | Role::Keeper);
        if may && self.reported().1.is_some() {
            return Ok(());
        }
        Err(format!("the agent ended by itself: {how}"))
    }

    fn launch(&self) {
        kinds::launch(self.node, self.kind, &self.tasks, self.image);
    }

    fn kill(&self) {
        self.node.coordinator.kill(&self.tasks[0], 200);
    }

    fn updates(&self, task: &str) -> Vec<StatusUpdate> {
        let heard = self.node.coordinator.heard.lock().unwrap();
        heard.updates.get(task).cloned().unwrap_or_default()
    }

    fn states(&self) -> Vec<Vec<TaskState>> {
        let of = |task: &String| self.updates(task).iter().map(state).collect();
        self.tasks.iter().map(of).collect()
    }

    fn all(&self, test: impl Fn(&[TaskState]) -> bool) -> bool {
        self.states().iter().all(|states| test(states))
    }

    fn running(&self, task: &str) -> Option<StatusUpdate> {
        let mut updates = self.updates(task).into_iter();
        updates.find(|update| state(update) == TaskState::TaskRunning)
    }

    /// Running says that the shell was executed, not yet that it came to its first word.
    async fn written(&mut self) -> Result<(), String> {
        let running: Vec<_> = self
            .tasks
            .iter()
            .filter_map(|id| self.running(id))
            .collect();
        self.until(
            "the first word",
            |_| (),
            |round| {
                let over = round.all(|states| states.iter().any(|state| state.is_terminal()));
                let read = |update: &StatusUpdate| {
                    let path = PathBuf::from(&update.sandbox).join("stdout");
                    std::fs::read(path).is_ok_and(|text| !text.is_empty())
                };
                over || running.iter().all(read)
            },
        )
        .await
    }

    /// Changes the limits of what runs, as far as the keeper lives through it.
    fn update_limits(&self) {
        let Some(running) = self.running(&self.tasks[0]) else {
            return;
        };
        let id = ContainerId::try_from(running.container_id.as_str()).unwrap();
        let Ok(Some(client)) = Client::connect(&self.node.data()) else {
            return;
        };
        let limits = Limits {
            cpu_shares: Some(100),
            pids_max: Some(100),
            ..Limits::default()
        };
        let limits = Box::new(limits);
        if client
            .request(&Request::Update { id, limits }, &[])
            .is_err()
        {
            return;
        }
        loop {
            match client.recv_timeout(PATIENCE) {
                Ok(Received::Timeout) => panic!("the keeper does not answer an update"),
                Ok(
                    Received::Event(Event::Updated { .. } | Event::Refused { .. })
                    | Received::Closed,
                )
                | Err(_) => return,
                Ok(Received::Event(_)) => {}
            }
        }
    }

    /// Whether what was told of the tasks is what was to be told.
    fn judge(&self) -> Result<(), String> {
        for task in &self.tasks {
            let updates = self.updates(task);
            let mut states: Vec<TaskState> = updates.iter().map(state).collect();
            states.dedup();
            let end = updates.last().ok_or("nothing was said")?;
            let whole = [
                TaskState::TaskStarting,
                TaskState::TaskRunning,
                TaskState::TaskKilled,
            ];
            let lost = state(end) == TaskState::TaskFailed
                && end.reason == Some(Reason::ReasonAgentRestarted as i32);
            let failed = state(end) == TaskState::TaskFailed;
            let dead = self.reported().1.is_some();
            let good = match self.deaths.1 {
                Role::Keeper => states == whole || lost || state(end) == TaskState::TaskKilled,
                // Whose first process was killed may end in any way, but has to say how.
                Role::Setup if dead => failed || state(end) == TaskState::TaskKilled,
                _ => states == whole,
            };
            let ran = std::fs::read_to_string(PathBuf::from(&end.sandbox).join("stdout"));
            let ran = ran.unwrap_or_default();
            let once = ran == "ran\n" || (ran.is_empty() && self.deaths.1 != Role::Agent);
            if !good || !once {
                return Err(format!(
                    "{task}: {states:?}, wrote {ran:?}, at last {end:?}"
                ));
            }
        }
        Ok(())
    }

    /// How many steps there were, and which was the last of somebody.
    fn reported(&self) -> (u64, Option<String>) {
        let text = std::fs::read_to_string(&self.report).unwrap_or_default();
        let steps: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("step"))
            .collect();
        let killed = text.lines().any(|line| line.starts_with("killed"));
        let last = steps.last().map(|line| (*line).to_owned());
        let count = u64::try_from(steps.len()).unwrap();
        (count, last.filter(|_| killed))
    }

    /// The processes that the tracer saw.
    fn born(&self) -> Vec<u32> {
        let text = std::fs::read_to_string(&self.report).unwrap_or_default();
        text.lines()
            .filter_map(|line| line.strip_prefix("born ")?.split(' ').nth(1)?.parse().ok())
            .collect()
    }

    fn save_log(&self) {
        let name = format!(
            "{:?}-{}-{}-{}",
            self.kind,
            self.deaths.0.name(),
            self.deaths.1.name(),
            self.number
        );
        if let Ok(dir) = std::env::var("GANTRY_FAULTS_LOGS") {
            let to = |what: &str| PathBuf::from(&dir).join(format!("{name}.{what}"));
            std::fs::copy(self.node.log(), to("log")).unwrap();
            std::fs::copy(&self.report, to("steps")).unwrap();
            let _ = std::fs::copy(self.node.data().join("keeper.log"), to("keeper"));
        }
    }

    /// After a failure, so that the next round begins with nothing.
    async fn clean(&mut self) {
        if self.node.ended().is_none() {
            self.node.signal(Signal::KILL);
            while self.node.ended().is_none() && self.node.has_agent() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        std::fs::create_dir_all(self.node.data()).unwrap();
        self.node.wipe();
        self.node.start_agent().await;
        self.node.end(Signal::TERM);
    }
}
