//! GET_STATE and its parts, GET_CONTAINERS: what runs here, of one snapshot of the loop. How it is
//! put into Mesos's words is in `describe`; decides which containers are shown.

use std::collections::BTreeMap;

use gantry_wire::ids::ContainerId;
use gantry_wire::mesos::v1::agent::Response as Answer;
use gantry_wire::mesos::v1::agent::call::GetContainers;
use gantry_wire::mesos::v1::agent::response::get_containers::Container;
use gantry_wire::mesos::v1::agent::response::{GetContainers as Containers, GetState, Type};

use super::super::Server;
use super::super::problem::Problem;
use super::super::state::view;
use super::describe;
use crate::statistics::{self, Sample};

pub(super) async fn state(server: &Server) -> Result<Answer, Problem> {
    let view = view(server).await?;
    let state = GetState {
        get_tasks: Some(describe::tasks(&view).into()),
        get_executors: Some(describe::executors(&view)),
        get_frameworks: Some(describe::frameworks(&view)),
    };
    Ok(Answer {
        r#type: Some(Type::GetState as i32),
        get_state: Some(state.into()),
        ..Answer::default()
    })
}

pub(super) async fn tasks(server: &Server) -> Result<Answer, Problem> {
    Ok(Answer {
        r#type: Some(Type::GetTasks as i32),
        get_tasks: Some(describe::tasks(&view(server).await?).into()),
        ..Answer::default()
    })
}

pub(super) async fn executors(server: &Server) -> Result<Answer, Problem> {
    Ok(Answer {
        r#type: Some(Type::GetExecutors as i32),
        get_executors: Some(describe::executors(&view(server).await?)),
        ..Answer::default()
    })
}

pub(super) async fn frameworks(server: &Server) -> Result<Answer, Problem> {
    Ok(Answer {
        r#type: Some(Type::GetFrameworks as i32),
        get_frameworks: Some(describe::frameworks(&view(server).await?)),
        ..Answer::default()
    })
}

pub(super) async fn containers(server: &Server, call: &GetContainers) -> Result<Answer, Problem> {
    let containers = shown(server, call).await?;
    Ok(Answer {
        r#type: Some(Type::GetContainers as i32),
        get_containers: Some(Containers { containers }),
        ..Answer::default()
    })
}

/// The containers that live, with what they use. Those of executors always, those inside them, and
/// those of nobody, if that is asked for.
pub(in super::super) async fn shown(
    server: &Server,
    call: &GetContainers,
) -> Result<Vec<Container>, Problem> {
    let view = view(server).await?;
    let samples = statistics::of_view(&server.statistics, &view).await;
    let samples: BTreeMap<&ContainerId, &Sample> = samples
        .iter()
        .map(|sample| (&sample.container, sample))
        .collect();
    let statistics = |id: &ContainerId| samples.get(id).map(|sample| Box::new((*sample).into()));
    let mut shown = Vec::new();
    for row in &view.executors {
        shown.push(Container {
            framework_id: Some(describe::framework_id(&row.info.framework_id)),
            executor_id: Some(describe::executor(&row.info.executor_id)),
            executor_name: Some(row.info.name.clone()),
            container_id: (&row.container).into(),
            container_status: Some(describe::of_executor(row).into()),
            resource_statistics: statistics(&row.container),
        });
    }
    let nested = call.show_nested();
    for row in view
        .tasks
        .iter()
        .filter(|row| statistics::is_there(row.state))
    {
        let around = describe::executor_of(row, &view);
        if around.is_some() && !nested {
            continue;
        }
        let name = around.map(|it| it.info.name.clone());
        shown.push(Container {
            framework_id: Some(describe::framework_id(&row.launch.framework_id)),
            executor_id: Some(describe::executor(row.launch.executor_id())),
            executor_name: Some(name.unwrap_or_else(|| describe::command_executor(row))),
            container_id: describe::container_id(row, &view),
            container_status: Some(describe::of_task(row, &view).into()),
            resource_statistics: statistics(&row.container),
        });
    }
    for row in &view.launched {
        let wanted = if row.nested {
            nested
        } else {
            call.show_standalone()
        };
        if !wanted {
            continue;
        }
        let of = |id: &String| Some(id).filter(|id| !id.is_empty()).cloned();
        shown.push(Container {
            framework_id: of(&row.framework).map(|id| describe::framework_id(&id)),
            executor_id: of(&row.executor).map(|id| describe::executor(&id)),
            container_id: describe::chained(&row.chain),
            container_status: Some(describe::of_launched(row).into()),
            resource_statistics: statistics(&row.container),
            ..Container::default()
        });
    }
    Ok(shown)
}
