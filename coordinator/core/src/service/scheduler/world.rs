//! A small world for tests of the scheduler: the real state, the real scheduler, and agents that
//! are nothing but lists of tasks. Every command is checked against the invariants when it is
//! applied. Nothing here is random; `histories` is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use gantry_wire::agent::{KnownTask, Register, ResourcesMessage, StatusUpdate};
use gantry_wire::ids::{AgentId, AppId, TaskId};
use gantry_wire::marathon::App;
use gantry_wire::task::TaskState;
use gantry_wire::time::Millis;
use serde_json::{Value, json};

use super::{Action, Event, IdSource, Scheduler};
use crate::command::{
    AgentStatus, Command, DisconnectAgent, InitCluster, KillReason, Kind, RegisterAgent,
    TaskStatuses,
};
use crate::outcome::{Applied, LaunchRefusal, Outcome};
use crate::service::request::{self, PutMode};
use crate::service::rolling::Situation;
use crate::state::{Amounts, State, Usage};

pub(crate) struct Ids(pub(crate) u64);

impl IdSource for Ids {
    fn uuid(&mut self) -> String {
        self.0 += 1;
        format!("00000000-0000-1000-8000-{:012}", self.0)
    }
    fn seed(&mut self) -> u64 {
        self.0 += 1;
        self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

#[derive(Default)]
pub(crate) struct FakeAgent {
    pub(crate) connected: bool,
    /// All tasks it was ever told, with their state.
    pub(crate) tasks: BTreeMap<String, TaskState>,
    /// Updates that were not acknowledged yet.
    updates: VecDeque<StatusUpdate>,
    resources: ResourcesMessage,
}

impl FakeAgent {
    pub(crate) fn report(&mut self, task: &str, state: TaskState) {
        self.tasks.insert(task.to_owned(), state);
        self.updates.push_back(StatusUpdate {
            task_id: task.to_owned(),
            state: state as i32,
            uuid: vec![1; 16],
            message: format!("is {}", state.name()),
            ..StatusUpdate::default()
        });
    }

    pub(crate) fn live(&self) -> Vec<String> {
        let live = self.tasks.iter().filter(|(_, state)| !state.is_terminal());
        live.map(|(id, _)| id.clone()).collect()
    }
}

pub(crate) struct World {
    pub(crate) state: State,
    pub(crate) scheduler: Scheduler,
    pub(crate) ids: Ids,
    pub(crate) now: Millis,
    pub(crate) agents: BTreeMap<AgentId, FakeAgent>,
    pub(crate) proposals: VecDeque<Command>,
    pub(crate) log: Vec<Command>,
    pub(crate) wake_at: Option<Millis>,
    /// Whether launched tasks reach RUNNING by themselves.
    pub(crate) obedient: bool,
    launched: BTreeSet<String>,
}

impl World {
    pub(crate) fn new(agents: usize) -> Self {
        let mut world = Self {
            state: State::default(),
            scheduler: Scheduler::new(&State::default()),
            ids: Ids(0),
            now: Millis(1_000_000),
            agents: BTreeMap::new(),
            proposals: VecDeque::new(),
            log: Vec::new(),
            wake_at: None,
            obedient: true,
            launched: BTreeSet::new(),
        };
        let cluster_id = "c".to_owned();
        world.apply(Kind::InitCluster(InitCluster { cluster_id }));
        for n in 0..agents {
            world.join(&format!("agent-{n}"), 4_000, 1 << 30);
        }
        world
    }

    pub(crate) fn join(&mut self, id: &str, cpus_milli: u64, mem_bytes: u64) {
        let resources = ResourcesMessage {
            cpus_milli,
            mem_bytes,
            disk_bytes: 1 << 40,
            gpus: 0,
            ports: vec![31000, 31019],
        };
        let id = AgentId::parse(id).unwrap();
        let agent = FakeAgent {
            resources,
            ..FakeAgent::default()
        };
        self.agents.entry(id.clone()).or_insert(agent);
        self.connect(&id);
    }

    pub(crate) fn connect(&mut self, id: &AgentId) {
        let agent = self.agents.get_mut(id).unwrap();
        agent.connected = true;
        let known = |(id, state): (&String, &TaskState)| KnownTask {
            task_id: id.clone(),
            state: *state as i32,
        };
        let register = Register {
            agent_id: id.to_string(),
            hostname: format!("host-of-{id}"),
            http_address: "127.0.0.1:5051".to_owned(),
            resources: Some(agent.resources.clone()),
            tasks: agent.tasks.iter().map(known).collect(),
            ..Register::default()
        };
        let command = RegisterAgent::from_register(id.as_str(), &register);
        self.apply(Kind::RegisterAgent(command));
        let event = Event::AgentOnline {
            agent_id: id,
            known: &register.tasks,
        };
        let mut actions = Vec::new();
        self.scheduler
            .step(&self.state, self.now, event, &mut self.ids, &mut actions);
        self.act(actions);
    }

    pub(crate) fn disconnect(&mut self, id: &AgentId) {
        self.agents.get_mut(id).unwrap().connected = false;
        let agent_id = id.to_string();
        self.apply(Kind::DisconnectAgent(DisconnectAgent { agent_id }));
    }

    /// A command of a client or of the shell: through the log, then to the scheduler.
    pub(crate) fn apply(&mut self, kind: Kind) -> Outcome {
        let command = Command::new(self.now, kind);
        self.commit(&command)
    }

    fn commit(&mut self, command: &Command) -> Outcome {
        // Through the bytes of the log, as in production.
        let command = Command::from_bytes(&command.to_bytes()).unwrap();
        let before = self.state.clone();
        let index = before.applied_index() + 1;
        let applied = crate::apply(&mut self.state, index, &command);
        self.check(&before, &command, &applied);
        self.log.push(command.clone());
        let outcome = applied.outcome.clone();
        let mut actions = Vec::new();
        let batch = [(command, applied)];
        let event = Event::Applied(&batch);
        self.scheduler
            .step(&self.state, self.now, event, &mut self.ids, &mut actions);
        self.act(actions);
        outcome
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Propose(command) => self.proposals.push_back(command),
                Action::WakeAt(at) => self.wake_at = Some(at),
                Action::SendLaunch { agent_id, launch } => {
                    let agent = self.agents.get_mut(&agent_id).unwrap();
                    if agent.connected && !agent.tasks.contains_key(&launch.task_id) {
                        let id = launch.task_id;
                        assert!(self.launched.insert(id.clone()), "{id} was launched before");
                        agent.tasks.insert(id.clone(), TaskState::TaskStaging);
                        agent.report(&id, TaskState::TaskStarting);
                        if self.obedient {
                            agent.report(&id, TaskState::TaskRunning);
                        }
                    }
                }
                Action::SendKill { agent_id, kill } => {
                    let agent = self.agents.get_mut(&agent_id).unwrap();
                    let state = agent.tasks.get(&kill.task_id);
                    if agent.connected && state.is_some_and(|s| !s.is_terminal()) {
                        agent.report(&kill.task_id, TaskState::TaskKilled);
                    }
                }
            }
        }
    }

    /// Applies the oldest proposal. Whether there was one.
    pub(crate) fn commit_one(&mut self) -> bool {
        let Some(command) = self.proposals.pop_front() else {
            return false;
        };
        self.commit(&command);
        true
    }

    /// The oldest update of each connected agent reaches the log. Whether there was one.
    pub(crate) fn deliver(&mut self) -> bool {
        let mut updates = Vec::new();
        for (id, agent) in self.agents.iter_mut().filter(|(_, agent)| agent.connected) {
            let status = agent.updates.pop_front();
            let agent_id = id.to_string();
            updates.extend(status.map(|s| AgentStatus {
                agent_id,
                status: Some(s),
            }));
        }
        if updates.is_empty() {
            return false;
        }
        self.apply(Kind::TaskStatuses(TaskStatuses { updates }));
        true
    }

    /// Until nothing happens any more by itself, without time passing.
    pub(crate) fn settle(&mut self) {
        for _ in 0..100_000 {
            if !self.commit_one() && !self.deliver() {
                return;
            }
        }
        panic!(
            "the world does not come to rest: {:#?}",
            &self.log[self.log.len() - 4..]
        );
    }

    pub(crate) fn tick(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
        let mut actions = Vec::new();
        self.scheduler.step(
            &self.state,
            self.now,
            Event::Tick,
            &mut self.ids,
            &mut actions,
        );
        self.act(actions);
    }

    pub(crate) fn lose_proposal(&mut self) {
        let Some(command) = self.proposals.pop_front() else {
            return;
        };
        let mut actions = Vec::new();
        let event = Event::ProposalLost(&command);
        self.scheduler
            .step(&self.state, self.now, event, &mut self.ids, &mut actions);
        self.act(actions);
    }

    /// Another member becomes leader; what was proposed and not applied is lost.
    pub(crate) fn change_leader(&mut self) {
        self.proposals.clear();
        self.scheduler = Scheduler::new(&State::decode(&self.state.encode()).unwrap());
        self.tick(1);
        let connected: Vec<AgentId> = self
            .agents
            .iter()
            .filter(|(_, a)| a.connected)
            .map(|(id, _)| id.clone())
            .collect();
        for id in connected {
            self.connect(&id);
        }
    }

    pub(crate) fn put(&mut self, body: &Value, force: bool) -> Outcome {
        let id = AppId::parse(body["id"].as_str().unwrap()).unwrap();
        let body = body.to_string();
        let kind = request::put_app(
            &self.state,
            &id,
            body.as_bytes(),
            PutMode::Merge,
            force,
            &mut self.ids,
        );
        self.apply(kind.unwrap())
    }

    pub(crate) fn app(id: &str, cmd: &str, instances: u32) -> Value {
        json!({"id": id, "cmd": cmd, "cpus": 0.5, "mem": 64, "instances": instances})
    }

    /// Live tasks of an app: (all, running the given command).
    pub(crate) fn running(&self, app: &str, cmd: &str) -> (usize, usize) {
        let app = AppId::parse(app).unwrap();
        let tasks: Vec<_> = self.state.tasks().of_app(&app).collect();
        let command = |version| {
            let spec: Option<&App> = self.state.app_version(&app, version);
            spec.and_then(|spec| spec.cmd.clone()).unwrap_or_default()
        };
        let running = tasks.iter().filter(|t| {
            t.state == TaskState::TaskRunning
                && t.killing.is_none()
                && command(t.app_version) == cmd
        });
        (tasks.len(), running.count())
    }

    pub(crate) fn tasks(&self, app: &str) -> Vec<TaskId> {
        let app = AppId::parse(app).unwrap();
        self.state
            .tasks()
            .of_app(&app)
            .map(|t| t.id.clone())
            .collect()
    }

    pub(crate) fn report(&mut self, task: &TaskId, state: TaskState) {
        let agent = self.state.task(task).unwrap().agent_id.clone();
        self.agents
            .get_mut(&agent)
            .unwrap()
            .report(task.as_str(), state);
    }

    fn check(&self, before: &State, command: &Command, applied: &Applied) {
        if let Outcome::Rejected(why) = &applied.outcome {
            let mut expected = before.clone();
            expected.applied_index = self.state.applied_index;
            expected.now = self.state.now;
            assert!(
                expected == self.state,
                "rejected with {why}, but the state changed"
            );
        }
        check_agents(&self.state);
        check_counts(&self.state);
        check_capacity(before, &self.state, command, applied);
    }
}

fn check_agents(state: &State) {
    for agent in state.agents().iter() {
        let mut usage = Usage::default();
        for task in state.tasks().of_agent(&agent.id) {
            usage.amounts = usage.amounts.plus(&task.amounts);
            for port in &task.host_ports {
                assert!(
                    usage.ports.insert(*port),
                    "port {port} of {} is used twice",
                    agent.id
                );
                assert!(agent.resources.ports.contains(*port));
            }
        }
        assert_eq!(state.agents().usage(&agent.id), usage);
        let total = Amounts::of(&agent.resources);
        assert!(
            usage.amounts.cpus_milli <= total.cpus_milli,
            "{} is oversubscribed",
            agent.id
        );
        assert!(
            usage.amounts.mem_bytes <= total.mem_bytes,
            "{} is oversubscribed",
            agent.id
        );
    }
}

fn check_counts(state: &State) {
    let mut instances = BTreeSet::new();
    let mut by_app: BTreeMap<&AppId, u32> = BTreeMap::new();
    for task in state.tasks().iter_live() {
        assert!(task.is_live() && instances.insert(&task.instance_id));
        *by_app.entry(&task.app_id).or_default() += 1;
    }
    for (app, count) in &by_app {
        let (current, old) = state.tasks().counts(app, Millis(0));
        assert_eq!((current.live, old.live), (0, *count));
        assert_eq!(state.tasks().count_of_app(app), *count as usize);
    }
    assert_eq!(state.tasks().apps().count(), by_app.len());
    assert!(state.tasks().iter_completed().all(|task| !task.is_live()));
}

/// A launch never exceeds the allowed capacity, a replacement never goes below the promised one.
fn check_capacity(before: &State, after: &State, command: &Command, applied: &Applied) {
    for record in after.apps().iter() {
        let now = Situation::of(after, record);
        let wanted = f64::from(now.wanted);
        let least = (wanted * now.strategy.minimum_health_capacity).ceil() as u32;
        let most = (wanted * (1.0 + now.strategy.maximum_over_capacity)).floor() as u32;
        let healthy = now.current.running + now.old.running;
        let Some(old) = before
            .app(&record.spec.id)
            .map(|old| Situation::of(before, old))
        else {
            continue;
        };
        if matches!(command.kind, Some(Kind::Launch(_))) && now.current.live > old.current.live {
            let limit = most.max(least + 1).max(now.wanted);
            assert!(
                now.current.live + now.old.live <= limit,
                "{} above {limit}",
                record.spec.id
            );
            assert!(now.current.kept() <= now.wanted);
        }
        let replaced = matches!(&command.kind, Some(Kind::Kill(kill))
            if kill.reason == KillReason::Replaced as i32);
        if replaced && healthy < old.current.running + old.old.running {
            assert!(healthy >= least, "{} below {least}", record.spec.id);
        }
    }
    if let Outcome::Launched(results) = &applied.outcome {
        for (id, refusal) in results.iter().filter_map(|r| r.as_ref().err()) {
            let defect = matches!(refusal, LaunchRefusal::Malformed | LaunchRefusal::Duplicate);
            assert!(!defect, "{id}: {refusal}");
        }
    }
}
