//! Registry authentication: reading a challenge, asking a token endpoint, holding the token.
//!
//! It decides what a `WWW-Authenticate` header asks for and which token answer is believed. It
//! sends no credentials, as none are kept yet: a registry that wants a user is told apart here, so
//! that the message can say so.

use serde::Deserialize;

/// Longest challenge that is read, in bytes.
const MAX_CHALLENGE_BYTES: usize = 8 * 1024;
/// Longest token that is sent back, in bytes; servers stop reading headers near that.
const MAX_TOKEN_BYTES: usize = 64 * 1024;

/// What the registry asks for.
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

impl Challenge {
    /// Reads one `WWW-Authenticate` value (RFC 9110 §11.6.1); the first known scheme counts.
    pub(crate) fn parse(header: &str) -> Self {
        if header.len() > MAX_CHALLENGE_BYTES {
            return Self::Unknown;
        }
        let header = header.trim_start();
        let (scheme, mut rest) = header.split_once(' ').unwrap_or((header, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Self::Basic;
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Self::Unknown;
        }
        let (mut realm, mut service, mut scope) = (None, None, None);
        while let Some((name, value, after)) = parameter(rest) {
            match name.to_ascii_lowercase().as_str() {
                "realm" => realm = Some(value),
                "service" => service = Some(value),
                "scope" => scope = Some(value),
                _ => {}
            }
            rest = after;
        }
        realm.map_or(Self::Unknown, |realm| Self::Bearer {
            realm,
            service,
            scope,
        })
    }
}

/// One `name=value` or `name="value"` and what follows it.
fn parameter(text: &str) -> Option<(&str, String, &str)> {
    let text = text.trim_start_matches([' ', '\t', ',']);
    let (name, rest) = text.split_once('=')?;
    let name = name.trim();
    let rest = rest.trim_start();
    let Some(quoted) = rest.strip_prefix('"') else {
        let end = rest.find([',', ' ']).unwrap_or(rest.len());
        return Some((name, rest[..end].to_owned(), &rest[end..]));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((name, value, &quoted[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

/// The token in a token endpoint's answer, if it has one that can be sent in a header.
pub(crate) fn token(body: &[u8]) -> Option<String> {
    let answer: TokenAnswer = serde_json::from_slice(body).ok()?;
    answer.token.or(answer.access_token).filter(|token| {
        let sendable = |byte: u8| byte.is_ascii_graphic();
        (1..=MAX_TOKEN_BYTES).contains(&token.len()) && token.bytes().all(sendable)
    })
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
    fn challenges() {
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
            (r#"Basic realm="x""#, Challenge::Basic),
            ("Basic", Challenge::Basic),
            ("Negotiate abc", Challenge::Unknown),
            ("Bearer", Challenge::Unknown),
            ("Bearer realm", Challenge::Unknown),
            (r#"Bearer realm="open"#, Challenge::Unknown),
            (r#"Bearer realm="open\"#, Challenge::Unknown),
            (r#"Bearer service="é""#, Challenge::Unknown),
            ("", Challenge::Unknown),
            ("é=é", Challenge::Unknown),
        ] {
            assert_eq!(Challenge::parse(header), challenge, "{header}");
        }
        let long = format!("Bearer realm=\"{}\"", "a".repeat(MAX_CHALLENGE_BYTES));
        assert_eq!(Challenge::parse(&long), Challenge::Unknown);
    }

    #[test]
    fn tokens() {
        for (body, expected) in [
            (r#"{"token":"abc"}"#, Some("abc")),
            (r#"{"access_token":"abc","expires_in":60}"#, Some("abc")),
            (r#"{"token":"a","access_token":"b"}"#, Some("a")),
            (r#"{"token":""}"#, None),
            (r#"{"token":"a\r\nX-Evil: 1"}"#, None),
            (r#"{"token":7}"#, None),
            ("{}", None),
            ("<html>", None),
        ] {
            assert_eq!(token(body.as_bytes()).as_deref(), expected, "{body}");
        }
    }
}
