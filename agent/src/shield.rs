//! Keeping tasks that share the host's network away from the node's own API, through which they
//! would be root, and from its ports, where they could answer in its place. The rule is `gantry_net`'s; which containers it is about, the keeper's cgroup
//! says. Decides only when there is something to protect from whom.
//!
//! Invariant: raised for a keeper before that keeper is asked to start anything. The rule outlives
//! the agent, as the tasks do; the next one raises it anew, with the ports of its own.

use std::fs::File;
use std::io;

use gantry_isolation::cgroup;
use rustix::fs::FlockOperation;

use crate::config::Config;
use crate::executors::endpoint;
use crate::layout::Layout;

/// The rule of one node.
#[derive(Debug, Clone)]
pub(crate) struct Shield {
    tag: String,
    cgroup_parent: String,
    ports: Vec<u16>,
    /// At which executors reach the agent: tasks may connect to it, and not take it.
    executor_port: u16,
    tasks_may_use_api: bool,
}

impl Shield {
    /// For the configured ports and that of the agent.
    pub(crate) fn new(layout: &Layout, config: &Config, agent_port: u16) -> Self {
        let mut ports = config.protected_ports.clone();
        ports.push(agent_port);
        // Port 0 is yet to be chosen.
        ports.retain(|port| *port != 0);
        ports.sort_unstable();
        ports.dedup();
        Self {
            tag: layout.tag(),
            cgroup_parent: layout.cgroup_parent(),
            ports,
            executor_port: endpoint::kept_port(layout),
            tasks_may_use_api: config.tasks_may_use_api,
        }
    }

    /// Makes the kernel refuse, or no longer refuse; or says what that means for the node.
    pub(crate) fn raise(&self) -> Result<(), String> {
        if self.tasks_may_use_api {
            tracing::warn!("tasks may use the API: each on the host network is root on this node");
            self.lower();
            return Ok(());
        }
        let exposed = |why: &str| {
            format!("tasks on the host network can reach the API, and so become root: {why}")
        };
        let group = cgroup::parent_id(&self.cgroup_parent)
            .ok_or_else(|| exposed("no cgroup v2 tree tells them from other processes"))?;
        let raised = gantry_net::protect(&self.tag, &self.ports, group);
        raised.map_err(|error| exposed(&crate::chain(&error)))?;
        let mut taken = self.ports.clone();
        taken.extend((self.executor_port != 0).then_some(self.executor_port));
        let bound = cgroup::refuse_binds(&self.cgroup_parent, &taken);
        bound.map_err(|error| {
            format!(
                "tasks on the host network can take the ports of this node's API while it is \
                 restarted: {error}"
            )
        })
    }

    /// Takes the rule away.
    pub(crate) fn lower(&self) {
        if let Err(error) = gantry_net::unprotect(&self.tag) {
            tracing::debug!(
                "no rule about the API was removed: {}",
                crate::chain(&error)
            );
        }
        // Without a group there is nobody to refuse it to.
        if let Err(error) = cgroup::refuse_binds(&self.cgroup_parent, &[]) {
            tracing::debug!("ports are not given free for tasks: {error}");
        }
    }
}

fn exclusive(lock: File) -> io::Result<File> {
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
    Ok(lock)
}

/// Keeps the tasks that a former life left running from the ports of this configuration, before
/// anything listens there. To be called before a coordinator is started in the same process; does
/// nothing where nothing runs, and says nothing: the agent's start does it again.
pub fn protect_ports(config: &Config) {
    let Ok(layout) = Layout::existing(&config.data_dir) else {
        return;
    };
    let shield = Shield::new(&layout, config, config.http.port());
    let running = cgroup::parent_id(&shield.cgroup_parent).is_some();
    if !running || shield.ports.is_empty() {
        return;
    }
    // The rule of an agent that runs is not to be touched.
    let lock = File::open(layout.lock());
    let Ok(_lock) = lock.and_then(exclusive) else {
        return;
    };
    if let Err(why) = shield.raise() {
        tracing::debug!("{why}");
    }
}
