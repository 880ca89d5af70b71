//! Networks and ports: they depend on each other, and have the most old forms
//! (`api/v2/AppNormalization.scala`, `NetworkNormalization`).
//!
//! Host mode has `portDefinitions`, bridge mode has `container.portMappings`; each has one port
//! named `default` when nothing is said, and none when an empty list is.

use std::collections::{BTreeMap, BTreeSet};

use gantry_wire::marathon::{
    Container, ContainerType, Network, NetworkMode, PortDefinition, PortMapping,
};
use serde_json::Value;

use super::app::{labels, short_text};
use super::bounds::LIST_MAX;
use super::container::Read;
use super::fields::{Fields, Report, UNSUPPORTED};

/// Networks and ports of an app, normalised.
pub(super) struct Ports {
    pub(super) networks: Vec<Network>,
    pub(super) definitions: Option<Vec<PortDefinition>>,
    pub(super) required: bool,
    pub(super) container: Option<Container>,
}

pub(super) fn read(f: &mut Fields<'_>, read: Read<'_>, report: &mut Report) -> Ports {
    let mode = mode(f, read.network, report);
    let required = f.flag("requirePorts", report).unwrap_or(false);
    let definitions = definitions(f, report);
    let mut container = read.container;
    let definitions = if mode == NetworkMode::Host {
        if let Some((path, mappings)) = &read.mappings {
            let fine = mappings.is_empty();
            report.require(
                fine,
                path,
                "must be empty in host mode: use portDefinitions",
            );
        }
        let default = || {
            vec![PortDefinition {
                port: 0,
                labels: BTreeMap::new(),
                name: Some("default".to_owned()),
                protocol: "tcp".to_owned(),
            }]
        };
        Some(definitions.unwrap_or_else(default))
    } else {
        let fine = definitions.is_none_or(|d| d.is_empty());
        let path = f.at("portDefinitions");
        report.require(
            fine,
            &path,
            "must be empty in bridge mode: use container.portMappings",
        );
        let native = || Container {
            kind: ContainerType::Mesos,
            docker: None,
            port_mappings: None,
            volumes: Vec::new(),
        };
        container.get_or_insert_with(native).port_mappings = Some(mappings(&read.mappings, report));
        None
    };
    Ports {
        networks: vec![Network { mode }],
        definitions,
        required,
        container,
    }
}

fn mode(f: &mut Fields<'_>, old: Option<NetworkMode>, report: &mut Report) -> NetworkMode {
    let path = f.at("networks");
    let networks = f.list("networks", report).unwrap_or_default();
    report.require(networks.len() <= 1, &path, "may have one entry");
    let Some(network) = networks.first() else {
        return old.unwrap_or(NetworkMode::Host);
    };
    let here = format!("{path}(0)");
    let Some(mut f) = Fields::of(&here, network, report) else {
        return NetworkMode::Host;
    };
    let modes = [
        ("host", Some(NetworkMode::Host)),
        ("container/bridge", Some(NetworkMode::Bridge)),
        ("container", None),
    ];
    // An entry without a mode means a named container network.
    let mode = f.word("mode", &modes, report).flatten();
    let mode_path = f.at("mode");
    report.require(mode.is_some(), &mode_path, UNSUPPORTED);
    if mode.is_some() {
        f.unsupported(&["labels", "name"], report);
        f.finish(report);
    }
    let agrees = old.is_none_or(|old| Some(old) == mode);
    report.require(agrees, &here, "must agree with container.docker.network");
    mode.unwrap_or(NetworkMode::Host)
}

fn protocol(f: &mut Fields<'_>, report: &mut Report) -> String {
    let words = [
        ("tcp", "tcp"),
        ("udp", "udp"),
        ("udp,tcp", "udp,tcp"),
        ("tcp,udp", "udp,tcp"),
    ];
    f.word("protocol", &words, report)
        .unwrap_or("tcp")
        .to_owned()
}

fn name(f: &mut Fields<'_>, report: &mut Report) -> Option<String> {
    let name = short_text(f, "name", report)?;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let path = f.at("name");
    report.require(
        name.chars().all(plain),
        &path,
        "must fully match regular expression '^[a-z0-9-]+$'",
    );
    Some(name)
}

fn port(f: &mut Fields<'_>, field: &'static str, report: &mut Report) -> Option<u16> {
    let port = f.whole(field, (0, u64::from(u16::MAX)), report)?;
    u16::try_from(port).ok()
}

/// `portDefinitions`, or `ports` of old definitions.
fn definitions(f: &mut Fields<'_>, report: &mut Report) -> Option<Vec<PortDefinition>> {
    let old = f.list("ports", report);
    let modern = f.list("portDefinitions", report);
    let path = f.at(if modern.is_some() {
        "portDefinitions"
    } else {
        "ports"
    });
    if let (Some(old), Some(modern)) = (old, modern) {
        let both = !old.is_empty() && !modern.is_empty();
        report.require(
            !both,
            &f.at("ports"),
            "cannot specify both ports and port definitions",
        );
    }
    let values = modern.filter(|m| !m.is_empty() || old.is_none()).or(old)?;
    report.require(values.len() <= LIST_MAX, &path, "has too many entries");
    let values = values.iter().enumerate();
    let definitions: Vec<PortDefinition> = values
        .filter_map(|(i, value)| definition(&format!("{path}({i})"), value, report))
        .collect();
    let ports = definitions.iter().map(|d| d.port);
    report.require(
        distinct(ports.filter(|p| *p != 0)),
        &path,
        "Ports must be unique.",
    );
    let names = definitions.iter().filter_map(|d| d.name.as_ref());
    report.require(distinct(names), &path, "Port names must be unique.");
    Some(definitions)
}

fn definition(path: &str, value: &Value, report: &mut Report) -> Option<PortDefinition> {
    if let Some(number) = value.as_u64() {
        let port = u16::try_from(number).ok();
        report.require(port.is_some(), path, "expected between 0 and 65535");
        let (labels, protocol) = (BTreeMap::new(), "tcp".to_owned());
        return Some(PortDefinition {
            port: port?,
            labels,
            name: None,
            protocol,
        });
    }
    let mut f = Fields::of(path, value, report)?;
    let definition = PortDefinition {
        port: port(&mut f, "port", report).unwrap_or(0),
        labels: labels(&mut f, "labels", report),
        name: name(&mut f, report),
        protocol: protocol(&mut f, report),
    };
    f.finish(report);
    Some(definition)
}

fn mappings(given: &Option<(String, &[Value])>, report: &mut Report) -> Vec<PortMapping> {
    let Some((path, values)) = given else {
        return vec![PortMapping {
            container_port: 0,
            host_port: Some(0),
            labels: BTreeMap::new(),
            name: Some("default".to_owned()),
            protocol: "tcp".to_owned(),
            service_port: 0,
        }];
    };
    report.require(values.len() <= LIST_MAX, path, "has too many entries");
    let values = values.iter().enumerate();
    let mappings: Vec<PortMapping> = values
        .filter_map(|(i, value)| mapping(&format!("{path}({i})"), value, report))
        .collect();
    let names = mappings.iter().filter_map(|m| m.name.as_ref());
    report.require(distinct(names), path, "Port names must be unique.");
    let host = mappings
        .iter()
        .filter_map(|m| m.host_port)
        .filter(|p| *p != 0);
    report.require(distinct(host), path, "Host ports must be unique.");
    mappings
}

fn mapping(path: &str, value: &Value, report: &mut Report) -> Option<PortMapping> {
    let mut f = Fields::of(path, value, report)?;
    let mapping = PortMapping {
        container_port: port(&mut f, "containerPort", report).unwrap_or(0),
        // Bridge mode: a mapping without a host port gets any.
        host_port: Some(port(&mut f, "hostPort", report).unwrap_or(0)),
        labels: labels(&mut f, "labels", report),
        name: name(&mut f, report),
        protocol: protocol(&mut f, report),
        service_port: port(&mut f, "servicePort", report).unwrap_or(0),
    };
    f.unsupported(&["networkNames"], report);
    f.finish(report);
    Some(mapping)
}

fn distinct<T: Ord>(values: impl Iterator<Item = T>) -> bool {
    let mut seen = BTreeSet::new();
    values.into_iter().all(|value| seen.insert(value))
}
