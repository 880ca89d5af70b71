//! Access tokens: reading a token service's answer, and keeping a token until it runs out.
//!
//! A kept token belongs to the service that gave it, to the scope that was asked for, and to the
//! login that bought it: nobody gets a token that another task's credentials paid for. It does not
//! look into tokens. Time is an argument.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::HeaderValue;
use serde::Deserialize;

use super::credentials::Login;
use super::secret::Secret;
use crate::Digest;

/// Longest answer that is read, in bytes.
pub(crate) const MAX_ANSWER_BYTES: u64 = 1 << 20;
/// Longest token that is sent back, in bytes; servers stop reading headers near that.
const MAX_TOKEN_BYTES: usize = 64 * 1024;
/// Most tokens that are kept.
const MAX_KEPT: usize = 256;
/// What an answer without `expires_in` means, by the distribution specification.
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// No token is believed to live longer.
const MAX_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// A token is not used in its last moments: the request still has to arrive.
const MARGIN: Duration = Duration::from_secs(10);

/// A token and how long it can be used.
#[derive(Debug)]
pub(crate) struct Token {
    /// The whole `Authorization` value.
    pub(crate) header: HeaderValue,
    life: Duration,
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Token {
    /// The token in a token service's answer, if it has one that can be sent in a header.
    pub(crate) fn read(body: &[u8]) -> Option<Self> {
        let answer: Answer = serde_json::from_slice(body).ok()?;
        let token = answer.token.filter(|token| !token.is_empty());
        let life = answer.expires_in.map_or(DEFAULT_LIFE, Duration::from_secs);
        Some(Self {
            header: bearer(&Secret::new(token.or(answer.access_token)?))?,
            life: life.min(MAX_LIFE),
        })
    }
}

/// The header that shows a token.
pub(crate) fn bearer(token: &Secret) -> Option<HeaderValue> {
    let token = token.expose();
    let sendable = |byte: u8| byte.is_ascii_graphic();
    if !(1..=MAX_TOKEN_BYTES).contains(&token.len()) || !token.bytes().all(sendable) {
        return None;
    }
    let mut header = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// What a token is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Purpose {
    realm: String,
    service: Option<String>,
    scope: String,
    /// Of the login; the secret itself is not kept here.
    login: Digest,
}

impl Purpose {
    pub(crate) fn new(
        realm: &str,
        service: Option<&str>,
        scope: &str,
        login: Option<&Login>,
    ) -> Self {
        let login = match login {
            None => Digest::of(b"none"),
            Some(Login::Password { user, password }) => {
                // No user name has a colon or a zero byte.
                Digest::of(format!("password\0{user}\0{}", password.expose()).as_bytes())
            }
            Some(Login::Identity(token)) => {
                Digest::of(format!("identity\0{}", token.expose()).as_bytes())
            }
            Some(Login::Access(token)) => {
                Digest::of(format!("access\0{}", token.expose()).as_bytes())
            }
        };
        Self {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.to_owned(),
            login,
        }
    }
}

/// The tokens of a node.
#[derive(Debug, Default)]
pub(crate) struct Tokens(Mutex<HashMap<Purpose, Kept>>);

#[derive(Debug)]
struct Kept {
    header: HeaderValue,
    until: Instant,
}

impl Tokens {
    /// A token that still lives and is not `refused`.
    pub(crate) fn get(
        &self,
        purpose: &Purpose,
        refused: Option<&HeaderValue>,
        now: Instant,
    ) -> Option<HeaderValue> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let held = kept.get(purpose)?;
        if held.until <= now || refused == Some(&held.header) {
            kept.remove(purpose);
            return None;
        }
        Some(held.header.clone())
    }

    /// Keeps a token, in place of the one that runs out first if there are too many.
    pub(crate) fn keep(&self, purpose: Purpose, token: &Token, now: Instant) {
        let Some(until) = now.checked_add(token.life.saturating_sub(MARGIN)) else {
            return;
        };
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, held| held.until > now);
        if kept.len() >= MAX_KEPT
            && let Some(first) = kept.iter().min_by_key(|(_, held)| held.until)
        {
            let first = first.0.clone();
            kept.remove(&first);
        }
        let header = token.header.clone();
        kept.insert(purpose, Kept { header, until });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        for (body, expected) in [
            (r#"{"token":"abc"}"#, Some(("Bearer abc", 60))),
            (
                r#"{"access_token":"abc","expires_in":300,"refresh_token":"x"}"#,
                Some(("Bearer abc", 300)),
            ),
            (
                r#"{"token":"a","access_token":"b","expires_in":99999999}"#,
                Some(("Bearer a", 86_400)),
            ),
            (r#"{"token":"","access_token":"b"}"#, Some(("Bearer b", 60))),
            (r#"{"token":""}"#, None),
            (r#"{"token":"a\r\nX-Evil: 1"}"#, None),
            (r#"{"token":"a b"}"#, None),
            (r#"{"token":"a","expires_in":-1}"#, None),
            (r#"{"token":7}"#, None),
            ("{}", None),
            ("<html>", None),
        ] {
            let read = Token::read(body.as_bytes());
            let told = read
                .as_ref()
                .map(|token| (token.header.to_str().unwrap(), token.life.as_secs()));
            assert_eq!(told, expected, "{body}");
            assert!(read.is_none_or(|token| token.header.is_sensitive()));
        }
        let long = format!(r#"{{"token":"{}"}}"#, "a".repeat(MAX_TOKEN_BYTES + 1));
        assert!(Token::read(long.as_bytes()).is_none());
    }

    #[test]
    fn a_kept_token_is_for_its_purpose_and_its_time() {
        let (tokens, now) = (Tokens::default(), Instant::now());
        let secret = |text: &str| Secret::new(text.into());
        let login = |password: &str| Login::Password {
            user: "u".into(),
            password: secret(password),
        };
        let purpose = |login: Option<&Login>| Purpose::new("https://t", Some("s"), "x", login);
        let token = Token::read(br#"{"token":"abc","expires_in":60}"#).unwrap();
        let mine = purpose(Some(&login("p")));
        tokens.keep(mine.clone(), &token, now);
        assert_eq!(tokens.get(&mine, None, now), Some(token.header.clone()));
        for other in [
            purpose(None),
            purpose(Some(&login("q"))),
            purpose(Some(&Login::Identity(secret("p")))),
            Purpose::new("https://t", None, "x", Some(&login("p"))),
            Purpose::new("https://t", Some("s"), "y", Some(&login("p"))),
            Purpose::new("https://o", Some("s"), "x", Some(&login("p"))),
        ] {
            assert_eq!(tokens.get(&other, None, now), None, "{other:?}");
        }
        assert_eq!(tokens.get(&mine, None, now + Duration::from_secs(51)), None);
        tokens.keep(mine.clone(), &token, now);
        assert_eq!(tokens.get(&mine, Some(&token.header), now), None);
        assert_eq!(tokens.get(&mine, None, now), None, "a refused one is gone");
        for n in 0..1000 {
            tokens.keep(Purpose::new("r", None, &n.to_string(), None), &token, now);
        }
        assert_eq!(tokens.0.lock().unwrap().len(), MAX_KEPT);
    }
}
