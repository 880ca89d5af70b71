//! What went wrong on the way to a server, in words for the person who named it.

use std::error::Error;
use std::fmt;
use std::io;

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
    /// The certificates that the node has for this host cannot be used.
    Certificates(String),
    /// Plain HTTP is asked for where it is not allowed.
    Plain,
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
                "could not be reached over TLS ({detail}); a registry with its own certificate authority needs that authority's ca.crt in the node's directory of certificates, and one that speaks plain HTTP must be listed as insecure"
            ),
            Self::Certificates(detail) => write!(
                f,
                "could not be reached: the node's certificates for it cannot be used ({detail})"
            ),
            Self::Plain => write!(
                f,
                "is not spoken to over plain HTTP, as it is not listed as insecure"
            ),
            Self::Redirect(detail) => write!(f, "points to a place that {detail}"),
            Self::Broken(detail) => write!(f, "broke off or did not speak HTTP ({detail})"),
        }
    }
}

/// Names the cause of a failed request; the address is left out, as the caller knows the host.
pub fn cause(error: &reqwest::Error) -> Cause {
    let text = chain(error);
    let io = io_kind(error);
    if io == Some(io::ErrorKind::ConnectionRefused) {
        Cause::Refused
    } else if error.is_timeout() || io == Some(io::ErrorKind::TimedOut) {
        Cause::TimedOut
    } else if text.contains("dns error") || text.contains("failed to lookup address") {
        Cause::UnknownHost
    } else if error.is_connect() && (io == Some(io::ErrorKind::InvalidData) || is_tls(&text)) {
        Cause::Tls(text)
    } else {
        Cause::Broken(text)
    }
}

/// rustls's own errors, which come wrapped in ones that say nothing.
fn is_tls(text: &str) -> bool {
    ["certificate", "fatal alert", "handshake"]
        .iter()
        .any(|word| text.contains(word))
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
pub fn chain(error: &dyn Error) -> String {
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
