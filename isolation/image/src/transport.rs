//! HTTP to registries: which scheme a host is spoken to in, where a redirect may lead, and what a
//! failed connection is called.
//!
//! It decides: plain HTTP only to loopback addresses and to hosts that the operator listed; a
//! redirect never leads from TLS to plain HTTP and never takes the `Authorization` header to
//! another origin. It does not know what is fetched and does not read bodies beyond a bound.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, LOCATION};
use reqwest::{Client, Response, StatusCode, Url};

const USER_AGENT: &str = concat!("gantry/", env!("CARGO_PKG_VERSION"));
const MAX_REDIRECTS: usize = 5;

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

/// What went wrong on the way to a server, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// Nothing listens there.
    Refused,
    /// The name has no address.
    UnknownHost,
    /// No answer, or the answer stalled.
    TimedOut,
    /// TLS failed: not a TLS server, or a certificate that is not trusted.
    Tls(String),
    /// The redirect leads where it must not.
    Redirect(String),
    /// The answer was cut off or was not HTTP.
    Broken(String),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => write!(f, "refused the connection (nothing listens there)"),
            Self::UnknownHost => write!(f, "has no address (name lookup failed)"),
            Self::TimedOut => write!(f, "did not answer in time"),
            Self::Tls(detail) => write!(
                f,
                "could not be reached over TLS ({detail}); a registry that speaks plain HTTP must be listed as insecure"
            ),
            Self::Redirect(detail) => write!(f, "points to a place that {detail}"),
            Self::Broken(detail) => write!(f, "broke off or did not speak HTTP ({detail})"),
        }
    }
}

/// The HTTP clients, shared by all pulls of a store.
#[derive(Debug)]
pub(crate) struct Transport {
    timeouts: Timeouts,
    plain: OnceLock<Client>,
    secure: OnceLock<Client>,
}

/// The hosts that may be spoken to over plain HTTP, besides loopback.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Insecure<'a>(pub(crate) &'a [String]);

impl Insecure<'_> {
    /// `host` is `name[:port]`; the list may name it with or without the port.
    fn allows(self, host: &str) -> bool {
        let name = host_name(host);
        let listed =
            |item: &String| item.eq_ignore_ascii_case(host) || item.eq_ignore_ascii_case(name);
        is_loopback(name) || self.0.iter().any(listed)
    }

    /// The scheme for a registry.
    pub(crate) fn scheme(self, host: &str) -> &'static str {
        if self.allows(host) && !host.ends_with(":443") {
            "http"
        } else {
            "https"
        }
    }
}

fn host_name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    }
}

fn is_loopback(name: &str) -> bool {
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || bare
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// `host[:port]` of a URL, the port only if it is not the scheme's own.
pub(crate) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

impl Transport {
    pub(crate) fn new(timeouts: Timeouts) -> Self {
        Self {
            timeouts,
            plain: OnceLock::new(),
            secure: OnceLock::new(),
        }
    }

    pub(crate) fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    /// Sends a GET, follows redirects, and returns whatever status the last server answers.
    pub(crate) async fn get(
        &self,
        url: &Url,
        headers: &HeaderMap,
        insecure: Insecure<'_>,
    ) -> Result<Response, (String, Cause)> {
        let mut url = url.clone();
        let mut headers = headers.clone();
        for _ in 0..=MAX_REDIRECTS {
            let host = authority(&url);
            let failed = |cause| (host.clone(), cause);
            let client = self.client(&url, insecure).map_err(failed)?;
            let sent = client.get(url.clone()).headers(headers.clone()).send();
            let response = match tokio::time::timeout(self.timeouts.document, sent).await {
                Ok(answer) => answer.map_err(|error| failed(cause(&error)))?,
                Err(_) => return Err(failed(Cause::TimedOut)),
            };
            if !is_redirect(response.status()) {
                return Ok(response);
            }
            let next = target(&url, &response).map_err(|why| failed(Cause::Redirect(why)))?;
            if next.origin() != url.origin() {
                headers.remove(AUTHORIZATION);
            }
            url = next;
        }
        Err((
            authority(&url),
            Cause::Redirect("leads to more redirects than are followed".into()),
        ))
    }

    fn client(&self, url: &Url, insecure: Insecure<'_>) -> Result<&Client, Cause> {
        match url.scheme() {
            "https" => self.build(&self.secure, false),
            "http" if insecure.allows(&authority(url)) => self.build(&self.plain, true),
            _ => Err(Cause::Redirect(
                "is neither to TLS nor to a host listed as insecure".into(),
            )),
        }
    }

    fn build<'a>(&self, slot: &'a OnceLock<Client>, plain: bool) -> Result<&'a Client, Cause> {
        if let Some(client) = slot.get() {
            return Ok(client);
        }
        let builder = Client::builder()
            .user_agent(USER_AGENT)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(self.timeouts.connect)
            .read_timeout(self.timeouts.stall);
        // The plain client goes to this machine or this network: no proxy, and no reading of the
        // system's certificates, which a bare machine may not even have.
        let builder = if plain {
            builder.no_proxy().tls_certs_only([])
        } else {
            builder.https_only(true)
        };
        let client = builder.build().map_err(|error| Cause::Tls(chain(&error)))?;
        Ok(slot.get_or_init(|| client))
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Where a redirect leads, or what is wrong with it.
fn target(from: &Url, response: &Response) -> Result<Url, String> {
    let location = response
        .headers()
        .get(LOCATION)
        .and_then(|value| value.to_str().ok());
    let location = location.ok_or("names no place")?;
    let next = from
        .join(location)
        .map_err(|error| format!("is not a URL ({error})"))?;
    if from.scheme() == "https" && next.scheme() != "https" {
        return Err("leads from TLS to plain HTTP".into());
    }
    if !next.username().is_empty() || next.password().is_some() {
        return Err("carries a user or password".into());
    }
    Ok(next)
}

/// Names the cause of a failed request; the address is left out, as the caller knows the host.
pub(crate) fn cause(error: &reqwest::Error) -> Cause {
    let text = chain(error);
    let io = io_kind(error);
    if io == Some(io::ErrorKind::ConnectionRefused) {
        Cause::Refused
    } else if error.is_timeout() || io == Some(io::ErrorKind::TimedOut) {
        Cause::TimedOut
    } else if text.contains("dns error") || text.contains("failed to lookup address") {
        Cause::UnknownHost
    } else if error.is_connect() && io == Some(io::ErrorKind::InvalidData) {
        Cause::Tls(text)
    } else {
        Cause::Broken(text)
    }
}

fn io_kind(error: &reqwest::Error) -> Option<io::ErrorKind> {
    let mut next: Option<&dyn Error> = Some(error);
    let mut found = None;
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            found = Some(io.kind());
        }
        next = error.source();
    }
    found
}

/// The innermost two messages of the chain: the outer ones say "error sending request".
fn chain(error: &dyn Error) -> String {
    let mut messages = vec![error.to_string()];
    let mut next = error.source();
    while let Some(error) = next {
        messages.push(error.to_string());
        next = error.source();
    }
    messages.dedup();
    let inner = messages.len().saturating_sub(2);
    messages
        .split_off(inner)
        .join(": ")
        .chars()
        .take(300)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_loopback_and_listed_hosts() {
        let list = ["reg.lan:5000".to_owned(), "old.lan".to_owned()];
        for (host, scheme) in [
            ("localhost:5000", "http"),
            ("localhost", "http"),
            ("127.0.0.1:1", "http"),
            ("127.8.9.1", "http"),
            ("[::1]:5000", "http"),
            ("localhost:443", "https"),
            ("reg.lan:5000", "http"),
            ("REG.lan:5000", "http"),
            ("reg.lan:5001", "https"),
            ("reg.lan", "https"),
            ("old.lan", "http"),
            ("old.lan:8080", "http"),
            ("127.0.0.1.evil.org", "https"),
            ("localhost.evil.org", "https"),
            ("10.0.0.1:5000", "https"),
            ("[::2]:5000", "https"),
            ("docker.io", "https"),
        ] {
            assert_eq!(Insecure(&list).scheme(host), scheme, "{host}");
        }
    }
}
