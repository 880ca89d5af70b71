//! Commands of the leader's loop on their way through consensus, each with what to do when it has
//! been applied or lost.
//!
//! Invariant: every command that was added comes out of [`Proposals::next`] once.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use gantry_coordinator_core::{Command, Outcome};
use gantry_wire::agent::Register;
use gantry_wire::ids::AgentId;

use super::statuses::ToAcknowledge;
use crate::agents::Outgoing;
use crate::consensus::{Proposer, Refusal};

/// How long a command that was refused at once counts as being on its way.
const REFUSED_PAUSE: Duration = Duration::from_millis(20);

/// Why a command was proposed.
#[derive(Debug)]
pub(crate) enum Purpose {
    Initialise,
    Scheduler(Box<Command>),
    Register {
        agent_id: AgentId,
        outgoing: Outgoing,
        register: Box<Register>,
    },
    Statuses(Vec<ToAcknowledge>),
    Disconnect(AgentId),
    /// Of an agent that is gone.
    Remove,
}

/// A command that was applied or lost.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) purpose: Purpose,
    pub(crate) result: Result<Outcome, Refusal>,
}

/// The commands on their way.
pub(crate) struct Proposals {
    proposer: Proposer<Outcome>,
    waiting: FuturesUnordered<Pin<Box<dyn Future<Output = Finished> + Send>>>,
}

impl Proposals {
    pub(crate) fn new(proposer: Proposer<Outcome>) -> Self {
        Self {
            proposer,
            waiting: FuturesUnordered::new(),
        }
    }

    /// Proposes at once, so that commands enter the log in the order of these calls.
    pub(crate) fn add(&mut self, command: &Command, purpose: Purpose) {
        let submitted = self.proposer.submit(command.to_bytes());
        self.waiting.push(Box::pin(async move {
            let result = match submitted {
                Ok(answer) => answer.await.unwrap_or(Err(Refusal::Stopped)),
                Err(refusal) => {
                    // What is tried again must not spin.
                    tokio::time::sleep(REFUSED_PAUSE).await;
                    Err(refusal)
                }
            };
            Finished {
                purpose,
                result: result.map(|(_, outcome)| outcome),
            }
        }));
    }

    /// The next that is finished; `None` when none is on its way.
    pub(crate) async fn next(&mut self) -> Option<Finished> {
        self.waiting.next().await
    }
}
