//! The calls about the agent itself. Decides nothing: what they tell is in `facts`.

use gantry_wire::mesos::v1::VersionInfo;
use gantry_wire::mesos::v1::agent::Response as Answer;
use gantry_wire::mesos::v1::agent::response::{GetHealth, GetVersion, Type};

use super::super::Server;

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
