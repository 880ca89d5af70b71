//! Seeded random histories of an agent: crashes of the agent between any two actions, deaths of
//! the keeper, lost connections, late and repeated messages. A failure prints its seed.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use gantry_agent_core::{
    Action, Checkpoint, DiskExcess, Event, Exit, Found, KeeperId, Now, Saved, Seen, Signal, Stage,
    Tasks, Unit,
};
use gantry_wire::agent::{Launch, StatusUpdate};
use gantry_wire::check::Check;
use gantry_wire::ids::{ContainerId, TaskId};
use gantry_wire::task::{Reason, TaskState};
use gantry_wire::time::Millis;

const HISTORIES: u64 = 400;
const STEPS: usize = 300;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// What the coordinator knows of a task.
#[derive(Default)]
struct Known {
    uuids: Vec<Vec<u8>>,
    terminal: Option<TaskState>,
    reason: Option<i32>,
}

struct World {
    random: Random,
    tasks: Tasks,
    disk: BTreeMap<TaskId, Checkpoint>,
    /// What the keeper holds.
    keeper: BTreeMap<ContainerId, Seen>,
    keeper_id: u64,
    started: BTreeSet<ContainerId>,
    /// Events on their way to the agent process; lost with it.
    events: VecDeque<Event>,
    in_flight: BTreeMap<TaskId, Vec<u8>>,
    coordinator: BTreeMap<TaskId, Known>,
    launches: Vec<(TaskId, Launch)>,
    connected: bool,
    uptime_ms: u64,
    minted: u64,
    /// Asked for and not answered yet.
    probes: BTreeSet<(TaskId, usize)>,
    crashed: bool,
    calm: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            random: Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            tasks: Tasks::default(),
            disk: BTreeMap::new(),
            keeper: BTreeMap::new(),
            keeper_id: 0,
            started: BTreeSet::new(),
            events: VecDeque::new(),
            in_flight: BTreeMap::new(),
            coordinator: BTreeMap::new(),
            launches: Vec::new(),
            connected: false,
            uptime_ms: 0,
            minted: 0,
            probes: BTreeSet::new(),
            crashed: false,
            calm: false,
        }
    }

    fn now(&mut self) -> Now {
        let seed = u128::from(self.random.next()) << 64 | u128::from(self.random.next());
        Now {
            wall: Millis(self.uptime_ms),
            uptime_ms: self.uptime_ms,
            seed,
        }
    }

    fn step(&mut self, event: Event) {
        match &event {
            Event::Probed { task, check, .. } => {
                self.probes.remove(&(task.clone(), *check));
            }
            Event::Acknowledge { task, uuid } if self.in_flight.get(task) == Some(uuid) => {
                self.in_flight.remove(task);
            }
            Event::Connected => {
                self.connected = true;
                self.in_flight.clear();
            }
            Event::Disconnected => {
                self.connected = false;
                self.in_flight.clear();
            }
            _ => {}
        }
        let mut actions = Vec::new();
        let now = self.now();
        self.tasks.step(now, event, &mut actions);
        for action in actions {
            self.act(action);
            if !self.calm && self.random.one_in(400) {
                return self.crash();
            }
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Save { unit, .. } => {
                let Unit::Task(task) = unit else {
                    panic!("no executor was asked for: {unit}");
                };
                if let Some(checkpoint) = self.tasks.checkpoint(&task) {
                    self.disk.insert(task, checkpoint);
                }
            }
            // Those are in `groups`.
            Action::AttachExecutor { executor }
            | Action::StartExecutor { executor }
            | Action::ReleaseExecutor { executor, .. }
            | Action::DiscardExecutor { executor, .. }
            | Action::Welcome { executor, .. }
            | Action::Deliver { executor, .. }
            | Action::Resize { executor }
            | Action::TellMessage { executor, .. }
            | Action::TellEnded { executor, .. } => panic!("nobody asked for {executor}"),
            Action::Discard { task } => {
                let saved = self
                    .disk
                    .remove(&task)
                    .expect("a task is saved before it is over");
                assert_eq!(saved.stage, Stage::Ended);
            }
            Action::Pull { task } => {
                let failed = !self.calm && self.random.one_in(8);
                let cause = "no such image".to_owned();
                self.events.push_back(if failed {
                    Event::PullFailed { task, cause }
                } else {
                    Event::Pulled { task }
                });
            }
            Action::CancelPull { .. } => {}
            Action::Attach { task } => {
                let failed = !self.calm && self.random.one_in(8);
                let cause = "port in use".to_owned();
                self.events.push_back(if failed {
                    Event::AttachFailed { task, cause }
                } else {
                    Event::Attached {
                        task,
                        ip: "10.0.0.2".into(),
                    }
                });
            }
            Action::Start { task } => self.start(&task),
            Action::Probe { task, check } => self.probe(task, check),
            Action::Signal { container, signal } => self.signal(&container, signal),
            Action::Destroy { container } => {
                assert!(
                    !self.is_task(&container),
                    "destroyed the container of a task"
                );
                self.signal(&container, Signal::Kill);
            }
            Action::Release { task, container } => {
                assert_eq!(
                    self.disk[&task].stage,
                    Stage::Ended,
                    "released before it was saved"
                );
                self.keeper.remove(&container);
            }
            Action::Forget { container } => {
                self.keeper.remove(&container);
            }
            Action::Send(update) => self.receive(update),
        }
    }

    fn probe(&mut self, task: TaskId, check: usize) {
        assert!(self.probes.insert((task.clone(), check)), "two probes out");
        let passed = self.calm || self.random.one_in(2);
        let found = if passed || self.random.one_in(2) {
            let value = if passed { 200 } else { 500 };
            Found::Answer { value, passed }
        } else {
            let cause = "connection refused".to_owned();
            Found::Nothing { cause }
        };
        self.events.push_back(Event::Probed { task, check, found });
    }

    fn is_task(&self, container: &ContainerId) -> bool {
        self.disk
            .values()
            .any(|c| c.container == *container && c.stage != Stage::Ended)
    }

    fn start(&mut self, task: &TaskId) {
        let saved = &self.disk[task];
        assert_eq!(saved.keeper, Some(KeeperId(self.keeper_id)));
        assert_eq!(
            saved.stage,
            Stage::Starting,
            "asked the keeper before it was saved"
        );
        let container = saved.container.clone();
        if let Some(Seen::Running { pid }) = self.keeper.get(&container) {
            self.events.push_back(Event::Started {
                container,
                pid: *pid,
            });
            return;
        }
        if let Some(Seen::Exited(exit)) = self.keeper.get(&container) {
            let exit = *exit;
            self.events.push_back(Event::Started {
                container: container.clone(),
                pid: 7,
            });
            self.events.push_back(Event::Exited { container, exit });
            return;
        }
        if !self.calm && self.random.one_in(10) {
            self.events.push_back(Event::StartFailed {
                container,
                cause: "exec".into(),
            });
            return;
        }
        assert!(
            self.started.insert(container.clone()),
            "started a second time"
        );
        self.keeper
            .insert(container.clone(), Seen::Running { pid: 7 });
        self.events.push_back(Event::Started { container, pid: 7 });
    }

    fn signal(&mut self, container: &ContainerId, signal: Signal) {
        if signal == Signal::Kill || self.random.one_in(2) {
            self.exit(container, Err(9));
        }
    }

    fn exit(&mut self, container: &ContainerId, status: Result<i32, i32>) {
        if let Some(seen) = self.keeper.get_mut(container)
            && matches!(seen, Seen::Running { .. })
        {
            let exit = Exit {
                status,
                oom_killed: false,
            };
            *seen = Seen::Exited(exit);
            self.events.push_back(Event::Exited {
                container: container.clone(),
                exit,
            });
        }
    }

    fn receive(&mut self, update: StatusUpdate) {
        assert!(self.connected, "sent while disconnected");
        let task = TaskId::parse(update.task_id.clone()).unwrap();
        let state = TaskState::try_from(update.state).unwrap();
        if self.disk.contains_key(&task) {
            let before = self.in_flight.insert(task.clone(), update.uuid.clone());
            assert!(
                before.is_none_or(|uuid| uuid == update.uuid),
                "two updates in flight"
            );
        }
        if !self.calm && self.random.one_in(6) {
            return; // lost on the way
        }
        let known = self.coordinator.entry(task.clone()).or_default();
        if !known.uuids.contains(&update.uuid) {
            assert_eq!(known.terminal, None, "an update after the terminal one");
            known.uuids.push(update.uuid.clone());
            known.terminal = state.is_terminal().then_some(state);
            known.reason = update.reason;
        }
        self.events.push_back(Event::Acknowledge {
            task,
            uuid: update.uuid,
        });
    }

    /// kill -9 of the agent and a new start.
    fn crash(&mut self) {
        self.crashed = true;
        self.connected = false;
        self.events.clear();
        self.in_flight.clear();
        self.probes.clear();
        let over: Vec<TaskId> = self.coordinator.keys().cloned().collect();
        let over = over.into_iter().filter(|id| !self.disk.contains_key(id));
        let saved = Saved {
            tasks: self.disk.values().cloned().collect(),
            ..Saved::default()
        };
        self.tasks = Tasks::restore(saved, over);
        self.list();
    }

    fn list(&mut self) {
        let keeper = KeeperId(self.keeper_id);
        let containers = self.keeper.clone();
        self.step(Event::Listing { keeper, containers });
    }

    fn mint(&mut self) -> ContainerId {
        self.minted += 1;
        ContainerId::parse(format!("c{}", self.minted)).unwrap()
    }

    fn launch(&mut self, task: TaskId, launch: Launch) {
        let container = self.mint();
        let launch = Box::new(launch);
        self.events.push_back(Event::Launch {
            task,
            launch,
            container,
            sandbox: "/s".into(),
        });
    }

    fn some_container(&mut self) -> Option<ContainerId> {
        let n = self.keeper.len();
        (n > 0).then(|| {
            self.keeper
                .keys()
                .nth(self.random.below(n))
                .unwrap()
                .clone()
        })
    }

    fn random_event(&mut self) {
        match self.random.below(20) {
            0..=2 => {
                let id = TaskId::parse(format!("t{}", self.launches.len())).unwrap();
                let image = if self.random.one_in(2) { "img" } else { "" };
                let check = Check {
                    interval_ms: 5_000,
                    failures_to_kill: 2,
                    ..Check::default()
                };
                let launch = Launch {
                    task_id: id.to_string(),
                    image: image.into(),
                    checks: vec![check; self.random.below(3)],
                    ..Launch::default()
                };
                self.launches.push((id.clone(), launch.clone()));
                self.launch(id, launch);
            }
            3 if !self.launches.is_empty() => {
                let n = self.random.below(self.launches.len());
                let (id, launch) = self.launches[n].clone();
                self.launch(id, launch);
            }
            4 | 5 if !self.launches.is_empty() => {
                let task = self.launches[self.random.below(self.launches.len())]
                    .0
                    .clone();
                let grace_ms = self.random.below(8_000) as u64;
                self.events.push_back(Event::Kill { task, grace_ms });
            }
            6..=8 => {
                if let Some(container) = self.some_container() {
                    let status = if self.random.one_in(2) { Ok(0) } else { Ok(1) };
                    self.exit(&container, status);
                }
            }
            16 if !self.launches.is_empty() => {
                let n = self.random.below(self.launches.len());
                let task = self.launches[n].0.clone();
                let message = "pulling".to_owned();
                self.events.push_back(Event::Pulling { task, message });
            }
            9 => self.step(Event::Disconnected),
            10 | 11 => self.step(Event::Connected),
            12 if self.random.one_in(6) => {
                self.keeper.clear();
                self.keeper_id += 1;
                self.events.retain(|e| {
                    !matches!(
                        e,
                        Event::Started { .. } | Event::StartFailed { .. } | Event::Exited { .. }
                    )
                });
                self.list();
            }
            13 if self.random.one_in(4) => self.crash(),
            14 => self.list(),
            15 => {
                let stray = self.mint();
                self.keeper.insert(stray, Seen::Running { pid: 9 });
            }
            17 => {
                if let Some(container) = self.some_container() {
                    self.over_disk(container);
                }
            }
            _ => self.tick(),
        }
    }

    /// What was measured may be of a container that is gone by now, or of nobody.
    fn over_disk(&mut self, container: ContainerId) {
        self.events.push_back(Event::OverDisk {
            container,
            excess: DiskExcess {
                used_bytes: 12 << 20,
                limit_bytes: 10 << 20,
                used_files: 1,
                limit_files: 2,
                uncounted: false,
                parked: 0,
            },
        });
    }

    fn tick(&mut self) {
        self.uptime_ms += self.random.below(12_000) as u64;
        if self
            .tasks
            .deadline_ms()
            .is_some_and(|at| at <= self.uptime_ms)
        {
            self.step(Event::Tick);
        }
    }

    fn deliver(&mut self) {
        while !self.events.is_empty() && (self.calm || !self.random.one_in(3)) {
            let event = self.events.pop_front().unwrap();
            self.step(event);
        }
    }

    /// No more trouble: everything must come to its end.
    fn settle(&mut self) {
        self.calm = true;
        self.crash();
        self.step(Event::Connected);
        for (id, launch) in self.launches.clone() {
            if !self.coordinator.contains_key(&id) {
                self.launch(id.clone(), launch);
            }
            self.events.push_back(Event::Kill {
                task: id,
                grace_ms: 1_000,
            });
        }
        for _ in 0..500 {
            self.deliver();
            self.uptime_ms += 5_000;
            self.step(Event::Tick);
        }
    }
}

#[test]
fn random_histories_hold_the_invariants() {
    let (mut endings, mut by_disk) = (BTreeMap::new(), 0);
    for seed in 1..=HISTORIES {
        let run = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            world.list();
            for _ in 0..STEPS {
                world.random_event();
                world.deliver();
            }
            world.settle();
            assert!(
                world.disk.is_empty(),
                "left on disk: {:?}",
                world.disk.keys()
            );
            assert!(
                world.keeper.is_empty(),
                "left in the keeper: {:?}",
                world.keeper
            );
            assert_eq!(world.tasks.iter().count(), 0);
            let ended = world.launches.iter().map(|(id, _)| &world.coordinator[id]);
            ended
                .map(|known| (known.terminal.expect("every task ends"), known.reason))
                .collect::<Vec<_>>()
        });
        let ended = run.unwrap_or_else(|_| panic!("seed {seed} failed"));
        for (state, reason) in ended {
            by_disk += u32::from(reason == Some(Reason::ReasonContainerLimitationDisk as i32));
            *endings.entry(state.name()).or_insert(0_u32) += 1;
        }
    }
    // The histories reach every ending.
    assert_eq!(
        endings.keys().copied().collect::<Vec<_>>(),
        ["TASK_FAILED", "TASK_FINISHED", "TASK_KILLED"],
        "{endings:?}"
    );
    assert!(endings.values().all(|&n| n > 1_000), "{endings:?}");
    assert!(by_disk > 500, "{by_disk}");
}
