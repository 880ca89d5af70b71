//! The top level of a definition: fields, defaults, and rules between them.

use std::collections::BTreeMap;

use gantry_wire::ids::AppId;
use gantry_wire::marathon::{
    App, Disabled, KillSelection, UnreachableStrategy, UnreachableTimes, UpgradeStrategy,
};
use gantry_wire::units::{AMOUNT_MAX, Bytes, MilliCpu};
use serde_json::{Map, Value};

use super::bounds::{
    ARGS_MAX, COMMAND_MAX_BYTES, CPUS_MIN, ENTRIES_MAX, ENTRIES_MAX_BYTES, FACTOR_MAX, GPUS_MAX,
    INSTANCES_MAX, SECONDS_MAX, TEXT_MAX_BYTES,
};
use super::fields::{Fields, Report, UNSUPPORTED};
use super::{container, fetch, ports, user};
use crate::alloc::ANY_ROLE;

/// Ends of ids that are parts of URLs.
const RESERVED: [&str; 3] = ["restart", "tasks", "versions"];
/// Marathon's words for a bad id (`state/PathId.scala`).
const ID_PATTERN: &str = "must fully match regular expression '^(([a-z0-9]|[a-z0-9][a-z0-9\\-]*\
                          [a-z0-9])\\.)*([a-z0-9]|[a-z0-9][a-z0-9\\-]*[a-z0-9])|(\\.|\\.\\.)$'";
/// Marathon's words for a definition that runs nothing, or two things.
const NOTHING_TO_RUN: &str =
    "AppDefinition must either contain one of 'cmd' or 'args', and/or a 'container'.";
/// Label of apps that never run twice.
const SINGLE_INSTANCE: &str = "MARATHON_SINGLE_INSTANCE_APP";
/// Marathon's default of `maxLaunchDelaySeconds`.
const LAUNCH_DELAY_MAX: f64 = 300.0;

const NOT_YET: [&str; 11] = [
    "check",
    "constraints",
    "dependencies",
    "executor",
    "executorResources",
    "healthChecks",
    "ipAddress",
    "readinessChecks",
    "residency",
    "resourceLimits",
    "secrets",
];
const OLD_NOT_YET: [&str; 1] = ["storeUrls"];
const PRINTED: [&str; 11] = [
    "deployments",
    "lastTaskFailure",
    "readinessCheckResults",
    "tasks",
    "tasksHealthy",
    "tasksRunning",
    "tasksStaged",
    "tasksStats",
    "tasksUnhealthy",
    "version",
    "versionInfo",
];

pub(super) fn read(
    object: &Map<String, Value>,
    at: &str,
    id: Option<&AppId>,
    report: &mut Report,
) -> Option<App> {
    let mut f = Fields::new(at, object);
    let id = self::id(&mut f, id, report);
    let cmd = command(&mut f, report);
    let args = arguments(&mut f, report);
    let env = labels(&mut f, "env", report);
    let labels = labels(&mut f, "labels", report);
    environment(&f, &env, report);
    let fetch = fetch::read(&mut f, report);
    let container = container::read(&mut f, report);
    let ports = ports::read(&mut f, container, report);
    let single = labels
        .get(SINGLE_INSTANCE)
        .is_some_and(|value| value == "true");
    let instances = f
        .whole("instances", (0, INSTANCES_MAX), report)
        .unwrap_or(1);
    let amount = |f: &mut Fields<'_>, name, least, report: &mut Report| {
        f.between(name, (least, AMOUNT_MAX), report)
    };
    let cpus = amount(&mut f, "cpus", CPUS_MIN, report).unwrap_or(1.0);
    let mem = amount(&mut f, "mem", 0.0, report).unwrap_or(128.0);
    let disk = amount(&mut f, "disk", 0.0, report).unwrap_or(0.0);
    let gpus = f.whole("gpus", (0, GPUS_MAX), report).unwrap_or(0);
    let delays = delays(&mut f, report);
    let grace = f.between("taskKillGracePeriodSeconds", (0.0, SECONDS_MAX), report);
    let kill_selection = kill_selection(&mut f, report);
    let upgrade_strategy = upgrade_strategy(&mut f, single, report);
    let unreachable_strategy = unreachable_strategy(&mut f, report);
    let accepted_resource_roles = accepted_roles(&mut f, report);
    role(&mut f, report);
    let (user, tty) = (user(&mut f, report), f.flag("tty", report));
    f.unsupported(&NOT_YET, report);
    f.unsupported(&OLD_NOT_YET, report);
    f.printed(&PRINTED);
    let image = ports.container.as_ref().is_some_and(|c| c.docker.is_some());
    let one = cmd.is_some() == args.is_empty() || (image && cmd.is_none());
    report.require(one, f.here(), NOTHING_TO_RUN);
    let path = f.at("instances");
    let few = !single || instances <= 1;
    report.require(few, &path, "must be at most 1 for a single-instance app");
    f.finish(report);
    Some(App {
        id: id?,
        cmd,
        args,
        accepted_resource_roles,
        backoff_factor: delays.factor,
        backoff_seconds: delays.first,
        container: ports.container,
        cpus: MilliCpu::from_cpus(cpus)?,
        disk: Bytes::from_mib(disk)?,
        env,
        executor: String::new(),
        fetch,
        gpus,
        instances: u32::try_from(instances).ok()?,
        kill_selection,
        labels,
        max_launch_delay_seconds: delays.most,
        mem: Bytes::from_mib(mem)?,
        networks: ports.networks,
        port_definitions: ports.definitions,
        require_ports: ports.required,
        role: ANY_ROLE.to_owned(),
        task_kill_grace_period_seconds: grace,
        tty,
        unreachable_strategy,
        upgrade_strategy,
        user,
    })
}

/// Launch delays: first and longest in seconds, and the factor between.
struct Delays {
    first: f64,
    factor: f64,
    most: f64,
}

fn delays(f: &mut Fields<'_>, report: &mut Report) -> Delays {
    let range = (0.0, SECONDS_MAX);
    Delays {
        first: f.between("backoffSeconds", range, report).unwrap_or(1.0),
        factor: f
            .between("backoffFactor", (1.0, FACTOR_MAX), report)
            .unwrap_or(1.15),
        most: f
            .between("maxLaunchDelaySeconds", range, report)
            .unwrap_or(LAUNCH_DELAY_MAX),
    }
}

fn id(f: &mut Fields<'_>, given: Option<&AppId>, report: &mut Report) -> Option<AppId> {
    let text = f.text("id", report);
    let path = f.at("id");
    let id = match (text, given) {
        (None, None) => {
            f.required("id", text, report);
            return None;
        }
        (None, Some(given)) => given.clone(),
        (Some(text), _) => match AppId::parse(text) {
            Ok(id) => id,
            Err(gantry_wire::ids::IdError::TooLong(_)) => {
                report.rule(&path, "is too long");
                return None;
            }
            Err(_) => {
                report.rule(&path, ID_PATTERN);
                return None;
            }
        },
    };
    let same = given.is_none_or(|given| *given == id);
    report.require(same, &path, "must be the same as the id in the URL");
    let last = id.as_str().rsplit('/').next().unwrap_or_default();
    if RESERVED.contains(&last) {
        let words = RESERVED.join(", ");
        report.rule(
            &path,
            format!("must not end with any of the reserved keywords: {words}"),
        );
    }
    Some(id)
}

fn command(f: &mut Fields<'_>, report: &mut Report) -> Option<String> {
    let cmd = f.text("cmd", report)?;
    let path = f.at("cmd");
    report.require(!cmd.is_empty(), &path, "must not be empty");
    report.require(cmd.len() <= COMMAND_MAX_BYTES, &path, "is too long");
    report.require(
        !cmd.contains('\0'),
        &path,
        "must not contain a NUL character",
    );
    Some(cmd.to_owned())
}

fn arguments(f: &mut Fields<'_>, report: &mut Report) -> Vec<String> {
    let values = f.list("args", report).unwrap_or_default();
    let path = f.at("args");
    let mut args = Vec::with_capacity(values.len().min(ARGS_MAX));
    for (i, value) in values.iter().enumerate() {
        let Some(arg) = value.as_str() else {
            report.shape(&format!("{path}({i})"), "error.expected.jsstring");
            continue;
        };
        let fine = !arg.contains('\0');
        report.require(
            fine,
            &format!("{path}({i})"),
            "must not contain a NUL character",
        );
        args.push(arg.to_owned());
    }
    let bytes: usize = args.iter().map(String::len).sum();
    let short = args.len() <= ARGS_MAX && bytes <= COMMAND_MAX_BYTES;
    report.require(short, &path, "is too long");
    args
}

/// A map of texts, bounded.
pub(super) fn labels(
    f: &mut Fields<'_>,
    name: &'static str,
    report: &mut Report,
) -> BTreeMap<String, String> {
    let path = f.at(name);
    let Some(value) = f.take(name) else {
        return BTreeMap::new();
    };
    let Some(map) = value.as_object() else {
        report.shape(&path, "error.expected.jsobject");
        return BTreeMap::new();
    };
    let mut texts = BTreeMap::new();
    for (key, value) in map {
        match value {
            Value::String(text) => {
                texts.insert(key.clone(), text.clone());
            }
            Value::Object(secret) if name == "env" && secret.contains_key("secret") => {
                report.rule(&format!("{path}/{key}"), UNSUPPORTED);
            }
            _ => report.shape(&format!("{path}/{key}"), "error.expected.jsstring"),
        }
    }
    let bytes: usize = texts
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    let small = texts.len() <= ENTRIES_MAX && bytes <= ENTRIES_MAX_BYTES;
    report.require(small, &path, "has too many or too long entries");
    texts
}

fn environment(f: &Fields<'_>, env: &BTreeMap<String, String>, report: &mut Report) {
    for (name, value) in env {
        let path = format!("{}/{name}", f.at("env"));
        let fine = !name.is_empty() && !name.contains(['=', '\0']);
        report.require(fine, &path, "must be a name without '='");
        report.require(
            !value.contains('\0'),
            &path,
            "must not contain a NUL character",
        );
    }
}

/// A text that is not empty, not long, and has no NUL.
pub(super) fn short_text(
    f: &mut Fields<'_>,
    name: &'static str,
    report: &mut Report,
) -> Option<String> {
    let text = f.text(name, report)?;
    let path = f.at(name);
    report.require(!text.is_empty(), &path, "must not be empty");
    report.require(text.len() <= TEXT_MAX_BYTES, &path, "is too long");
    report.require(
        !text.contains('\0'),
        &path,
        "must not contain a NUL character",
    );
    Some(text.to_owned())
}

fn user(f: &mut Fields<'_>, report: &mut Report) -> Option<String> {
    let user = short_text(f, "user", report)?;
    // The empty one is refused already.
    if !user.is_empty()
        && let Some(error) = user::unfit(&user)
    {
        report.rule(&f.at("user"), error);
    }
    Some(user)
}

fn kill_selection(f: &mut Fields<'_>, report: &mut Report) -> KillSelection {
    let words = [
        ("YOUNGEST_FIRST", KillSelection::YoungestFirst),
        ("OLDEST_FIRST", KillSelection::OldestFirst),
    ];
    f.word("killSelection", &words, report)
        .unwrap_or(KillSelection::YoungestFirst)
}

fn upgrade_strategy(f: &mut Fields<'_>, single: bool, report: &mut Report) -> UpgradeStrategy {
    let default = if single { 0.0 } else { 1.0 };
    let default = UpgradeStrategy {
        minimum_health_capacity: default,
        maximum_over_capacity: default,
    };
    let Some(mut f) = f.object("upgradeStrategy", report) else {
        return default;
    };
    let mut part = |name, report: &mut Report| {
        let value = f.between(name, (0.0, 1.0), report);
        f.required(name, value, report).unwrap_or(1.0)
    };
    let strategy = UpgradeStrategy {
        minimum_health_capacity: part("minimumHealthCapacity", report),
        maximum_over_capacity: part("maximumOverCapacity", report),
    };
    let over = f.at("maximumOverCapacity");
    let fine = !single || strategy.maximum_over_capacity == 0.0;
    report.require(fine, &over, "must be 0 for a single-instance app");
    f.finish(report);
    strategy
}

fn unreachable_strategy(f: &mut Fields<'_>, report: &mut Report) -> UnreachableStrategy {
    let default = UnreachableTimes {
        inactive_after_seconds: 0,
        expunge_after_seconds: 0,
    };
    if f.take("unreachableStrategy").and_then(Value::as_str) == Some("disabled") {
        return UnreachableStrategy::Disabled(Disabled::Disabled);
    }
    let Some(mut f) = f.object("unreachableStrategy", report) else {
        return UnreachableStrategy::Timed(default);
    };
    let range = (0, SECONDS_MAX as u64);
    let inactive_after_seconds = f.whole("inactiveAfterSeconds", range, report).unwrap_or(0);
    let expunge_after_seconds = f.whole("expungeAfterSeconds", range, report).unwrap_or(0);
    let path = f.at("inactiveAfterSeconds");
    let ordered = inactive_after_seconds <= expunge_after_seconds;
    report.require(
        ordered,
        &path,
        "must be less or equal to expungeAfterSeconds",
    );
    f.finish(report);
    UnreachableStrategy::Timed(UnreachableTimes {
        inactive_after_seconds,
        expunge_after_seconds,
    })
}

fn accepted_roles(f: &mut Fields<'_>, report: &mut Report) -> Vec<String> {
    let values = f.list("acceptedResourceRoles", report).unwrap_or_default();
    let path = f.at("acceptedResourceRoles");
    let mut roles = Vec::new();
    for value in values {
        match value.as_str() {
            Some(ANY_ROLE) if roles.is_empty() => roles.push(ANY_ROLE.to_owned()),
            Some(ANY_ROLE) => {}
            Some(_) => report.rule(&path, UNSUPPORTED),
            None => report.shape(&path, "error.expected.jsstring"),
        }
    }
    roles
}

fn role(f: &mut Fields<'_>, report: &mut Report) {
    if f.text("role", report).is_some_and(|role| role != ANY_ROLE) {
        report.rule(&f.at("role"), UNSUPPORTED);
    }
}
