//! Processes that someone, or a check, runs inside containers (exec sessions), from the order to a
//! while after their end. Decides how long an ended one is remembered; the keeper holds the processes.

use std::collections::BTreeMap;

use gantry_image::{Reference, Store};
use gantry_isolation::spec::{ContainerId, ExitStatus};
use tokio::sync::oneshot;

use crate::container::{self, Inside, NodeFacts};
use crate::facts::Facts;
use crate::inbox::TaskRow;

/// Sessions of people at a time, ended ones included. Those of checks have their own bound.
pub(crate) const SESSIONS_MAX: usize = 256;
/// Who may wait for one session.
const WAITERS_MAX: usize = 16;
/// How long the status of an ended one can be asked for, in milliseconds.
const KEPT_MS: u64 = 60_000;

#[derive(Debug, Default)]
pub(crate) struct Execs {
    sessions: BTreeMap<ContainerId, Session>,
}

#[derive(Debug)]
struct Session {
    /// What clients call it.
    called: ContainerId,
    /// Whether it is remembered after its end.
    kept: bool,
    /// Whether it is one of the sessions that are bounded in number.
    counts: bool,
    started: Option<oneshot::Sender<Result<(), String>>>,
    waiters: Vec<oneshot::Sender<ExitStatus>>,
    ended: Option<(ExitStatus, u64)>,
}

impl Execs {
    /// Whether a session of this name may begin, or why not.
    pub(crate) fn admit(&mut self, id: &ContainerId, now_ms: u64) -> Result<(), String> {
        self.forget_old(now_ms);
        if self.sessions.contains_key(id) {
            return Err(format!("a session named '{id}' is there already"));
        }
        if self.len() >= SESSIONS_MAX {
            return Err(format!(
                "there are {SESSIONS_MAX} sessions on this node already"
            ));
        }
        Ok(())
    }

    fn forget_old(&mut self, now_ms: u64) {
        let keep = |s: &Session| {
            s.ended
                .is_none_or(|(_, at)| now_ms < at.saturating_add(KEPT_MS))
        };
        self.sessions.retain(|_, session| keep(session));
    }

    pub(crate) fn begin(
        &mut self,
        id: ContainerId,
        started: oneshot::Sender<Result<(), String>>,
        exited: oneshot::Sender<ExitStatus>,
        kept: bool,
    ) {
        let session = Session {
            called: id.clone(),
            kept,
            counts: kept,
            started: Some(started),
            waiters: vec![exited],
            ended: None,
        };
        self.sessions.insert(id, session);
    }

    /// The keeper answered. A failed one is forgotten. Nobody may be listening any more.
    pub(crate) fn started(&mut self, id: &ContainerId, result: Result<(), String>) {
        let failed = result.is_err();
        let session = self.sessions.get_mut(id);
        if let Some(started) = session.and_then(|session| session.started.take()) {
            let _ = started.send(result);
        }
        if failed {
            self.sessions.remove(id);
        }
    }

    pub(crate) fn exited(&mut self, id: &ContainerId, status: ExitStatus, now_ms: u64) {
        if let Some(session) = self.sessions.get_mut(id) {
            session.ended = Some((status, now_ms));
            for waiter in session.waiters.drain(..) {
                let _ = waiter.send(status);
            }
            if !session.kept {
                self.sessions.remove(id);
            }
        }
    }

    /// Remembers the end of a task's container as it does that of a session, since someone attached to
    /// it.
    pub(crate) fn watch(
        &mut self,
        (container, called): (&ContainerId, ContainerId),
        ended: oneshot::Sender<ExitStatus>,
        now_ms: u64,
    ) {
        match self.sessions.get_mut(container) {
            Some(session) => session.waiters.retain(|waiter| !waiter.is_closed()),
            None => {
                self.forget_old(now_ms);
                let watched = Session {
                    called: called.clone(),
                    kept: true,
                    counts: false,
                    started: None,
                    waiters: Vec::new(),
                    ended: None,
                };
                self.sessions.insert(container.clone(), watched);
            }
        }
        self.wait(&called, ended);
    }

    /// Answers at the end; drops the question when the session is not known.
    pub(crate) fn wait(&mut self, called: &ContainerId, reply: oneshot::Sender<ExitStatus>) {
        let mut sessions = self.sessions.values_mut();
        match sessions.find(|session| session.called == *called) {
            Some(Session {
                ended: Some((status, _)),
                ..
            }) => {
                let _ = reply.send(*status);
            }
            Some(session) if session.waiters.len() < WAITERS_MAX => session.waiters.push(reply),
            _ => {}
        }
    }

    /// Forgets one that has ended before its time; whether there was one.
    pub(crate) fn forget(&mut self, id: &ContainerId) -> bool {
        let ended = |session: &Session| session.ended.is_some();
        self.sessions.get(id).is_some_and(ended) && self.sessions.remove(id).is_some()
    }

    pub(crate) fn is_running(&self, id: &ContainerId) -> bool {
        self.sessions
            .get(id)
            .is_some_and(|session| session.ended.is_none())
    }

    /// The keeper that held them is not reachable: everyone who waits learns that by silence.
    pub(crate) fn lose_all(&mut self) {
        self.sessions.retain(|_, session| session.ended.is_some());
    }

    pub(crate) fn len(&self) -> usize {
        self.sessions
            .values()
            .filter(|session| session.counts)
            .count()
    }
}

/// What the task's command has, one more process in its container has too: environment, user,
/// directory.
pub(crate) async fn inside(
    store: &Store,
    facts: &Facts,
    node: &NodeFacts,
    task: &TaskRow,
) -> Inside {
    let image = match Reference::parse(&task.launch.image) {
        Ok(reference) => store.local(&reference).await,
        Err(_) => None,
    };
    let agent_id = facts.agent_id().unwrap_or_default();
    container::inside(task.view(), agent_id, image.as_ref(), node)
}
