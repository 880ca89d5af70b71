//! The lives that a node is given: what it has to begin with, and what is launched.

use gantry_wire::agent::{Launch, NetworkMode, to_agent};
use gantry_wire::task::TaskState;

use super::port;
use crate::agent::Node;
use crate::bridge::bridged;
use crate::coordinator::shell;
use crate::group::group;
use crate::tracer::Role;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Native,
    Image,
    Bridged,
    Group,
    /// An image, on a node that never was before.
    Fresh,
    /// A bridged task that runs already, under an agent that comes back.
    Recovered,
}

pub(super) const KINDS: [Kind; 6] = [
    Kind::Native,
    Kind::Image,
    Kind::Bridged,
    Kind::Group,
    Kind::Fresh,
    Kind::Recovered,
];

/// Whose steps are counted, and who is killed at them.
const DEATHS: [(Role, Role); 8] = [
    (Role::Agent, Role::Agent),
    (Role::Foreground, Role::Foreground),
    (Role::Keeper, Role::Keeper),
    (Role::Sweeper, Role::Sweeper),
    (Role::Outlet, Role::Outlet),
    (Role::Errand, Role::Errand),
    (Role::Setup, Role::Keeper),
    (Role::Setup, Role::Setup),
];

impl Kind {
    pub(super) fn deaths(self) -> &'static [(Role, Role)] {
        match self {
            // Only the agent does anything else there than in the others.
            Self::Fresh | Self::Recovered => &DEATHS[..1],
            _ => &DEATHS,
        }
    }
}

/// Makes a node without an agent what the life begins with.
pub(super) async fn prepare(node: &mut Node, kind: Kind, tasks: &[String], image: &str) {
    match kind {
        Kind::Fresh => std::fs::remove_dir_all(node.data()).unwrap(),
        Kind::Recovered => {
            node.start_agent().await;
            launch(node, kind, tasks, image);
            node.coordinator
                .update(&tasks[0], TaskState::TaskRunning)
                .await;
            node.kill_9();
        }
        Kind::Native | Kind::Image | Kind::Bridged | Kind::Group => {}
    }
}

pub(super) fn launch(node: &Node, kind: Kind, tasks: &[String], image: &str) {
    let command = "echo ran; exec sleep 1000";
    let coordinator = &node.coordinator;
    let id = &tasks[0];
    match kind {
        Kind::Native => coordinator.launch(shell(id, command)),
        Kind::Image | Kind::Fresh => coordinator.launch(Launch {
            image: image.to_owned(),
            // There is nothing to sleep with.
            ..shell(id, "echo ran; while :; do :; done")
        }),
        Kind::Bridged | Kind::Recovered => coordinator.launch(bridged(id, command, port())),
        Kind::Group => {
            let mut members: Vec<Launch> = tasks.iter().map(|id| shell(id, command)).collect();
            members[0].ports = bridged(id, command, port()).ports;
            let group = group(&format!("pod-{id}"), NetworkMode::Bridge, &members);
            coordinator.say(to_agent::Kind::LaunchGroup(group));
        }
    }
}
