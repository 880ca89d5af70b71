//! HTTP to registries and to servers of files: one client per kind of server, redirects followed by
//! our own rules.
//!
//! It decides: where a redirect may lead ([`reach`]) and that it never takes the `Authorization`
//! header to another origin, nor a client certificate to another host. It does not know what is
//! fetched and does not read bodies.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_RANGE, HeaderMap, LOCATION};
use reqwest::{Client, ClientBuilder, RequestBuilder, Response, StatusCode, Url};

use self::reach::Lookup;
use self::tls::HostFiles;
use crate::Digest;

pub use self::cause::{Cause, cause, chain};
pub use self::reach::{Reach, authority};

mod cause;
mod reach;
mod tls;

const USER_AGENT: &str = concat!("gantry/", env!("CARGO_PKG_VERSION"));
const MAX_REDIRECTS: usize = 5;
/// Most headers of an answer, and most clients with certificates of their own that are kept.
const MAX_HEADERS: usize = 128;
const MAX_CLIENTS: usize = 64;

/// How long to wait for a registry.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For the connection, TLS included.
    pub connect: Duration,
    /// For the next bytes of an answer.
    pub stall: Duration,
    /// For a whole small document: manifest, config, token.
    pub document: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            document: Duration::from_secs(60),
        }
    }
}

/// The HTTP clients, shared by all pulls of a store.
#[derive(Debug)]
pub struct Transport {
    timeouts: Timeouts,
    certificates: Option<PathBuf>,
    lookup: Lookup,
    plain: OnceLock<Client>,
    secure: OnceLock<Client>,
    /// Clients of hosts with certificates of their own, and what those were.
    own: Mutex<HashMap<String, (Digest, Client)>>,
}

/// A failed request: the host that failed, and how.
pub type Failed = (String, Cause);

impl Transport {
    /// To registries; `certificates` has directories of those with certificates of their own.
    #[must_use]
    pub fn new(timeouts: Timeouts, certificates: Option<PathBuf>) -> Self {
        Self::with(timeouts, certificates, Lookup::Registries)
    }

    /// To servers of files, with the [`Reach::files`] that every request is to be made with.
    #[must_use]
    pub fn files(timeouts: Timeouts, reach: &Reach) -> Self {
        Self::with(timeouts, None, Lookup::Files(reach.clone()))
    }

    fn with(timeouts: Timeouts, certificates: Option<PathBuf>, lookup: Lookup) -> Self {
        Self {
            timeouts,
            certificates,
            lookup,
            plain: OnceLock::new(),
            secure: OnceLock::new(),
            own: Mutex::default(),
        }
    }

    pub fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    /// The scheme for a registry: TLS where the operator gave certificates for it.
    pub async fn scheme(&self, host: &str, reach: &Reach) -> &'static str {
        let Some(dir) = self.certificates.clone() else {
            return reach.scheme(host);
        };
        let name = host.to_owned();
        match tokio::task::spawn_blocking(move || tls::has(&dir, &name)).await {
            Ok(true) => "https",
            _ => reach.scheme(host),
        }
    }

    /// Sends a GET, follows redirects, and returns whatever status the last server answers.
    pub async fn get(
        &self,
        url: &Url,
        headers: &HeaderMap,
        reach: &Reach,
    ) -> Result<Response, Failed> {
        let mut url = url.clone();
        let mut headers = headers.clone();
        for _ in 0..=MAX_REDIRECTS {
            let failed = |cause| (authority(&url), cause);
            let client = self.client(&url, reach).await.map_err(failed)?;
            let request = client.get(url.clone()).headers(headers.clone());
            let response = self.send(request).await.map_err(failed)?;
            if !is_redirect(response.status()) {
                return Ok(response);
            }
            let next = target(&url, &response, reach);
            let next = next.map_err(|why| failed(Cause::Redirect(why)))?;
            if next.origin() != url.origin() {
                headers.remove(AUTHORIZATION);
            }
            url = next;
        }
        let many = "leads to more redirects than are followed";
        Err((authority(&url), Cause::Redirect(many.into())))
    }

    /// Sends a form with secrets in it. No redirect is followed: it could take them elsewhere.
    pub async fn post(
        &self,
        url: &Url,
        headers: &HeaderMap,
        form: String,
        reach: &Reach,
    ) -> Result<Response, Failed> {
        let failed = |cause| (authority(url), cause);
        let client = self.client(url, reach).await.map_err(failed)?;
        let request = client.post(url.clone()).headers(headers.clone()).body(form);
        self.send(request).await.map_err(failed)
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Cause> {
        match tokio::time::timeout(self.timeouts.document, request.send()).await {
            Ok(answer) => answer.map_err(|error| cause(&error)),
            Err(_) => Err(Cause::TimedOut),
        }
    }

    async fn client(&self, url: &Url, reach: &Reach) -> Result<Client, Cause> {
        let host = authority(url);
        if url.scheme() == "http" && reach.allows_plain(&host) {
            // It mostly goes to this machine or this network: no proxy, and no reading of the
            // system's certificates, which a bare machine may not even have.
            let builder = self.builder().no_proxy().tls_certs_only([]);
            let builder = match &self.lookup {
                Lookup::Registries => builder,
                files @ Lookup::Files(_) => builder.dns_resolver(Arc::new(files.clone())),
            };
            return kept(&self.plain, builder);
        }
        if url.scheme() != "https" {
            return Err(Cause::Plain);
        }
        match self.host_files(&host).await? {
            Some(files) => self.own_client(host, &files),
            None => kept(&self.secure, self.secure_builder()),
        }
    }

    async fn host_files(&self, host: &str) -> Result<Option<HostFiles>, Cause> {
        let Some(dir) = self.certificates.clone() else {
            return Ok(None);
        };
        let name = host.to_owned();
        let loaded = tokio::task::spawn_blocking(move || tls::load(&dir, &name)).await;
        loaded
            .map_err(std::io::Error::other)
            .and_then(|loaded| loaded)
            .map_err(|error| Cause::Certificates(error.to_string()))
    }

    fn own_client(&self, host: String, files: &HostFiles) -> Result<Client, Cause> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((digest, client)) = own.get(&host)
            && *digest == files.digest
        {
            return Ok(client.clone());
        }
        let builder = files.apply(self.secure_builder());
        let client = builder
            .map_err(Cause::Certificates)?
            .build()
            .map_err(|error| Cause::Certificates(chain(&error)))?;
        if own.len() >= MAX_CLIENTS {
            own.clear();
        }
        own.insert(host, (files.digest, client.clone()));
        Ok(client)
    }

    fn secure_builder(&self) -> ClientBuilder {
        self.builder()
            .https_only(true)
            .dns_resolver(Arc::new(self.lookup.clone()))
    }

    fn builder(&self) -> ClientBuilder {
        Client::builder()
            .user_agent(USER_AGENT)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .http1_max_headers(MAX_HEADERS)
            .connect_timeout(self.timeouts.connect)
            .read_timeout(self.timeouts.stall)
    }
}

fn kept(slot: &OnceLock<Client>, builder: ClientBuilder) -> Result<Client, Cause> {
    if let Some(client) = slot.get() {
        return Ok(client.clone());
    }
    let client = builder.build().map_err(|error| Cause::Tls(chain(&error)))?;
    Ok(slot.get_or_init(|| client).clone())
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Where a part (an answer with status 206) begins, and the size of the whole if it is said:
/// `Content-Range: bytes <first>-<last>/<size or *>`.
#[must_use]
pub fn part_from(response: &Response) -> Option<(u64, Option<u64>)> {
    let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    let (range, size) = range.strip_prefix("bytes ")?.split_once('/')?;
    let first = range.split_once('-')?.0.parse().ok()?;
    let size = match size {
        "*" => None,
        size => Some(size.parse().ok()?),
    };
    Some((first, size))
}

/// Where a redirect leads, or what is wrong with it.
fn target(from: &Url, response: &Response, reach: &Reach) -> Result<Url, String> {
    let location = response
        .headers()
        .get(LOCATION)
        .and_then(|value| value.to_str().ok());
    let location = location.ok_or("names no place")?;
    let next = from
        .join(location)
        .map_err(|error| format!("is not a URL ({error})"))?;
    reach.check(from, &next)?;
    Ok(next)
}
