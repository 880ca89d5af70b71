//! The registry protocol, version 2: manifests by tag or digest and blobs by digest, anonymous or
//! with a bearer token.
//!
//! It decides when to ask for a token (once, on the first 401 and again when a token has run out),
//! what each status means to a user, and how much of an answer is read. Documents are returned
//! verified where a digest is known; blobs are streamed and verified by the caller.

use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE,
};
use reqwest::{Response, StatusCode, Url};
use tokio::sync::Mutex;

use crate::auth::{self, Challenge};
use crate::manifest::{self, Blob};
use crate::transport::{Cause, Insecure, Transport, authority, cause};
use crate::{Digest, Reference};

const MAX_TOKEN_ANSWER_BYTES: u64 = 1 << 20;

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
    /// The registry wants a login, or the token was not enough.
    #[error(
        "registry {host} does not let anyone read {repository} without a login, which this version of Gantry does not support yet (a repository that does not exist can look the same)"
    )]
    Unauthorized {
        /// `host[:port]`.
        host: String,
        /// The repository.
        repository: String,
    },
    /// The token endpoint's answer is of no use.
    #[error("the token service {host} of the registry gave no token ({detail})")]
    Token {
        /// `host[:port]` of the token endpoint.
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
}

impl RegistryError {
    /// Whether the same request will most likely fail in the same way later.
    pub(crate) fn is_permanent(&self) -> bool {
        match self {
            Self::NotFound { .. } | Self::Unauthorized { .. } => true,
            Self::Unreachable { .. }
            | Self::Token { .. }
            | Self::TooMany { .. }
            | Self::Status { .. }
            | Self::TooLarge { .. }
            | Self::WrongDigest { .. } => false,
        }
    }
}

/// One repository of one registry, for the time of one pull.
pub(crate) struct Session<'a> {
    transport: &'a Transport,
    insecure: Insecure<'a>,
    base: Url,
    repository: &'a str,
    token: Mutex<Option<HeaderValue>>,
}

/// A manifest or index as served.
pub(crate) struct Served {
    pub(crate) bytes: Vec<u8>,
    pub(crate) content_type: Option<String>,
}

impl<'a> Session<'a> {
    pub(crate) fn new(
        transport: &'a Transport,
        reference: &'a Reference,
        insecure: Insecure<'a>,
    ) -> Result<Self, RegistryError> {
        let host = reference.api_host();
        let text = format!("{}://{host}/v2/", insecure.scheme(host));
        let base = Url::parse(&text).map_err(|error| RegistryError::Unreachable {
            host: host.to_owned(),
            cause: Cause::Broken(error.to_string()),
        })?;
        let repository = reference.repository();
        Ok(Self {
            transport,
            insecure,
            base,
            repository,
            token: Mutex::new(None),
        })
    }

    /// The manifest or index of a tag; its digest is checked against the registry's header.
    pub(crate) async fn manifest_by_tag(&self, tag: &str) -> Result<Served, RegistryError> {
        let what = format!("image {}:{tag}", self.repository);
        let path = format!("{}/manifests/{tag}", self.repository);
        let response = self.get(&path, manifest::ACCEPT, &what).await?;
        let named = response.headers().get("docker-content-digest");
        let named = named
            .and_then(|value| value.to_str().ok())
            .and_then(|text| text.parse().ok());
        self.served(response, &what, manifest::MAX_MANIFEST_BYTES, named)
            .await
    }

    /// The manifest or index with this digest.
    pub(crate) async fn manifest_by_digest(
        &self,
        digest: Digest,
        max_bytes: u64,
    ) -> Result<Served, RegistryError> {
        let what = format!("image {}@{digest}", self.repository);
        let path = format!("{}/manifests/{digest}", self.repository);
        let response = self.get(&path, manifest::ACCEPT, &what).await?;
        self.served(response, &what, max_bytes, Some(digest)).await
    }

    /// A small blob, whole and verified.
    pub(crate) async fn document(&self, blob: Blob) -> Result<Vec<u8>, RegistryError> {
        let what = format!("blob {}", blob.digest);
        let response = self.blob(blob.digest).await?;
        let served = self
            .served(response, &what, blob.size_bytes, Some(blob.digest))
            .await?;
        Ok(served.bytes)
    }

    /// A blob's body, not yet read and not verified.
    pub(crate) async fn blob(&self, digest: Digest) -> Result<Response, RegistryError> {
        let path = format!("{}/blobs/{digest}", self.repository);
        self.get(
            &path,
            "*/*",
            &format!("blob {digest} of {}", self.repository),
        )
        .await
    }

    /// The error for a body that broke off.
    pub(crate) fn broken(&self, error: &reqwest::Error) -> RegistryError {
        self.unreachable(cause(error))
    }

    pub(crate) fn unreachable(&self, cause: Cause) -> RegistryError {
        RegistryError::Unreachable {
            host: self.host(),
            cause,
        }
    }

    pub(crate) fn host(&self) -> String {
        authority(&self.base)
    }

    async fn served(
        &self,
        response: Response,
        what: &str,
        max_bytes: u64,
        digest: Option<Digest>,
    ) -> Result<Served, RegistryError> {
        let content_type = content_type(response.headers());
        let bytes = self.body(response, what, max_bytes).await?;
        let actual = Digest::of(&bytes);
        match digest {
            Some(expected) if expected != actual => Err(RegistryError::WrongDigest {
                host: self.host(),
                what: what.to_owned(),
                expected,
                actual,
            }),
            _ => Ok(Served {
                bytes,
                content_type,
            }),
        }
    }

    async fn body(
        &self,
        mut response: Response,
        what: &str,
        max_bytes: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        let read = async {
            let mut bytes = Vec::new();
            while let Some(chunk) = response
                .chunk()
                .await
                .map_err(|error| self.broken(&error))?
            {
                bytes.extend_from_slice(&chunk);
                if bytes.len() as u64 > max_bytes {
                    let (host, what) = (self.host(), what.to_owned());
                    return Err(RegistryError::TooLarge {
                        host,
                        what,
                        max_bytes,
                    });
                }
            }
            Ok(bytes)
        };
        match tokio::time::timeout(self.transport.timeouts().document, read).await {
            Ok(result) => result,
            Err(_) => Err(self.unreachable(Cause::TimedOut)),
        }
    }

    /// One GET below `/v2/`, with one attempt to get a token if the registry asks for it.
    async fn get(&self, path: &str, accept: &str, what: &str) -> Result<Response, RegistryError> {
        let url = self
            .base
            .join(path)
            .map_err(|error| self.unreachable(Cause::Broken(error.to_string())))?;
        let used = self.token.lock().await.clone();
        let response = self.send(&url, accept, used.clone()).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return self.accept(response, what);
        }
        let token = self.renew(used, response.headers()).await?;
        let response = self.send(&url, accept, Some(token)).await?;
        self.accept(response, what)
    }

    async fn send(
        &self,
        url: &Url,
        accept: &str,
        token: Option<HeaderValue>,
    ) -> Result<Response, RegistryError> {
        let mut headers = HeaderMap::new();
        if let Ok(accept) = HeaderValue::from_str(accept) {
            headers.insert(ACCEPT, accept);
        }
        if let Some(token) = token {
            headers.insert(AUTHORIZATION, token);
        }
        let sent = self.transport.get(url, &headers, self.insecure).await;
        sent.map_err(|(host, cause)| RegistryError::Unreachable { host, cause })
    }

    fn accept(&self, response: Response, what: &str) -> Result<Response, RegistryError> {
        let (host, what) = (authority(response.url()), what.to_owned());
        match response.status().as_u16() {
            200 => Ok(response),
            401 | 403 => Err(self.unauthorized()),
            404 => Err(RegistryError::NotFound {
                host: self.host(),
                what,
            }),
            429 => Err(RegistryError::TooMany { host }),
            status => Err(RegistryError::Status { host, status, what }),
        }
    }

    fn unauthorized(&self) -> RegistryError {
        RegistryError::Unauthorized {
            host: self.host(),
            repository: self.repository.to_owned(),
        }
    }

    /// A token other than `used`: another request may have fetched it meanwhile.
    async fn renew(
        &self,
        used: Option<HeaderValue>,
        refusal: &HeaderMap,
    ) -> Result<HeaderValue, RegistryError> {
        let mut token = self.token.lock().await;
        if let Some(newer) = token.as_ref().filter(|held| used.as_ref() != Some(*held)) {
            return Ok(newer.clone());
        }
        let challenges = refusal.get_all(WWW_AUTHENTICATE).iter();
        let bearer = challenges
            .filter_map(|value| value.to_str().ok())
            .map(Challenge::parse)
            .find_map(|challenge| match challenge {
                Challenge::Bearer {
                    realm,
                    service,
                    scope,
                } => Some((realm, service, scope)),
                Challenge::Basic | Challenge::Unknown => None,
            });
        let (realm, service, scope) = bearer.ok_or_else(|| self.unauthorized())?;
        let fresh = self.fetch_token(&realm, service, scope).await?;
        *token = Some(fresh.clone());
        Ok(fresh)
    }

    async fn fetch_token(
        &self,
        realm: &str,
        service: Option<String>,
        scope: Option<String>,
    ) -> Result<HeaderValue, RegistryError> {
        let failed = |host: &str, detail: String| RegistryError::Token {
            host: host.to_owned(),
            detail,
        };
        let mut url = Url::parse(realm)
            .map_err(|error| failed(&self.host(), format!("its address is not a URL: {error}")))?;
        let host = authority(&url);
        if self.base.scheme() == "https" && url.scheme() != "https" {
            return Err(failed(&host, "its address is not https".into()));
        }
        let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", self.repository));
        if let Some(service) = service {
            url.query_pairs_mut().append_pair("service", &service);
        }
        url.query_pairs_mut().append_pair("scope", &scope);
        let response = self.send(&url, "application/json", None).await?;
        match response.status().as_u16() {
            200 => {}
            401 | 403 => return Err(self.unauthorized()),
            status => return Err(failed(&host, format!("it answered {status}"))),
        }
        let body = self
            .body(response, "a token", MAX_TOKEN_ANSWER_BYTES)
            .await?;
        let token = auth::token(&body)
            .and_then(|token| HeaderValue::from_str(&format!("Bearer {token}")).ok())
            .map(|mut value| {
                value.set_sensitive(true);
                value
            });
        token.ok_or_else(|| failed(&host, "its answer has none".into()))
    }
}

/// The media type without parameters.
fn content_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(
        text.split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase(),
    )
}
