//! From a command and its container, as a framework writes them, to what an agent runs.
//!
//! It decides the translation. What has no form here is refused in words rather than left out: an
//! executor that lacks what it asked for is worse than none. Whose resources are whose, and what a
//! task is besides its command, is no business of this module.

use std::collections::BTreeMap;

use super::amounts::{AmountsError, from_resources};
use super::v1::container_info::docker_info::Network;
use super::v1::environment::variable;
use super::v1::{CommandInfo, ContainerInfo, ExecutorInfo, Labels, Resource, Volume, volume};
use crate::agent::{HostVolume, Launch, NetworkMode, PortMapping, ResourcesMessage, Uri};

/// Why a command cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// There is none.
    #[error("it has no command")]
    None,
    /// Its resources are none of ours.
    #[error(transparent)]
    Resources(#[from] AmountsError),
    /// It asks for something that is not there yet.
    #[error("{0} not supported yet")]
    Unsupported(&'static str),
}

/// What runs an executor: its own command, container and resources, under its own name.
///
/// # Errors
/// See [`CommandError`].
pub fn of_executor(info: &ExecutorInfo, user: &str) -> Result<Launch, CommandError> {
    let command = info.command.as_deref().ok_or(CommandError::None)?;
    let mut launch = Launch {
        name: info.name.clone().unwrap_or_default(),
        user: user.to_owned(),
        resources: Some(resources(&info.resources)?),
        labels: labels(info.labels.as_ref()),
        ..Launch::default()
    };
    if let Some(container) = info.container.as_deref() {
        in_container(&mut launch, container)?;
    }
    run(&mut launch, command)?;
    Ok(launch)
}

/// Amounts as agents read them.
///
/// # Errors
/// A resource that is not known here.
pub fn resources(list: &[Resource]) -> Result<ResourcesMessage, AmountsError> {
    from_resources(list).map(|sum| ResourcesMessage::from(&sum))
}

/// Labels by name; the last of a name counts, as for agents.
#[must_use]
pub fn labels(labels: Option<&Labels>) -> BTreeMap<String, String> {
    let all = labels.into_iter().flat_map(|labels| &labels.labels);
    let pair = |label: &super::v1::Label| {
        let value = label.value.clone().unwrap_or_default();
        (label.key.clone(), value)
    };
    all.map(pair).collect()
}

fn run(launch: &mut Launch, command: &CommandInfo) -> Result<(), CommandError> {
    let value = command.value.clone().unwrap_or_default();
    if let Some(user) = command.user.as_ref().filter(|user| !user.is_empty()) {
        launch.user.clone_from(user);
    }
    if command.shell() {
        launch.shell = value;
    } else {
        let of_image = !launch.image.is_empty();
        match (value.as_str(), of_image) {
            ("", true) => launch.args.clone_from(&command.arguments),
            ("", false) => {}
            // It stands in for the entrypoint, which only a shell can do here.
            (_, true) => launch.shell = quoted(&value, &command.arguments),
            (_, false) => {
                // The first argument is what the program is told that its name is.
                let rest = command.arguments.iter().skip(1).cloned();
                launch.args = std::iter::once(value).chain(rest).collect();
            }
        }
    }
    let variables = command.environment.as_ref();
    for variable in variables.into_iter().flat_map(|all| &all.variables) {
        if variable.r#type() == variable::Type::Secret || variable.secret.is_some() {
            return Err(CommandError::Unsupported("secrets in the environment are"));
        }
        let value = variable.value.clone().unwrap_or_default();
        launch.env.insert(variable.name.clone(), value);
    }
    let uri = |uri: &super::v1::command_info::Uri| Uri {
        value: uri.value.clone(),
        executable: uri.executable(),
        extract: uri.extract(),
        cache: uri.cache(),
        output_file: uri.output_file.clone().unwrap_or_default(),
        sha256: String::new(),
    };
    launch.uris = command.uris.iter().map(uri).collect();
    Ok(())
}

/// `exec program arguments` for a shell; the first argument is the program's name for itself.
fn quoted(program: &str, arguments: &[String]) -> String {
    let words = std::iter::once(program).chain(arguments.iter().skip(1).map(String::as_str));
    let quote = |word: &str| format!(" '{}'", word.replace('\'', "'\\''"));
    words.fold("exec".to_owned(), |line, word| line + &quote(word))
}

fn in_container(launch: &mut Launch, container: &ContainerInfo) -> Result<(), CommandError> {
    let refused = [
        (container.hostname.is_some(), "a hostname is"),
        (container.linux_info.is_some(), "'container.linux_info' is"),
        (container.rlimit_info.is_some(), "limits of rlimit(2) are"),
        (container.tty_info.is_some(), "a terminal is"),
    ];
    if let Some((_, what)) = refused.iter().find(|(asked, _)| *asked) {
        return Err(CommandError::Unsupported(what));
    }
    let mut bridged = !container.network_infos.is_empty();
    if let Some(docker) = &container.docker {
        if docker.privileged() || !docker.parameters.is_empty() {
            let what = "a privileged container, and parameters of Docker, are";
            return Err(CommandError::Unsupported(what));
        }
        launch.image.clone_from(&docker.image);
        launch.force_pull = docker.force_pull_image();
        bridged |= match docker.network() {
            Network::Host => false,
            Network::Bridge | Network::User => true,
            Network::None => return Err(CommandError::Unsupported("having no network is")),
        };
        for port in &docker.port_mappings {
            let (host, inside) = (port.host_port, port.container_port);
            launch.ports.push(mapped(host, inside, port.protocol()));
        }
    }
    let image = container.mesos.as_ref().and_then(|it| it.image.as_ref());
    if let Some(image) = image {
        let docker = image.docker.as_ref();
        let docker = docker.ok_or(CommandError::Unsupported("images of appc are"))?;
        launch.image.clone_from(&docker.name);
        launch.force_pull = !image.cached();
    }
    for network in &container.network_infos {
        for port in &network.port_mappings {
            let (host, inside) = (port.host_port, port.container_port);
            launch.ports.push(mapped(host, inside, port.protocol()));
        }
    }
    if bridged {
        launch.network = NetworkMode::Bridge as i32;
    }
    launch.volumes = container
        .volumes
        .iter()
        .map(host_volume)
        .collect::<Result<_, _>>()?;
    Ok(())
}

fn mapped(host_port: u32, container_port: u32, protocol: &str) -> PortMapping {
    let protocol = if protocol.is_empty() { "tcp" } else { protocol };
    PortMapping {
        host_port,
        container_port,
        protocol: protocol.to_owned(),
        name: String::new(),
    }
}

fn host_volume(volume: &Volume) -> Result<HostVolume, CommandError> {
    let host_path = volume.host_path.clone();
    let plain = volume.image.is_none() && volume.source.is_none();
    let host_path = host_path.filter(|_| plain);
    let what = "volumes that are no path of the node are";
    Ok(HostVolume {
        host_path: host_path.ok_or(CommandError::Unsupported(what))?,
        container_path: volume.container_path.clone(),
        read_only: volume.mode() == volume::Mode::Ro,
    })
}

#[cfg(test)]
mod tests {
    use super::super::v1::{Environment, Image, image};
    use super::*;

    fn command(shell: bool, value: Option<&str>, arguments: &[&str]) -> CommandInfo {
        CommandInfo {
            shell: Some(shell),
            value: value.map(str::to_owned),
            arguments: arguments.iter().map(|&word| word.to_owned()).collect(),
            ..CommandInfo::default()
        }
    }

    fn launched(command: CommandInfo, image: &str) -> (String, Vec<String>) {
        let docker = image::Docker {
            name: image.to_owned(),
            ..image::Docker::default()
        };
        let mesos = super::super::v1::container_info::MesosInfo {
            image: Some(Image {
                docker: Some(docker.into()),
                ..Image::default()
            }),
        };
        let info = ExecutorInfo {
            command: Some(command.into()),
            container: (!image.is_empty()).then(|| {
                ContainerInfo {
                    mesos: Some(mesos),
                    ..ContainerInfo::default()
                }
                .into()
            }),
            ..ExecutorInfo::default()
        };
        let launch = of_executor(&info, "u").unwrap();
        assert_eq!((launch.user.as_str(), launch.image.as_str()), ("u", image));
        (launch.shell, launch.args)
    }

    #[test]
    fn commands_as_mesos_runs_them() {
        let words = |list: &[&str]| -> Vec<String> { list.iter().map(|&w| w.to_owned()).collect() };
        for (command, image, want) in [
            (
                command(true, Some("a | b"), &["x"]),
                "",
                ("a | b", words(&[])),
            ),
            (
                command(false, Some("/bin/a"), &["name", "x y"]),
                "",
                ("", words(&["/bin/a", "x y"])),
            ),
            (command(false, None, &["x"]), "img", ("", words(&["x"]))),
            (command(false, None, &[]), "img", ("", words(&[]))),
            (
                command(false, Some("/a"), &["a", "it's", ""]),
                "img",
                (r"exec '/a' 'it'\''s' ''", words(&[])),
            ),
        ] {
            let (shell, args) = launched(command, image);
            assert_eq!((shell.as_str(), args), want);
        }
    }

    #[test]
    fn what_has_no_form_is_refused() {
        let of = |command: Option<CommandInfo>, container: ContainerInfo| {
            let info = ExecutorInfo {
                command: command.map(Into::into),
                container: Some(container.into()),
                ..ExecutorInfo::default()
            };
            of_executor(&info, "").map_err(|error| error.to_string())
        };
        let plain = || Some(command(true, Some("x"), &[]));
        assert!(of(plain(), ContainerInfo::default()).is_ok());
        assert_eq!(
            of(None, ContainerInfo::default()).unwrap_err(),
            "it has no command"
        );
        let secret = variable::Type::Secret as i32;
        let variable = super::super::v1::environment::Variable {
            r#type: Some(secret),
            ..Default::default()
        };
        let secretive = CommandInfo {
            environment: Some(Environment {
                variables: vec![variable],
            }),
            ..command(true, Some("x"), &[])
        };
        let refused = of(Some(secretive), ContainerInfo::default()).unwrap_err();
        assert_eq!(refused, "secrets in the environment are not supported yet");
        let container = ContainerInfo {
            volumes: vec![Volume::default()],
            ..ContainerInfo::default()
        };
        let refused = of(plain(), container).unwrap_err();
        assert_eq!(
            refused,
            "volumes that are no path of the node are not supported yet"
        );
        let container = ContainerInfo {
            hostname: Some("h".into()),
            ..ContainerInfo::default()
        };
        assert_eq!(
            of(plain(), container).unwrap_err(),
            "a hostname is not supported yet"
        );
    }
}
