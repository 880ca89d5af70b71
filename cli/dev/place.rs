//! Where `gantry dev` runs: the checks before anything is started, each with a way out.

use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::failure::{Exit, Failure};

/// Containers need root: namespaces, cgroups, mounts, nftables.
pub(super) fn require_root() -> Result<(), Failure> {
    let own = std::fs::metadata("/proc/self")
        .map_err(|e| Failure::new(Exit::Failed, format!("/proc is not there: {e}")))?;
    if own.uid() == 0 {
        return Ok(());
    }
    let message = format!(
        "`gantry dev` makes containers and must run as root, not as uid {}",
        own.uid()
    );
    Err(Failure::new(Exit::Failed, message).hint("run it with sudo"))
}

/// A port that somebody else holds is named now, not after half of the node has started.
pub(super) fn require_free_port(flag: &str, port: u16) -> Result<(), Failure> {
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
pub(super) fn data_dir(wanted: Option<&Path>) -> Result<PathBuf, Failure> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let chosen = wanted
        .map(Path::to_owned)
        .or_else(|| default_data_dir(variable));
    let Some(dir) = chosen else {
        let message = "neither XDG_DATA_HOME nor HOME says where data belongs";
        return Err(Failure::new(Exit::Usage, message).hint("name a directory with --data-dir"));
    };
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
    made.and_then(|()| dir.canonicalize()).map_err(|e| {
        let message = format!("cannot make the data directory {}: {e}", dir.display());
        Failure::new(Exit::Failed, message).hint("name another with --data-dir")
    })
}

fn default_data_dir(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let absolute = |name: &str| variable(name).filter(|path| path.is_absolute());
    let base =
        absolute("XDG_DATA_HOME").or_else(|| absolute("HOME").map(|h| h.join(".local/share")));
    base.map(|base| base.join("gantry"))
}

/// A start error with all its causes on one line.
pub(super) fn start_failure(part: &str, data: &Path, error: &dyn std::error::Error) -> Failure {
    let mut message = format!("the {part} does not start: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        message.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    Failure::new(Exit::Failed, message).hint(format!("data directory: {}", data.display()))
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
    fn causes_stand_on_one_line() {
        let cause = std::io::Error::other("disk full");
        let failure = start_failure("coordinator", Path::new("/d"), &Outer(cause));
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
