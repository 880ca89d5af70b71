//! Flags of `exec` as a request.

use gantry_isolation::oci::{Exec, OciError, read_process};

use super::args::ExecArgs;
use super::refuse;

/// Largest id: the one above means "none" to the kernel.
const MAX_ID: u32 = u32::MAX - 1;

pub(super) fn translate(args: ExecArgs) -> Result<Exec, OciError> {
    let mut words = args.args.into_iter();
    let id = words
        .next()
        .ok_or_else(|| refuse("gantry-oci: \"exec\" requires a minimum of 1 argument(s)"))?;
    let words: Vec<String> = words.collect();
    if words.is_empty() && args.process.is_none() {
        return Err(refuse("process args cannot be empty"));
    }
    let cgroups = args.cgroup.iter().map(|text| cgroup(text));
    Ok(Exec {
        id,
        process: args.process.map(read_process).transpose()?,
        args: words,
        cwd: args.cwd,
        env: args.env,
        tty: args.tty,
        user: args.user.as_deref().map(user).transpose()?,
        additional_gids: args.additional_gids,
        capabilities: args.cap,
        no_new_privileges: args.no_new_privs,
        apparmor: args.apparmor,
        process_label: args.process_label,
        detach: args.detach,
        pid_file: args.pid_file,
        console_socket: args.console_socket,
        pidfd_socket: args.pidfd_socket,
        preserve_fds: args.preserve_fds,
        ignore_paused: args.ignore_paused,
        cgroups: cgroups.collect::<Result<_, _>>()?,
    })
}

/// `uid[:gid]`, numbers only, as runc has it.
fn user(text: &str) -> Result<(u32, Option<u32>), OciError> {
    let id = |what: &str, text: &str| {
        let id = text.parse::<u32>().ok().filter(|id| *id <= MAX_ID);
        id.ok_or_else(|| refuse(format!("parsing {text:?} as int for {what} failed")))
    };
    match text.split_once(':') {
        Some((user, group)) => Ok((id("uid", user)?, Some(id("gid", group)?))),
        None => Ok((id("uid", text)?, None)),
    }
}

fn cgroup(text: &str) -> Result<(Option<String>, String), OciError> {
    let (controllers, path) = match text.split_once(':') {
        Some((controllers, path)) => (Some(controllers.to_owned()), path),
        None => (None, text),
    };
    if path.split('/').any(|part| part == "..") {
        return Err(refuse(format!("path {path} is not a sub cgroup path")));
    }
    Ok((controllers, path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_numbers_that_never_wrap() {
        assert_eq!(user("1").unwrap(), (1, None));
        assert_eq!(user("1:2").unwrap(), (1, Some(2)));
        for text in ["", "root", "4294967295", "4294967296", "-1", "1:", "1:x"] {
            assert!(user(text).is_err(), "{text}");
        }
    }

    #[test]
    fn groups_stay_below() {
        assert_eq!(
            cgroup("cpu,memory:a").unwrap(),
            (Some("cpu,memory".to_owned()), "a".to_owned())
        );
        assert!(cgroup("a/../..").is_err());
    }
}
