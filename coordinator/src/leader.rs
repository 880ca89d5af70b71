//! The leader's loop: the schedulers of coordinator-core on one side; log, agents and HTTP on the
//! other.
//!
//! ```text
//! rounds of applied commands ─┐              ┌─► propose
//! events of agents ───────────┼─► this loop ─┼─► messages to agents
//! questions of HTTP, timers ──┘              └─► answers
//! ```
//! It decides nothing about tasks: it carries out [`Action`]s in order. What it does decide is
//! who counts as connected ([`sessions`]) and how status updates are batched ([`statuses`]).
//! Invariants: a status update is acknowledged only after the command that holds it was applied;
//! an agent gets its `Registered` before anything else; nothing here blocks on a peer.

mod proposals;
mod sessions;
mod statuses;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use gantry_coordinator_core::command::{DisconnectAgent, InitCluster, Kind, RegisterAgent};
use gantry_coordinator_core::outcome::{Change, Rejection};
use gantry_coordinator_core::service::queue::QueueEntry;
use gantry_coordinator_core::service::{Action, Event, Scheduler};
use gantry_coordinator_core::{Applied, Command, Outcome, State};
use gantry_wire::agent::{Acknowledge, Drain, Gone, Register, Registered, ToAgent, to_agent};
use gantry_wire::ids::AgentId;
use gantry_wire::time::Millis;
use tokio::sync::{mpsc, oneshot, watch};

use crate::agents::{AgentEvent, Directory, Outgoing};
use crate::consensus::{Proposer, Refusal};
use crate::mint;
use crate::replicated::Round;
use proposals::{Finished, Proposals, Purpose};
use sessions::Sessions;
use statuses::{Statuses, ToAcknowledge};

/// How often agents without a connection are looked at.
const SWEEP: Duration = Duration::from_secs(1);
/// Events of agents that are taken at a time.
const EVENTS_AT_ONCE: usize = 1_024;
/// Questions that may wait for the loop.
pub(crate) const QUESTIONS_MAX: usize = 256;

/// What HTTP asks of the leader's memory.
#[derive(Debug)]
pub(crate) enum Question {
    /// The launch queue, once everything up to `since` has been taken in.
    Queue {
        since: u64,
        answer: oneshot::Sender<Vec<QueueEntry>>,
    },
}

/// Where the loop's inputs come from and where its outputs go.
pub(crate) struct Ends {
    pub(crate) rounds: mpsc::Receiver<Round>,
    pub(crate) agents: mpsc::Receiver<AgentEvent>,
    pub(crate) questions: mpsc::Receiver<Question>,
    pub(crate) proposer: Proposer<Outcome>,
    pub(crate) directory: watch::Sender<Directory>,
}

/// The loop's memory.
struct Leader {
    /// Everything up to this index of the log has been taken in.
    index: u64,
    state: Arc<State>,
    /// There while this member leads.
    scheduler: Option<Scheduler>,
    initialising: bool,
    sessions: Sessions,
    statuses: Statuses,
    proposals: Proposals,
    wake_at: Option<Millis>,
    actions: Vec<Action>,
}

/// Runs until the consensus thread or all users are gone.
pub(crate) async fn run(ends: Ends) {
    let Ends {
        mut rounds,
        mut agents,
        mut questions,
        proposer,
        directory,
    } = ends;
    let mut leader = Leader {
        index: 0,
        state: Arc::new(State::default()),
        scheduler: None,
        initialising: false,
        sessions: Sessions::new(directory),
        statuses: Statuses::default(),
        proposals: Proposals::new(proposer),
        wake_at: None,
        actions: Vec::new(),
    };
    let mut events = Vec::with_capacity(EVENTS_AT_ONCE);
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        let wake_in = leader
            .wake_at
            .map(|at| Duration::from_millis(at.since_ms(mint::now())));
        tokio::select! {
            biased;
            round = rounds.recv() => match round {
                Some(round) => leader.applied(round),
                None => return,
            },
            Some(finished) = leader.proposals.next() => {
                // What it belongs to was sent before it was answered.
                while let Ok(round) = rounds.try_recv() {
                    leader.applied(round);
                }
                leader.finished(finished);
            }
            Some(question) = questions.recv() => {
                // Who asks has seen this index, so its round is here or about to be sent.
                let Question::Queue { since, .. } = &question;
                while leader.index < *since {
                    match rounds.recv().await {
                        Some(round) => leader.applied(round),
                        None => return,
                    }
                }
                leader.answer(question);
            }
            () = tokio::time::sleep(wake_in.unwrap_or_default()), if wake_in.is_some() => {
                leader.wake_at = None;
                leader.step(Event::Tick);
            }
            count = agents.recv_many(&mut events, EVENTS_AT_ONCE),
                if !leader.statuses.is_full() =>
            {
                if count == 0 {
                    return;
                }
                for event in events.drain(..) {
                    leader.agent(event);
                }
            }
            _ = sweep.tick(), if leader.sessions.any_absent() => leader.sweep(),
        }
        leader.flush_statuses();
    }
}

impl Leader {
    fn applied(&mut self, round: Round) {
        self.index = round.index;
        self.state = round.state;
        if round.leads {
            self.operated(&round.applied);
        }
        match (round.leads, self.scheduler.is_some()) {
            (true, true) => self.step(Event::Applied(&round.applied)),
            (true, false) => self.begin(),
            (false, true) => self.end(),
            (false, false) => {}
        }
        let unknown = self.scheduler.is_some() && self.state.cluster().is_none();
        if unknown && !self.initialising {
            self.initialising = true;
            let cluster_id = mint::uuid();
            tracing::info!(cluster_id, "a new cluster");
            self.propose(
                Kind::InitCluster(InitCluster { cluster_id }),
                Purpose::Initialise,
            );
        }
    }

    /// Tells agents what operators want of them, and ends those that are drained for good.
    fn operated(&mut self, applied: &[(Command, Applied)]) {
        let changes = applied.iter().flat_map(|(_, applied)| &applied.changes);
        let agents: BTreeSet<&AgentId> = changes
            .filter_map(|change| match change {
                Change::Agent(id) | Change::Task(_, _, id) => Some(id),
                Change::App(_) | Change::Deployment(_) => None,
            })
            .collect();
        for id in agents {
            self.tell_operation(id);
        }
    }

    fn tell_operation(&mut self, id: &AgentId) {
        let state = Arc::clone(&self.state);
        let Some(agent) = state.agent(id) else {
            if state.agents().is_gone(id) {
                self.sessions.send(id, to_agent::Kind::Gone(Gone {}));
            }
            return;
        };
        let wanted = agent.drain.as_ref().map(|drain| Drain {
            max_grace_ms: drain.max_grace_ms,
            mark_gone: drain.mark_gone,
        });
        if wanted.as_ref().is_some_and(|drain| drain.mark_gone) && state.is_drained(id) {
            let agent_id = id.to_string();
            self.propose(
                Kind::RemoveAgent(DisconnectAgent { agent_id }),
                Purpose::Remove,
            );
        }
        if let Some(message) = self.sessions.operation(id, wanted) {
            self.sessions.send(id, message);
        }
    }

    fn begin(&mut self) {
        tracing::info!("this coordinator leads");
        self.scheduler = Some(Scheduler::new(&self.state));
        let active = self.state.agents().iter().filter(|agent| agent.active);
        self.sessions
            .expect(active.map(|agent| agent.id.clone()), mint::now());
        self.step(Event::Tick);
    }

    fn end(&mut self) {
        tracing::debug!("this coordinator does not lead any more");
        self.scheduler = None;
        self.wake_at = None;
        self.sessions
            .cut_all("this coordinator does not lead any more");
    }

    /// One step of the scheduler and all that follows from it.
    fn step(&mut self, event: Event<'_>) {
        let Some(scheduler) = self.scheduler.as_mut() else {
            return;
        };
        let mut actions = std::mem::take(&mut self.actions);
        scheduler.step(
            &self.state,
            mint::now(),
            event,
            &mut mint::InstanceIds,
            &mut actions,
        );
        for action in actions.drain(..) {
            match action {
                Action::Propose(command) => {
                    self.proposals
                        .add(&command, Purpose::Scheduler(Box::new(command.clone())));
                }
                Action::SendLaunch { agent_id, launch } => {
                    self.sessions
                        .send(&agent_id, to_agent::Kind::Launch(*launch));
                }
                Action::SendKill { agent_id, kill } => {
                    self.sessions.send(&agent_id, to_agent::Kind::Kill(kill));
                }
                Action::WakeAt(at) => self.wake_at = Some(at),
            }
        }
        self.actions = actions;
    }

    fn propose(&mut self, kind: Kind, purpose: Purpose) {
        self.proposals
            .add(&Command::new(mint::now(), kind), purpose);
    }

    fn finished(&mut self, finished: Finished) {
        let Finished { purpose, result } = finished;
        match purpose {
            Purpose::Initialise => self.initialising = result.is_ok(),
            Purpose::Scheduler(command) => {
                if let Err(refusal) = result {
                    tracing::warn!(?refusal, "a decision of the scheduler was lost");
                    self.step(Event::ProposalLost(&command));
                }
            }
            Purpose::Register {
                agent_id,
                outgoing,
                register,
            } => {
                self.registered(&agent_id, outgoing, &register, result);
            }
            Purpose::Statuses(to_acknowledge) => {
                self.statuses.in_flight = false;
                if result.is_ok() {
                    self.acknowledge(to_acknowledge);
                }
            }
            // One that is refused has been removed by now.
            Purpose::Remove => {}
            Purpose::Disconnect(agent_id) => {
                if result.is_ok() {
                    self.sessions.forget(&agent_id);
                } else {
                    self.sessions.ask_again(&agent_id);
                }
            }
        }
    }

    fn answer(&self, question: Question) {
        match question {
            Question::Queue { answer, .. } => {
                if let Some(scheduler) = &self.scheduler {
                    // Whoever asked may have gone.
                    let _ = answer.send(scheduler.queue(&self.state, mint::now()));
                }
            }
        }
    }

    fn agent(&mut self, event: AgentEvent) {
        match event {
            AgentEvent::Opened { outgoing, register } => self.opened(outgoing, register),
            AgentEvent::Status { session, update } => {
                if let Some(agent_id) = self.sessions.agent_of(session) {
                    self.statuses.add(agent_id, *update);
                }
            }
            AgentEvent::Closed { session, reason } => {
                if let Some(agent_id) = self.sessions.closed(session, mint::now()) {
                    tracing::info!(%agent_id, reason, "an agent is disconnected");
                    self.sweep();
                }
            }
        }
    }

    /// Empty until there is a cluster.
    fn cluster_id(&self) -> &str {
        self.state.cluster().map_or("", |cluster| &cluster.id)
    }

    fn opened(&mut self, outgoing: Outgoing, register: Box<Register>) {
        if self.scheduler.is_none() {
            return refuse(&outgoing, "this coordinator does not lead");
        }
        let (its, ours) = (register.cluster_id.as_str(), self.cluster_id());
        // Its tasks are another cluster's: to compare them with this state would end them all.
        if !its.is_empty() && its != ours {
            let reason = format!(
                "it belongs to the cluster {its}, this is the cluster {ours}: to join this one, \
                 stop gantry and move the agent's directory away"
            );
            return refuse(&outgoing, &reason);
        }
        let agent_id = if register.agent_id.is_empty() {
            AgentId::parse(mint::uuid()).expect("a uuid is an id")
        } else {
            match AgentId::parse(register.agent_id.clone()) {
                Ok(agent_id) => agent_id,
                Err(error) => return refuse(&outgoing, &error.to_string()),
            }
        };
        self.sessions.opening(&agent_id, outgoing.id);
        let command = RegisterAgent::from_register(agent_id.as_str(), &register);
        let purpose = Purpose::Register {
            agent_id,
            outgoing,
            register,
        };
        self.propose(Kind::RegisterAgent(command), purpose);
    }

    fn registered(
        &mut self,
        agent_id: &AgentId,
        outgoing: Outgoing,
        register: &Register,
        result: Result<Outcome, Refusal>,
    ) {
        match result {
            Ok(Outcome::Rejected(rejection)) => {
                self.sessions.failed(agent_id, outgoing.id, mint::now());
                if matches!(rejection, Rejection::AgentGone(_)) {
                    let kind = Some(to_agent::Kind::Gone(Gone {}));
                    // The queue is new and empty.
                    let _ = outgoing.send(ToAgent { kind });
                }
                return refuse(&outgoing, &rejection.to_string());
            }
            Ok(_) => {}
            Err(refusal) => {
                self.sessions.failed(agent_id, outgoing.id, mint::now());
                return outgoing.cut(refusal.words());
            }
        }
        let known = &register.tasks;
        let reply = to_agent::Kind::Registered(Registered {
            agent_id: agent_id.to_string(),
            cluster_id: self.cluster_id().to_owned(),
        });
        if self
            .sessions
            .open(agent_id, outgoing, register.http_address.clone())
        {
            tracing::info!(%agent_id, tasks = known.len(), "an agent is connected");
            self.sessions.send(agent_id, reply);
            self.sessions.drains(agent_id, register.draining);
            self.tell_operation(agent_id);
            self.step(Event::AgentOnline { agent_id, known });
        }
    }

    fn flush_statuses(&mut self) {
        if let Some((command, to_acknowledge)) = self.statuses.take() {
            self.propose(
                Kind::TaskStatuses(command),
                Purpose::Statuses(to_acknowledge),
            );
        }
    }

    fn acknowledge(&mut self, to_acknowledge: Vec<ToAcknowledge>) {
        for ToAcknowledge {
            agent_id,
            task_id,
            uuid,
        } in to_acknowledge
        {
            let message = to_agent::Kind::Acknowledge(Acknowledge { task_id, uuid });
            self.sessions.send(&agent_id, message);
        }
    }

    /// Agents whose connection has been away for too long become inactive.
    fn sweep(&mut self) {
        if self.scheduler.is_none() {
            return;
        }
        for agent_id in self.sessions.overdue(mint::now()) {
            if self
                .state
                .agent(&agent_id)
                .is_some_and(|agent| agent.active)
            {
                let command = DisconnectAgent {
                    agent_id: agent_id.to_string(),
                };
                self.propose(
                    Kind::DisconnectAgent(command),
                    Purpose::Disconnect(agent_id),
                );
            } else {
                self.sessions.forget(&agent_id);
            }
        }
    }
}

/// Tells the agent why; the caller drops the session's end and with it the session.
fn refuse(outgoing: &Outgoing, reason: &str) {
    tracing::warn!(reason, "refused an agent");
    // The queue is new and empty.
    let _ = outgoing.send(ToAgent {
        kind: Some(to_agent::Kind::Refused(reason.to_owned())),
    });
}
