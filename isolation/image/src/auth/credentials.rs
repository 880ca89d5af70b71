//! Credentials in the words of Docker's `config.json`: which login belongs to which registry.
//!
//! It decides how the file is read (`auths` with `auth`, `username` and `password`,
//! `identitytoken` or `registrytoken`; the older form without `auths`; `credHelpers` and
//! `credsStore` by name) and which entry matches: the registry's `host[:port]` exactly, written
//! bare, as a URL or with the historical `/v1/`; an entry with a path below the host counts for the
//! repositories there, the longest path first. It asks no program and no registry.
//!
//! Invariants: no secret is in a `Debug` or an error text (the parser's own words may quote one, so
//! only its position is kept); the number of entries and the size of the file are bounded.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::secret::Secret;

/// Largest file that is read, in bytes.
pub(crate) const MAX_CONFIG_BYTES: u64 = 1 << 20;
/// Most entries of a file.
const MAX_ENTRIES: usize = 1024;
/// Longest user name, password or token, in bytes; servers stop reading headers near that.
const MAX_SECRET_BYTES: usize = 64 * 1024;
/// The user name that says "the password is an identity token".
const TOKEN_USER: &str = "<token>";

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Logins for registries, as in Docker's `config.json`. Cheap to clone; prints without secrets.
#[derive(Debug, Clone, Default)]
pub struct Credentials(Arc<Parsed>);

#[derive(Debug, Default)]
struct Parsed {
    entries: Vec<Entry>,
    /// Registry → program, and the program for all others.
    programs: BTreeMap<String, String>,
    default_program: Option<String>,
}

#[derive(Debug)]
struct Entry {
    host: String,
    /// Empty, or the part of the registry that the login is for.
    path: String,
    /// `None` if the file only says that there is a login, which a program keeps.
    login: Option<Login>,
}

/// How to prove who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Login {
    Password {
        user: String,
        password: Secret,
    },
    /// Buys access tokens at the registry's token service.
    Identity(Secret),
    /// Is an access token itself.
    Access(Secret),
}

/// What a file says about one repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    Login(Login),
    /// A program keeps it; `expected` if the file says that there is a login for this very registry.
    Program {
        name: String,
        expected: bool,
    },
    Nothing,
}

/// Why credentials cannot be used. Never repeats what is in them.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// Not JSON, or not of the expected shape.
    #[error("the credentials are not a Docker config.json (see line {line}, column {column})")]
    Json {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// Larger than anyone's credentials are.
    #[error(
        "the credentials are larger than {MAX_CONFIG_BYTES} bytes or have more than {MAX_ENTRIES} entries"
    )]
    TooLarge,
    /// An entry that cannot be a login.
    #[error("the credentials for {registry:?} are not valid: {problem}")]
    Entry {
        /// The entry's key.
        registry: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// The request's own credentials name a program.
    #[error(
        "the credentials given with the request leave the login to the program docker-credential-{0}, which is run for the node's own file only: give the login itself"
    )]
    ProgramInRequest(String),
    /// The node's file names a program and the node runs none.
    #[error(
        "the node's credentials file leaves the login to the program docker-credential-{0}, and no directory of such programs is configured"
    )]
    ProgramsOff(String),
    /// The program could not be run or gave nothing of use.
    #[error("docker-credential-{name} gave no login: {problem}")]
    Program {
        /// Its name.
        name: String,
        /// What happened; never its output.
        problem: String,
    },
    /// The node's file cannot be read.
    #[error("cannot read the node's credentials file")]
    Read(#[source] std::io::Error),
    /// The node's file could have been written by others, so no program is run for it.
    #[error("the {what} may be changed by others than its owner or is not owned by root: {fix}")]
    Exposed {
        /// Which file.
        what: &'static str,
        /// The way out.
        fix: &'static str,
    },
}

#[derive(Deserialize)]
struct File {
    auths: Option<BTreeMap<String, Raw>>,
    #[serde(rename = "credHelpers")]
    programs: Option<BTreeMap<String, String>>,
    #[serde(rename = "credsStore")]
    default_program: Option<String>,
}

#[derive(Deserialize, Default)]
struct Raw {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

/// The older form: registries at the top, beside settings that are no entries.
#[derive(Deserialize)]
#[serde(untagged)]
enum Older {
    Entry(Raw),
    Else(IgnoredAny),
}

impl Credentials {
    /// Reads the content of a `config.json`, or of the older `.dockercfg`.
    ///
    /// # Errors
    /// If it is not one, is too large, or has an entry that cannot be a login. The text of the
    /// error has no secret in it.
    pub fn from_config(bytes: &[u8]) -> Result<Self, CredentialsError> {
        if bytes.len() as u64 > MAX_CONFIG_BYTES {
            return Err(CredentialsError::TooLarge);
        }
        let file: File = serde_json::from_slice(bytes).map_err(|error| json(&error))?;
        let auths = match file.auths {
            Some(auths) => auths,
            None if file.programs.is_none() && file.default_program.is_none() => older(bytes)?,
            None => BTreeMap::new(),
        };
        let programs = file.programs.unwrap_or_default();
        if auths.len().saturating_add(programs.len()) > MAX_ENTRIES {
            return Err(CredentialsError::TooLarge);
        }
        let entry = |(key, raw): (String, Raw)| Entry::check(&key, raw);
        let entries = auths.into_iter().map(entry).collect::<Result<_, _>>()?;
        let programs = programs
            .into_iter()
            .map(|(key, program)| (split(&key).0, program))
            .collect();
        Ok(Self(Arc::new(Parsed {
            entries,
            programs,
            default_program: file.default_program.filter(|name| !name.is_empty()),
        })))
    }

    /// Whether there is nothing in them.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Parsed {
            entries,
            programs,
            default_program,
        } = &*self.0;
        entries.is_empty() && programs.is_empty() && default_program.is_none()
    }

    /// The login for a repository of `host` (`host[:port]`).
    pub(crate) fn find(&self, host: &str, repository: &str) -> Found {
        let host = split(host).0;
        if let Some(name) = self.0.programs.get(&host) {
            let (name, expected) = (name.clone(), true);
            return Found::Program { name, expected };
        }
        let fits = |entry: &&Entry| entry.host == host && is_below(repository, &entry.path);
        let entries = self.0.entries.iter().filter(fits);
        let best = entries.max_by_key(|entry| (entry.path.len(), entry.login.is_some()));
        match (best, &self.0.default_program) {
            (
                Some(Entry {
                    login: Some(login), ..
                }),
                _,
            ) => Found::Login(login.clone()),
            (entry, Some(name)) => Found::Program {
                name: name.clone(),
                expected: entry.is_some(),
            },
            _ => Found::Nothing,
        }
    }
}

fn json(error: &serde_json::Error) -> CredentialsError {
    CredentialsError::Json {
        line: error.line(),
        column: error.column(),
    }
}

fn older(bytes: &[u8]) -> Result<BTreeMap<String, Raw>, CredentialsError> {
    let all: BTreeMap<String, Older> =
        serde_json::from_slice(bytes).map_err(|error| json(&error))?;
    let entry = |(key, value)| match value {
        Older::Entry(raw) if raw.is_login() => Some((key, raw)),
        Older::Entry(_) | Older::Else(_) => None,
    };
    Ok(all.into_iter().filter_map(entry).collect())
}

impl Raw {
    fn is_login(&self) -> bool {
        let Self {
            auth,
            username,
            password: _,
            identitytoken,
            registrytoken,
        } = self;
        [auth, username, identitytoken, registrytoken]
            .iter()
            .any(|text| text.is_some())
    }
}

impl Entry {
    fn check(key: &str, raw: Raw) -> Result<Self, CredentialsError> {
        let (host, path) = split(key);
        match Login::check(raw) {
            Ok(login) => Ok(Self { host, path, login }),
            Err(problem) => Err(CredentialsError::Entry {
                registry: key.chars().take(100).collect(),
                problem,
            }),
        }
    }
}

impl Login {
    fn check(raw: Raw) -> Result<Option<Self>, &'static str> {
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        if let Some(token) = given(raw.registrytoken) {
            return checked_token(token).map(|token| Some(Self::Access(token)));
        }
        if let Some(token) = given(raw.identitytoken) {
            return checked_token(token).map(|token| Some(Self::Identity(token)));
        }
        let (user, password) = match (given(raw.auth), given(raw.username)) {
            (Some(auth), _) => decode(&Secret::new(auth))?,
            (None, Some(user)) => (user, Secret::new(raw.password.unwrap_or_default())),
            (None, None) => return Ok(None),
        };
        Self::password(user, password).map(Some)
    }

    /// A user and a password as a program or a file gives them.
    pub(super) fn password(user: String, password: Secret) -> Result<Self, &'static str> {
        if user == TOKEN_USER {
            return checked_token(password.expose().to_owned()).map(Self::Identity);
        }
        let is_plain = |text: &str| !text.chars().any(char::is_control);
        if user.is_empty() || user.contains(':') || !is_plain(&user) {
            return Err("the user name is empty or has a colon or control characters");
        }
        if !is_plain(password.expose()) {
            return Err("the password has control characters");
        }
        if user.len().max(password.expose().len()) > MAX_SECRET_BYTES {
            return Err("the user name or the password is too long");
        }
        Ok(Self::Password { user, password })
    }
}

fn checked_token(token: String) -> Result<Secret, &'static str> {
    let fits = token.len() <= MAX_SECRET_BYTES && token.bytes().all(|byte| byte.is_ascii_graphic());
    let token = Secret::new(token);
    if fits {
        Ok(token)
    } else {
        Err("the token is too long or has characters that no token has")
    }
}

/// `user:password` from base64; Docker once padded the password with zero bytes.
fn decode(auth: &Secret) -> Result<(String, Secret), &'static str> {
    const SHAPE: &str = "auth is not the base64 of user:password";
    let bytes = BASE64.decode(auth.expose().trim()).map_err(|_| SHAPE)?;
    let text = Secret::new(String::from_utf8(bytes).map_err(|_| SHAPE)?);
    let (user, password) = text.expose().split_once(':').ok_or(SHAPE)?;
    let password = password.trim_end_matches('\0').to_owned();
    Ok((user.to_owned(), Secret::new(password)))
}

/// The host and the path of a key: `https://host/v1/` is the host alone. Docker's own registry has
/// had several names.
fn split(key: &str) -> (String, String) {
    let bare = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
    let host = host.to_ascii_lowercase();
    let host = match host.strip_suffix(":443").unwrap_or(&host) {
        "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => {
            crate::DEFAULT_REGISTRY.to_owned()
        }
        host => host.to_owned(),
    };
    let path = match path.trim_end_matches('/') {
        "v1" | "v2" => "",
        path => path,
    };
    (host, path.to_owned())
}

/// Whether a repository is `path` or lies below it.
pub(crate) fn is_below(repository: &str, path: &str) -> bool {
    path.is_empty()
        || repository
            .strip_prefix(path)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests;
