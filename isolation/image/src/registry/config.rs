//! What an operator says about registries: mirrors, plain HTTP, certificates, credentials.
//!
//! It decides how a mirror is written and which images it is for. A mirror is asked before the
//! registry and its content is verified by digest, so it can be stale or absent but not wrong. What
//! a tag means is only believed from a mirror that the operator says so of: one that lies about
//! tags decides what runs.
//!
//! Docker's `registry-mirrors` is `docker.io=<mirror>,tags`: mirrors of that one registry, in
//! order, tags included.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::auth::credentials::is_below;
use gantry_intake::is_host;

use crate::reference::is_repository;
use crate::{DEFAULT_REGISTRY, Reference};

/// How this node speaks to registries.
#[derive(Debug, Clone, Default)]
pub struct RegistryConfig {
    /// Asked before the registry itself, in this order.
    pub mirrors: Vec<Mirror>,
    /// `host` or `host:port` that may be spoken to over plain HTTP; loopback always may.
    pub insecure: Vec<String>,
    /// A directory with one directory `<host[:port]>` per registry with certificates of its own:
    /// authorities in `*.crt`, and what we show in `<name>.cert` with `<name>.key`. Such a registry
    /// is spoken to over TLS, even on loopback.
    pub ca_dir: Option<PathBuf>,
    /// The node's own `config.json`, read when a registry asks for a login.
    pub credentials_file: Option<PathBuf>,
    /// Where `docker-credential-<name>` programs are that `credentials_file` may name; none is run
    /// without it. Both the file and the program must be root's alone.
    pub credential_programs: Option<PathBuf>,
}

/// Another server for the images of a registry or of a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    host: String,
    path: String,
    pub(super) server: Server,
    pub(super) tags: bool,
}

/// Where a mirror is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) scheme: Option<&'static str>,
    pub(super) host: String,
    /// What goes before the repository's name there.
    pub(super) path: String,
}

/// Why a text is not a mirror.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MirrorError {
    /// Not of the form.
    #[error(
        "{0:?} is not a mirror: write <registry>[/<path>]=[https://]<host[:port]>[/<path>][,tags]"
    )]
    Shape(String),
    /// The left side.
    #[error("{0:?} is not a registry's host[:port], with or without a path below it")]
    Registry(String),
    /// The right side.
    #[error("{0:?} is not a mirror's [https://]host[:port], with or without a path below it")]
    Server(String),
}

impl Mirror {
    /// A mirror at `server` for `registry`: `docker.io`, `reg.lan:5000/team`.
    ///
    /// # Errors
    /// If one of the two is not a host with or without a path.
    pub fn new(registry: &str, server: &str) -> Result<Self, MirrorError> {
        let wrong = || MirrorError::Registry(registry.to_owned());
        let (host, path) = split(registry).ok_or_else(wrong)?;
        let host = match host.as_str() {
            "index.docker.io" | "registry-1.docker.io" => DEFAULT_REGISTRY.to_owned(),
            _ => host,
        };
        let wrong = || MirrorError::Server(server.to_owned());
        let (scheme, bare) = match server.split_once("://") {
            None => (None, server),
            Some(("https", bare)) => (Some("https"), bare),
            Some(("http", bare)) => (Some("http"), bare),
            Some(_) => return Err(wrong()),
        };
        let (server_host, server_path) = split(bare).ok_or_else(wrong)?;
        Ok(Self {
            host,
            path,
            server: Server {
                scheme,
                host: server_host,
                path: server_path,
            },
            tags: false,
        })
    }

    /// The same, and believed about what a tag means.
    #[must_use]
    pub fn with_tags(self) -> Self {
        Self { tags: true, ..self }
    }

    pub(super) fn is_for(&self, reference: &Reference) -> bool {
        self.host.eq_ignore_ascii_case(reference.registry())
            && is_below(reference.repository(), &self.path)
    }
}

/// `host[:port][/path]`, both parts valid.
fn split(text: &str) -> Option<(String, String)> {
    let text = text.strip_suffix('/').unwrap_or(text);
    let (host, path) = text.split_once('/').unwrap_or((text, ""));
    let fits = is_host(host) && (!text.contains('/') || is_repository(path));
    fits.then(|| (host.to_owned(), path.to_owned()))
}

/// `docker.io=mirror.lan:5000`, `docker.io=https://mirror.lan/hub,tags`.
impl FromStr for Mirror {
    type Err = MirrorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || MirrorError::Shape(text.to_owned());
        let (registry, server) = text.split_once('=').ok_or_else(wrong)?;
        match server.split_once(',') {
            None => Self::new(registry, server),
            Some((server, "tags")) => Self::new(registry, server).map(Self::with_tags),
            Some(_) => Err(wrong()),
        }
    }
}

impl fmt::Display for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = |path: &str| if path.is_empty() { "" } else { "/" };
        let Server { scheme, host, path } = &self.server;
        write!(f, "{}{}{}=", self.host, slash(&self.path), self.path)?;
        if let Some(scheme) = scheme {
            write!(f, "{scheme}://")?;
        }
        write!(f, "{host}{}{path}", slash(path))?;
        f.write_str(if self.tags { ",tags" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_as_they_are_written() {
        for text in [
            "docker.io=mirror.lan:5000",
            "docker.io=https://mirror.lan/hub,tags",
            "docker.io/library=http://127.0.0.1:5000",
            "reg.lan:5000/team/a=other.lan/b/c",
        ] {
            assert_eq!(text.parse::<Mirror>().unwrap().to_string(), text);
        }
        let written: Mirror = "index.docker.io=https://m.lan/".parse().unwrap();
        assert_eq!(written.to_string(), "docker.io=https://m.lan");
        for text in [
            "",
            "docker.io",
            "docker.io=",
            "=m.lan",
            "docker.io=m.lan,tag",
            "docker.io=m.lan,",
            "docker.io=ftp://m.lan",
            "docker.io=https://u:p@m.lan",
            "docker.io=m.lan/../x",
            "docker.io=m.lan?x",
            "docker.io//x=m.lan",
            "docker.io/X=m.lan",
            "a b=m.lan",
        ] {
            assert!(text.parse::<Mirror>().is_err(), "{text}");
        }
    }

    #[test]
    fn which_images_a_mirror_is_for() {
        let is_for = |mirror: &str, image: &str| {
            let mirror: Mirror = format!("{mirror}=m.lan").parse().unwrap();
            mirror.is_for(&Reference::parse(image).unwrap())
        };
        for (mirror, image, fits) in [
            ("docker.io", "redis", true),
            ("docker.io", "reg.lan/redis", false),
            ("docker.io/library", "redis", true),
            ("docker.io/library", "librarya/redis", false),
            ("reg.lan:5000/team", "REG.lan:5000/team/a", true),
            ("reg.lan:5000/team", "reg.lan:5000/teams", false),
            ("reg.lan", "reg.lan:5000/a", false),
        ] {
            assert_eq!(is_for(mirror, image), fits, "{mirror} {image}");
        }
    }
}
