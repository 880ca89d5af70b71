//! Whether a configuration makes sense, before anything is made: runc's rules in runc's words.

use super::config::{Config, NamespaceKind, Process};
use super::error::OciError;

/// Kernel settings that belong to an IPC namespace.
const IPC_SETTINGS: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

fn refuse<T>(words: impl Into<String>) -> Result<T, OciError> {
    Err(OciError::Refused(words.into()))
}

/// A setting's path below `/proc/sys`: dots and slashes may both be separators, and the first one
/// says which is (sysctl.d(5)).
pub(super) fn sysctl_path(name: &str) -> String {
    let swap = |c: char| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    match name.find(['.', '/']) {
        Some(first) if name.as_bytes()[first] == b'.' => name.chars().map(swap).collect(),
        _ => name.to_owned(),
    }
}

/// Checks everything but the process.
pub(super) fn config(config: &Config) -> Result<(), OciError> {
    version(&config.oci_version)?;
    if config.root.as_ref().is_none_or(|root| root.path.is_empty()) {
        return refuse("Root must be specified");
    }
    namespaces(config)?;
    sysctl(config)?;
    mounts(config)?;
    if config.linux.intel_rdt.is_some() {
        return refuse("intelRdt is set in config, but Intel RDT is not enabled");
    }
    if !config.linux.mount_label.is_empty() {
        return refuse(if super::steps::selinux_enabled() {
            "mountLabel is specified in config, but labels of mounts are not supported"
        } else {
            "mountLabel is specified in config, but SELinux is disabled or not supported"
        });
    }
    let hooks = &config.hooks;
    let all = [
        &hooks.prestart,
        &hooks.create_runtime,
        &hooks.create_container,
        &hooks.start_container,
        &hooks.poststart,
        &hooks.poststop,
    ];
    for hook in all.into_iter().flatten() {
        if !hook.path.starts_with('/') {
            return refuse(format!("hook path {:?} is not absolute", hook.path));
        }
    }
    Ok(())
}

fn version(text: &str) -> Result<(), OciError> {
    let numbers = text.split(['-', '+']).next().unwrap_or_default();
    let parts: Vec<&str> = numbers.split('.').collect();
    let plain = parts.len() == 3 && parts.iter().all(|part| part.parse::<u32>().is_ok());
    match (plain, parts[0]) {
        (true, "1") => Ok(()),
        (true, _) => refuse(format!(
            "ociVersion {text} is not supported; it must be 1.x"
        )),
        (false, _) => refuse(format!("ociVersion {text:?} is not a version")),
    }
}

fn namespaces(config: &Config) -> Result<(), OciError> {
    let linux = &config.linux;
    let mut seen = Vec::new();
    for namespace in &linux.namespaces {
        if seen.contains(&namespace.kind) {
            let kind = format!("{:?}", namespace.kind).to_lowercase();
            return refuse(format!("malformed spec file: duplicated ns {kind}"));
        }
        seen.push(namespace.kind);
    }
    let named = |kind| linux.namespaces.iter().find(|other| other.kind == kind);
    let fresh = |kind| named(kind).is_some_and(|found| found.path.is_empty());
    let has = |kind| named(kind).is_some();
    if !fresh(NamespaceKind::Mount) {
        return refuse("a container needs a mount namespace of its own");
    }
    if !config.hostname.is_empty() && !has(NamespaceKind::Uts) {
        return refuse("unable to set hostname without a private UTS namespace");
    }
    if !config.domainname.is_empty() && !has(NamespaceKind::Uts) {
        return refuse("unable to set domainname without a private UTS namespace");
    }
    let mapped = !linux.uid_mappings.is_empty() || !linux.gid_mappings.is_empty();
    if mapped && !has(NamespaceKind::User) {
        return refuse(
            "user namespace mappings specified, but user namespace isn't enabled in the config",
        );
    }
    if fresh(NamespaceKind::User)
        && (linux.uid_mappings.is_empty() || linux.gid_mappings.is_empty())
    {
        return refuse("user namespaces enabled, but no user mappings found");
    }
    if !linux.time_offsets.is_empty() && !fresh(NamespaceKind::Time) {
        return refuse(
            "time namespace offsets specified, but time namespace isn't enabled in the config",
        );
    }
    for clock in linux.time_offsets.keys() {
        if clock != "monotonic" && clock != "boottime" {
            return refuse(format!("{clock} is not a valid time offset"));
        }
    }
    Ok(())
}

/// Only settings of the container's own namespaces: the others are the whole machine's.
fn sysctl(config: &Config) -> Result<(), OciError> {
    let own = |kind| {
        let mut namespaces = config.linux.namespaces.iter();
        namespaces.any(|namespace| namespace.kind == kind)
    };
    for name in config.linux.sysctl.keys() {
        let path = sysctl_path(name);
        if path.split('/').any(|part| part.is_empty() || part == "..") {
            return refuse(format!("sysctl {name:?} is not a name"));
        }
        let dotted = path.replace('/', ".");
        let allowed = if IPC_SETTINGS.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.")
        {
            own(NamespaceKind::Ipc)
        } else if dotted.starts_with("net.") {
            if !own(NamespaceKind::Network) {
                return refuse(format!(
                    "sysctl {name:?} not allowed in host network namespace"
                ));
            }
            true
        } else if dotted == "kernel.domainname" {
            own(NamespaceKind::Uts)
        } else if dotted == "kernel.hostname" {
            return refuse(format!(
                "sysctl {name:?} conflicts with the OCI config.json 'hostname' field; set that instead"
            ));
        } else {
            false
        };
        if !allowed {
            return refuse(format!(
                "sysctl {name:?} is not in a separate kernel namespace"
            ));
        }
    }
    Ok(())
}

fn mounts(config: &Config) -> Result<(), OciError> {
    for mount in &config.mounts {
        if mount.destination.is_empty() {
            return refuse("invalid mount: a mount without a destination");
        }
        let bind = mount.options.iter().any(|option| option.ends_with("bind"));
        if mount.kind.is_empty() && !bind {
            return refuse(format!("invalid mount {}: no type", mount.destination));
        }
    }
    Ok(())
}

/// Checks a process.
pub(super) fn process(process: &Process) -> Result<(), OciError> {
    if process.cwd.is_empty() {
        return refuse("Cwd property must not be empty");
    }
    if !process.cwd.starts_with('/') {
        return refuse("Cwd must be an absolute path");
    }
    if process.args.is_empty() || process.args[0].is_empty() {
        return refuse("args must not be empty");
    }
    if process.user.uid == u32::MAX || process.user.gid == u32::MAX {
        return refuse(format!("{} is no user or group id", u32::MAX));
    }
    let mut seen = Vec::new();
    for limit in &process.rlimits {
        if seen.contains(&&limit.kind) {
            return refuse(format!("duplicated rlimit {}", limit.kind));
        }
        seen.push(&limit.kind);
    }
    // A label that nothing enforces is no protection.
    if !process.apparmor_profile.is_empty()
        && process.apparmor_profile != "unconfined"
        && !super::steps::apparmor_enabled()
    {
        return refuse("apparmor profile specified, but apparmor is disabled or not supported");
    }
    if !process.selinux_label.is_empty() && !super::steps::selinux_enabled() {
        return refuse(
            "selinux label is specified in config, but selinux is disabled or not supported",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(linux: &str) -> Config {
        let text = format!(
            r#"{{"ociVersion":"1.2.0","root":{{"path":"r"}},"hostname":"h","linux":{linux}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn what_is_the_whole_machines_is_refused() {
        let own = r#"[{"type":"mount"},{"type":"uts"},{"type":"ipc"}]"#;
        for (linux, words) in [
            (
                r#"{"namespaces":[{"type":"mount"}]}"#.to_owned(),
                "private UTS namespace",
            ),
            (
                r#"{"namespaces":[{"type":"uts"}]}"#.to_owned(),
                "mount namespace of its own",
            ),
            (
                format!(r#"{{"namespaces":{own},"sysctl":{{"net.ipv4.ip_forward":"1"}}}}"#),
                "not allowed in host network namespace",
            ),
            (
                format!(r#"{{"namespaces":{own},"sysctl":{{"vm.swappiness":"1"}}}}"#),
                "not in a separate kernel namespace",
            ),
            (
                format!(r#"{{"namespaces":{own},"sysctl":{{"net/../vm.x":"1"}}}}"#),
                "is not a name",
            ),
            (
                r#"{"namespaces":[{"type":"uts"},{"type":"mount"},{"type":"uts"}]}"#.to_owned(),
                "duplicated ns",
            ),
        ] {
            let error = config(&parse(&linux)).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        let fine = format!(r#"{{"namespaces":{own},"sysctl":{{"kernel/shmmax":"1"}}}}"#);
        assert!(config(&parse(&fine)).is_ok());
    }

    #[test]
    fn settings_are_paths() {
        assert_eq!(
            sysctl_path("net.ipv4.conf.eth0/1.x"),
            "net/ipv4/conf/eth0.1/x"
        );
        assert_eq!(
            sysctl_path("net/ipv4/conf/eth0.1/x"),
            "net/ipv4/conf/eth0.1/x"
        );
    }
}
