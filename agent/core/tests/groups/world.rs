//! An agent's surroundings in memory: disk, keeper, coordinator, and messages on their way. What
//! must never happen is asserted where it would.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use gantry_agent_core::{
    Action, Checkpoint, DiskExcess, Event, ExecutorCheckpoint, ExecutorKey, Exit, GroupLaunch,
    KeeperId, Member, Now, Saved, Seen, Signal, Stage, Tasks, Unit,
};
use gantry_wire::agent::{ExecutorInfo, Launch, NetworkMode, StatusUpdate};
use gantry_wire::ids::{ContainerId, ExecutorId, FrameworkId, TaskId};
use gantry_wire::task::TaskState;
use gantry_wire::time::Millis;
use proptest::sample::Index;

/// One thing that the world does.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Launch {
        executor: u8,
        tasks: usize,
        /// A bit for each task that has an image.
        images: u8,
        bridge: bool,
    },
    LaunchAgain(Index),
    Kill(Index, u64),
    Shutdown(u8),
    Exit(Index, bool),
    OverDisk(Index),
    /// The container of some executor ends by itself.
    RootDies,
    KeeperDies,
    /// kill -9 of the agent after so many more actions.
    CrashAfter(usize),
    List,
    Disconnect,
    Connect,
    /// The next pull, attach, executor's attach or start fails, or the next update is lost.
    FailNext(u8),
    Pass(u64),
    /// So many messages arrive.
    Deliver(usize),
}

#[derive(Default)]
struct Known {
    uuids: Vec<Vec<u8>>,
    last: Option<StatusUpdate>,
}

pub(crate) struct World {
    tasks: Tasks,
    disk: BTreeMap<ExecutorKey, ExecutorCheckpoint>,
    keeper: BTreeMap<ContainerId, Seen>,
    keeper_id: u64,
    /// Containers of tasks that were ever started.
    started: BTreeSet<ContainerId>,
    /// To the agent process; lost with it.
    events: VecDeque<Event>,
    in_flight: BTreeMap<TaskId, Vec<u8>>,
    coordinator: BTreeMap<TaskId, Known>,
    groups: Vec<GroupLaunch>,
    fail: BTreeSet<u8>,
    crash_after: Option<usize>,
    connected: bool,
    uptime_ms: u64,
    seed: u128,
    minted: u64,
}

fn exit(code: i32) -> Exit {
    let status = if code == 137 { Err(9) } else { Ok(code) };
    Exit {
        status,
        oom_killed: false,
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let mut world = Self {
            tasks: Tasks::default(),
            disk: BTreeMap::new(),
            keeper: BTreeMap::new(),
            keeper_id: 0,
            started: BTreeSet::new(),
            events: VecDeque::new(),
            in_flight: BTreeMap::new(),
            coordinator: BTreeMap::new(),
            groups: Vec::new(),
            fail: BTreeSet::new(),
            crash_after: None,
            connected: false,
            uptime_ms: 0,
            seed: 1,
            minted: 0,
        };
        world.list();
        world
    }

    pub(crate) fn take(&mut self, step: &Step) {
        match *step {
            Step::Launch {
                executor,
                tasks,
                images,
                bridge,
            } => self.launch(executor, tasks, images, bridge),
            Step::LaunchAgain(n) if !self.groups.is_empty() => {
                let group = n.get(&self.groups).clone();
                self.send_launch(group);
            }
            Step::Kill(n, grace_ms) if !self.groups.is_empty() => {
                let group = n.get(&self.groups);
                let task = group.members[n.index(group.members.len())].task.clone();
                self.events.push_back(Event::Kill { task, grace_ms });
            }
            Step::Shutdown(executor) => self.events.push_back(Event::ShutdownExecutor {
                executor: key(executor),
                grace_ms: Some(1_000),
            }),
            Step::Exit(n, well) => {
                if let Some(container) = self.running_task(n) {
                    self.end(&container, exit(i32::from(!well)));
                }
            }
            Step::OverDisk(n) => {
                if let Some(container) = self.running_task(n) {
                    let excess = DiskExcess {
                        used_bytes: 2,
                        limit_bytes: 1,
                        uncounted: false,
                        parked: 0,
                        used_files: 0,
                        limit_files: 0,
                    };
                    self.events.push_back(Event::OverDisk { container, excess });
                }
            }
            Step::RootDies => {
                let root = self
                    .disk
                    .values()
                    .map(|saved| saved.container.clone())
                    .next();
                if let Some(root) = root {
                    self.end(&root, exit(137));
                }
            }
            Step::KeeperDies => self.keeper_dies(),
            Step::CrashAfter(n) => self.crash_after = Some(n),
            Step::List => self.list(),
            Step::Disconnect => self.step(Event::Disconnected),
            Step::Connect => self.step(Event::Connected),
            Step::FailNext(what) => {
                self.fail.insert(what);
            }
            Step::Pass(ms) => self.pass(ms),
            Step::Deliver(n) => {
                for _ in 0..n {
                    if let Some(event) = self.events.pop_front() {
                        self.step(event);
                    }
                }
            }
            Step::LaunchAgain(_) | Step::Kill(..) => {}
        }
    }

    fn launch(&mut self, executor: u8, tasks: usize, images: u8, bridge: bool) {
        let number = self.groups.len();
        let network = if bridge {
            NetworkMode::Bridge
        } else {
            NetworkMode::Host
        } as i32;
        let info = ExecutorInfo {
            framework_id: "f".into(),
            executor_id: format!("e{executor}"),
            network,
            ..ExecutorInfo::default()
        };
        let member = |n: usize| {
            let task = TaskId::parse(format!("g{number}-{n}")).unwrap();
            let image = if images & (1 << n) == 0 { "" } else { "img" };
            let launch = Launch {
                task_id: task.to_string(),
                image: image.into(),
                kill_grace_ms: 2_000,
                killing_state: n == 1,
                ..Launch::default()
            };
            Member {
                launch,
                container: ContainerId::parse("later").unwrap(),
                sandbox: "/s".into(),
                task,
            }
        };
        let group = GroupLaunch {
            executor: key(executor),
            info,
            container: ContainerId::parse("later").unwrap(),
            sandbox: "/s".into(),
            members: (0..tasks).map(member).collect(),
        };
        self.groups.push(group.clone());
        self.send_launch(group);
    }

    pub(crate) fn launch_again(&mut self, group: usize) {
        self.send_launch(self.groups[group].clone());
    }

    /// With ids as the shell mints them for each message.
    fn send_launch(&mut self, mut group: GroupLaunch) {
        group.container = self.mint("root");
        for member in &mut group.members {
            self.minted += 1;
            member.container = ContainerId::parse(format!("c{}", self.minted)).unwrap();
        }
        self.events.push_back(Event::LaunchGroup(Box::new(group)));
    }

    fn mint(&mut self, what: &str) -> ContainerId {
        self.minted += 1;
        ContainerId::parse(format!("{what}{}", self.minted)).unwrap()
    }

    fn running_task(&self, n: Index) -> Option<ContainerId> {
        let runs = |(id, seen): &(&ContainerId, &Seen)| {
            matches!(seen, Seen::Running { .. }) && !id.as_str().starts_with("root")
        };
        let running: Vec<_> = self.keeper.iter().filter(runs).collect();
        (!running.is_empty()).then(|| n.get(&running).0.clone())
    }

    fn end(&mut self, container: &ContainerId, exit: Exit) {
        if let Some(seen) = self.keeper.get_mut(container)
            && matches!(seen, Seen::Running { .. })
        {
            *seen = Seen::Exited(exit);
            self.events.push_back(Event::Exited {
                container: container.clone(),
                exit,
            });
        }
    }

    fn keeper_dies(&mut self) {
        self.keeper.clear();
        self.keeper_id += 1;
        self.events.retain(|event| {
            !matches!(
                event,
                Event::Started { .. } | Event::StartFailed { .. } | Event::Exited { .. }
            )
        });
        self.list();
    }

    fn list(&mut self) {
        let keeper = KeeperId(self.keeper_id);
        let containers = self.keeper.clone();
        self.step(Event::Listing { keeper, containers });
    }

    fn pass(&mut self, ms: u64) {
        self.uptime_ms += ms;
        let due = self.tasks.deadline_ms();
        if due.is_some_and(|at| at <= self.uptime_ms) {
            self.step(Event::Tick);
        }
    }

    fn step(&mut self, event: Event) {
        match &event {
            Event::Acknowledge { task, uuid } if self.in_flight.get(task) == Some(uuid) => {
                self.in_flight.remove(task);
            }
            Event::Connected | Event::Disconnected => {
                self.connected = matches!(event, Event::Connected);
                self.in_flight.clear();
            }
            _ => {}
        }
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
                Some(0) => {
                    self.crash_after = None;
                    return self.crash();
                }
                Some(left) => *left -= 1,
                None => {}
            }
        }
    }

    /// kill -9 of the agent and a new start.
    fn crash(&mut self) {
        self.connected = false;
        self.events.clear();
        self.in_flight.clear();
        let on_disk: BTreeSet<_> = self.saved_tasks().into_keys().collect();
        let over = self.coordinator.keys().filter(|id| !on_disk.contains(*id));
        let saved = Saved {
            executors: self.disk.values().cloned().collect(),
            ..Saved::default()
        };
        self.tasks = Tasks::restore(saved, over.cloned().collect::<Vec<_>>());
        self.list();
    }

    /// Stage and container of every task on disk.
    fn saved_tasks(&self) -> BTreeMap<TaskId, (Stage, ContainerId)> {
        let tasks = self.disk.values().flat_map(|saved| &saved.tasks);
        let shown = |(_, task): &(u32, Checkpoint)| {
            (task.task.clone(), (task.stage, task.container.clone()))
        };
        tasks.map(shown).collect()
    }

    fn fails(&mut self, what: u8) -> bool {
        self.fail.remove(&what)
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Save { unit, .. } => {
                let Unit::Executor(key) = unit else {
                    panic!("a task of a group is saved with it: {unit}");
                };
                if let Some(saved) = self.tasks.executor_checkpoint(&key) {
                    self.disk.insert(key, saved);
                }
            }
            Action::Discard { task } => {
                let saved = self.saved_tasks();
                let saved = saved.get(&task);
                let over = saved.is_none_or(|(stage, _)| *stage == Stage::Ended);
                assert!(over, "{task} is forgotten before its end is saved");
            }
            Action::DiscardExecutor { executor, .. } => {
                self.disk.remove(&executor);
            }
            Action::CancelPull { .. } | Action::Probe { .. } => {}
            Action::Welcome { executor, .. }
            | Action::Deliver { executor, .. }
            | Action::Resize { executor }
            | Action::TellMessage { executor, .. }
            | Action::TellEnded { executor, .. } => panic!("nobody asked for {executor}"),
            Action::Pull { .. } | Action::Attach { .. } | Action::AttachExecutor { .. } => {
                let event = self.provide(action);
                self.events.push_back(event);
            }
            Action::Send(update) => self.receive(update),
            action => self.contain(action),
        }
    }

    /// What is to be made before a container; its answer.
    fn provide(&mut self, action: Action) -> Event {
        let cause = "it does not want to".to_owned();
        match action {
            Action::Pull { task } if self.fails(0) => Event::PullFailed { task, cause },
            Action::Pull { task } => Event::Pulled { task },
            Action::Attach { task } if self.fails(1) => Event::AttachFailed { task, cause },
            Action::Attach { task } => {
                let ip = String::new();
                Event::Attached { task, ip }
            }
            Action::AttachExecutor { executor } if self.fails(2) => {
                Event::ExecutorAttachFailed { executor, cause }
            }
            Action::AttachExecutor { executor } => {
                let ip = "10.0.0.2".to_owned();
                Event::ExecutorAttached { executor, ip }
            }
            action => panic!("{action:?} makes nothing"),
        }
    }

    /// What the keeper is asked.
    fn contain(&mut self, action: Action) {
        match action {
            Action::StartExecutor { executor } => {
                let saved = &self.disk[&executor];
                assert_eq!(saved.keeper, Some(KeeperId(self.keeper_id)));
                assert_eq!(saved.stage, Stage::Starting, "asked before it was saved");
                let container = saved.container.clone();
                self.start_container(container);
            }
            Action::Start { task } => self.start(&task),
            Action::Signal { container, signal } => {
                if signal == Signal::Kill || self.minted.is_multiple_of(2) {
                    self.end(&container, exit(137));
                }
            }
            Action::Destroy { container } => {
                let mut saved = self.saved_tasks().into_values();
                let live = saved.any(|(stage, own)| own == container && stage != Stage::Ended);
                assert!(!live, "destroyed the container of a task");
                self.end(&container, exit(137));
            }
            Action::Release { task, container } => {
                let (stage, _) = self.saved_tasks()[&task];
                assert_eq!(stage, Stage::Ended, "released too early");
                self.keeper.remove(&container);
            }
            Action::ReleaseExecutor {
                executor,
                container,
            } => {
                let saved = &self.disk[&executor];
                let over = |(_, task): &(u32, Checkpoint)| task.stage == Stage::Ended;
                assert!(saved.stage == Stage::Ended || saved.tasks.iter().all(over));
                self.keeper.remove(&container);
            }
            Action::Forget { container } => {
                self.keeper.remove(&container);
            }
            action => panic!("the keeper knows no {action:?}"),
        }
    }

    fn start(&mut self, task: &TaskId) {
        let executor = self.tasks.executor_of(task).unwrap().key.clone();
        let saved = self.disk[&executor].clone();
        let of = |(_, task): &&(u32, Checkpoint)| task.task.clone();
        let (group, own) = saved.tasks.iter().find(|it| of(it) == *task).unwrap();
        assert_eq!(own.stage, Stage::Starting, "asked before it was saved");
        assert_eq!(own.ip, saved.ip);
        let root = self.keeper.get(&saved.container);
        assert!(matches!(root, Some(Seen::Running { .. } | Seen::Exited(_))));
        let launched = self
            .groups
            .iter()
            .find(|group| group.members.iter().any(|member| member.task == *task));
        // Every other one is in the same state of readiness, or has been through it.
        for member in &launched.unwrap().members {
            let state = saved.tasks.iter().find(|it| of(it) == member.task);
            let in_group = state.is_none_or(|(number, _)| number == group);
            let gone = state.is_none() && self.coordinator.contains_key(&member.task);
            let ready = state.is_some_and(|(_, task)| task.stage != Stage::Accepted);
            assert!(
                in_group && (gone || ready),
                "{task} starts before {}",
                member.task
            );
        }
        let container = own.container.clone();
        let runs = matches!(root, Some(Seen::Running { .. }));
        if self.fails(3) || !runs {
            let cause = "no".to_owned();
            self.events
                .push_back(Event::StartFailed { container, cause });
            return;
        }
        if !self.keeper.contains_key(&container) {
            assert!(self.started.insert(container.clone()), "{task} runs twice");
        }
        self.start_container(container);
    }

    fn start_container(&mut self, container: ContainerId) {
        let pid = 7;
        let seen = self
            .keeper
            .entry(container.clone())
            .or_insert(Seen::Running { pid });
        let ended = match seen {
            Seen::Exited(exit) => Some(*exit),
            _ => None,
        };
        let (id, started) = (container.clone(), container);
        self.events.push_back(Event::Started {
            container: started,
            pid,
        });
        if let Some(exit) = ended {
            self.events.push_back(Event::Exited {
                container: id,
                exit,
            });
        }
    }

    fn receive(&mut self, update: StatusUpdate) {
        assert!(self.connected, "sent while disconnected");
        let task = TaskId::parse(update.task_id.clone()).unwrap();
        if self.saved_tasks().contains_key(&task) {
            let before = self.in_flight.insert(task.clone(), update.uuid.clone());
            let alone = before.is_none_or(|uuid| uuid == update.uuid);
            assert!(alone, "two updates of {task} in flight");
        }
        if self.fails(4) {
            return;
        }
        let known = self.coordinator.entry(task.clone()).or_default();
        let uuid = update.uuid.clone();
        if !known.uuids.contains(&uuid) {
            let over = known.last.as_ref().is_some_and(is_terminal);
            assert!(!over, "an update of {task} after the terminal one");
            known.uuids.push(uuid.clone());
            known.last = Some(update);
        }
        self.events.push_back(Event::Acknowledge { task, uuid });
    }

    pub(crate) fn deliver_all(&mut self) {
        while let Some(event) = self.events.pop_front() {
            self.step(event);
        }
    }

    /// No more trouble: whatever is under way comes to rest.
    pub(crate) fn calm_down(&mut self) {
        self.fail.clear();
        self.crash_after = None;
        self.deliver_all();
        self.step(Event::Connected);
        for _ in 0..20 {
            self.deliver_all();
            self.pass(20_000);
        }
        self.deliver_all();
    }

    /// At rest: nobody outlives a bad end in its group, nobody ends without a reason, and
    /// executors are there for whoever lives.
    pub(crate) fn check_rest(&self) {
        for group in &self.groups {
            let states: Vec<_> = group
                .members
                .iter()
                .map(|member| self.state(member))
                .collect();
            let live = |state: &Option<TaskState>| state.is_some_and(|state| !state.is_terminal());
            let bad = |state: &Option<TaskState>| {
                state.is_some_and(|state| state.is_terminal() && state != TaskState::TaskFinished)
            };
            if states.iter().any(bad) {
                assert!(!states.iter().any(live), "lives on: {states:?}");
            }
            for (member, state) in group.members.iter().zip(&states).filter(|(_, s)| live(s)) {
                let view = self.tasks.get(&member.task).unwrap();
                let seen = self.keeper.get(view.container);
                assert!(
                    matches!(seen, Some(Seen::Running { .. })),
                    "{state:?}: {seen:?}"
                );
                let executor = self.tasks.executor_of(&member.task).unwrap();
                let root = self.keeper.get(executor.container);
                assert!(matches!(root, Some(Seen::Running { .. })), "{root:?}");
            }
        }
        for executor in self.tasks.executors() {
            let has_tasks = !self.disk[executor.key].tasks.is_empty();
            assert!(has_tasks, "{} is there for nobody", executor.key);
        }
    }

    /// Everything is to end.
    pub(crate) fn end_all(&mut self) {
        self.crash();
        self.step(Event::Connected);
        for group in self.groups.clone() {
            let unheard = |member: &Member| !self.coordinator.contains_key(&member.task);
            if group.members.iter().all(unheard) {
                self.send_launch(group.clone());
            }
            for member in group.members {
                self.events.push_back(Event::Kill {
                    task: member.task,
                    grace_ms: 1_000,
                });
            }
        }
        for _ in 0..40 {
            self.deliver_all();
            self.pass(5_000);
        }
        self.deliver_all();
        for group in &self.groups {
            for member in &group.members {
                let state = self.state(member);
                let over = state.is_some_and(TaskState::is_terminal);
                assert!(over, "{} is {state:?}", member.task);
            }
        }
    }

    pub(crate) fn check_nothing_left(&self) {
        assert!(self.disk.is_empty(), "on disk: {:?}", self.disk);
        assert!(self.keeper.is_empty(), "in the keeper: {:?}", self.keeper);
        assert_eq!(self.tasks.iter().count(), 0);
        assert_eq!(self.tasks.executors().count(), 0);
    }

    fn state(&self, member: &Member) -> Option<TaskState> {
        let last = self.coordinator.get(&member.task)?.last.as_ref()?;
        Some(TaskState::try_from(last.state).unwrap())
    }

    /// States of the tasks of a group, as the coordinator knows them.
    pub(crate) fn states(&self, group: usize) -> Vec<TaskState> {
        let members = self.groups[group].members.iter();
        members.map(|member| self.state(member).unwrap()).collect()
    }

    pub(crate) fn message(&self, group: usize, n: usize) -> String {
        let task = &self.groups[group].members[n].task;
        self.coordinator[task]
            .last
            .as_ref()
            .unwrap()
            .message
            .clone()
    }

    /// The command of a task ends.
    pub(crate) fn exit(&mut self, group: usize, n: usize, code: i32) {
        let task = self.groups[group].members[n].task.clone();
        let container = self.tasks.get(&task).unwrap().container.clone();
        self.end(&container, exit(code));
    }

    pub(crate) fn root_runs(&self, executor: u8) -> bool {
        let executor = self.disk.get(&key(executor));
        let seen = executor.and_then(|saved| self.keeper.get(&saved.container));
        matches!(seen, Some(Seen::Running { .. }))
    }
}

fn is_terminal(update: &StatusUpdate) -> bool {
    TaskState::try_from(update.state).unwrap().is_terminal()
}

fn key(executor: u8) -> ExecutorKey {
    ExecutorKey {
        framework: FrameworkId::parse("f").unwrap(),
        executor: ExecutorId::parse(format!("e{executor}")).unwrap(),
    }
}
