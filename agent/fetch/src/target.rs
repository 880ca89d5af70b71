//! What a URI means: a server's file or one of the node's, and what it is called.
//!
//! It decides the schemes: http, https, `file://`, an absolute path, and a path relative to the
//! node's home of frameworks; everything else is refused by name. User and password leave the URL
//! here, and come back only as a header. Paths are taken as they are written, as Mesos does:
//! nothing in them is decoded.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use reqwest::header::HeaderValue;

/// Longest URI, in bytes.
const MAX_URI_BYTES: usize = 4096;
/// Longest URI that is shown, in characters.
const MAX_SHOWN: usize = 200;

/// Where something is fetched from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    Server(Target),
    /// Absolute.
    Local(PathBuf),
}

/// A URL without user and password, and the header that these make.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) url: Url,
    /// Marked as sensitive.
    pub(crate) authorization: Option<HeaderValue>,
}

/// Why a URI means nothing here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// Empty, too long, or with a control character in it.
    #[error("it is empty, too long, or has control characters in it")]
    Text,
    /// Another scheme.
    #[error("the scheme '{0}' is not supported: only http, https, file and paths are")]
    Scheme(String),
    /// Not a URL.
    #[error("it is not a URL ({0})")]
    Url(String),
    /// `file://host/…`.
    #[error("it names a file of another machine")]
    Host,
    /// A relative path, and nothing that it is relative to.
    #[error("it is a relative path, and this node has no home of frameworks configured")]
    Relative,
    /// It ends in a slash.
    #[error("it names no file; an output file would")]
    NoName,
}

impl Source {
    pub(crate) fn parse(text: &str, home: Option<&Path>) -> Result<Self, UriError> {
        let is_text = !text.is_empty() && text.len() <= MAX_URI_BYTES;
        if !is_text || text.chars().any(char::is_control) {
            return Err(UriError::Text);
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            let path = match (Path::new(text).is_absolute(), home) {
                (true, _) => PathBuf::from(text),
                (false, Some(home)) => home.join(text),
                (false, None) => return Err(UriError::Relative),
            };
            return Ok(Self::Local(path));
        };
        match scheme.to_ascii_lowercase().as_str() {
            "http" | "https" => Target::parse(text).map(Self::Server),
            "file" => {
                let path = rest.strip_prefix("localhost").unwrap_or(rest);
                let is_here = path.starts_with('/');
                is_here
                    .then(|| Self::Local(PathBuf::from(path)))
                    .ok_or(UriError::Host)
            }
            _ => Err(UriError::Scheme(scheme.chars().take(16).collect())),
        }
    }
}

impl Target {
    fn parse(text: &str) -> Result<Self, UriError> {
        let mut url = Url::parse(text).map_err(|error| UriError::Url(error.to_string()))?;
        url.set_fragment(None);
        let authorization = authorization(&url);
        // Fails only for URLs without host, which http ones are not.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        Ok(Self { url, authorization })
    }
}

/// RFC 7617, of what the URL says.
fn authorization(url: &Url) -> Option<HeaderValue> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let mut login = decoded(url.username());
    login.push(b':');
    login.extend(decoded(url.password().unwrap_or_default()));
    let header = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(login)));
    let mut header = header.ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// Without percent-encoding.
fn decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = after.get(..2).filter(|_| *first == b'%');
        let byte = hex
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    bytes
}

/// The URI without query: what its last component is.
pub(crate) fn file_name(uri: &str) -> Result<&str, UriError> {
    let path = match uri.split_once("://") {
        Some(("file", path)) => path,
        // A server's root has no name; what follows the host has.
        Some((_, rest)) => {
            let path = rest.split(['?', '#']).next().unwrap_or_default();
            path.split_once('/').ok_or(UriError::NoName)?.1
        }
        None => uri,
    };
    let name = path.rsplit('/').next().unwrap_or_default();
    if matches!(name, "" | "." | "..") {
        return Err(UriError::NoName);
    }
    Ok(name)
}

/// A URI for people: without user and password, without the query (it may be a signature), cut.
#[must_use]
pub fn shown(uri: &str) -> String {
    let (scheme, rest) = match uri.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), uri),
    };
    let (place, query) = match rest.find(['?', '#']).filter(|_| !scheme.is_empty()) {
        Some(at) => (&rest[..at], "?…"),
        None => (rest, ""),
    };
    let (host, path) = place.split_at(place.find('/').unwrap_or(place.len()));
    let host = match host.rsplit_once('@') {
        Some((_, host)) if !scheme.is_empty() => host,
        _ => host,
    };
    let text = format!("{scheme}{host}{path}");
    let mut shown: String = text
        .chars()
        .take(MAX_SHOWN)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if text.chars().count() > MAX_SHOWN {
        shown.push('…');
    }
    shown + query
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<String, UriError> {
        Source::parse(text, Some(Path::new("/home/frameworks"))).map(|source| match source {
            Source::Server(target) => {
                let header = target.authorization.map(|header| {
                    assert!(header.is_sensitive());
                    format!(" {}", header.to_str().unwrap())
                });
                format!("{}{}", target.url, header.unwrap_or_default())
            }
            Source::Local(path) => path.display().to_string(),
        })
    }

    #[test]
    fn what_a_uri_means() {
        for (text, meaning) in [
            ("http://a.org/x?y#z", "http://a.org/x?y"),
            ("HTTPS://A.org:8443/x", "https://a.org:8443/x"),
            (
                "http://me:p%40ss@a.org/x",
                "http://a.org/x Basic bWU6cEBzcw==",
            ),
            ("http://me@a.org/x", "http://a.org/x Basic bWU6"),
            ("/etc/a b", "/etc/a b"),
            ("file:///etc/x%20y", "/etc/x%20y"),
            ("file://localhost/etc/x", "/etc/x"),
            ("pkg/x.tgz", "/home/frameworks/pkg/x.tgz"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(meaning), "{text}");
        }
        for text in ["ftp://a/b", "hdfs://a/b", "s3n://a/b", "ftps://a/b"] {
            let scheme = text.split("://").next().unwrap().to_owned();
            assert_eq!(parse(text), Err(UriError::Scheme(scheme)));
        }
        assert_eq!(parse("file://other/etc/x"), Err(UriError::Host));
        assert_eq!(parse("a\nb"), Err(UriError::Text));
        assert_eq!(parse(""), Err(UriError::Text));
        assert!(matches!(parse("http://"), Err(UriError::Url(_))));
        let relative = Source::parse("a/b", None).map(|_| ());
        assert_eq!(relative, Err(UriError::Relative));
    }

    #[test]
    fn names_of_files() {
        for (uri, name) in [
            ("http://a.org/x/y.tgz?v=1/2#z", Ok("y.tgz")),
            ("http://a.org/%2e%2e%2fx", Ok("%2e%2e%2fx")),
            ("file:///a/b?c", Ok("b?c")),
            ("/a/b#c", Ok("b#c")),
            ("a.zip", Ok("a.zip")),
            ("http://a.org", Err(UriError::NoName)),
            ("http://a.org/", Err(UriError::NoName)),
            ("http://a.org/..", Err(UriError::NoName)),
            ("/a/", Err(UriError::NoName)),
        ] {
            assert_eq!(file_name(uri), name, "{uri}");
        }
    }

    #[test]
    fn no_credential_is_shown() {
        for (uri, text) in [
            ("http://me:secret@a.org/x?sig=secret", "http://a.org/x?…"),
            ("https://a@b@c.org#secret", "https://c.org?…"),
            ("file:///etc/a@b?c", "file:///etc/a@b?…"),
            ("/etc/a@b", "/etc/a@b"),
            ("ftp://me:secret@host/x", "ftp://host/x"),
        ] {
            assert_eq!(shown(uri), text, "{uri}");
        }
        assert_eq!(shown(&"x".repeat(300)).chars().count(), MAX_SHOWN + 1);
    }
}
