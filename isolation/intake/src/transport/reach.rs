//! Which servers may be spoken to, and how: what the operator listed, and where a server's own
//! words (a redirect, the address of a token service) may lead.
//!
//! It decides, for registries: plain HTTP only to loopback and to listed hosts; from TLS to plain
//! HTTP only if the operator listed the target itself; never to link-local addresses, where clouds
//! keep the credentials of machines, nor from another machine to this one, unless listed. For
//! servers of files, which the author of a task names and not the operator: never to this machine,
//! by whatever name, nor to such addresses, unless listed. It opens nothing.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Which hosts may be spoken to.
#[derive(Debug, Clone, Default)]
pub struct Reach {
    listed: Arc<[String]>,
    /// Whoever names a server is no operator: it may be any but this machine, over plain HTTP too.
    files: bool,
}

impl Reach {
    /// Registries: the hosts that may be spoken to over plain HTTP, besides loopback.
    #[must_use]
    pub fn new(insecure: impl IntoIterator<Item = String>) -> Self {
        Self {
            listed: insecure.into_iter().collect(),
            files: false,
        }
    }

    /// Servers of files, named by the authors of tasks: every host but this machine and special
    /// addresses, and of those the listed ones.
    #[must_use]
    pub fn files(listed: impl IntoIterator<Item = String>) -> Self {
        Self {
            listed: listed.into_iter().collect(),
            files: true,
        }
    }

    /// Whether the author of a task may have `url` fetched; what is wrong if not.
    ///
    /// # Errors
    /// Half a sentence about the place that the URL leads to.
    pub fn permits(&self, url: &Url) -> Result<(), &'static str> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err("is neither http nor https");
        }
        let host = authority(url);
        if self.lists(&host) {
            return Ok(());
        }
        if is_this_machine(host_name(&host)) {
            return Err("is this machine itself");
        }
        if is_local_only(host_name(&host)) {
            return Err("is a link-local or otherwise special address");
        }
        Ok(())
    }

    /// Whether an address that a name was found to have may be spoken to.
    fn permits_address(&self, name: &str, address: IpAddr) -> bool {
        let listed = self.listed.iter().map(|item| host_name(item));
        listed
            .into_iter()
            .any(|item| item.eq_ignore_ascii_case(name))
            || !(address.to_canonical().is_loopback() || is_special(address))
    }

    /// `host` is `name[:port]`; the list may name it with or without the port.
    fn lists(&self, host: &str) -> bool {
        let name = host_name(host);
        let listed =
            |item: &String| item.eq_ignore_ascii_case(host) || item.eq_ignore_ascii_case(name);
        self.listed.iter().any(listed)
    }

    /// Whether plain HTTP to `host` is allowed when it is named by a user or the operator.
    pub fn allows_plain(&self, host: &str) -> bool {
        self.files || is_loopback(host_name(host)) || self.lists(host)
    }

    /// The scheme for a registry about which nothing else is known.
    pub fn scheme(&self, host: &str) -> &'static str {
        if self.allows_plain(host) && !host.ends_with(":443") {
            "http"
        } else {
            "https"
        }
    }

    /// Whether the server at `from` may send us to `to`; what is wrong if not.
    pub fn check(&self, from: &Url, to: &Url) -> Result<(), &'static str> {
        let (source, target) = (authority(from), authority(to));
        if !to.username().is_empty() || to.password().is_some() {
            return Err("carries a user or password");
        }
        if self.files {
            if (from.scheme(), to.scheme()) == ("https", "http") {
                return Err("leads from TLS to plain HTTP");
            }
            return self.permits(to);
        }
        if !matches!(to.scheme(), "http" | "https") {
            return Err("is neither to TLS nor to a host listed as insecure");
        }
        if self.lists(&target) {
            return Ok(());
        }
        let is_here = is_this_machine(host_name(&target));
        if is_here && !is_this_machine(host_name(&source)) {
            return Err("is this machine itself");
        }
        if is_local_only(host_name(&target)) {
            return Err("is a link-local or otherwise special address");
        }
        match (from.scheme(), to.scheme()) {
            (_, "https") => Ok(()),
            ("https", _) => Err("leads from TLS to plain HTTP"),
            _ if is_loopback(host_name(&target)) => Ok(()),
            _ => Err("is neither to TLS nor to a host listed as insecure"),
        }
    }
}

fn host_name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    }
}

fn address(name: &str) -> Option<IpAddr> {
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>()
        .ok()
        .map(|address| address.to_canonical())
}

/// The names and addresses of this machine for sure: plain HTTP to them does not leave it.
fn is_loopback(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost")
        || address(name).is_some_and(|address| address.is_loopback())
}

/// The same and every name that may well mean it.
fn is_this_machine(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    is_loopback(name) || name.to_ascii_lowercase().ends_with(".localhost")
}

fn is_local_only(name: &str) -> bool {
    address(name).is_some_and(is_special)
}

/// Addresses that no registry has and that services on or beside a machine do.
fn is_special(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_broadcast()
                || v4.is_multicast()
                || v4 == Ipv4Addr::new(100, 100, 100, 200)
        }
        IpAddr::V6(v6) => {
            v6.is_unicast_link_local()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6.segments()[..4] == [0xfd00, 0xec2, 0, 0]
        }
    }
}

/// Name lookup that leaves out addresses that may not be spoken to: a name may lead there as well.
#[derive(Debug, Clone)]
pub(super) enum Lookup {
    /// For TLS servers of images: special addresses are left out.
    Registries,
    /// What it does not permit is left out.
    Files(Reach),
}

impl Lookup {
    fn permits(&self, name: &str, address: IpAddr) -> bool {
        match self {
            Self::Registries => !is_special(address),
            Self::Files(reach) => reach.permits_address(name, address),
        }
    }
}

impl Resolve for Lookup {
    fn resolve(&self, name: Name) -> Resolving {
        let lookup = self.clone();
        Box::pin(async move {
            // The port is set by the client.
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let fit = found.filter(|address| lookup.permits(name.as_str(), address.ip()));
            let fit: Vec<_> = fit.collect();
            if fit.is_empty() {
                return Err(ONLY_SPECIAL.into());
            }
            Ok(Box::new(fit.into_iter()) as Addrs)
        })
    }
}

/// What is said of a name without an address that may be spoken to.
const ONLY_SPECIAL: &str = "it has only loopback, link-local or otherwise special addresses";

/// `host[:port]` of a URL, the port only if it is not the scheme's own.
pub fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach() -> Reach {
        Reach::new(["reg.lan:5000".to_owned(), "old.lan".to_owned()])
    }

    #[test]
    fn plain_http_is_for_loopback_and_listed_hosts() {
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
            ("registry.org", "https"),
        ] {
            assert_eq!(reach().scheme(host), scheme, "{host}");
        }
    }

    #[test]
    fn what_the_author_of_a_task_may_have_fetched() {
        let reach = Reach::files(["127.0.0.1:8000".to_owned(), "build.lan".to_owned()]);
        for (url, fits) in [
            ("http://example.org/a", true),
            ("https://10.0.0.1/a", true),
            ("http://127.0.0.1:8000/a", true),
            ("http://127.0.0.1:5050/a", false),
            ("http://localhost:8000/a", false),
            ("http://localhost./a", false),
            ("http://a.localhost/a", false),
            ("http://127.1/a", false),
            ("http://2130706433/a", false),
            ("http://0x7f.1:5051/a", false),
            ("http://[::1]/a", false),
            ("http://[::ffff:127.0.0.1]/a", false),
            ("http://0.0.0.0:5051/a", false),
            ("http://169.254.169.254/latest", false),
            ("http://[fd00:ec2::254]/latest", false),
            ("file:///etc/passwd", false),
            ("ftp://example.org/a", false),
        ] {
            assert_eq!(
                reach.permits(&Url::parse(url).unwrap()).is_ok(),
                fits,
                "{url}"
            );
        }
        for (from, to, fits) in [
            ("http://a.org", "http://b.org", true),
            ("http://a.org", "https://b.org", true),
            ("https://a.org", "http://b.org", false),
            ("http://a.org", "http://127.0.0.1:5050", false),
            ("http://a.org", "http://127.0.0.1:8000", true),
            ("http://a.org", "http://u:p@b.org", false),
            ("http://a.org", "file:///etc/passwd", false),
        ] {
            let (from, to) = (Url::parse(from).unwrap(), Url::parse(to).unwrap());
            assert_eq!(reach.check(&from, &to).is_ok(), fits, "{from} {to}");
        }
        for (name, address, fits) in [
            ("evil.org", "127.0.0.1", false),
            ("evil.org", "::ffff:127.0.0.1", false),
            ("evil.org", "169.254.169.254", false),
            ("evil.org", "192.0.2.1", true),
            ("BUILD.lan", "127.0.0.1", true),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(
                reach.permits_address(name, address),
                fits,
                "{name} {address}"
            );
        }
    }

    #[test]
    fn where_a_server_may_send_us() {
        for (from, to, fits) in [
            ("https://a.org", "https://b.org", true),
            ("https://a.org", "https://b.org:8443/x?y", true),
            ("https://a.org", "http://a.org", false),
            ("https://a.org", "http://reg.lan:5000", true),
            ("https://a.org", "http://reg.lan:5001", false),
            ("https://a.org", "http://127.0.0.1", false),
            ("https://a.org", "https://127.0.0.1", false),
            ("https://a.org", "https://localhost:9000", false),
            ("https://a.org", "https://a.localhost", false),
            ("https://a.org", "https://localhost.", false),
            ("https://a.org", "https://[::1]", false),
            ("https://a.org", "https://[::ffff:127.0.0.1]", false),
            ("https://a.org", "https://2130706433", false),
            ("https://a.org", "https://169.254.169.254/latest", false),
            ("https://a.org", "https://0xa9fea9fe/latest", false),
            ("https://a.org", "https://[fe80::1]", false),
            ("https://a.org", "https://[::ffff:a9fe:a9fe]", false),
            ("https://a.org", "https://[fd00:ec2::254]", false),
            ("https://a.org", "https://100.100.100.200", false),
            ("https://a.org", "https://0.0.0.0", false),
            ("https://a.org", "https://u:p@b.org", false),
            ("https://a.org", "https://u@b.org", false),
            ("https://a.org", "ftp://b.org", false),
            ("https://a.org", "file:///etc/passwd", false),
            ("http://reg.lan:5000", "http://old.lan", true),
            ("http://reg.lan:5000", "http://new.lan", false),
            ("http://reg.lan:5000", "http://127.0.0.1:1", false),
            ("http://reg.lan:5000", "http://169.254.169.254", false),
            ("http://reg.lan:5000", "https://b.org", true),
            ("http://127.0.0.1:5000", "http://127.0.0.1:6000", true),
            ("http://127.0.0.1:5000", "http://b.org", false),
            ("http://127.0.0.1:5000", "http://169.254.169.254", false),
            ("https://127.0.0.1:5000", "http://127.0.0.1:6000", false),
            ("https://127.0.0.1:5000", "https://127.0.0.1:6000", true),
        ] {
            let (from, to) = (Url::parse(from).unwrap(), Url::parse(to).unwrap());
            assert_eq!(reach().check(&from, &to).is_ok(), fits, "{from} {to}");
        }
    }
}
