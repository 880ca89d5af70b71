//! Numbers that are easy to get wrong, and the reader of the schema.

use gantry_wire::mesos::v1;
use gantry_wire::mesos::v1::capability_info::Capability;
use gantry_wire::mesos::v1::container_info::{self, docker_info::Network};
use gantry_wire::mesos::v1::task_status::Reason;

use crate::codec;
use crate::schema::Schema;

/// Reasons by number, from 0.
const REASONS: [&str; 35] = [
    "COMMAND_EXECUTOR_FAILED",
    "EXECUTOR_TERMINATED",
    "EXECUTOR_UNREGISTERED",
    "FRAMEWORK_REMOVED",
    "GC_ERROR",
    "INVALID_FRAMEWORKID",
    "INVALID_OFFERS",
    "MASTER_DISCONNECTED",
    "CONTAINER_LIMITATION_MEMORY",
    "RECONCILIATION",
    "AGENT_DISCONNECTED",
    "AGENT_REMOVED",
    "AGENT_RESTARTED",
    "AGENT_UNKNOWN",
    "TASK_INVALID",
    "TASK_UNAUTHORIZED",
    "TASK_UNKNOWN",
    "CONTAINER_PREEMPTED",
    "RESOURCES_UNKNOWN",
    "CONTAINER_LIMITATION",
    "CONTAINER_LIMITATION_DISK",
    "CONTAINER_LAUNCH_FAILED",
    "CONTAINER_UPDATE_FAILED",
    "EXECUTOR_REGISTRATION_TIMEOUT",
    "EXECUTOR_REREGISTRATION_TIMEOUT",
    "TASK_GROUP_INVALID",
    "TASK_GROUP_UNAUTHORIZED",
    "IO_SWITCHBOARD_EXITED",
    "TASK_CHECK_STATUS_UPDATED",
    "TASK_HEALTH_CHECK_STATUS_UPDATED",
    "TASK_KILLED_DURING_LAUNCH",
    "AGENT_REMOVED_BY_OPERATOR",
    "AGENT_REREGISTERED",
    "MAX_COMPLETION_TIME_REACHED",
    "AGENT_DRAINING",
];

/// Fields whose numbers do not follow their order: message, name, number.
const NUMBERS: [(&str, &str, u32); 12] = [
    ("scheduler.Call", "framework_id", 1),
    ("scheduler.Call", "revive", 15),
    ("scheduler.Call", "suppress", 16),
    ("scheduler.Call", "acknowledge_operation_status", 17),
    ("scheduler.Call.Subscribe", "suppressed_roles", 2),
    ("scheduler.Call.Subscribe", "offer_constraints", 3),
    ("scheduler.Event", "inverse_offers", 9),
    ("executor.Call.Message", "data", 2),
    ("executor.Event", "launch_group", 8),
    ("TaskInfo", "health_check", 8),
    ("AgentInfo", "port", 8),
    ("Resource", "reservations", 13),
];

#[test]
fn numbers_are_those_of_mesos() {
    for (number, name) in (0..).zip(REASONS) {
        let reason = Reason::try_from(number).unwrap();
        assert_eq!(reason.name(), format!("REASON_{name}"));
        assert_eq!(Reason::from_name(reason.name()), Some(reason));
    }
    assert!(Reason::try_from(35).is_err());
    for (message, name, number) in NUMBERS {
        let message = codec(&format!("mesos.v1.{message}")).message;
        let place = message.numbered(number).unwrap();
        assert_eq!(message.fields[place].name, name, "{}", message.name);
        assert_eq!(message.named(name), Some(place));
    }
    let others = [
        (v1::value::Type::Text as i32, 3),
        (container_info::Type::Mesos as i32, 2),
        (v1::volume::Mode::Ro as i32, 2),
        (Network::Host as i32, 1),
        (Network::User as i32, 4),
        (Capability::Chown as i32, 1000),
        (v1::scheduler::call::Type::UpdateFramework as i32, 17),
        (v1::master::call::Type::ReactivateAgent as i32, 39),
        (v1::agent::call::Type::MarkResourceProviderGone as i32, 32),
    ];
    for (found, want) in others {
        assert_eq!(found, want);
    }
}

#[test]
fn schemas_that_make_no_sense_are_refused() {
    for (text, want) in [
        (
            "message A\n  1 optional string",
            "line 2: number, label, type and name expected",
        ),
        (
            "message A\n  x optional string a",
            "line 2: 'x' is no number",
        ),
        (
            "message A\n  1 maybe string a",
            "line 2: 'maybe' is no label",
        ),
        (
            "message A\n  1 optional B a",
            "line 2: there is no type 'B'",
        ),
        (
            "message A\n  1 optional bool a =",
            "line 2: '=' not understood",
        ),
        ("enum A\n  B = x", "line 2: 'x' is no number"),
        (
            "enum A\n  1 optional bool a",
            "line 2: a field of no message",
        ),
        ("1 optional bool a", "line 1: a field of no message"),
    ] {
        assert_eq!(Schema::parse(text).unwrap_err(), want, "{text}");
    }
    let text = "package mesos.v1.x\nmessage A\n  3 map int64 b_c = 1 deprecated\n# end\n";
    let schema = Schema::parse(text).unwrap();
    let names: Vec<_> = schema.messages.iter().map(|m| m.name.as_str()).collect();
    assert_eq!(names, ["A", "A.BCEntry"]);
    assert!(schema.messages[0].fields[0].deprecated);
}
