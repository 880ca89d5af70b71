//! What is a host's name: `name[:port]`, `address[:port]`, `[v6][:port]`, each in one form only.
//! Decides syntax; looks nothing up.

/// Longest name of a host, in bytes.
const MAX_HOST_BYTES: usize = 255;

/// Whether `host` is a name or address with or without a port, each in its usual form.
#[must_use]
pub fn is_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    };
    let port_fits = port.is_none_or(|port| {
        port.bytes().all(|byte| byte.is_ascii_digit())
            && port.parse::<u16>().is_ok_and(|port| port != 0)
    });
    let name_fits = match name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
    {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        // What ends in a number is an address to every URL parser, in forms such as 0x7f.1 too;
        // only the usual one is taken, so that an address has one name.
        None if ends_in_number(name) => name.parse::<std::net::Ipv4Addr>().is_ok(),
        None => name.len() <= MAX_HOST_BYTES && name.split('.').all(is_host_label),
    };
    port_fits && name_fits
}

fn ends_in_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    let is_hex = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    (!last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit())) || hex.is_some_and(is_hex)
}

fn is_host_label(label: &str) -> bool {
    !label.is_empty()
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}
