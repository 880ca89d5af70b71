//! The flags that describe an app, made into Marathon's app JSON.
//!
//! It does not judge the values: the coordinator does, once. Invariant: a flag that was not given
//! leaves no trace in the JSON, so that an update changes only what was named.

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::merge;
use crate::failure::{Exit, Failure};

/// How tasks reach the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Network {
    /// The node's own network.
    Host,
    /// An address of its own, with ports of the node mapped to it.
    Bridge,
}

/// A description of an app, or of a part of it.
#[derive(Debug, Default, Args)]
pub(crate) struct AppFlags {
    /// Shell command to run.
    #[arg(long, value_name = "COMMAND")]
    cmd: Option<String>,
    /// Argument for the image's entrypoint, or the argument vector without an image (repeat it).
    #[arg(
        long = "arg",
        value_name = "ARG",
        conflicts_with = "cmd",
        allow_hyphen_values = true
    )]
    args: Vec<String>,
    /// Image to run it in; without one it sees the node's own files, read-only.
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// CPUs, such as 0.5.
    #[arg(long, value_name = "N")]
    cpus: Option<f64>,
    /// Memory in MiB.
    #[arg(long, value_name = "MIB")]
    mem: Option<f64>,
    /// Disk in MiB.
    #[arg(long, value_name = "MIB")]
    disk: Option<f64>,
    /// How many instances run.
    #[arg(long, value_name = "N")]
    instances: Option<u32>,
    /// Environment variable (repeat it).
    #[arg(long, value_name = "KEY=VALUE")]
    env: Vec<String>,
    /// Label (repeat it).
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// User inside the container.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Host or bridge network.
    #[arg(long, value_name = "MODE")]
    network: Option<Network>,
    /// A port (repeat it): PORT on the host network, [HOST:]CONTAINER[/udp] on the bridge. 0 lets
    /// the node choose; the task finds them in PORT0, PORT1, … A port of the node that is not 0
    /// must be one it offers (31000-32000 unless it says otherwise), or the app waits for it.
    #[arg(long, value_name = "PORT")]
    port: Vec<String>,
    /// A path of the node to see inside (repeat it).
    #[arg(long, value_name = "HOST:CONTAINER[:ro]")]
    volume: Vec<String>,
    /// Give each task a terminal, for `gantry task attach`.
    #[arg(long)]
    tty: bool,
}

impl AppFlags {
    /// Whether any of them was given.
    pub(crate) fn given(&self) -> bool {
        let numbers = self.cpus.is_some() || self.mem.is_some() || self.disk.is_some();
        let texts = [&self.cmd, &self.image, &self.user]
            .iter()
            .any(|t| t.is_some());
        let lists = [&self.args, &self.env, &self.label, &self.port, &self.volume];
        numbers
            || texts
            || self.tty
            || self.instances.is_some()
            || self.network.is_some()
            || lists.iter().any(|l| !l.is_empty())
    }

    /// Whether the app's current form is needed to say what it becomes.
    pub(crate) fn needs_current(&self) -> bool {
        let container = self.image.is_some() || !self.port.is_empty() || !self.volume.is_empty();
        container || !self.env.is_empty() || !self.label.is_empty() || self.network.is_some()
    }

    /// The JSON of what was given, on top of the `current` app (null for a new one): objects that
    /// the API replaces as a whole (`env`, `labels`, `container`) are merged here.
    pub(crate) fn patch(&self, current: &Value) -> Result<Value, Failure> {
        let mut patch = Map::new();
        let simple = [
            ("cmd", json!(self.cmd)),
            ("cpus", json!(self.cpus)),
            ("mem", json!(self.mem)),
            ("disk", json!(self.disk)),
            ("instances", json!(self.instances)),
            ("user", json!(self.user)),
        ];
        for (field, value) in simple {
            if !value.is_null() {
                patch.insert(field.to_owned(), value);
            }
        }
        if self.tty {
            patch.insert("tty".to_owned(), json!(true));
        }
        if !self.args.is_empty() {
            patch.insert("args".to_owned(), json!(self.args));
        }
        for (field, given) in [("env", &self.env), ("labels", &self.label)] {
            if !given.is_empty() {
                patch.insert(
                    field.to_owned(),
                    merge::pairs(field, given, &current[field])?,
                );
            }
        }
        self.patch_network(&mut patch, current)?;
        Ok(Value::Object(patch))
    }

    fn patch_network(
        &self,
        patch: &mut Map<String, Value>,
        current: &Value,
    ) -> Result<(), Failure> {
        let was_bridge = current["networks"][0]["mode"] == "container/bridge";
        let bridge = self.network.map_or(was_bridge, |n| n == Network::Bridge);
        match self.network {
            Some(Network::Bridge) => {
                patch.insert("networks".to_owned(), json!([{"mode": "container/bridge"}]));
            }
            Some(Network::Host) => {
                patch.insert("networks".to_owned(), json!([{"mode": "host"}]));
            }
            None => {}
        }
        let mut container = current["container"].clone();
        if let Some(image) = &self.image {
            merge::object(&mut container)["docker"]["image"] = json!(image);
        }
        if bridge && !self.port.is_empty() {
            let mappings = merge::each(&self.port, port_mapping)?;
            merge::object(&mut container)["portMappings"] = json!(mappings);
        }
        if !bridge && !self.port.is_empty() {
            let ports = merge::each(&self.port, port_definition)?;
            let fixed = ports.iter().filter(|p| p["port"] != 0).count();
            if fixed > 0 && fixed < ports.len() {
                let message = "--port: either all are 0 on the host network, or none is";
                return Err(usage(message.to_owned()));
            }
            // Without it, the port is only a name for one that the node chooses.
            if fixed > 0 || current["requirePorts"] == true {
                patch.insert("requirePorts".to_owned(), json!(fixed > 0));
            }
            patch.insert("portDefinitions".to_owned(), json!(ports));
        }
        if !bridge && was_bridge && container["portMappings"].is_array() {
            merge::object(&mut container)["portMappings"] = json!([]);
        }
        if !self.volume.is_empty() {
            merge::object(&mut container)["volumes"] = json!(merge::each(&self.volume, volume)?);
        }
        if container != current["container"] {
            let container_object = merge::object(&mut container);
            if container_object["type"].is_null() {
                container_object["type"] = json!("MESOS");
            }
            patch.insert("container".to_owned(), container);
        }
        Ok(())
    }
}

fn usage(message: String) -> Failure {
    Failure::new(Exit::Usage, message)
}

fn number(text: &str, whole: &str) -> Result<u16, Failure> {
    text.parse()
        .map_err(|_| usage(format!("--port {whole}: '{text}' is not a port (0–65535)")))
}

/// `8080` on the host network.
fn port_definition(text: &str) -> Result<Value, Failure> {
    if text.contains(':') {
        let message = format!("--port {text}: a mapping needs --network bridge");
        return Err(usage(message));
    }
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    Ok(json!({"port": number(port, text)?, "protocol": protocol}))
}

/// `80`, `8080:80`, `53:53/udp` on the bridge.
fn port_mapping(text: &str) -> Result<Value, Failure> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (host, container) = ports.split_once(':').unwrap_or(("0", ports));
    Ok(json!({
        "containerPort": number(container, text)?,
        "hostPort": number(host, text)?,
        "protocol": protocol,
    }))
}

/// `/data:/data` or `/data:/data:ro`.
fn volume(text: &str) -> Result<Value, Failure> {
    let parts: Vec<&str> = text.split(':').collect();
    let (host, container, mode) = match parts[..] {
        [host, container] | [host, container, "rw"] => (host, container, "RW"),
        [host, container, "ro"] => (host, container, "RO"),
        _ => {
            return Err(usage(format!(
                "--volume {text}: want HOST:CONTAINER or HOST:CONTAINER:ro"
            )));
        }
    };
    Ok(json!({"hostPath": host, "containerPath": container, "mode": mode}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags() -> AppFlags {
        AppFlags::default()
    }

    #[test]
    fn only_what_was_given_is_in_the_json() {
        let given = AppFlags {
            cpus: Some(0.5),
            instances: Some(0),
            ..flags()
        };
        assert!(given.given() && !given.needs_current() && !flags().given());
        assert_eq!(
            given.patch(&Value::Null).unwrap(),
            json!({"cpus": 0.5, "instances": 0})
        );
    }

    #[test]
    fn a_bridged_image_has_port_mappings() {
        let given = AppFlags {
            image: Some("web".into()),
            network: Some(Network::Bridge),
            port: vec!["8080:80".into(), "53/udp".into()],
            ..flags()
        };
        let want = json!({
            "networks": [{"mode": "container/bridge"}],
            "container": {"type": "MESOS", "docker": {"image": "web"}, "portMappings": [
                {"containerPort": 80, "hostPort": 8080, "protocol": "tcp"},
                {"containerPort": 53, "hostPort": 0, "protocol": "udp"},
            ]},
        });
        assert_eq!(given.patch(&Value::Null).unwrap(), want);
    }

    #[test]
    fn an_update_keeps_the_rest_of_the_container_and_of_env() {
        let current = json!({
            "networks": [{"mode": "container/bridge"}], "env": {"A": "1"},
            "container": {"type": "DOCKER", "docker": {"image": "a", "forcePullImage": true},
                          "portMappings": [{"containerPort": 80}]},
        });
        let given = AppFlags {
            image: Some("b".into()),
            env: vec!["B=x=y".into()],
            ..flags()
        };
        let want = json!({
            "env": {"A": "1", "B": "x=y"},
            "container": {"type": "DOCKER", "docker": {"image": "b", "forcePullImage": true},
                          "portMappings": [{"containerPort": 80}]},
        });
        assert_eq!(given.patch(&current).unwrap(), want);
        let port = AppFlags {
            port: vec!["81".into()],
            ..flags()
        };
        let mapped = port.patch(&current).unwrap();
        assert_eq!(mapped["container"]["portMappings"][0]["containerPort"], 81);
    }

    #[test]
    fn ports_on_the_host_network_are_definitions() {
        let given = AppFlags {
            port: vec!["31080".into(), "31053/udp".into()],
            ..flags()
        };
        let want = json!([{"port": 31080, "protocol": "tcp"}, {"port": 31053, "protocol": "udp"}]);
        assert_eq!(
            given.patch(&Value::Null).unwrap(),
            json!({"portDefinitions": want, "requirePorts": true})
        );
        let any = AppFlags {
            port: vec!["0".into()],
            ..flags()
        };
        let want = json!({"portDefinitions": [{"port": 0, "protocol": "tcp"}]});
        assert_eq!(any.patch(&Value::Null).unwrap(), want);
        let patch = any.patch(&json!({"requirePorts": true})).unwrap();
        assert_eq!(patch["requirePorts"], false);
    }

    #[test]
    fn wrong_values_name_the_flag() {
        for (given, part) in [
            (
                AppFlags {
                    port: vec!["1:2".into()],
                    ..flags()
                },
                "--network bridge",
            ),
            (
                AppFlags {
                    port: vec!["x".into()],
                    ..flags()
                },
                "'x' is not a port",
            ),
            (
                AppFlags {
                    port: vec!["0".into(), "31000".into()],
                    ..flags()
                },
                "either all are 0",
            ),
            (
                AppFlags {
                    port: vec!["65536".into()],
                    ..flags()
                },
                "'65536' is not a port",
            ),
            (
                AppFlags {
                    env: vec!["A".into()],
                    ..flags()
                },
                "--env A",
            ),
            (
                AppFlags {
                    volume: vec!["/a".into()],
                    ..flags()
                },
                "--volume /a",
            ),
        ] {
            let failure = given.patch(&Value::Null).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(failure.message.contains(part), "{}", failure.message);
        }
    }
}
