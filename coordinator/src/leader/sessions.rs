//! Which agent is connected by which session.
//!
//! ```text
//! (none) ─► opening ─ registration applied ─► open ─ closed, cut ─► absent ─ overdue ─► (none)
//!               └─ refused, lost ─► absent            └─ opening (a newer session replaces it)
//! ```
//! Invariants: an agent has at most one open session, the newest; only the events of that one
//! count; an absent agent is remembered until its `DisconnectAgent` was applied or it is back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gantry_wire::agent::{Drain, Reactivate, SILENCE_MAX_MS, ToAgent, to_agent};
use gantry_wire::ids::AgentId;
use gantry_wire::time::Millis;
use tokio::sync::watch;

use crate::agents::{Directory, Outgoing, SessionId};

struct Open {
    outgoing: Outgoing,
    http_address: String,
    /// What it was last told of an operator's drain; `Some(None)`: that there is none.
    drain: Option<Option<Drain>>,
}

#[derive(Clone, Copy)]
struct Absent {
    due: Millis,
    /// Its `DisconnectAgent` is on its way.
    asked: bool,
}

/// The agents' connections as the leader sees them.
pub(crate) struct Sessions {
    open: BTreeMap<AgentId, Open>,
    opening: BTreeMap<AgentId, SessionId>,
    agents: BTreeMap<SessionId, AgentId>,
    absent: BTreeMap<AgentId, Absent>,
    directory: watch::Sender<Directory>,
}

impl Sessions {
    pub(crate) fn new(directory: watch::Sender<Directory>) -> Self {
        Self {
            open: BTreeMap::new(),
            opening: BTreeMap::new(),
            agents: BTreeMap::new(),
            absent: BTreeMap::new(),
            directory,
        }
    }

    /// A new leader waits for these agents for as long as a silence may last.
    pub(crate) fn expect(&mut self, agents: impl Iterator<Item = AgentId>, now: Millis) {
        let absent = Absent {
            due: now.plus_ms(SILENCE_MAX_MS),
            asked: false,
        };
        self.absent.extend(agents.map(|agent| (agent, absent)));
        self.absent
            .retain(|agent, _| !self.open.contains_key(agent));
    }

    pub(crate) fn any_absent(&self) -> bool {
        !self.absent.is_empty()
    }

    /// The agent of a session that counts.
    pub(crate) fn agent_of(&self, session: SessionId) -> Option<&AgentId> {
        self.agents.get(&session)
    }

    /// A registration goes into the log: an older session of the same agent ends now.
    pub(crate) fn opening(&mut self, agent: &AgentId, session: SessionId) {
        if let Some(older) = self.opening.insert(agent.clone(), session) {
            self.agents.remove(&older);
        }
        self.drop_open(agent, "the agent has connected again");
        self.agents.insert(session, agent.clone());
    }

    /// The registration is applied. `false` when the session does not count any more.
    pub(crate) fn open(&mut self, agent: &AgentId, outgoing: Outgoing, address: String) -> bool {
        if self.opening.get(agent) != Some(&outgoing.id) {
            outgoing.cut("the agent has connected again");
            return false;
        }
        self.opening.remove(agent);
        self.absent.remove(agent);
        self.open.insert(
            agent.clone(),
            Open {
                outgoing,
                http_address: address,
                drain: None,
            },
        );
        self.publish();
        true
    }

    /// The registration was refused or lost.
    pub(crate) fn failed(&mut self, agent: &AgentId, session: SessionId, now: Millis) {
        if self.closed(session, now).is_none() && !self.opening.contains_key(agent) {
            self.absent.insert(
                agent.clone(),
                Absent {
                    due: now,
                    asked: false,
                },
            );
        }
    }

    /// The session ended by itself. The agent, if that was its current session.
    pub(crate) fn closed(&mut self, session: SessionId, now: Millis) -> Option<AgentId> {
        let agent = self.agents.remove(&session)?;
        if self.opening.get(&agent) == Some(&session) {
            self.opening.remove(&agent);
        }
        if self
            .open
            .get(&agent)
            .is_some_and(|open| open.outgoing.id == session)
        {
            self.open.remove(&agent);
            self.publish();
        }
        if self.open.contains_key(&agent) || self.opening.contains_key(&agent) {
            return None;
        }
        self.absent.insert(
            agent.clone(),
            Absent {
                due: now,
                asked: false,
            },
        );
        Some(agent)
    }

    /// An agent said at its registration whether it drains.
    pub(crate) fn drains(&mut self, agent: &AgentId, draining: bool) {
        if let Some(open) = self.open.get_mut(agent)
            && !draining
        {
            open.drain = Some(None);
        }
    }

    /// What is to be said to an agent that knows less than what an operator wants.
    pub(crate) fn operation(
        &mut self,
        agent: &AgentId,
        wanted: Option<Drain>,
    ) -> Option<to_agent::Kind> {
        let open = self.open.get_mut(agent)?;
        if open.drain.as_ref() == Some(&wanted) {
            return None;
        }
        open.drain = Some(wanted.clone());
        Some(match wanted {
            Some(drain) => to_agent::Kind::Drain(drain),
            None => to_agent::Kind::Reactivate(Reactivate {}),
        })
    }

    /// Queues a message. Without a session it is dropped: the next registration repairs it. An
    /// agent that does not keep up loses its session.
    pub(crate) fn send(&mut self, agent: &AgentId, kind: to_agent::Kind) {
        let Some(open) = self.open.get(agent) else {
            return;
        };
        let session = open.outgoing.id;
        if open.outgoing.send(ToAgent { kind: Some(kind) }).is_err() {
            tracing::warn!(agent_id = %agent, "an agent does not keep up: cutting its connection");
            self.drop_open(agent, "too many messages wait for the agent");
            // Its own `Closed` then finds it and makes it absent.
            self.agents.insert(session, agent.clone());
        }
    }

    fn drop_open(&mut self, agent: &AgentId, reason: &'static str) {
        if let Some(open) = self.open.remove(agent) {
            self.agents.remove(&open.outgoing.id);
            open.outgoing.cut(reason);
            self.publish();
        }
    }

    /// Ends all sessions.
    pub(crate) fn cut_all(&mut self, reason: &'static str) {
        for open in std::mem::take(&mut self.open).into_values() {
            open.outgoing.cut(reason);
        }
        self.opening.clear();
        self.agents.clear();
        self.absent.clear();
        self.publish();
    }

    /// Absent agents that nobody has asked to disconnect yet and whose time is over; they count
    /// as asked from now on.
    pub(crate) fn overdue(&mut self, now: Millis) -> Vec<AgentId> {
        let Self {
            absent,
            open,
            opening,
            ..
        } = self;
        let mut overdue = BTreeSet::new();
        for (agent, absent) in absent {
            let back = open.contains_key(agent) || opening.contains_key(agent);
            if !absent.asked && absent.due <= now && !back {
                absent.asked = true;
                overdue.insert(agent.clone());
            }
        }
        overdue.into_iter().collect()
    }

    /// The agent is known to be inactive.
    pub(crate) fn forget(&mut self, agent: &AgentId) {
        self.absent.remove(agent);
    }

    /// The disconnection was not applied: try again.
    pub(crate) fn ask_again(&mut self, agent: &AgentId) {
        if let Some(absent) = self.absent.get_mut(agent) {
            absent.asked = false;
        }
    }

    fn publish(&self) {
        let entry = |(agent, open): (&AgentId, &Open)| (agent.clone(), open.http_address.clone());
        self.directory
            .send_replace(Arc::new(self.open.iter().map(entry).collect()));
    }
}
