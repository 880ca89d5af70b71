//! Arbitrary histories of executors of frameworks' own: crashes of the agent between any two
//! actions, broken streams, deaths of the executor and of the keeper, kills, lost connections. The
//! executor is honest: it keeps what was not acknowledged and says it again. A failure is shrunk.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use gantry_agent_core::{
    Action, ChargeCheckpoint, CustomCheckpoint, CustomLaunch, Event, ExecutorCall, ExecutorKey,
    Exit, KeeperId, Now, Saved, Seen, Stage, Tasks, Unit,
};
use gantry_wire::agent::{Launch, StatusUpdate};
use gantry_wire::ids::{ContainerId, ExecutorId, FrameworkId, TaskId};
use gantry_wire::mesos::v1;
use gantry_wire::mesos::v1::executor::{Event as Told, event};
use gantry_wire::task::TaskState;
use gantry_wire::time::Millis;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Launch(usize, bool),
    LaunchAgain(prop::sample::Index),
    Kill(prop::sample::Index),
    Shutdown,
    Subscribe,
    Break,
    Say(prop::sample::Index, bool),
    Exit,
    KeeperDies,
    CrashAfter(usize),
    Connect,
    Disconnect,
    ResizeFails,
    Pass(u64),
    Deliver(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let n = any::<prop::sample::Index>;
    prop_oneof![
        4 => (1..4_usize, any::<bool>()).prop_map(|(tasks, group)| Step::Launch(tasks, group)),
        1 => n().prop_map(Step::LaunchAgain),
        2 => n().prop_map(Step::Kill),
        1 => Just(Step::Shutdown),
        5 => Just(Step::Subscribe),
        1 => Just(Step::Break),
        6 => (n(), any::<bool>()).prop_map(|(task, end)| Step::Say(task, end)),
        1 => Just(Step::Exit),
        1 => Just(Step::KeeperDies),
        1 => (0..10_usize).prop_map(Step::CrashAfter),
        2 => Just(Step::Connect),
        1 => Just(Step::Disconnect),
        1 => Just(Step::ResizeFails),
        2 => (1..70_000_u64).prop_map(Step::Pass),
        9 => (1..8_usize).prop_map(Step::Deliver),
    ]
}

/// The program; a new one for each container.
#[derive(Default)]
struct Program {
    listens: bool,
    heard_of: BTreeSet<TaskId>,
    unacknowledged: BTreeSet<TaskId>,
    updates: VecDeque<v1::TaskStatus>,
    ended: BTreeSet<TaskId>,
}

#[derive(Default)]
struct World {
    tasks: Tasks,
    disk: Option<CustomCheckpoint>,
    keeper: BTreeMap<ContainerId, Seen>,
    keeper_id: u64,
    started: BTreeSet<ContainerId>,
    events: VecDeque<Event>,
    program: Program,
    launches: Vec<CustomLaunch>,
    known: BTreeMap<TaskId, Vec<StatusUpdate>>,
    crash_after: Option<usize>,
    resize_fails: bool,
    uptime_ms: u64,
    seed: u128,
    minted: u64,
}

fn key() -> ExecutorKey {
    ExecutorKey {
        framework: FrameworkId::parse("f").unwrap(),
        executor: ExecutorId::parse("e").unwrap(),
    }
}

impl World {
    fn new() -> Self {
        let mut world = Self::default();
        world.list();
        world
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Launch(tasks, group) => self.launch(*tasks, *group),
            Step::LaunchAgain(n) if !self.launches.is_empty() => {
                let mut again = n.get(&self.launches).clone();
                again.container = self.mint();
                self.events.push_back(Event::LaunchCustom(Box::new(again)));
            }
            Step::Kill(n) if !self.launches.is_empty() => {
                let launch = n.get(&self.launches);
                let task = launch.tasks[n.index(launch.tasks.len())].0.clone();
                let grace_ms = 1_000;
                self.events.push_back(Event::Kill { task, grace_ms });
            }
            Step::Shutdown => self.shutdown(),
            Step::Subscribe => self.subscribe(),
            Step::Break if self.program.listens => self.break_stream(),
            Step::Say(n, end) => self.say(n, *end),
            Step::Exit => self.exit(Ok(1)),
            Step::KeeperDies => {
                self.keeper.clear();
                self.keeper_id += 1;
                self.events
                    .retain(|event| !matches!(event, Event::Started { .. } | Event::Exited { .. }));
                self.program = Program::default();
                self.list();
            }
            Step::CrashAfter(n) => self.crash_after = Some(*n),
            Step::Connect => self.step(Event::Connected),
            Step::Disconnect => self.step(Event::Disconnected),
            Step::ResizeFails => self.resize_fails = true,
            Step::Pass(ms) => self.pass(*ms),
            Step::Deliver(n) => {
                for _ in 0..*n {
                    self.deliver();
                }
            }
            Step::LaunchAgain(_) | Step::Kill(_) | Step::Break => {}
        }
    }

    fn mint(&mut self) -> ContainerId {
        self.minted += 1;
        ContainerId::parse(format!("c{}", self.minted)).unwrap()
    }

    fn launch(&mut self, tasks: usize, group: bool) {
        let number = self.launches.len();
        let task = |n: usize| {
            let id = format!("t{number}-{n}");
            let info = v1::TaskInfo {
                task_id: v1::TaskId { value: id.clone() },
                resources: vec![gantry_wire::mesos::amounts::scalar_resource("cpus", 1.0)],
                ..v1::TaskInfo::default()
            };
            (TaskId::parse(id).unwrap(), info)
        };
        let launch = CustomLaunch {
            executor: key(),
            framework: v1::FrameworkInfo {
                checkpoint: Some(true),
                ..v1::FrameworkInfo::default()
            },
            info: v1::ExecutorInfo::default(),
            process: Launch::default(),
            container: self.mint(),
            sandbox: "/s".into(),
            tasks: (0..tasks).map(task).collect(),
            group,
        };
        self.launches.push(launch.clone());
        self.events.push_back(Event::LaunchCustom(Box::new(launch)));
    }

    fn shutdown(&mut self) {
        self.events.push_back(Event::ShutdownExecutor {
            executor: key(),
            grace_ms: Some(1_000),
        });
    }

    fn running(&self) -> Option<ContainerId> {
        let runs = |(_, seen): &(&ContainerId, &Seen)| matches!(seen, Seen::Running { .. });
        self.keeper.iter().find(runs).map(|(id, _)| id.clone())
    }

    fn call(&mut self, call: ExecutorCall) {
        let executor = key();
        self.step(Event::ExecutorCall { executor, call });
    }

    fn subscribe(&mut self) {
        let runs = self.tasks.custom(&key()).is_some_and(|custom| custom.runs);
        if self.running().is_none() || !runs {
            return;
        }
        self.program.listens = true;
        let tasks = self.program.unacknowledged.iter().cloned().collect();
        let updates = self.program.updates.iter().cloned().collect();
        self.call(ExecutorCall::Subscribe { tasks, updates });
    }

    fn break_stream(&mut self) {
        self.program.listens = false;
        self.call(ExecutorCall::Unsubscribe);
    }

    fn say(&mut self, n: &prop::sample::Index, end: bool) {
        let live: Vec<TaskId> = self.program.heard_of.iter().cloned().collect();
        if !self.program.listens || live.is_empty() {
            return;
        }
        let task = n.get(&live).clone();
        if self.program.ended.contains(&task) {
            return;
        }
        self.minted += 1;
        let state = if end {
            self.program.ended.insert(task.clone());
            v1::TaskState::TaskFinished
        } else {
            v1::TaskState::TaskRunning
        };
        let status = v1::TaskStatus {
            task_id: (&task).into(),
            state: state as i32,
            source: Some(v1::task_status::Source::SourceExecutor as i32),
            uuid: Some(u128::from(self.minted).to_be_bytes().to_vec()),
            ..v1::TaskStatus::default()
        };
        self.program.updates.push_back(status.clone());
        if self.tasks.check_update(&key(), &status).is_ok() {
            self.call(ExecutorCall::Update(Box::new(status)));
        }
    }

    fn exit(&mut self, status: Result<i32, i32>) {
        let Some(container) = self.running() else {
            return;
        };
        let exit = Exit {
            status,
            oom_killed: false,
        };
        self.keeper.insert(container.clone(), Seen::Exited(exit));
        self.program = Program::default();
        self.events.push_back(Event::Exited { container, exit });
    }

    fn list(&mut self) {
        let keeper = KeeperId(self.keeper_id);
        let containers = self.keeper.clone();
        self.step(Event::Listing { keeper, containers });
    }

    fn pass(&mut self, ms: u64) {
        self.uptime_ms += ms;
        if self
            .tasks
            .deadline_ms()
            .is_some_and(|at| at <= self.uptime_ms)
        {
            self.step(Event::Tick);
        }
    }

    fn deliver(&mut self) {
        if let Some(event) = self.events.pop_front() {
            self.step(event);
        }
    }

    fn step(&mut self, event: Event) {
        self.seed += 1 << 32;
        let now = Now {
            wall: Millis(self.uptime_ms),
            uptime_ms: self.uptime_ms,
            seed: self.seed,
        };
        let mut actions = Vec::new();
        self.tasks.step(now, event, &mut actions);
        for action in actions {
            self.act(action);
            match &mut self.crash_after {
                Some(0) => return self.crash(),
                Some(n) => *n -= 1,
                None => {}
            }
        }
    }

    /// kill -9 of the agent and a new start.
    fn crash(&mut self) {
        self.crash_after = None;
        self.events.clear();
        self.program.listens = false;
        let saved = Saved {
            customs: self.disk.iter().cloned().collect(),
            ..Saved::default()
        };
        let here = |id: &TaskId| {
            let saved = self.disk.iter().flat_map(|it| &it.charges);
            saved.into_iter().any(|charge| charge.task == *id)
        };
        // What a sandbox would tell is not there for these; the coordinator launches none again.
        let over: Vec<TaskId> = self.known.keys().filter(|id| !here(id)).cloned().collect();
        self.tasks = Tasks::restore(saved, over);
        self.list();
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Save { unit, .. } => {
                assert_eq!(unit, Unit::Executor(key()));
                if let Some(saved) = self.tasks.custom_checkpoint(&key()) {
                    self.disk = Some(saved);
                }
            }
            Action::Attach { task } => {
                let ip = String::new();
                self.events.push_back(Event::Attached { task, ip });
            }
            Action::Start { task } => self.start(&task),
            Action::Signal { .. } => self.exit(Err(9)),
            Action::Release { container, .. } => {
                let saved = self.disk.as_ref().unwrap();
                // Nobody needs to know how it ended when all its tasks had before.
                let told = |charge: &ChargeCheckpoint| {
                    charge.state.is_terminal() && charge.pending.is_empty()
                };
                assert!(
                    saved.process.stage == Stage::Ended || saved.charges.iter().all(told),
                    "released before it was saved"
                );
                self.keeper.remove(&container);
            }
            Action::DiscardExecutor { .. } => self.disk = None,
            Action::Deliver { event, .. } => self.told(*event),
            Action::Resize { executor } => {
                let failed = std::mem::take(&mut self.resize_fails);
                let result = if failed { Err("no".to_owned()) } else { Ok(()) };
                self.events.push_back(Event::Resized { executor, result });
            }
            Action::Send(update) => self.received(update),
            Action::Welcome { .. }
            | Action::TellMessage { .. }
            | Action::TellEnded { .. }
            | Action::CancelPull { .. } => {}
            Action::Destroy { container } | Action::Forget { container } => {
                self.keeper.remove(&container);
            }
            other => panic!("nobody asked for {other:?}"),
        }
    }

    fn start(&mut self, task: &TaskId) {
        let container = ContainerId::parse(task.as_str()).unwrap();
        let saved = self.disk.as_ref().unwrap();
        assert_eq!(
            saved.process.stage,
            Stage::Starting,
            "asked before it was saved"
        );
        if !self.keeper.contains_key(&container) {
            assert!(self.started.insert(container.clone()), "started twice");
            self.program = Program::default();
            self.keeper
                .insert(container.clone(), Seen::Running { pid: 7 });
        }
        self.events.push_back(Event::Started { container, pid: 7 });
    }

    fn told(&mut self, told: Told) {
        if !self.program.listens {
            return;
        }
        match told.r#type() {
            event::Type::Launch => self.entrusted(&told.launch.unwrap().task),
            event::Type::LaunchGroup => {
                for task in &told.launch_group.unwrap().task_group.tasks {
                    self.entrusted(task);
                }
            }
            event::Type::Acknowledged => {
                let acknowledged = told.acknowledged.unwrap();
                let id = TaskId::try_from(&acknowledged.task_id).unwrap();
                let saved = self.disk.iter().flat_map(|it| &it.charges);
                let mut saved = saved.filter(|charge| charge.task == id);
                let durable = saved.all(|charge| {
                    charge.heard.contains(&acknowledged.uuid) || charge.state.is_terminal()
                });
                assert!(durable, "acknowledged before it was saved");
                self.program.unacknowledged.remove(&id);
                let other = |status: &v1::TaskStatus| status.uuid() != acknowledged.uuid;
                self.program.updates.retain(other);
            }
            event::Type::Kill => {
                let id = TaskId::try_from(&told.kill.unwrap().task_id).unwrap();
                assert!(
                    self.program.heard_of.contains(&id),
                    "killed what it never heard of"
                );
            }
            _ => {}
        }
    }

    fn entrusted(&mut self, task: &v1::TaskInfo) {
        let id = TaskId::try_from(&task.task_id).unwrap();
        assert!(
            self.program.heard_of.insert(id.clone()),
            "{id} was launched twice"
        );
        self.program.unacknowledged.insert(id);
    }

    fn received(&mut self, update: StatusUpdate) {
        let task = TaskId::parse(update.task_id.clone()).unwrap();
        let uuid = update.uuid.clone();
        let known = self.known.entry(task.clone()).or_default();
        if known.iter().all(|before| before.uuid != uuid) {
            let over = |before: &StatusUpdate| state(before).is_terminal();
            assert!(
                !known.iter().any(over),
                "an update after the terminal one: {update:?}"
            );
            known.push(update);
        }
        self.events.push_back(Event::Acknowledge { task, uuid });
    }

    /// No more trouble: everything must come to its end.
    fn settle(&mut self) {
        self.crash_after = None;
        self.resize_fails = false;
        self.step(Event::Connected);
        for launch in self.launches.clone() {
            let heard = |(id, _): &(TaskId, v1::TaskInfo)| self.known.contains_key(id);
            if !launch.tasks.iter().all(heard) {
                let container = self.mint();
                let again = CustomLaunch {
                    container,
                    ..launch
                };
                self.events.push_back(Event::LaunchCustom(Box::new(again)));
            }
        }
        for _ in 0..60 {
            while !self.events.is_empty() {
                self.deliver();
            }
            self.shutdown();
            self.pass(70_000);
        }
    }
}

fn state(update: &StatusUpdate) -> TaskState {
    TaskState::try_from(update.state).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_000,
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_task_ends_once_and_nothing_is_left(steps in prop::collection::vec(step(), 1..80)) {
        let mut world = World::new();
        for step in steps {
            world.take(&step);
        }
        world.settle();
        for launch in &world.launches {
            for (id, _) in &launch.tasks {
                let known = world.known.get(id).unwrap_or_else(|| panic!("{id}: nothing was said"));
                assert!(known.last().is_some_and(|last| state(last).is_terminal()), "{id}: {known:?}");
            }
        }
        assert!(world.disk.is_none() && world.keeper.is_empty(), "{:?}", world.keeper);
        assert_eq!(world.tasks.known(), []);
        assert_eq!(world.tasks.customs().count(), 0);
    }
}
