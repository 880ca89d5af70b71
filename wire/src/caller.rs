//! Whether a request was meant for this node and came from no other site's page, told from its
//! headers alone; the same for every listener.
//!
//! A browser is the danger on loopback: a page elsewhere may resolve its own name to 127.0.0.1 and
//! read our answers (DNS rebinding: its `Host` is not ours), or send a form at us (`Origin` and
//! `Sec-Fetch-Site` tell). Who the caller is, it does not ask. Invariants: pure; anything that
//! cannot be read is refused.

use std::net::{IpAddr, Ipv6Addr};

/// One header of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header<'a> {
    /// It is not there.
    Absent,
    /// It is there once, as text.
    Text(&'a str),
    /// It repeats, or is not text.
    Unreadable,
}

impl<'a> Header<'a> {
    /// From all its values, `None` for one that is not text.
    pub fn of(mut values: impl Iterator<Item = Option<&'a str>>) -> Self {
        match (values.next(), values.next()) {
            (None, _) => Self::Absent,
            (Some(Some(text)), None) => Self::Text(text),
            _ => Self::Unreadable,
        }
    }
}

/// What a request says of its way here.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// Whether its method changes nothing (GET, HEAD, OPTIONS).
    pub reads: bool,
    /// The authority of its target, if it was absolute or came by HTTP/2.
    pub target: Option<&'a str>,
    /// `Host`.
    pub host: Header<'a>,
    /// `Sec-Fetch-Site`.
    pub site: Header<'a>,
    /// `Origin`.
    pub origin: Header<'a>,
}

/// Why a request is refused. The text is for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It names no host.
    #[error("A Host header is needed")]
    NoHost,
    /// It names several.
    #[error("One Host header is needed")]
    ManyHosts,
    /// It was sent to another name.
    #[error("This node does not answer to the name '{0}'")]
    NotOurs(String),
    /// It was sent by another site's page.
    #[error("Requests from pages of other sites are refused")]
    ForeignPage,
}

impl Refusal {
    /// The HTTP status that says so.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::NoHost | Self::ManyHosts => 400,
            Self::NotOurs(_) | Self::ForeignPage => 403,
        }
    }
}

impl Caller<'_> {
    /// Why the request is refused, if it is. `names` are hosts (no port) under which this node may
    /// be addressed beside loopback.
    #[must_use]
    pub fn refusal(&self, names: &[String]) -> Option<Refusal> {
        let host = match (self.host, self.target) {
            (Header::Text(host), _) => host,
            (Header::Absent, Some(target)) => target,
            (Header::Absent, None) => return Some(Refusal::NoHost),
            (Header::Unreadable, _) => return Some(Refusal::ManyHosts),
        };
        for name in [Some(host), self.target].into_iter().flatten() {
            if !is_ours(name, names) {
                return Some(Refusal::NotOurs(name.to_owned()));
            }
        }
        (!self.reads && self.is_foreign(host)).then_some(Refusal::ForeignPage)
    }

    /// Whether a browser says that another site's page sent this.
    fn is_foreign(&self, host: &str) -> bool {
        let own_site = matches!(
            self.site,
            Header::Absent | Header::Text("same-origin" | "none")
        );
        let own_origin = match self.origin {
            Header::Absent => true,
            Header::Unreadable => false,
            Header::Text(origin) => {
                let at = origin.strip_prefix("http://");
                let at = at.or_else(|| origin.strip_prefix("https://"));
                at.is_some_and(|at| at.eq_ignore_ascii_case(host))
            }
        };
        !(own_site && own_origin)
    }
}

fn is_ours(authority: &str, names: &[String]) -> bool {
    let Some(host) = host_of(authority) else {
        return false;
    };
    if let Ok(ip) = host.parse::<IpAddr>()
        && ip.to_canonical().is_loopback()
    {
        return true;
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    let local =
        host.eq_ignore_ascii_case("localhost") || host.to_ascii_lowercase().ends_with(".localhost");
    local || names.iter().any(|name| name.eq_ignore_ascii_case(host))
}

/// The host of `host` or `host:port`, an IPv6 address in brackets; nothing else may be in there.
fn host_of(authority: &str) -> Option<&str> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        host.parse::<Ipv6Addr>().ok()?;
        (host, port)
    } else {
        let end = authority.find(':').unwrap_or(authority.len());
        let (host, port) = authority.split_at(end);
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        (!host.is_empty() && host.bytes().all(plain)).then_some((host, port))?
    };
    let is_port =
        |digits: &str| digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<u16>().is_ok();
    match port.strip_prefix(':') {
        None => port.is_empty().then_some(host),
        Some(digits) => is_port(digits).then_some(host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: Caller<'static> = Caller {
        reads: true,
        target: None,
        host: Header::Absent,
        site: Header::Absent,
        origin: Header::Absent,
    };

    fn names() -> Vec<String> {
        vec!["node1.example".to_owned(), "10.0.0.7".to_owned()]
    }

    #[test]
    fn only_names_of_this_node_are_answered() {
        for good in [
            "localhost",
            "LOCALHOST:5051",
            "localhost.:5050",
            "gantry.localhost:5050",
            "127.0.0.1:1",
            "127.9.9.9",
            "[::1]:5051",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "Node1.Example:80",
            "10.0.0.7:5050",
        ] {
            assert!(is_ours(good, &names()), "{good}");
        }
        for bad in [
            "",
            ".",
            ":80",
            "a b",
            "0.0.0.0:5050",
            "10.0.0.8:5050",
            "evil.example",
            "evillocalhost",
            "localhost.evil",
            "127.0.0.1.evil",
            "[::2]",
            "127.0.0.1:1@evil",
            "evil@127.0.0.1",
            "127.0.0.1:",
            "127.0.0.1:+1",
            "127.0.0.1:65536",
            "127.0.0.1:1:2",
            "localhost/",
            "localhost ",
            "[::1]evil",
            "[::1",
            "[127.0.0.1]",
            "::1",
            "[node1.example]",
        ] {
            assert!(!is_ours(bad, &names()), "{bad}");
        }
    }

    #[test]
    fn every_name_that_a_request_carries_must_be_ours() {
        let (ours, other) = (Header::Text("localhost:5050"), Header::Text("evil.example"));
        for (target, host, want) in [
            (None, Header::Absent, Some(400)),
            (None, Header::Unreadable, Some(400)),
            (None, ours, None),
            (None, other, Some(403)),
            (Some("127.0.0.1:5050"), ours, None),
            (Some("127.0.0.1:5050"), Header::Absent, None),
            (Some("127.0.0.1:5050"), other, Some(403)),
            (Some("evil.example"), ours, Some(403)),
            (Some("evil.example"), Header::Absent, Some(403)),
        ] {
            let caller = Caller {
                target,
                host,
                ..READ
            };
            let got = caller.refusal(&names()).map(|refusal| refusal.status());
            assert_eq!(got, want, "{caller:?}");
        }
    }

    #[test]
    fn pages_of_other_sites_change_nothing() {
        let (absent, bad) = (Header::Absent, Header::Unreadable);
        for (site, origin, may) in [
            (absent, absent, true),
            (absent, Header::Text("http://localhost:5050"), true),
            (absent, Header::Text("https://LOCALHOST:5050"), true),
            (absent, Header::Text("HTTP://localhost:5050"), false),
            (absent, Header::Text("http://localhost:3000"), false),
            (absent, Header::Text("http://evil.example"), false),
            (absent, Header::Text("null"), false),
            (absent, Header::Text(""), false),
            (absent, bad, false),
            (Header::Text("same-origin"), absent, true),
            (Header::Text("none"), absent, true),
            (Header::Text("same-site"), absent, false),
            (Header::Text("cross-site"), absent, false),
            (bad, absent, false),
        ] {
            let host = Header::Text("localhost:5050");
            for (reads, want) in [(true, true), (false, may)] {
                let caller = Caller {
                    reads,
                    target: None,
                    host,
                    site,
                    origin,
                };
                assert_eq!(caller.refusal(&[]).is_none(), want, "{caller:?}");
            }
        }
    }
}
