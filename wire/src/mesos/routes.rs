//! Which endpoint a path means, by libprocess's rules: the first segment may name the daemon
//! (`/master/state` is `/state`, `/slave(1)/state` too, with its parentheses escaped or not), and a
//! path without an endpoint is shortened segment by segment until one fits (`/api/v1/operator` is
//! `/api/v1`). Slashes at the end and doubled ones mean nothing.
//!
//! What the endpoint does with the segments that were cut off, it decides itself: `/redirect/x` is
//! no redirect.

/// Longest path that is looked at, in bytes.
const PATH_MAX_BYTES: usize = 4096;

/// Whose endpoints are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Daemon {
    /// The coordinator: `master`.
    Master,
    /// An agent: `slave(1)`.
    Agent,
}

impl Daemon {
    /// The first segment that means this daemon itself.
    #[must_use]
    pub fn segment(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::Agent => "slave(1)",
        }
    }
}

/// An endpoint, and what followed it in the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route<'e> {
    /// One of the endpoints that were offered.
    pub endpoint: &'e str,
    /// The segments behind it, unescaped, each with a slash before it.
    pub rest: String,
}

/// The endpoint of a path without its query. `endpoints` are written like `/api/v1/scheduler`,
/// without the daemon's segment. `None` is the answer 404.
#[must_use]
pub fn resolve<'e>(daemon: Daemon, path: &str, endpoints: &[&'e str]) -> Option<Route<'e>> {
    if path.len() > PATH_MAX_BYTES {
        return None;
    }
    let segments = path.split('/').filter(|segment| !segment.is_empty());
    let mut segments: Vec<String> = segments.map(unescape).collect::<Option<_>>()?;
    let own = segments.first().is_some_and(|s| s == daemon.segment());
    if own {
        segments.remove(0);
    }
    (1..=segments.len()).rev().find_map(|count| {
        let (front, back) = segments.split_at(count);
        let endpoint = endpoints.iter().find(|endpoint| {
            let names = endpoint.split('/').filter(|segment| !segment.is_empty());
            names.eq(front.iter().map(String::as_str))
        })?;
        let rest = back.iter().map(|segment| format!("/{segment}")).collect();
        Some(Route { endpoint, rest })
    })
}

/// Resolves `%28`; `None` for what is no escape or no UTF-8.
fn unescape(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut left = segment.as_bytes().iter();
    while let Some(&byte) = left.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(*left.next()?).to_digit(16);
                let (high, low) = (digit()?, digit()?);
                u8::try_from(high << 4 | low).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASTER: [&str; 7] = [
        "/api/v1",
        "/api/v1/scheduler",
        "/frameworks",
        "/state",
        "/redirect",
        "/files/read",
        "/metrics/snapshot",
    ];
    const AGENT: [&str; 4] = ["/api/v1", "/api/v1/executor", "/state", "/files/browse"];

    #[test]
    fn aliases_and_prefixes() {
        for (daemon, path, want) in [
            (
                Daemon::Master,
                "/api/v1/scheduler",
                Some(("/api/v1/scheduler", "")),
            ),
            (
                Daemon::Master,
                "/master/api/v1/scheduler",
                Some(("/api/v1/scheduler", "")),
            ),
            (
                Daemon::Master,
                "/api/v1/scheduler/",
                Some(("/api/v1/scheduler", "")),
            ),
            (
                Daemon::Master,
                "/api/v1/operator",
                Some(("/api/v1", "/operator")),
            ),
            (
                Daemon::Master,
                "/master/frameworks//",
                Some(("/frameworks", "")),
            ),
            (Daemon::Master, "//state", Some(("/state", ""))),
            (Daemon::Master, "/redirect/x", Some(("/redirect", "/x"))),
            (
                Daemon::Master,
                "/files/read/a%20b",
                Some(("/files/read", "/a b")),
            ),
            (Daemon::Master, "/files", None),
            (Daemon::Master, "/api", None),
            (Daemon::Master, "/api/v2", None),
            (Daemon::Master, "/apiv1", None),
            (Daemon::Master, "/slave(1)/state", None),
            (Daemon::Master, "/master/master/state", None),
            (Daemon::Master, "/master", None),
            (Daemon::Master, "/", None),
            (Daemon::Master, "", None),
            (Daemon::Master, "/state/%zz", None),
            (Daemon::Master, "/state/%2", None),
            (Daemon::Master, "/state/%ff", None),
            (
                Daemon::Agent,
                "/slave(1)/api/v1/executor",
                Some(("/api/v1/executor", "")),
            ),
            (
                Daemon::Agent,
                "/slave%281%29/api/v1/executor",
                Some(("/api/v1/executor", "")),
            ),
            (Daemon::Agent, "/slave%281%29/state", Some(("/state", ""))),
            (Daemon::Agent, "/state/", Some(("/state", ""))),
            (Daemon::Agent, "/slave(2)/state", None),
            (Daemon::Agent, "/files/browse", Some(("/files/browse", ""))),
        ] {
            let endpoints: &[&str] = match daemon {
                Daemon::Master => &MASTER,
                Daemon::Agent => &AGENT,
            };
            let found = resolve(daemon, path, endpoints);
            let found = found.as_ref().map(|r| (r.endpoint, r.rest.as_str()));
            assert_eq!(found, want, "{path}");
        }
        let long = format!("/state/{}", "a".repeat(PATH_MAX_BYTES));
        assert_eq!(resolve(Daemon::Master, &long, &MASTER), None);
    }
}
