//! What an agent is told to launch, with the environment that Marathon gives
//! (`mesosphere/mesos/{EnvironmentHelper,TaskBuilder}.scala`).
//!
//! It does not decide anything and does not add `MESOS_*`: the agent knows those. The definition's
//! own environment wins over everything here.

use std::collections::BTreeMap;

use gantry_wire::agent::{
    HostVolume, Launch, NetworkMode, PortMapping, ResourcesMessage, Tty, Uri,
};
use gantry_wire::marathon::{App, VolumeMode};

use crate::state::{State, Task};

/// Labels whose name or value is as long or longer are left out of the environment.
const LABEL_MAX_CHARS: usize = 512;

/// The launch of a task; `None` when its definition is not kept any more.
#[must_use]
pub fn message(state: &State, task: &Task) -> Option<Launch> {
    let app = state.app_version(&task.app_id, task.app_version)?;
    let framework_id = state.cluster()?.framework_id.to_string();
    let ports = ports(app, &task.host_ports);
    let mut env = context(app, task);
    env.extend(port_variables(app, &ports));
    env.extend(app.env.clone());
    let host_mode = app.is_host_mode();
    Some(Launch {
        task_id: task.id.to_string(),
        name: app.id.task_name(),
        framework_id,
        resources: Some(resources(task)),
        shell: app.cmd.clone().unwrap_or_default(),
        args: app.args.clone(),
        env,
        user: app.user.clone().unwrap_or_default(),
        image: app.image().unwrap_or_default().to_owned(),
        force_pull: force_pull(app),
        network: if host_mode {
            NetworkMode::Host
        } else {
            NetworkMode::Bridge
        } as i32,
        ports,
        kill_grace_ms: task.kill_grace_ms,
        labels: app.labels.clone(),
        volumes: volumes(app),
        uris: uris(app),
        tty: app.tty.unwrap_or(false).then(Tty::default),
        ..Launch::default()
    })
}

fn resources(task: &Task) -> ResourcesMessage {
    ResourcesMessage {
        cpus_milli: task.amounts.cpus_milli,
        mem_bytes: task.amounts.mem_bytes,
        disk_bytes: task.amounts.disk_bytes,
        gpus: task.amounts.gpus,
        ports: task
            .host_ports
            .iter()
            .flat_map(|p| [u32::from(*p); 2])
            .collect(),
    }
}

fn force_pull(app: &App) -> bool {
    let docker = app.container.as_ref().and_then(|c| c.docker.as_ref());
    docker.is_some_and(|docker| docker.force_pull_image)
}

fn volumes(app: &App) -> Vec<HostVolume> {
    let volumes = app
        .container
        .iter()
        .flat_map(|container| &container.volumes);
    let volume = |v: &gantry_wire::marathon::Volume| HostVolume {
        host_path: v.host_path.clone(),
        container_path: v.container_path.clone(),
        read_only: v.mode == VolumeMode::Ro,
    };
    volumes.map(volume).collect()
}

fn uris(app: &App) -> Vec<Uri> {
    let uri = |fetch: &gantry_wire::marathon::Fetch| Uri {
        value: fetch.uri.clone(),
        executable: fetch.executable,
        extract: fetch.extract,
        cache: fetch.cache,
        output_file: fetch.dest_path.clone().unwrap_or_default(),
        sha256: fetch.sha256.clone().unwrap_or_default(),
    };
    app.fetch.iter().map(uri).collect()
}

/// The ports of the definition with the host ports that were given.
fn ports(app: &App, host_ports: &[u16]) -> Vec<PortMapping> {
    let mut given = host_ports.iter().copied().map(u32::from);
    if let Some(definitions) = &app.port_definitions {
        let port = |(p, host_port): (&gantry_wire::marathon::PortDefinition, u32)| PortMapping {
            host_port,
            container_port: host_port,
            protocol: p.protocol.clone(),
            name: p.name.clone().unwrap_or_default(),
        };
        return definitions.iter().zip(given).map(port).collect();
    }
    let mapping = |m: &gantry_wire::marathon::PortMapping| {
        let host_port = m.host_port.and_then(|_| given.next()).unwrap_or(0);
        let container_port = if m.container_port == 0 {
            host_port
        } else {
            u32::from(m.container_port)
        };
        PortMapping {
            host_port,
            container_port,
            protocol: m.protocol.clone(),
            name: m.name.clone().unwrap_or_default(),
        }
    };
    app.port_mappings().iter().map(mapping).collect()
}

/// Letters, digits and `_` stay, in upper case.
fn upper(name: &str) -> String {
    name.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_uppercase()
            } else {
                '_'
            }
        })
        .collect()
}

/// Like [`upper`], with runs of other characters as one `_`, as Marathon does for labels.
fn label_name(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut in_run = false;
    for c in name.chars() {
        let plain = c.is_ascii_alphanumeric() || c == '_';
        if plain {
            out.push(c.to_ascii_uppercase());
        } else if !in_run {
            out.push('_');
        }
        in_run = !plain;
    }
    out
}

fn context(app: &App, task: &Task) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    let mut set = |name: &str, value: String| env.insert(name.to_owned(), value);
    set("HOST", task.host.clone());
    set("MARATHON_APP_ID", app.id.to_string());
    set("MARATHON_APP_VERSION", task.app_version.to_string());
    if let Some(image) = app.image() {
        set("MARATHON_APP_DOCKER_IMAGE", image.to_owned());
    }
    set(
        "MARATHON_APP_RESOURCE_CPUS",
        format!("{:?}", app.cpus.cpus()),
    );
    set("MARATHON_APP_RESOURCE_MEM", format!("{:?}", app.mem.mib()));
    set(
        "MARATHON_APP_RESOURCE_DISK",
        format!("{:?}", app.disk.mib()),
    );
    set("MARATHON_APP_RESOURCE_GPUS", app.gpus.to_string());
    set("MARATHON_APP_ENFORCE_GROUP_ROLE", "false".to_owned());
    let short = |text: &str| text.chars().count() < LABEL_MAX_CHARS;
    let labels = app
        .labels
        .iter()
        .filter(|(name, value)| short(name) && short(value));
    let labels: BTreeMap<String, &String> = labels
        .map(|(name, value)| (label_name(name), value))
        .collect();
    let names: Vec<&str> = labels.keys().map(String::as_str).collect();
    set("MARATHON_APP_LABELS", names.join(" "));
    for (name, value) in labels {
        set(&format!("MARATHON_APP_LABEL_{name}"), value.clone());
    }
    env
}

/// `PORT0`…, `PORT_<number>`, `PORT_<NAME>`, `PORT`, `PORTS`.
fn port_variables(app: &App, ports: &[PortMapping]) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    let requested: Vec<u16> = match &app.port_definitions {
        Some(definitions) => definitions.iter().map(|p| p.port).collect(),
        None => app
            .port_mappings()
            .iter()
            .map(|m| m.container_port)
            .collect(),
    };
    for (i, (port, requested)) in ports.iter().zip(requested).enumerate() {
        let effective = if port.host_port == 0 {
            port.container_port
        } else {
            port.host_port
        };
        let number = if requested == 0 {
            effective
        } else {
            u32::from(requested)
        };
        env.insert(format!("PORT{i}"), effective.to_string());
        env.insert(format!("PORT_{number}"), effective.to_string());
        if !port.name.is_empty() {
            env.insert(format!("PORT_{}", upper(&port.name)), effective.to_string());
        }
    }
    let host: Vec<String> = ports
        .iter()
        .filter(|p| p.host_port != 0)
        .map(|p| p.host_port.to_string())
        .collect();
    if let Some(first) = host.first() {
        env.insert("PORT".to_owned(), first.clone());
        env.insert("PORTS".to_owned(), host.join(","));
    }
    env
}

#[cfg(test)]
mod tests;
