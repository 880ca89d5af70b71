//! JSON of Mesos's `/state-summary`: agents and frameworks with task counts by state, without the
//! tasks (`src/master/readonly_handler.cpp`). Admin Router and the DC/OS page poll it.
//!
//! It decides nothing. Invariant: an agent looks as it does in `/slaves`, with its counts added.

use std::collections::BTreeMap;

use gantry_wire::ids::AgentId;
use gantry_wire::task::TaskState;
use serde_json::{Value, json};

use crate::mesos_view::{self, MasterInfo};
use crate::state::{Amounts, Cluster, State, Task};

/// The states that are counted, by their names in the APIs.
const COUNTED: [TaskState; 13] = [
    TaskState::TaskStaging,
    TaskState::TaskStarting,
    TaskState::TaskRunning,
    TaskState::TaskKilling,
    TaskState::TaskFinished,
    TaskState::TaskKilled,
    TaskState::TaskFailed,
    TaskState::TaskLost,
    TaskState::TaskError,
    TaskState::TaskUnreachable,
    TaskState::TaskGone,
    TaskState::TaskDropped,
    TaskState::TaskGoneByOperator,
];

type Counts = BTreeMap<TaskState, u64>;

/// `/state-summary`. `cluster` is the name of the cluster, for people.
#[must_use]
pub fn summary(state: &State, info: &MasterInfo, cluster: &str) -> Value {
    let mut by_agent: BTreeMap<&AgentId, Counts> = BTreeMap::new();
    let mut all = Counts::new();
    let tasks = || {
        state
            .tasks()
            .iter_live()
            .chain(state.tasks().iter_completed())
    };
    for Task {
        agent_id, state, ..
    } in tasks()
    {
        *by_agent
            .entry(agent_id)
            .or_default()
            .entry(*state)
            .or_default() += 1;
        *all.entry(*state).or_default() += 1;
    }
    let framework_id = state.cluster().map(|cluster| cluster.framework_id.as_str());
    let mut slaves = mesos_view::slaves(state, info)["slaves"].take();
    for slave in slaves.as_array_mut().into_iter().flatten() {
        let id = slave["id"].as_str().and_then(|id| AgentId::parse(id).ok());
        let counts = id.as_ref().and_then(|id| by_agent.get(id));
        slave["framework_ids"] = match counts {
            Some(_) => json!(framework_id.as_slice()),
            None => json!([]),
        };
        put_counts(slave, counts.unwrap_or(&Counts::new()));
    }
    let frameworks = state.cluster().map(|cluster| {
        let mut shown = framework(state, cluster);
        shown["slave_ids"] = json!(by_agent.keys().collect::<Vec<_>>());
        put_counts(&mut shown, &all);
        shown
    });
    json!({
        "hostname": info.hostname,
        "cluster": cluster,
        "slaves": slaves,
        "frameworks": frameworks.as_slice(),
    })
}

fn framework(state: &State, cluster: &Cluster) -> Value {
    let tasks = || state.tasks().iter_live();
    let used = tasks().fold(Amounts::default(), |sum, task| sum.plus(&task.amounts));
    let ports = tasks().flat_map(|task| task.host_ports.iter().copied());
    json!({
        "id": cluster.framework_id.as_str(),
        "name": "marathon",
        "active": true,
        "connected": true,
        "recovered": false,
        "hostname": "",
        "webui_url": "",
        "capabilities": ["TASK_KILLING_STATE", "PARTITION_AWARE"],
        "used_resources": mesos_view::amounts(&used, ports),
        "offered_resources": mesos_view::amounts(&Amounts::default(), []),
    })
}

fn put_counts(shown: &mut Value, counts: &Counts) {
    for state in COUNTED {
        shown[state.name()] = json!(counts.get(&state).copied().unwrap_or(0));
    }
}
