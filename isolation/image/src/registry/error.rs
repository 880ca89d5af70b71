//! Why a registry did not give what was asked for: the registry, the thing, the cause, and the way
//! out where there is one.

use crate::Digest;
use crate::auth::credentials::CredentialsError;
use crate::error::Trouble;
use crate::manifest::ManifestError;
use gantry_intake::Cause;

/// Why a registry did not give what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No usable answer at all.
    #[error("registry {host} {cause}")]
    Unreachable {
        /// `host[:port]` that was spoken to.
        host: String,
        /// What happened.
        cause: Cause,
    },
    /// The registry says 404.
    #[error("{what} not found at {host}: check the name and the tag")]
    NotFound {
        /// `host[:port]`.
        host: String,
        /// Image or blob.
        what: String,
    },
    /// The registry wants a login and there is none for it.
    #[error(
        "registry {host} does not let anyone read {repository} without a login: give credentials for {host} with the request (a Docker config.json) or in the node's credentials file (a repository that does not exist can look the same)"
    )]
    LoginNeeded {
        /// `host[:port]`.
        host: String,
        /// The repository.
        repository: String,
    },
    /// The registry was shown a login and does not take it, or the login may not read this.
    #[error(
        "registry {host} refused the credentials of {user} for {repository}: check the password, and whether that user may read it"
    )]
    LoginRefused {
        /// `host[:port]`.
        host: String,
        /// The user, or what stands for one; never a secret.
        user: String,
        /// The repository.
        repository: String,
    },
    /// The registry wants another kind of login than this client knows or the credentials have.
    #[error("registry {host} wants a kind of login that cannot be given: {detail}")]
    LoginKind {
        /// `host[:port]`.
        host: String,
        /// What it wants.
        detail: &'static str,
    },
    /// The credentials that are configured cannot be used.
    #[error("cannot log in to registry {host}")]
    Credentials {
        /// `host[:port]`.
        host: String,
        /// What is wrong with them.
        #[source]
        source: CredentialsError,
    },
    /// The token service's answer is of no use.
    #[error("the token service {host} of the registry gave no token ({detail})")]
    Token {
        /// `host[:port]` of the token service.
        host: String,
        /// What it answered.
        detail: String,
    },
    /// The registry says 429.
    #[error("registry {host} says that too many requests were made; try again later")]
    TooMany {
        /// `host[:port]`.
        host: String,
    },
    /// Any other status.
    #[error("registry {host} answered {status} for {what}")]
    Status {
        /// `host[:port]`.
        host: String,
        /// The status code.
        status: u16,
        /// What was asked for.
        what: String,
    },
    /// The document is longer than it says or than is allowed.
    #[error("registry {host} sent more than {max_bytes} bytes for {what}")]
    TooLarge {
        /// `host[:port]`.
        host: String,
        /// What was asked for.
        what: String,
        /// The bound.
        max_bytes: u64,
    },
    /// What a mirror gave for a tag is no manifest.
    #[error("mirror {host} sent something for {what} that is not usable")]
    Unusable {
        /// `host[:port]`.
        host: String,
        /// What was asked for.
        what: String,
        /// Why.
        #[source]
        source: ManifestError,
    },
    /// The content is not what the digest says.
    #[error(
        "registry {host} sent wrong content for {what}: its digest is {actual}, not {expected}"
    )]
    WrongDigest {
        /// `host[:port]`.
        host: String,
        /// What was asked for.
        what: String,
        /// What it should be.
        expected: Digest,
        /// What it is.
        actual: Digest,
    },
    /// The mirrors failed and then the registry itself did.
    #[error("{} (asked before it: {})", flat(origin), mirrors.join("; "))]
    Everywhere {
        /// What the registry itself said.
        origin: Box<RegistryError>,
        /// What each mirror said, in the order they were asked.
        mirrors: Vec<String>,
    },
}

/// An error with its sources, for the place where several stand side by side.
pub(super) fn flat(error: &RegistryError) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}

impl RegistryError {
    /// What sort of trouble it is.
    pub(crate) fn trouble(&self) -> Trouble {
        match self {
            Self::NotFound { .. } => Trouble::NotFound,
            Self::LoginNeeded { .. }
            | Self::LoginRefused { .. }
            | Self::LoginKind { .. }
            | Self::Credentials { .. } => Trouble::Login,
            Self::Unreachable { cause, .. } => match cause {
                Cause::Tls(_) | Cause::Certificates(_) => Trouble::Tls,
                Cause::Plain => Trouble::PlainHttp,
                _ => Trouble::Other,
            },
            Self::Everywhere { origin, .. } => origin.trouble(),
            Self::Token { .. }
            | Self::TooMany { .. }
            | Self::Status { .. }
            | Self::TooLarge { .. }
            | Self::Unusable { .. }
            | Self::WrongDigest { .. } => Trouble::Other,
        }
    }

    /// Whether the same request will most likely fail in the same way later.
    pub(crate) fn is_permanent(&self) -> bool {
        match self {
            Self::NotFound { .. }
            | Self::LoginNeeded { .. }
            | Self::LoginRefused { .. }
            | Self::LoginKind { .. } => true,
            Self::Credentials { source, .. } => !matches!(
                source,
                CredentialsError::Program { .. } | CredentialsError::Read(_)
            ),
            Self::Everywhere { origin, .. } => origin.is_permanent(),
            Self::Unreachable { .. }
            | Self::Token { .. }
            | Self::TooMany { .. }
            | Self::Status { .. }
            | Self::TooLarge { .. }
            | Self::Unusable { .. }
            | Self::WrongDigest { .. } => false,
        }
    }

    /// Whether the same request may well succeed a moment later.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TooMany { .. } => true,
            Self::Status { status, .. } => *status >= 500,
            Self::Everywhere { origin, .. } => origin.is_passing(),
            _ => false,
        }
    }

    /// Whether the server is of no use for anything else in this pull either.
    pub(super) fn is_the_servers(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::LoginNeeded { .. }
            | Self::LoginRefused { .. }
            | Self::LoginKind { .. }
            | Self::Credentials { .. }
            | Self::Token { .. }
            | Self::TooMany { .. }
            | Self::WrongDigest { .. } => true,
            Self::NotFound { .. }
            | Self::Status { .. }
            | Self::TooLarge { .. }
            | Self::Unusable { .. }
            | Self::Everywhere { .. } => false,
        }
    }
}
