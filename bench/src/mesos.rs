//! Suite `mesos`: reading and writing messages of the Mesos v1 API, in both encodings: the calls that
//! a framework sends most, an event with one offer, and the state of a cluster with 10,000 tasks.
//!
//! There is no peer: Mesos measures none of this by itself. Samples are batches, in microseconds for
//! one message; the hash is of the bytes that were written.

use std::hint::black_box;
use std::time::Instant;

use anyhow::ensure;
use gantry_wire::mesos::Encoding::{Json, Protobuf};
use gantry_wire::mesos::descriptor::Described;
use gantry_wire::mesos::v1::{
    AgentId, CommandInfo, Environment, Filters, FrameworkId, Offer, OfferId, Resource, Task,
    TaskId, TaskInfo, TaskState, TaskStatus, environment, master, offer, scheduler,
};
use gantry_wire::mesos::{decode, encode, resources_text};

use crate::Options;
use crate::report::{Better, Measured, OURS, Row, fnv};

const ID: &str = "5c3e4f0e-7f8a-4b52-9a1c-0e6f4a8f1d2b";
const RESOURCES: &str = "cpus:0.5;mem:128;disk:10;ports:[31000-31001]";
const STATE_TASKS: usize = 10_000;

/// Runs the suite.
pub(crate) fn run(options: &Options) -> anyhow::Result<Measured> {
    let (batch, tasks) = if options.quick {
        (10, 10)
    } else {
        (1000, STATE_TASKS)
    };
    let resources = resources_text::parse(RESOURCES, resources_text::NO_ROLE)?;
    let mut bench = Bench {
        options,
        rows: Vec::new(),
        bytes: Vec::new(),
    };
    bench.message("accept", batch, &accept(&resources))?;
    bench.message("acknowledge", batch, &acknowledge())?;
    bench.message("offers", batch, &offers(&resources))?;
    let batch = 1;
    bench.message(
        &format!("state of {tasks} tasks"),
        batch,
        &state(&resources, tasks),
    )?;
    Ok(Measured {
        suite: "mesos",
        rows: bench.rows,
        left_out: Vec::new(),
        hash: fnv(&bench.bytes),
    })
}

struct Bench<'o> {
    options: &'o Options,
    rows: Vec<Row>,
    bytes: Vec<u8>,
}

impl Bench<'_> {
    fn message<T>(&mut self, name: &str, batch: usize, message: &T) -> anyhow::Result<()>
    where
        T: prost::Message + Described + Default,
    {
        if !self.options.wants_case(name) || !self.options.wants_subject(OURS) {
            return Ok(());
        }
        for encoding in [Json, Protobuf] {
            let bytes = encode(encoding, message);
            // Not the message itself: JSON sets what was left to its default.
            let again = encode(encoding, &decode::<T>(encoding, &bytes)?);
            ensure!(again == bytes, "{name} is not as it was");
            let case = format!("{name}, {encoding:?}, {} bytes", bytes.len());
            self.time(&format!("write {case}"), batch, || {
                encode(encoding, message)
            });
            self.time(&format!("read {case}"), batch, || {
                decode::<T>(encoding, &bytes)
            });
            self.bytes.extend(bytes);
        }
        Ok(())
    }

    fn time<R>(&mut self, case: &str, batch: usize, mut once: impl FnMut() -> R) {
        let runs = if self.options.quick { 3 } else { 30 };
        let samples: Vec<f64> = (0..runs)
            .map(|_| {
                let start = Instant::now();
                for _ in 0..batch {
                    black_box(once());
                }
                start.elapsed().as_secs_f64() * 1e6 / batch as f64
            })
            .collect();
        let mean = samples.iter().sum::<f64>() / runs as f64;
        self.rows
            .push(Row::new(case, OURS, "us", Better::Lower, mean, samples));
    }
}

fn framework() -> FrameworkId {
    FrameworkId {
        value: format!("{ID}-0001"),
    }
}

fn agent() -> AgentId {
    AgentId {
        value: format!("{ID}-S17"),
    }
}

fn task(number: usize) -> TaskId {
    TaskId {
        value: format!("web.instance-{ID}._app.{number}"),
    }
}

fn accept(resources: &[Resource]) -> scheduler::Call {
    let variable = |number| environment::Variable {
        name: format!("PORT{number}"),
        value: Some("31000".to_owned()),
        ..environment::Variable::default()
    };
    let command = CommandInfo {
        value: Some("exec python3 -m http.server $PORT0".to_owned()),
        environment: Some(Environment {
            variables: (0..8).map(variable).collect(),
        }),
        ..CommandInfo::default()
    };
    let info = TaskInfo {
        name: "web".to_owned(),
        task_id: task(1),
        agent_id: agent(),
        resources: resources.to_vec(),
        command: Some(command.into()),
        ..TaskInfo::default()
    };
    let launch = offer::operation::Launch {
        task_infos: vec![info],
    };
    let operation = offer::Operation {
        r#type: Some(offer::operation::Type::Launch as i32),
        launch: Some(launch),
        ..offer::Operation::default()
    };
    let accept = scheduler::call::Accept {
        offer_ids: vec![OfferId {
            value: format!("{ID}-O123"),
        }],
        operations: vec![operation],
        filters: Some(Filters {
            refuse_seconds: Some(5.0),
        }),
    };
    scheduler::Call {
        framework_id: Some(framework()),
        r#type: Some(scheduler::call::Type::Accept as i32),
        accept: Some(accept),
        ..scheduler::Call::default()
    }
}

fn acknowledge() -> scheduler::Call {
    let acknowledge = scheduler::call::Acknowledge {
        agent_id: agent(),
        task_id: task(1),
        uuid: vec![7; 16],
    };
    scheduler::Call {
        framework_id: Some(framework()),
        r#type: Some(scheduler::call::Type::Acknowledge as i32),
        acknowledge: Some(acknowledge.into()),
        ..scheduler::Call::default()
    }
}

fn offers(resources: &[Resource]) -> scheduler::Event {
    let offer = Offer {
        id: OfferId {
            value: format!("{ID}-O123"),
        },
        framework_id: framework(),
        agent_id: agent(),
        hostname: "10.0.0.17".to_owned(),
        resources: resources.to_vec(),
        ..Offer::default()
    };
    scheduler::Event {
        r#type: Some(scheduler::event::Type::Offers as i32),
        offers: Some(scheduler::event::Offers {
            offers: vec![offer],
        }),
        ..scheduler::Event::default()
    }
}

fn state(resources: &[Resource], count: usize) -> master::Response {
    let status = |number| TaskStatus {
        task_id: task(number),
        state: TaskState::TaskRunning as i32,
        timestamp: Some(1_700_000_000.125),
        uuid: Some(vec![9; 16]),
        agent_id: Some(agent()),
        ..TaskStatus::default()
    };
    let one = |number| Task {
        name: "web".to_owned(),
        task_id: task(number),
        framework_id: framework(),
        agent_id: agent(),
        state: TaskState::TaskRunning as i32,
        resources: resources.to_vec(),
        statuses: vec![status(number), status(number)],
        ..Task::default()
    };
    let tasks = master::response::GetTasks {
        tasks: (0..count).map(one).collect(),
        ..master::response::GetTasks::default()
    };
    let state = master::response::GetState {
        get_tasks: Some(tasks.into()),
        ..master::response::GetState::default()
    };
    master::Response {
        r#type: Some(master::response::Type::GetState as i32),
        get_state: Some(state.into()),
        ..master::Response::default()
    }
}
