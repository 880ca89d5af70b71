//! The handle of a running agent: what it is, and the two ways to end it. Dropping the handle ends
//! the agent at once and leaves tasks, keeper and network, as a crash would.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gantry_net::Network;
use gantry_wire::resources::Resources;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::daemon::FINISH_MAX_MS;
use crate::facts::Facts;
use crate::inbox::{Ask, Event, View};
use crate::shield::Shield;

/// How long the tasks may take to end: the longest grace and SIGKILL's time.
const STOP_MAX: Duration = Duration::from_secs(10);
/// How long the coordinator may then take to acknowledge the last updates.
const ACKNOWLEDGE_MAX: Duration = Duration::from_secs(2);
/// How often the tasks are looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long the HTTP side and the session may take to end.
const PARTS_END_MAX: Duration = Duration::from_secs(2);
/// How long the loop may take to finish; longer than it gives the keeper.
const FINISH_MAX: Duration = Duration::from_millis(FINISH_MAX_MS + 5_000);

/// A running agent.
#[derive(Debug)]
pub struct Running {
    pub(crate) facts: Arc<Facts>,
    pub(crate) network: Option<Network>,
    pub(crate) shield: Shield,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) cancel: CancellationToken,
    pub(crate) parts: Vec<JoinHandle<()>>,
    /// Ends with the loop.
    pub(crate) looping: Option<std::thread::JoinHandle<()>>,
    pub(crate) failure: oneshot::Receiver<String>,
    /// Held until everything else is gone.
    pub(crate) _lock: std::fs::File,
}

impl Running {
    /// Where the HTTP listener is.
    #[must_use]
    pub fn http_address(&self) -> SocketAddr {
        self.facts.http_address
    }

    /// Name or address under which tasks are reached.
    #[must_use]
    pub fn hostname(&self) -> &str {
        &self.facts.hostname
    }

    /// What the node offers.
    #[must_use]
    pub fn resources(&self) -> &Resources {
        &self.facts.resources
    }

    /// What the node cannot do, and what to beware of; each a sentence.
    #[must_use]
    pub fn lacks(&self) -> &[String] {
        &self.facts.lacks
    }

    /// The id that the coordinator gave, once it did.
    #[must_use]
    pub fn agent_id(&self) -> Option<&str> {
        self.facts.agent_id()
    }

    /// Resolves, with the reason, only when the agent cannot go on.
    pub async fn failed(&mut self) -> String {
        match (&mut self.failure).await {
            Ok(why) => why,
            Err(_) => std::future::pending().await,
        }
    }

    /// Resolves only when an operator has marked this node as gone: its tasks end already, and the
    /// agent should be stopped with [`Running::stop_tasks`].
    pub fn gone(&self) -> impl Future<Output = ()> + use<> {
        self.facts.gone.clone().cancelled_owned()
    }

    /// Ends every task and leaves nothing: no process, cgroup, mount, link or rule. Returns what
    /// could not be removed, as sentences.
    pub async fn stop_tasks(mut self) -> Vec<String> {
        let mut failures = Vec::new();
        if self.events.send(Event::StopTasks).await.is_err() {
            failures.push("the agent's loop had already ended".to_owned());
        }
        let live = |view: &View| view.tasks.iter().any(|task| !task.state.is_terminal());
        if !self.wait_while(STOP_MAX, live).await {
            failures.push(format!(
                "not all tasks ended within {} s",
                STOP_MAX.as_secs()
            ));
        }
        // A coordinator that is away cannot acknowledge; the updates are on disk.
        let unsaid =
            |view: &View| view.registered && !(view.tasks.is_empty() && view.executors.is_empty());
        self.wait_while(ACKNOWLEDGE_MAX, unsaid).await;
        failures.extend(self.finish(true).await);
        match self.network.take() {
            Some(network) => {
                if let Err(error) = network.remove().await {
                    failures.push(format!("removing the network: {}", crate::chain(&error)));
                }
            }
            None => tokio::task::block_in_place(|| self.shield.lower()),
        }
        failures
    }

    /// Ends the agent; its tasks, the keeper and the network stay for the next start.
    pub async fn keep_tasks(mut self) {
        for failure in self.finish(false).await {
            tracing::error!("{failure}");
        }
    }

    async fn finish(&mut self, stop_keeper: bool) -> Vec<String> {
        let (reply, answer) = oneshot::channel();
        let mut failures = Vec::new();
        if self
            .events
            .send(Event::Finish { stop_keeper, reply })
            .await
            .is_ok()
        {
            match timeout(FINISH_MAX, answer).await {
                Ok(Ok(reported)) => failures.extend(reported),
                Ok(Err(_)) => failures.push("the agent's loop ended early".to_owned()),
                Err(_) => failures.push("the agent's loop does not end".to_owned()),
            }
        }
        self.cancel.cancel();
        for part in self.parts.drain(..) {
            // What does not end in time ends with the runtime.
            let _ = timeout(PARTS_END_MAX, part).await;
        }
        if let Some(looping) = self.looping.take() {
            let joined = tokio::task::spawn_blocking(move || looping.join());
            if !matches!(timeout(PARTS_END_MAX, joined).await, Ok(Ok(Ok(())))) {
                failures.push("the agent's loop did not end well".to_owned());
            }
        }
        failures
    }

    /// Looks at the tasks until `busy` is over; whether that was within `max`.
    async fn wait_while(&self, max: Duration, busy: impl Fn(&View) -> bool) -> bool {
        let until = Instant::now() + max;
        while Instant::now() < until {
            let (reply, answer) = oneshot::channel();
            if self
                .events
                .send(Event::Ask(Ask::View(reply)))
                .await
                .is_err()
            {
                return false;
            }
            match answer.await {
                Ok(view) if busy(&view) => sleep(LOOK_EVERY).await,
                Ok(_) => return true,
                Err(_) => return false,
            }
        }
        false
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}
