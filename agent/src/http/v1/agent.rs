//! The calls about the agent itself: health, version, flags, numbers, its log, what it offers.
//! Decides nothing: what they tell is in `facts`, `metrics` and `verbosity`.

use std::time::Duration;

use gantry_wire::ids::AgentId;
use gantry_wire::mesos::v1::agent::Response as Answer;
use gantry_wire::mesos::v1::agent::call::{GetMetrics, SetLoggingLevel};
use gantry_wire::mesos::v1::agent::response::{
    GetAgent, GetFlags, GetHealth, GetLoggingLevel, GetMetrics as Metrics, GetOperations,
    GetResourceProviders, GetVersion, Type,
};
use gantry_wire::mesos::v1::{DurationInfo, Flag, Metric, VersionInfo};

use super::super::Server;
use super::super::metrics;
use super::super::problem::Problem;
use super::super::state;
use crate::verbosity::Verbosity;

pub(super) fn health() -> Answer {
    Answer {
        r#type: Some(Type::GetHealth as i32),
        get_health: Some(GetHealth { healthy: true }),
        ..Answer::default()
    }
}

pub(super) fn version(server: &Server) -> Answer {
    let version_info = VersionInfo {
        version: server.facts.version.to_owned(),
        ..VersionInfo::default()
    };
    Answer {
        r#type: Some(Type::GetVersion as i32),
        get_version: Some(GetVersion { version_info }.into()),
        ..Answer::default()
    }
}

pub(super) fn flags(server: &Server) -> Answer {
    let flag = |(name, value): (&'static str, String)| Flag {
        name: name.to_owned(),
        value: Some(value),
    };
    let flags = state::flags_of(server).into_iter().map(flag).collect();
    Answer {
        r#type: Some(Type::GetFlags as i32),
        get_flags: Some(GetFlags { flags }),
        ..Answer::default()
    }
}

pub(super) async fn metrics(server: &Server, call: &GetMetrics) -> Result<Answer, Problem> {
    let patience = call.timeout.as_ref().map(duration).transpose()?;
    let numbers = metrics::numbers(server, patience).await.into_iter();
    let metric = |number: crate::metrics::Number| Metric {
        name: number.name.into_owned(),
        value: Some(number.value),
    };
    let metrics = numbers.map(metric).collect();
    Ok(Answer {
        r#type: Some(Type::GetMetrics as i32),
        get_metrics: Some(Metrics { metrics }),
        ..Answer::default()
    })
}

fn duration(info: &DurationInfo) -> Result<Duration, Problem> {
    let nanoseconds = u64::try_from(info.nanoseconds);
    let negative = |_| Problem::BadRequest("A length of time is negative".to_owned());
    Ok(Duration::from_nanos(nanoseconds.map_err(negative)?))
}

pub(super) fn logging_level(server: &Server) -> Result<Answer, Problem> {
    let level = log_of(server)?.level();
    Ok(Answer {
        r#type: Some(Type::GetLoggingLevel as i32),
        get_logging_level: Some(GetLoggingLevel { level }),
        ..Answer::default()
    })
}

pub(super) fn set_logging_level(server: &Server, call: &SetLoggingLevel) -> Result<(), Problem> {
    let lasts = duration(&call.duration)?;
    let set = log_of(server)?.set(call.level, lasts);
    set.map_err(|error| Problem::BadRequest(error.to_string()))
}

pub(in super::super) fn log_of(server: &Server) -> Result<&Verbosity, Problem> {
    let why = || Problem::NotImplemented("The log of this process has one level".to_owned());
    server.verbosity.as_ref().ok_or_else(why)
}

pub(super) fn agent(server: &Server) -> Answer {
    let facts = &server.facts;
    let id = facts.agent_id().and_then(|id| AgentId::parse(id).ok());
    let info = facts.agent_info(id.as_ref());
    let agent = GetAgent {
        agent_info: Some(info.into()),
        ..GetAgent::default()
    };
    Answer {
        r#type: Some(Type::GetAgent as i32),
        get_agent: Some(agent),
        ..Answer::default()
    }
}

/// There are none: no operation takes longer than its call.
pub(super) fn operations() -> Answer {
    Answer {
        r#type: Some(Type::GetOperations as i32),
        get_operations: Some(GetOperations::default()),
        ..Answer::default()
    }
}

/// There are none: see [`super::order`] for the calls that would make one.
pub(super) fn resource_providers() -> Answer {
    Answer {
        r#type: Some(Type::GetResourceProviders as i32),
        get_resource_providers: Some(GetResourceProviders::default()),
        ..Answer::default()
    }
}
