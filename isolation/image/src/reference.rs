//! Image references, by Docker's rules: `[host[:port]/]path[:tag][@digest]`.
//!
//! The first part is a host if it has a dot or a colon, is `localhost`, or has an upper-case
//! letter; otherwise the default registry is meant, and a name of one part there lives under
//! `library/`. Parsing is strict: what the grammar of the distribution specification does not
//! allow is refused here, before it can reach a URL or a path.

use std::fmt;
use std::str::FromStr;

use crate::{Digest, DigestError};

/// The registry of names without a host.
pub const DEFAULT_REGISTRY: &str = "docker.io";
/// Where that registry's API is: the name is historical.
const DEFAULT_REGISTRY_API: &str = "registry-1.docker.io";
const DEFAULT_REGISTRY_OLD: &str = "index.docker.io";
const DEFAULT_NAMESPACE: &str = "library";
const DEFAULT_TAG: &str = "latest";

const MAX_NAME_LEN: usize = 255;
const MAX_TAG_LEN: usize = 128;
const MAX_REFERENCE_LEN: usize = 1024;

/// A parsed reference: a repository in a registry, and a tag or a digest in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not a reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Nothing there.
    #[error("the image name is empty")]
    Empty,
    /// Longer than any registry takes.
    #[error("the image name is longer than {MAX_REFERENCE_LEN} bytes")]
    Long,
    /// The host part is not a host name, address or `host:port`.
    #[error("{0:?} is not a registry's host[:port]")]
    Host(String),
    /// The repository part has characters or separators in wrong places.
    #[error(
        "{0:?} is not a repository name: lower-case letters, digits and single separators (. _ __ -) between them, parts divided by /"
    )]
    Repository(String),
    /// The tag part.
    #[error("{0:?} is not a tag: letters, digits, _ . - and at most {MAX_TAG_LEN} of them")]
    Tag(String),
    /// The digest part.
    #[error("{text:?} is not a digest")]
    Digest {
        /// What was after the `@`.
        text: String,
        /// What is wrong with it.
        #[source]
        source: DigestError,
    },
}

impl Reference {
    /// Parses a reference as a user writes it.
    ///
    /// # Errors
    /// Says which part is wrong and what it should look like.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if text.len() > MAX_REFERENCE_LEN {
            return Err(ReferenceError::Long);
        }
        let (name, digest) = match text.split_once('@') {
            None => (text, None),
            Some((name, digest)) => {
                let parsed = digest.parse().map_err(|source| ReferenceError::Digest {
                    text: digest.to_owned(),
                    source,
                })?;
                (name, Some(parsed))
            }
        };
        let (host, path) = match name.split_once('/') {
            Some((host, path)) if is_host_part(host) => (Some(host), path),
            _ => (None, name),
        };
        let (path, tag) = match path.rsplit_once(':') {
            Some((path, tag)) if is_tag(tag) => (path, Some(tag.to_owned())),
            Some((_, tag)) => return Err(ReferenceError::Tag(tag.to_owned())),
            None => (path, None),
        };
        if !is_repository(path) {
            return Err(ReferenceError::Repository(path.to_owned()));
        }
        let registry = host.unwrap_or(DEFAULT_REGISTRY);
        if !gantry_intake::is_host(registry) {
            return Err(ReferenceError::Host(registry.to_owned()));
        }
        let is_default = registry == DEFAULT_REGISTRY || registry == DEFAULT_REGISTRY_OLD;
        let repository = if is_default && !path.contains('/') {
            format!("{DEFAULT_NAMESPACE}/{path}")
        } else {
            path.to_owned()
        };
        let registry = if is_default {
            DEFAULT_REGISTRY
        } else {
            registry
        }
        .to_owned();
        Ok(Self {
            registry,
            repository,
            tag,
            digest,
        })
    }

    /// The registry as users name it: `host` or `host:port`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The `host[:port]` that answers for this registry.
    pub(crate) fn api_host(&self) -> &str {
        if self.registry == DEFAULT_REGISTRY {
            DEFAULT_REGISTRY_API
        } else {
            &self.registry
        }
    }

    /// The repository's path in the registry.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag: the one given, else `latest` unless a digest is given.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref().or(if self.digest.is_none() {
            Some(DEFAULT_TAG)
        } else {
            None
        })
    }

    /// The digest, if the reference pins one.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The same repository, pinned to a digest, without a tag.
    #[must_use]
    pub fn pinned(&self, digest: Digest) -> Self {
        Self {
            tag: None,
            digest: Some(digest),
            ..self.clone()
        }
    }
}

/// Docker's rule for "the first part is a registry".
fn is_host_part(part: &str) -> bool {
    part == "localhost"
        || part.contains(['.', ':', '['])
        || part.bytes().any(|byte| byte.is_ascii_uppercase())
}

pub(crate) fn is_repository(path: &str) -> bool {
    path.len() <= MAX_NAME_LEN && path.split('/').all(is_component)
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(component: &str) -> bool {
    let is_alnum = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends_well =
        bytes.first().copied().is_some_and(is_alnum) && bytes.last().copied().is_some_and(is_alnum);
    ends_well
        && component
            .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            .all(|separator| {
                matches!(separator, "" | "." | "_" | "__")
                    || separator.bytes().all(|byte| byte == b'-')
            })
}

fn is_tag(tag: &str) -> bool {
    let mut bytes = tag.bytes();
    tag.len() <= MAX_TAG_LEN
        && bytes
            .next()
            .is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// The full form: registry, repository, tag and digest, nothing implied.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = self.tag() {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn docker_rules() {
        for (text, full) in [
            ("redis", "docker.io/library/redis:latest"),
            ("redis:7", "docker.io/library/redis:7"),
            ("a/b", "docker.io/a/b:latest"),
            ("docker.io/redis", "docker.io/library/redis:latest"),
            ("index.docker.io/redis", "docker.io/library/redis:latest"),
            ("host:5000/a/b:tag", "host:5000/a/b:tag"),
            ("localhost/a", "localhost/a:latest"),
            ("localhost:5000/a", "localhost:5000/a:latest"),
            ("Host/a", "Host/a:latest"),
            ("[::1]:5000/a:1", "[::1]:5000/a:1"),
            ("[::1]/a:1", "[::1]/a:1"),
            (
                "q.io/a__b/c-d/e.f/g--h_i:V1.0-x_",
                "q.io/a__b/c-d/e.f/g--h_i:V1.0-x_",
            ),
            ("localhost:5000", "docker.io/library/localhost:5000"),
        ] {
            let parsed = Reference::parse(text).unwrap();
            assert_eq!(parsed.to_string(), full, "{text}");
            assert_eq!(
                Reference::parse(full).unwrap(),
                Reference::parse(&parsed.to_string()).unwrap()
            );
        }
        let pinned = Reference::parse(&format!("a/b@{DIGEST}")).unwrap();
        assert_eq!(pinned.to_string(), format!("docker.io/a/b@{DIGEST}"));
        assert_eq!(pinned.tag(), None);
        let both = Reference::parse(&format!("h:1/b:x@{DIGEST}")).unwrap();
        assert_eq!(
            (both.tag(), both.digest().unwrap().to_string().as_str()),
            (Some("x"), DIGEST)
        );
    }

    #[test]
    fn refusals() {
        for text in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "A",
            "a:",
            ":a",
            "a:b:c",
            "a b",
            "a..b",
            "a._b",
            "a___b",
            "-a",
            "a-",
            "_a",
            "a/../b",
            "../a",
            "a/./b",
            "h:0/a",
            "h:99999/a",
            "h:+1/a",
            "h:x/a",
            "h./a",
            ".h/a",
            "[::1/a",
            "[zz]/a",
            "a@",
            "a@sha256:12",
            "a@sha512:12",
            "a@b@c",
            "a?x=y",
            "a#b",
            "http://h/a",
            "a\0b",
            "a:-x",
            "é",
            "h:5000/é",
            "user@h.x/a",
            "h.x\\a/b",
            "reg.999/a",
            "0x7f.1/a",
            "2130706433:5000/a",
            "127.1:5000/a",
            "127.0.0.01/a",
            "0x:5000/a",
            "a:é",
        ] {
            assert!(Reference::parse(text).is_err(), "{text:?} was taken");
        }
        assert!(Reference::parse(&"a".repeat(256)).is_err());
        assert!(Reference::parse(&format!("a:{}", "t".repeat(129))).is_err());
        assert_eq!(
            Reference::parse(&"a".repeat(1025)),
            Err(ReferenceError::Long)
        );
    }
}
