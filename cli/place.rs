//! Where a node runs: the checks before anything of it is started, each with a way out.

use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::failure::{Exit, Failure};

/// Longest path of a Unix socket in bytes: `sun_path` of sockaddr_un without its final NUL (unix(7)).
const SOCKET_PATH_MAX_BYTES: usize = 107;
/// The sockets below a data directory.
const SOCKETS: [&str; 2] = ["/coordinator/agent.sock", "/agent/keeper.sock"];

/// Containers need root: namespaces, cgroups, mounts, nftables.
pub(crate) fn require_root(role: &str) -> Result<(), Failure> {
    let own = std::fs::metadata("/proc/self")
        .map_err(|e| Failure::new(Exit::Failed, format!("/proc is not there: {e}")))?;
    if own.uid() == 0 {
        return Ok(());
    }
    let message = format!(
        "`gantry {role}` makes containers and must run as root, not as uid {}",
        own.uid()
    );
    Err(Failure::new(Exit::Failed, message).hint("run it with sudo"))
}

/// A port that somebody else holds is named now, not after half of the node has started.
pub(crate) fn require_free_port(flag: &str, port: u16) -> Result<(), Failure> {
    if port == 0 {
        return Ok(());
    }
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == ErrorKind::AddrInUse => {
            let message = format!("port {port} on 127.0.0.1 is in use");
            let hint = format!(
                "is another gantry running? choose another port with {flag}; 0 picks a free one"
            );
            Err(Failure::new(Exit::Conflict, message).hint(hint))
        }
        Err(e) => Err(Failure::new(
            Exit::Failed,
            format!("cannot listen on 127.0.0.1:{port}: {e}"),
        )
        .hint(format!("choose another port with {flag}"))),
    }
}

/// The data directory: made if need be, for root only, as an absolute path.
pub(crate) fn data_dir(wanted: Option<&Path>) -> Result<PathBuf, Failure> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let chosen = wanted
        .map(Path::to_owned)
        .or_else(|| default_data_dir(variable));
    let Some(dir) = chosen else {
        let message = "neither XDG_DATA_HOME nor HOME says where data belongs";
        return Err(Failure::new(Exit::Usage, message).hint("name a directory with --data-dir"));
    };
    // Before anything is made, and again below: a link may lead to a longer path.
    require_room_for_sockets(&std::path::absolute(&dir).unwrap_or_else(|_| dir.clone()))?;
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
    let found = made.and_then(|()| dir.canonicalize()).map_err(|e| {
        let message = format!("cannot make the data directory {}: {e}", dir.display());
        Failure::new(Exit::Failed, message).hint("name another with --data-dir")
    })?;
    require_room_for_sockets(&found)?;
    Ok(found)
}

/// Sockets lie below the data directory, and the kernel bounds their paths.
fn require_room_for_sockets(dir: &Path) -> Result<(), Failure> {
    let length = dir.as_os_str().len();
    let longest = SOCKETS.iter().map(|name| name.len()).max().unwrap_or(0);
    let limit = SOCKET_PATH_MAX_BYTES - longest;
    if length <= limit {
        return Ok(());
    }
    let message = format!(
        "the path of the data directory {} is {length} bytes long, and at most {limit} are possible",
        dir.display()
    );
    Err(Failure::new(Exit::Usage, message).hint(format!(
        "sockets lie below it, and the kernel's limit for their paths is {SOCKET_PATH_MAX_BYTES} \
         bytes; name a shorter one with --data-dir"
    )))
}

/// The default data directory, if a node has run there.
pub(crate) fn existing_data_dir() -> Option<PathBuf> {
    let dir = default_data_dir(|name| std::env::var_os(name).map(PathBuf::from))?;
    dir.join("agent").is_dir().then_some(dir)
}

fn default_data_dir(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let absolute = |name: &str| variable(name).filter(|path| path.is_absolute());
    let base =
        absolute("XDG_DATA_HOME").or_else(|| absolute("HOME").map(|h| h.join(".local/share")));
    base.map(|base| base.join("gantry"))
}

/// The coordinator's start error.
pub(crate) fn coordinator_failure(data: &Path, error: &gantry_coordinator::StartError) -> Failure {
    use gantry_coordinator::{DirectoryError, StartError};
    let taken = match error {
        StartError::Directory(DirectoryError::InUse { .. }) => true,
        StartError::Listen { source, .. } => source.kind() == ErrorKind::AddrInUse,
        _ => false,
    };
    start_failure("coordinator", data, error, exit_of(taken))
}

/// The agent's start error.
pub(crate) fn agent_failure(data: &Path, error: &gantry_agent::StartError) -> Failure {
    use gantry_agent::StartError;
    let taken = match error {
        StartError::Busy { .. } => true,
        StartError::Listen { source, .. } => source.kind() == ErrorKind::AddrInUse,
        _ => false,
    };
    start_failure("agent", data, error, exit_of(taken))
}

/// What somebody else holds is a conflict.
fn exit_of(taken: bool) -> Exit {
    if taken { Exit::Conflict } else { Exit::Failed }
}

/// A start error with all its causes on one line.
fn start_failure(part: &str, data: &Path, error: &dyn std::error::Error, exit: Exit) -> Failure {
    let mut message = format!("the {part} does not start: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        message.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    Failure::new(exit, message).hint(format!("data directory: {}", data.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_named_with_its_flag() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let failure = require_free_port("--port", port).unwrap_err();
        assert_eq!(failure.exit, Exit::Conflict);
        assert!(failure.message.contains(&port.to_string()));
        assert!(failure.hint.unwrap().contains("--port"));
        assert!(require_free_port("--port", 0).is_ok());
    }

    #[test]
    fn data_goes_where_xdg_says() {
        let with = |pairs: &'static [(&str, &str)]| {
            default_data_dir(move |name| {
                pairs
                    .iter()
                    .find(|(n, _)| *n == name)
                    .map(|(_, v)| PathBuf::from(v))
            })
        };
        assert_eq!(
            with(&[("XDG_DATA_HOME", "/x"), ("HOME", "/h")]),
            Some("/x/gantry".into())
        );
        let relative = with(&[("XDG_DATA_HOME", "x"), ("HOME", "/h")]);
        assert_eq!(relative, Some("/h/.local/share/gantry".into()));
        assert_eq!(with(&[]), None);
    }

    #[test]
    fn a_path_too_long_for_sockets_is_refused_in_words() {
        let longest = PathBuf::from(format!("/{}", "d".repeat(83)));
        assert!(require_room_for_sockets(&longest).is_ok());
        for socket in SOCKETS {
            let path = format!("{}{socket}", longest.display());
            assert!(std::os::unix::net::SocketAddr::from_pathname(path).is_ok());
        }
        let long = PathBuf::from(format!("/{}", "d".repeat(84)));
        assert!(
            std::os::unix::net::SocketAddr::from_pathname(long.join("coordinator/agent.sock"))
                .is_err()
        );
        let failure = data_dir(Some(&long)).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(
            failure.message.contains("85 bytes long") && failure.message.contains("at most 84")
        );
        assert!(!long.exists());
    }

    #[test]
    fn what_another_gantry_holds_is_a_conflict() {
        let busy = gantry_agent::StartError::Busy { path: "/d".into() };
        assert_eq!(agent_failure(Path::new("/d"), &busy).exit, Exit::Conflict);
        let listen = |kind: ErrorKind| gantry_coordinator::StartError::Listen {
            address: ([127, 0, 0, 1], 1).into(),
            source: kind.into(),
        };
        for (kind, exit) in [
            (ErrorKind::AddrInUse, Exit::Conflict),
            (ErrorKind::PermissionDenied, Exit::Failed),
        ] {
            assert_eq!(
                coordinator_failure(Path::new("/d"), &listen(kind)).exit,
                exit
            );
        }
    }

    #[test]
    fn causes_stand_on_one_line() {
        let cause = std::io::Error::other("disk full");
        let failure = start_failure("coordinator", Path::new("/d"), &Outer(cause), Exit::Failed);
        let want = "the coordinator does not start: cannot open the log: disk full";
        assert_eq!(failure.message, want);
    }

    #[derive(Debug)]
    struct Outer(std::io::Error);

    impl std::fmt::Display for Outer {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("cannot open the log")
        }
    }

    impl std::error::Error for Outer {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }
}
