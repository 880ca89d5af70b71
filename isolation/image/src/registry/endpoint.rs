//! One server for one repository: its requests and what each status means to a user.
//!
//! It decides when a login is asked for ([`super::login`] makes it): never before the server wants
//! one, and only for the server that was meant; a challenge from where a redirect led is not
//! answered. It does not choose between servers ([`super::Session`] does).

use std::sync::OnceLock;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RANGE};
use reqwest::{Response, StatusCode, Url};
use tokio::sync::Mutex;

use super::{Registries, RegistryError};
use crate::Digest;
use crate::auth::keyring::Keyring;
use gantry_intake::{Cause, Failed, Reach, authority, cause};

/// Most logins that are tried for one request: one that another request made meanwhile, one that
/// was kept, and a new one.
const MAX_LOGINS: usize = 3;

pub(super) struct Endpoint {
    pub(super) base: Url,
    /// As logins name it: `host[:port]`.
    pub(super) login_host: String,
    pub(super) repository: String,
    pub(super) is_mirror: bool,
    /// Whether it is believed about what a tag means.
    pub(super) tags: bool,
    /// Why it is of no more use in this pull, if so.
    pub(super) down: OnceLock<String>,
    pub(super) held: Mutex<Option<Shown>>,
}

/// What a pull brings along to every request.
pub(super) struct Context<'a> {
    pub(super) registries: &'a Registries,
    pub(super) reach: Reach,
    pub(super) keyring: Keyring,
}

/// One GET.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask<'a> {
    /// Below the repository: `blobs/sha256:…`.
    pub(super) path: &'a str,
    pub(super) accept: &'static str,
    /// The first byte wanted, if not all of it is.
    pub(super) from: Option<u64>,
    /// For messages.
    pub(super) what: &'a str,
}

/// What is shown to a server.
#[derive(Clone)]
pub(super) struct Shown {
    pub(super) header: HeaderValue,
    /// Whose it is; `None` for a token that anyone can get.
    pub(super) user: Option<String>,
}

/// A small document as served.
pub(crate) struct Served {
    pub(crate) bytes: Vec<u8>,
    pub(crate) content_type: Option<String>,
}

pub(super) fn unreachable((host, cause): Failed) -> RegistryError {
    RegistryError::Unreachable { host, cause }
}

impl Endpoint {
    pub(super) fn new(base: Url, login_host: String, repository: String) -> Self {
        Self {
            base,
            login_host,
            repository,
            is_mirror: false,
            tags: true,
            down: OnceLock::new(),
            held: Mutex::new(None),
        }
    }

    pub(super) fn host(&self) -> String {
        authority(&self.base)
    }

    /// One GET below the repository, with the login that the server asks for.
    pub(super) async fn get(
        &self,
        context: &Context<'_>,
        ask: Ask<'_>,
    ) -> Result<Response, RegistryError> {
        let path = format!("{}/{}", self.repository, ask.path);
        let url = self.base.join(&path).map_err(|error| {
            let cause = Cause::Broken(error.to_string());
            unreachable((self.host(), cause))
        })?;
        let mut shown = self.held.lock().await.clone();
        for _ in 0..MAX_LOGINS {
            let response = self.send(context, &url, ask, shown.as_ref()).await?;
            // A server that a redirect led to is not the one that a login is for.
            let is_meant = response.url().origin() == self.base.origin();
            if response.status() != StatusCode::UNAUTHORIZED || !is_meant {
                return self.accept(response, ask, shown);
            }
            let (fresh, is_new) = self.renew(context, shown, response.headers()).await?;
            if is_new {
                let response = self.send(context, &url, ask, Some(&fresh)).await?;
                return self.accept(response, ask, Some(fresh));
            }
            shown = Some(fresh);
        }
        Err(self.refused(shown.and_then(|shown| shown.user)))
    }

    async fn send(
        &self,
        context: &Context<'_>,
        url: &Url,
        ask: Ask<'_>,
        shown: Option<&Shown>,
    ) -> Result<Response, RegistryError> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(ask.accept));
        if let Some(shown) = shown {
            headers.insert(AUTHORIZATION, shown.header.clone());
        }
        if let Some(from) = ask.from
            && let Ok(range) = HeaderValue::from_str(&format!("bytes={from}-"))
        {
            headers.insert(RANGE, range);
        }
        let transport = &context.registries.transport;
        let sent = transport.get(url, &headers, &context.reach).await;
        sent.map_err(unreachable)
    }

    fn accept(
        &self,
        response: Response,
        ask: Ask<'_>,
        shown: Option<Shown>,
    ) -> Result<Response, RegistryError> {
        let (host, what) = (authority(response.url()), ask.what.to_owned());
        match response.status().as_u16() {
            200 => Ok(response),
            206 if ask.from.is_some() => Ok(response),
            status @ (401 | 403) if response.url().origin() != self.base.origin() => {
                Err(RegistryError::Status { host, status, what })
            }
            401 | 403 => Err(self.refused(shown.and_then(|shown| shown.user))),
            404 => Err(RegistryError::NotFound {
                host: self.host(),
                what,
            }),
            429 => Err(RegistryError::TooMany { host }),
            status => Err(RegistryError::Status { host, status, what }),
        }
    }

    /// The error for whoever may not read the repository.
    pub(super) fn refused(&self, user: Option<String>) -> RegistryError {
        let (host, repository) = (self.login_host.clone(), self.repository.clone());
        match user {
            None => RegistryError::LoginNeeded { host, repository },
            Some(user) => RegistryError::LoginRefused {
                host,
                user,
                repository,
            },
        }
    }

    /// A small document, whole; verified if `digest` is given or the server names one.
    pub(super) async fn document(
        &self,
        context: &Context<'_>,
        ask: Ask<'_>,
        max_bytes: u64,
        digest: Option<Digest>,
    ) -> Result<Served, RegistryError> {
        let response = self.get(context, ask).await?;
        let digest = digest.or_else(|| {
            let named = response.headers().get("docker-content-digest")?;
            named.to_str().ok()?.parse().ok()
        });
        let content_type = content_type(response.headers());
        let bytes = body(context, response, ask.what, max_bytes).await?;
        let actual = Digest::of(&bytes);
        match digest {
            Some(expected) if expected != actual => Err(RegistryError::WrongDigest {
                host: self.host(),
                what: ask.what.to_owned(),
                expected,
                actual,
            }),
            _ => Ok(Served {
                bytes,
                content_type,
            }),
        }
    }
}

/// A whole body of at most `max_bytes`, within the time for a document.
pub(super) async fn body(
    context: &Context<'_>,
    mut response: Response,
    what: &str,
    max_bytes: u64,
) -> Result<Vec<u8>, RegistryError> {
    let host = authority(response.url());
    let read = async {
        let mut bytes = Vec::new();
        loop {
            let chunk = response.chunk().await;
            let chunk = chunk.map_err(|error| unreachable((host.clone(), cause(&error))))?;
            let Some(chunk) = chunk else {
                return Ok(bytes);
            };
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > max_bytes {
                return Err(RegistryError::TooLarge {
                    host: host.clone(),
                    what: what.to_owned(),
                    max_bytes,
                });
            }
        }
    };
    let limit = context.registries.transport.timeouts().document;
    match tokio::time::timeout(limit, read).await {
        Ok(result) => result,
        Err(_) => Err(unreachable((host, Cause::TimedOut))),
    }
}

/// The media type without parameters.
fn content_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let kind = text.split(';').next().unwrap_or_default();
    Some(kind.trim().to_ascii_lowercase())
}
