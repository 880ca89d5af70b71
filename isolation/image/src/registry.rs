//! The registry protocol, version 2: manifests by tag or digest and blobs by digest, from mirrors
//! and from the registry itself.
//!
//! It decides in which order servers are asked, when one is given up for the rest of a pull, and
//! that a tag is only believed from the registry or from a mirror that the operator says so of.
//! Documents are returned verified where a digest is known; blobs are streamed and verified at
//! their end ([`download`]). One server is spoken to in [`endpoint`], logins are made in [`login`].

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::{Response, Url};

use self::endpoint::{Ask, Context, Endpoint, Served, unreachable};
use crate::auth::keyring::Keyring;
use crate::auth::token::Tokens;
use crate::manifest::{self, Blob, Document};
use crate::store::PullOptions;
use crate::{Digest, Reference};
use gantry_intake::{Cause, Reach, Timeouts, Transport};

pub(crate) use self::download::{Download, Undelivered};

pub use self::config::{Mirror, MirrorError, RegistryConfig};
pub use self::error::RegistryError;

mod config;
mod download;
mod endpoint;
mod error;
mod login;

/// Most mirrors that are asked for one image.
const MAX_MIRRORS: usize = 8;

/// What this node knows about registries, for all pulls.
pub(crate) struct Registries {
    config: RegistryConfig,
    transport: Transport,
    tokens: Tokens,
}

impl Registries {
    pub(crate) fn new(timeouts: Timeouts, config: RegistryConfig) -> Self {
        Self {
            transport: Transport::new(timeouts, config.ca_dir.clone()),
            tokens: Tokens::default(),
            config,
        }
    }

    pub(crate) fn timeouts(&self) -> Timeouts {
        self.transport.timeouts()
    }
}

/// One repository, for the time of one pull.
pub(crate) struct Session<'a> {
    context: Context<'a>,
    /// The mirrors in order, then the registry itself.
    endpoints: Vec<Endpoint>,
    /// Which mirrors gave bytes of which blob.
    givers: Mutex<HashSet<(Digest, usize)>>,
}

impl<'a> Session<'a> {
    pub(crate) async fn open(
        registries: &'a Registries,
        reference: &Reference,
        options: &PullOptions,
    ) -> Result<Self, RegistryError> {
        let RegistryConfig {
            mirrors,
            insecure,
            ca_dir: _,
            credentials_file,
            credential_programs,
        } = &registries.config;
        let insecure = insecure.iter().chain(&options.insecure_registries);
        let context = Context {
            registries,
            reach: Reach::new(insecure.cloned()),
            keyring: Keyring {
                request: options.credentials.clone(),
                node_file: credentials_file.clone(),
                programs: credential_programs.clone(),
            },
        };
        let mut endpoints = Vec::new();
        let fitting = mirrors.iter().filter(|mirror| mirror.is_for(reference));
        for Mirror { server, tags, .. } in fitting.take(MAX_MIRRORS) {
            let repository = if server.path.is_empty() {
                reference.repository().to_owned()
            } else {
                format!("{}/{}", server.path, reference.repository())
            };
            let base = base(&context, server.scheme, &server.host).await?;
            endpoints.push(Endpoint {
                is_mirror: true,
                tags: *tags,
                ..Endpoint::new(base, server.host.clone(), repository)
            });
        }
        let base = base(&context, None, reference.api_host()).await?;
        let (name, repository) = (reference.registry(), reference.repository());
        endpoints.push(Endpoint::new(base, name.to_owned(), repository.to_owned()));
        Ok(Self {
            context,
            endpoints,
            givers: Mutex::default(),
        })
    }

    /// The manifest or index of a tag; its digest is checked against the registry's header.
    pub(crate) async fn manifest_by_tag(&self, tag: &str) -> Result<Served, RegistryError> {
        let what = format!("image {}:{tag}", self.repository());
        let ask = Ask {
            path: &format!("manifests/{tag}"),
            accept: manifest::ACCEPT,
            from: None,
            what: &what,
        };
        self.document_of(ask, manifest::MAX_MANIFEST_BYTES, None)
            .await
    }

    /// The manifest or index with this digest.
    pub(crate) async fn manifest_by_digest(
        &self,
        digest: Digest,
        max_bytes: u64,
    ) -> Result<Served, RegistryError> {
        let what = format!("image {}@{digest}", self.repository());
        let ask = Ask {
            path: &format!("manifests/{digest}"),
            accept: manifest::ACCEPT,
            from: None,
            what: &what,
        };
        self.document_of(ask, max_bytes, Some(digest)).await
    }

    /// A small blob, whole and verified.
    pub(crate) async fn document(&self, blob: Blob) -> Result<Vec<u8>, RegistryError> {
        let (path, what) = self.blob_words(blob.digest);
        let ask = download::ask(&path, &what, None);
        let served = self.document_of(ask, blob.size_bytes, Some(blob.digest));
        Ok(served.await?.bytes)
    }

    /// A blob as a stream.
    pub(crate) fn download(&self, blob: Blob) -> Download<'_, 'a> {
        Download::new(self, blob)
    }

    /// Gives up the mirrors that gave bytes of this blob, after its content was refused: whether
    /// there were any, so that the rest can be asked.
    pub(crate) fn blame_mirrors(&self, digest: Digest) -> bool {
        let givers = self.givers.lock().unwrap_or_else(PoisonError::into_inner);
        let mirrors = givers.iter().filter(|(given, _)| *given == digest);
        let mut found = false;
        for endpoint in mirrors.filter_map(|(_, index)| self.endpoints.get(*index)) {
            let reason = format!("mirror {} gave wrong content", endpoint.host());
            found |= endpoint.down.set(reason).is_ok();
        }
        found
    }

    /// How long nothing may come of a stream that had begun.
    fn patience(&self) -> Duration {
        self.context.registries.timeouts().stall
    }

    /// The error for a stream that takes longer than anyone waits.
    pub(crate) fn too_slow(&self) -> RegistryError {
        unreachable((self.host_of(self.endpoints.len()), Cause::TimedOut))
    }

    async fn document_of(
        &self,
        ask: Ask<'_>,
        max_bytes: u64,
        digest: Option<Digest>,
    ) -> Result<Served, RegistryError> {
        let mut failures = Vec::new();
        for (_, endpoint) in self.usable(digest.is_none()) {
            let served = endpoint.document(&self.context, ask, max_bytes, digest);
            let served = match (served.await, digest) {
                (Ok(served), None) => endpoint.check_tag(served, ask),
                (served, _) => served,
            };
            match served {
                Ok(served) => return Ok(served),
                Err(error) => failures.push(endpoint.note(error)),
            }
        }
        Err(self.everywhere(failures, ask.what))
    }

    /// A blob's body, whole or from a byte on, and the number of the endpoint that sends it.
    async fn open_blob(
        &self,
        digest: Digest,
        from: Option<u64>,
    ) -> Result<(Response, usize), RegistryError> {
        let (path, what) = self.blob_words(digest);
        let mut failures = Vec::new();
        for (number, endpoint) in self.usable(false) {
            let ask = download::ask(&path, &what, from);
            match endpoint.get(&self.context, ask).await {
                Ok(response) => {
                    if endpoint.is_mirror {
                        let givers = self.givers.lock();
                        let mut givers = givers.unwrap_or_else(PoisonError::into_inner);
                        givers.insert((digest, number));
                    }
                    return Ok((response, number));
                }
                Err(error) => failures.push(endpoint.note(error)),
            }
        }
        Err(self.everywhere(failures, &what))
    }

    fn blob_words(&self, digest: Digest) -> (String, String) {
        let what = format!("blob {digest} of {}", self.repository());
        (format!("blobs/{digest}"), what)
    }

    fn usable(&self, by_tag: bool) -> impl Iterator<Item = (usize, &Endpoint)> {
        let fits = move |endpoint: &Endpoint| {
            let is_believed = endpoint.tags || !by_tag;
            !endpoint.is_mirror || (is_believed && endpoint.down.get().is_none())
        };
        let all = self.endpoints.iter().enumerate();
        all.filter(move |(_, endpoint)| fits(endpoint))
    }

    /// The registry's own error, with what the mirrors said before.
    fn everywhere(&self, mut failures: Vec<RegistryError>, what: &str) -> RegistryError {
        // The registry itself is always asked, and last.
        let Some(origin) = failures.pop() else {
            let (host, what) = (self.host_of(self.endpoints.len()), what.to_owned());
            return RegistryError::NotFound { host, what };
        };
        let mirrors = self.endpoints.iter().filter_map(|mirror| mirror.down.get());
        let mut said: Vec<String> = mirrors.cloned().collect();
        for failure in failures {
            let text = error::flat(&failure);
            if !said.contains(&text) {
                said.push(text);
            }
        }
        if said.is_empty() {
            return origin;
        }
        RegistryError::Everywhere {
            origin: Box::new(origin),
            mirrors: said,
        }
    }

    /// Gives a mirror up for the rest of the pull; `false` if it is the registry itself.
    fn leave(&self, endpoint: usize, error: &RegistryError) -> bool {
        self.endpoints.get(endpoint).is_some_and(|endpoint| {
            endpoint.is_mirror && endpoint.down.set(error::flat(error)).is_ok()
        })
    }

    fn host_of(&self, endpoint: usize) -> String {
        let endpoint = self.endpoints.get(endpoint).or(self.endpoints.last());
        endpoint.map(Endpoint::host).unwrap_or_default()
    }

    fn repository(&self) -> &str {
        let origin = self.endpoints.last();
        origin.map_or("", |origin| origin.repository.as_str())
    }
}

impl Endpoint {
    /// What a mirror says that a tag means has to be a manifest or an index: a login page is not
    /// taken for the image. (What has a digest was verified, and is the image's own fault.)
    fn check_tag(&self, served: Served, ask: Ask<'_>) -> Result<Served, RegistryError> {
        let read = Document::parse(&served.bytes, served.content_type.as_deref());
        match read {
            Err(source) if self.is_mirror => Err(RegistryError::Unusable {
                host: self.host(),
                what: ask.what.to_owned(),
                source,
            }),
            _ => Ok(served),
        }
    }

    /// A mirror that is of no use for anything else either is not asked again in this pull.
    fn note(&self, error: RegistryError) -> RegistryError {
        if self.is_mirror {
            tracing::info!(mirror = %self.host(), error = %error::flat(&error), "a mirror failed");
            if error.is_the_servers() {
                // Already given up by another request: the first reason stays.
                let _ = self.down.set(error::flat(&error));
            }
        }
        error
    }
}

async fn base(
    context: &Context<'_>,
    scheme: Option<&'static str>,
    host: &str,
) -> Result<Url, RegistryError> {
    let scheme = match scheme {
        Some(scheme) => scheme,
        None => {
            let transport = &context.registries.transport;
            transport.scheme(host, &context.reach).await
        }
    };
    Url::parse(&format!("{scheme}://{host}/v2/"))
        .map_err(|error| unreachable((host.to_owned(), Cause::Broken(error.to_string()))))
}
