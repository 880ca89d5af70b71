//! Whose users a task's processes are: users of its own, unless it needs those of the host.
//!
//! It decides that once the volumes of a task are known. A task needs the host's ids when a file
//! system that it uses cannot be shown with mapped ones, and on the host's network when it listens on
//! a port that only the host's root may open. It may also say so by a label, for ports that it does not
//! declare. Nothing else needs them: ids on disk are the same either way.

use std::path::Path;

use gantry_isolation::spec::{Ids, Mount, MountKind};
use gantry_isolation::userns::Probe;
use gantry_wire::agent::{Launch, NetworkMode};

/// Label of an app, and the value, with which it keeps the users of the node.
const LABEL: (&str, &str) = ("GANTRY_USERS", "host");
/// Ports below it are root's (`ip_unprivileged_port_start` of ip(7); its default).
const FIRST_FREE_PORT: u32 = 1024;

/// What this node can do.
#[derive(Debug)]
pub(crate) struct PrivateIds {
    /// None: no task gets users of its own.
    probe: Option<Probe>,
    /// Whether the host's root file system can be shown with mapped ids, for native tasks.
    native: bool,
}

impl PrivateIds {
    /// Looks once; what is missing is told.
    pub(crate) fn detect(data_dir: &Path, lacks: &mut Vec<String>) -> Self {
        let none = Self {
            probe: None,
            native: false,
        };
        let probe = match Probe::new() {
            Ok(probe) => probe,
            Err(error) => {
                lacks.push(format!(
                    "No user namespaces ({error}): root in a task is root of the node, with fewer \
                     capabilities."
                ));
                return none;
            }
        };
        if !probe.can_map(data_dir, false) {
            lacks.push(format!(
                "The file system of {} cannot map ids: root in a task is root of the node, with \
                 fewer capabilities.",
                data_dir.display()
            ));
            return none;
        }
        let native = probe.can_map(Path::new("/"), false);
        if !native {
            lacks.push(
                "The root file system cannot map ids: root in a task without image is root of the \
                 node, with fewer capabilities."
                    .to_owned(),
            );
        }
        Self {
            probe: Some(probe),
            native,
        }
    }

    /// Of the container that tasks share things of, which runs nothing.
    pub(crate) fn shared(&self) -> Ids {
        match &self.probe {
            Some(_) if self.native => Ids::Private,
            _ => Ids::Host,
        }
    }

    /// Of a task with these volumes. Blocks as long as their file systems do.
    pub(crate) fn of(&self, launch: &Launch, mounts: &[Mount]) -> Ids {
        let Some(probe) = &self.probe else {
            return Ids::Host;
        };
        let native = launch.image.is_empty();
        let bad_root = native && !self.native;
        let asked = launch
            .labels
            .get(LABEL.0)
            .is_some_and(|users| users == LABEL.1);
        if asked
            || bad_root
            || listens_as_root(launch)
            || mounts.iter().any(|m| !is_mappable(probe, m))
        {
            Ids::Host
        } else {
            Ids::Private
        }
    }
}

fn listens_as_root(launch: &Launch) -> bool {
    let is_roots = |port: u32| port != 0 && port < FIRST_FREE_PORT;
    launch.network == NetworkMode::Host as i32
        && launch.ports.iter().any(|port| is_roots(port.host_port))
}

fn is_mappable(probe: &Probe, mount: &Mount) -> bool {
    match &mount.kind {
        // What contains the node's data contains mounts that are mapped already.
        MountKind::Bind {
            source,
            recursive,
            cover,
        } => cover.is_empty() && probe.can_map(source, *recursive),
        MountKind::Tmpfs { .. } | MountKind::Secret { .. } | MountKind::Image { .. } => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_wire::agent::PortMapping;

    fn of(launch: &Launch, mounts: &[Mount]) -> Ids {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let mut lacks = Vec::new();
        let ids = PrivateIds::detect(dir.path(), &mut lacks);
        assert_eq!(lacks, [""; 0], "this host can do it");
        ids.of(launch, mounts)
    }

    #[test]
    fn a_task_has_users_of_its_own_unless_it_needs_the_hosts() {
        let plain = Launch::default();
        assert_eq!(
            of(&plain, &[Mount::bind("/var", "/v", false)]),
            Ids::Private
        );
        // proc cannot be mapped.
        assert_eq!(of(&plain, &[Mount::bind("/proc", "/v", true)]), Ids::Host);
        let listening = |network: NetworkMode, host_port| Launch {
            network: network as i32,
            ports: vec![PortMapping {
                host_port,
                ..PortMapping::default()
            }],
            ..Launch::default()
        };
        assert_eq!(of(&listening(NetworkMode::Host, 80), &[]), Ids::Host);
        assert_eq!(of(&listening(NetworkMode::Host, 8080), &[]), Ids::Private);
        assert_eq!(of(&listening(NetworkMode::Bridge, 80), &[]), Ids::Private);
        let mut asking = Launch::default();
        asking.labels.insert("GANTRY_USERS".into(), "host".into());
        assert_eq!(of(&asking, &[]), Ids::Host);
    }
}
