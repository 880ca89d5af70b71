//! LAUNCH_CONTAINER and LAUNCH_NESTED_CONTAINER: from the words of a call to an order for the loop,
//! with its image here. What cannot be done as asked is refused in words, never done in part.

use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use gantry_image::{Image, PullOptions, Reference};
use gantry_wire::agent::{Launch, LimitsMessage};
use gantry_wire::mesos::amounts::{from_resources, scalar_resource};
use gantry_wire::mesos::v1::agent::call::{LaunchContainer, LaunchNestedContainer};
use gantry_wire::mesos::v1::container_info::Type;
use gantry_wire::mesos::v1::{self, CommandInfo, ContainerInfo, Resource};
use tokio::sync::oneshot;

use super::super::Server;
use super::super::problem::Problem;
use super::containers::{self, chain};
use crate::inbox::{Ask, LaunchOrder};
use crate::launched::{Launch as Outcome, LaunchRefusal};

pub(super) async fn nested(
    server: &Server,
    call: LaunchNestedContainer,
) -> Result<Response, Problem> {
    if call.container_id.parent.is_none() {
        let text = "Expecting 'launch_nested_container.container_id.parent' to be present";
        return Err(Problem::BadRequest(text.to_owned()));
    }
    let launch = LaunchContainer {
        container_id: call.container_id,
        command: call.command,
        container: call.container,
        ..LaunchContainer::default()
    };
    container(server, launch).await
}

pub(super) async fn container(server: &Server, call: LaunchContainer) -> Result<Response, Problem> {
    let order = order(server, call).await?;
    let (reply, answer) = oneshot::channel();
    containers::ask(server, Ask::LaunchContainer { order, reply }).await?;
    match answer.await.map_err(|_| Problem::Unavailable)? {
        Ok(Outcome::Made) => Ok(().into_response()),
        Ok(Outcome::WasThere) => Ok(StatusCode::ACCEPTED.into_response()),
        Err(refusal) => Err(problem(&refusal)),
    }
}

fn problem(refusal: &LaunchRefusal) -> Problem {
    let text = refusal.to_string();
    match refusal {
        LaunchRefusal::NoParent(_) => Problem::NotFound(text),
        LaunchRefusal::Unsupported(_) | LaunchRefusal::Failed(_) | LaunchRefusal::TooMany => {
            Problem::BadRequest(text)
        }
        LaunchRefusal::Stopping => Problem::Unavailable,
    }
}

async fn order(server: &Server, call: LaunchContainer) -> Result<Box<LaunchOrder>, Problem> {
    let chain = chain(&call.container_id)?;
    let nested = chain.len() > 1;
    let info = call.container.as_deref();
    let name = info.map(image_name).transpose()?.flatten();
    let command = call.command.as_deref();
    let (shell, argv) = command.map(words).transpose()?.unwrap_or_default();
    if name.is_none() && shell.is_empty() && argv.is_none() {
        return Err(unsupported("A container without image needs a command"));
    }
    if nested && !call.limits.is_empty() {
        return Err(unsupported("'limits' of a container inside another"));
    }
    let resources = amounts(&call.resources)?;
    let limits = limits(&call.limits)?;
    let user = command.and_then(|command| command.user.clone());
    let launch = Launch {
        name: call.container_id.value.clone(),
        resources,
        shell,
        args: argv.clone().unwrap_or_default(),
        env: command.map(environment).transpose()?.unwrap_or_default(),
        user: user.unwrap_or_default(),
        image: name.clone().unwrap_or_default(),
        limits,
        ..Launch::default()
    };
    let image = match name {
        Some(name) => Some(pull(server, &name).await?),
        None => None,
    };
    Ok(Box::new(LaunchOrder {
        chain,
        launch,
        argv,
        image,
    }))
}

async fn pull(server: &Server, name: &str) -> Result<Image, Problem> {
    let reference = Reference::parse(name);
    let reference = reference.map_err(|error| Problem::BadRequest(error.to_string()))?;
    let pulled = server.store.pull(&reference, PullOptions::default()).await;
    pulled
        .map_err(|error| Problem::BadRequest(format!("Failed to launch: {}", crate::chain(&error))))
}

/// The image that a container asks for; whatever else it may ask for, it does not get.
fn image_name(info: &ContainerInfo) -> Result<Option<String>, Problem> {
    for (asked, what) in [
        (info.r#type() != Type::Mesos, "'type' other than MESOS"),
        (!info.volumes.is_empty(), "'volumes'"),
        (info.docker.is_some(), "'docker'"),
        (!info.network_infos.is_empty(), "'network_infos'"),
        (info.hostname.is_some(), "'hostname'"),
        (info.rlimit_info.is_some(), "'rlimit_info'"),
        (info.linux_info.is_some(), "'linux_info'"),
        (info.tty_info.is_some(), "'tty_info'"),
    ] {
        if asked {
            return Err(unsupported(what));
        }
    }
    let Some(image) = info.mesos.as_ref().and_then(|mesos| mesos.image.as_ref()) else {
        return Ok(None);
    };
    let docker = image.docker.as_ref();
    let docker = docker.ok_or_else(|| unsupported("An image other than Docker's"))?;
    if docker.config.is_some() {
        return Err(unsupported("'docker.config'"));
    }
    Ok(Some(docker.name.clone()))
}

fn unsupported(what: &str) -> Problem {
    Problem::BadRequest(format!("{what} cannot be had here"))
}

/// A line for the shell, or a whole argument vector; neither: the image says.
fn words(command: &CommandInfo) -> Result<(String, Option<Vec<String>>), Problem> {
    if !command.uris.is_empty() {
        return Err(unsupported("'command.uris'"));
    }
    let value = command.value.clone().unwrap_or_default();
    if command.shell() {
        let missing = || Problem::BadRequest("Expecting 'command.value'".to_owned());
        let value = Some(value).filter(|value| !value.is_empty());
        return Ok((value.ok_or_else(missing)?, None));
    }
    if value.is_empty() {
        return Ok((String::new(), None));
    }
    let rest = command.arguments.iter().skip(1).cloned();
    let argv = std::iter::once(value).chain(rest).collect();
    Ok((String::new(), Some(argv)))
}

fn environment(
    command: &CommandInfo,
) -> Result<std::collections::BTreeMap<String, String>, Problem> {
    let variables = command.environment.iter().flat_map(|it| &it.variables);
    let pair = |variable: &v1::environment::Variable| {
        if variable.secret.is_some() {
            return Err(unsupported("A secret in the environment"));
        }
        let value = variable.value.clone().unwrap_or_default();
        Ok((variable.name.clone(), value))
    };
    variables.map(pair).collect()
}

fn amounts(
    resources: &[Resource],
) -> Result<Option<gantry_wire::agent::ResourcesMessage>, Problem> {
    if resources.is_empty() {
        return Ok(None);
    }
    let amounts = from_resources(resources);
    let amounts = amounts.map_err(|error| Problem::BadRequest(error.to_string()))?;
    Ok(Some((&amounts).into()))
}

type Limit = v1::agent::call::launch_container::LimitsEntry;

fn limits(entries: &[Limit]) -> Result<Option<LimitsMessage>, Problem> {
    let mut limits = LimitsMessage::default();
    for entry in entries {
        let one = from_resources(&[scalar_resource(&entry.key, entry.value.value)]);
        let unlimited = entry.value.value == f64::INFINITY;
        match (entry.key.as_str(), one) {
            ("cpus", _) if unlimited => limits.cpus_milli = Some(LimitsMessage::UNLIMITED),
            ("mem", _) if unlimited => limits.mem_bytes = Some(LimitsMessage::UNLIMITED),
            ("cpus", Ok(amounts)) => limits.cpus_milli = Some(amounts.cpus.0),
            ("mem", Ok(amounts)) => limits.mem_bytes = Some(amounts.mem.0),
            (other, _) => return Err(unsupported(&format!("The limit on '{other}'"))),
        }
    }
    Ok((!entries.is_empty()).then_some(limits))
}
