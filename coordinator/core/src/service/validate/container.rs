//! `container`: image, volumes, and port mappings in the modern and the old place.

use gantry_wire::marathon::{Container, ContainerType, Docker, NetworkMode, Volume, VolumeMode};
use serde_json::Value;

use super::app::short_text;
use super::bounds::LIST_MAX;
use super::fields::{Fields, Report, UNSUPPORTED};
use super::paths;

/// A container as it was read, with what decides about the network.
#[derive(Default)]
pub(super) struct Read<'a> {
    pub(super) container: Option<Container>,
    /// `portMappings`, and where they were.
    pub(super) mappings: Option<(String, &'a [Value])>,
    /// `docker.network` of old definitions.
    pub(super) network: Option<NetworkMode>,
}

pub(super) fn read<'a>(f: &mut Fields<'a>, report: &mut Report) -> Read<'a> {
    let mut read = Read::default();
    let Some(mut f) = f.object("container", report) else {
        return read;
    };
    let kinds = [
        ("DOCKER", ContainerType::Docker),
        ("MESOS", ContainerType::Mesos),
    ];
    let kind = f
        .word("type", &kinds, report)
        .unwrap_or(ContainerType::Docker);
    let mappings = f.list("portMappings", report);
    read.mappings = mappings.map(|mappings| (f.at("portMappings"), mappings));
    let docker = f.object("docker", report);
    let missing = kind == ContainerType::Docker && docker.is_none();
    report.require(!missing, &f.at("docker"), "not defined");
    let docker = docker.and_then(|docker| self::docker(docker, &mut read, report));
    let volumes = volumes(&mut f, report);
    f.unsupported(&["linuxInfo"], report);
    f.finish(report);
    read.container = Some(Container {
        kind,
        docker,
        port_mappings: None,
        volumes,
    });
    read
}

fn docker<'a>(mut f: Fields<'a>, read: &mut Read<'a>, report: &mut Report) -> Option<Docker> {
    let image = short_text(&mut f, "image", report);
    let image = f.required("image", image, report);
    if let Some(image) = &image {
        let fine = !image.contains(char::is_whitespace);
        report.require(fine, &f.at("image"), "must not contain whitespace");
    }
    let force_pull_image = f.flag("forcePullImage", report).unwrap_or(false);
    let networks = [
        ("HOST", Some(NetworkMode::Host)),
        ("BRIDGE", Some(NetworkMode::Bridge)),
    ];
    let networks = [networks[0], networks[1], ("USER", None), ("NONE", None)];
    match f.word("network", &networks, report) {
        Some(None) => report.rule(&f.at("network"), UNSUPPORTED),
        network => read.network = network.flatten(),
    }
    if let Some(mappings) = f.list("portMappings", report) {
        let path = f.at("portMappings");
        let both = read.mappings.is_some();
        report.require(
            !both,
            &path,
            "must not be given together with container.portMappings",
        );
        read.mappings = Some((path, mappings));
    }
    f.unsupported(
        &["credential", "parameters", "privileged", "pullConfig"],
        report,
    );
    f.finish(report);
    Some(Docker {
        force_pull_image,
        image: image?,
    })
}

fn volumes(f: &mut Fields<'_>, report: &mut Report) -> Vec<Volume> {
    let values = f.list("volumes", report).unwrap_or_default();
    let path = f.at("volumes");
    report.require(values.len() <= LIST_MAX, &path, "has too many entries");
    let volume = |(i, value)| volume(&format!("{path}({i})"), value, report);
    values.iter().enumerate().filter_map(volume).collect()
}

fn volume(path: &str, value: &Value, report: &mut Report) -> Option<Volume> {
    let mut f = Fields::of(path, value, report)?;
    f.unsupported(&["external", "persistent", "secret"], report);
    let container_path = short_text(&mut f, "containerPath", report);
    let container_path = f.required("containerPath", container_path, report);
    let host_path = short_text(&mut f, "hostPath", report);
    let elsewhere = ["external", "persistent", "secret"]
        .iter()
        .any(|n| f.take(n).is_some());
    let host_path = if elsewhere {
        None
    } else {
        f.required("hostPath", host_path, report)
    };
    let modes = [("RO", VolumeMode::Ro), ("RW", VolumeMode::Rw)];
    let mode = f.word("mode", &modes, report);
    let mode = if elsewhere {
        None
    } else {
        f.required("mode", mode, report)
    };
    if let Some(container_path) = &container_path
        && let Some(error) = paths::unfit(container_path)
    {
        report.rule(&f.at("containerPath"), error);
    }
    if let Some(host_path) = &host_path {
        let fine = host_path.starts_with('/');
        report.require(fine, &f.at("hostPath"), "must be an absolute path");
    }
    f.finish(report);
    Some(Volume {
        container_path: container_path?,
        host_path: host_path?,
        mode: mode?,
    })
}
