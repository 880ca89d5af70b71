//! Reading `WWW-Authenticate` (RFC 9110 §11.6.1): which logins a server would take.
//!
//! One header may hold several challenges and a comma stands both between challenges and between
//! their parameters; a word followed by `=` is a parameter, any other word begins a challenge. What
//! cannot be read ends the reading; a parameter given twice makes its challenge unknown, as two
//! readers could disagree about it.

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// Longest header that is read, in bytes.
const MAX_HEADER_BYTES: usize = 8 * 1024;
/// Most challenges and most parameters of one that are looked at.
const MAX_CHALLENGES: usize = 16;
const MAX_PARAMETERS: usize = 32;

/// One way to log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// A token from `realm`.
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
    /// A user and a password.
    Basic,
    /// Something that this client does not know, or that makes no sense.
    Unknown,
}

/// All challenges of an answer, in its order.
pub(crate) fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    let values = headers.get_all(WWW_AUTHENTICATE).iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    texts.flat_map(parse).take(MAX_CHALLENGES).collect()
}

/// The challenges of one header.
pub(crate) fn parse(header: &str) -> Vec<Challenge> {
    let mut found = Vec::new();
    let mut rest = header;
    if header.len() > MAX_HEADER_BYTES {
        return found;
    }
    while found.len() < MAX_CHALLENGES {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (scheme, after) = word(rest);
        if scheme.is_empty() {
            break;
        }
        let (parameters, after) = parameters(after);
        found.push(Challenge::new(scheme, parameters));
        rest = after;
    }
    found
}

impl Challenge {
    fn new(scheme: &str, parameters: Option<Vec<(String, String)>>) -> Self {
        let Some(parameters) = parameters else {
            return Self::Unknown;
        };
        if scheme.eq_ignore_ascii_case("basic") {
            return Self::Basic;
        }
        let (mut realm, mut service, mut scope) = (None, None, None);
        for (name, value) in parameters {
            let slot = match name.as_str() {
                "realm" => &mut realm,
                "service" => &mut service,
                "scope" => &mut scope,
                _ => continue,
            };
            if slot.replace(value).is_some() {
                return Self::Unknown;
            }
        }
        match realm {
            Some(realm) if scheme.eq_ignore_ascii_case("bearer") => Self::Bearer {
                realm,
                service,
                scope,
            },
            _ => Self::Unknown,
        }
    }
}

/// The parameters after a scheme and what follows them; `None` if they cannot be read.
fn parameters(mut text: &str) -> (Option<Vec<(String, String)>>, &str) {
    let mut found = Vec::new();
    loop {
        let start = text.trim_start_matches([' ', '\t', ',']);
        let (name, after) = word(start);
        let Some(value) = after.trim_start().strip_prefix('=') else {
            return (Some(found), text);
        };
        let value = value.trim_start();
        let read = match value.strip_prefix('"') {
            Some(quoted) => quoted_string(quoted),
            None => {
                // Tokens, and the URLs that some servers write without quotes.
                let end = value.find([',', ' ', '\t']).unwrap_or(value.len());
                Some((value[..end].to_owned(), &value[end..]))
            }
        };
        match read {
            Some((value, after)) if !name.is_empty() && found.len() < MAX_PARAMETERS => {
                found.push((name.to_ascii_lowercase(), value));
                text = after;
            }
            _ => return (None, ""),
        }
    }
}

/// The text up to the closing quote, unescaped, and what follows it.
fn quoted_string(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

/// A token of RFC 9110 (with the `/` of token68) at the start, and what follows it.
fn word(text: &str) -> (&str, &str) {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~/:".contains(c);
    let end = text.find(|c| !is_word(c)).unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.into(),
            service: service.map(Into::into),
            scope: scope.map(Into::into),
        }
    }

    #[test]
    fn one_challenge() {
        for (header, challenge) in [
            (
                r#"Bearer realm="https://a/token",service="r",scope="repository:a/b:pull,push""#,
                bearer(
                    "https://a/token",
                    Some("r"),
                    Some("repository:a/b:pull,push"),
                ),
            ),
            (
                "bearer REALM=https://a , x=y",
                bearer("https://a", None, None),
            ),
            (r#"Bearer realm="a\"b""#, bearer("a\"b", None, None)),
            (r#"Bearer  realm = "a" "#, bearer("a", None, None)),
            (r#", , Bearer realm="a", ,"#, bearer("a", None, None)),
            (
                r#"Bearer error="x, Basic y", realm="a""#,
                bearer("a", None, None),
            ),
            (r#"Basic realm="x""#, Challenge::Basic),
            ("Basic", Challenge::Basic),
            ("Negotiate", Challenge::Unknown),
            ("Bearer", Challenge::Unknown),
            (r#"Bearer realm="open"#, Challenge::Unknown),
            (r#"Bearer realm="open\"#, Challenge::Unknown),
            (r#"Bearer service="é""#, Challenge::Unknown),
            (r#"Bearer realm="a",realm="b""#, Challenge::Unknown),
            (r#"Bearer ="a""#, Challenge::Unknown),
        ] {
            assert_eq!(parse(header), [challenge], "{header}");
        }
        for header in ["", " , ", "é=é", "\"", "=a"] {
            assert_eq!(parse(header), [], "{header}");
        }
        assert_eq!(parse(&format!("Bearer realm=\"{}\"", "a".repeat(9000))), []);
    }

    #[test]
    fn several_challenges() {
        let a = || bearer("https://a", Some("s"), None);
        for (header, challenges) in [
            (
                r#"Basic realm="x", Bearer realm="https://a",service="s""#,
                vec![Challenge::Basic, a()],
            ),
            (
                r#"Bearer service="s",realm="https://a" , Basic"#,
                vec![a(), Challenge::Basic],
            ),
            (
                r#"Negotiate YII==, Basic realm="x""#,
                vec![Challenge::Unknown, Challenge::Basic],
            ),
            (
                r#"Digest realm="d", nonce="n", Bearer realm=https://a, service=s"#,
                vec![Challenge::Unknown, a()],
            ),
        ] {
            let found = parse(header);
            assert_eq!(found, challenges, "{header}");
        }
        assert_eq!(parse(&"Basic,".repeat(100)).len(), MAX_CHALLENGES);
        let many: String = (0..100).map(|n| format!("p{n}=v,")).collect();
        assert_eq!(
            parse(&format!("Bearer {many}realm=a")),
            [Challenge::Unknown]
        );
    }
}
