//! What proves that a caller is an executor: a JSON web token (RFC 7519, HS256) in its environment
//! that names framework, executor and container, as Mesos's does
//! (`src/slave/slave.cpp`, `secret generator`).
//!
//! Invariants: the secret is the node's own, made once, kept in a file for root alone, and in no
//! log; a token ends with its container, since no other one has that id.

use std::io;
use std::path::Path;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use gantry_agent_core::ExecutorKey;
use gantry_wire::ids::ContainerId;
use serde::{Deserialize, Serialize};

use crate::durable;

const SECRET_BYTES: usize = 32;
/// Longest token that is looked at, in bytes; three ids of their longest are far below it.
const TOKEN_MAX_BYTES: usize = 4 << 10;
/// `{"alg":"HS256","typ":"JWT"}`
const HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";

/// Whom a token is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    pub(crate) cid: String,
    pub(crate) eid: String,
    pub(crate) fid: String,
}

impl Claims {
    pub(crate) fn of(executor: &ExecutorKey, container: &ContainerId) -> Self {
        Self {
            cid: container.to_string(),
            eid: executor.executor.to_string(),
            fid: executor.framework.to_string(),
        }
    }
}

/// Makes tokens and knows its own.
#[derive(Debug)]
pub(crate) struct Tokens {
    secret: hmac::Key,
}

impl Tokens {
    /// With the secret in `path`, made if it is not there. One that cannot be one is replaced:
    /// executors with tokens of before are then known no more.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let secret = match durable::read_bounded(path, SECRET_BYTES as u64) {
            Ok(kept) if kept.len() == SECRET_BYTES => kept,
            Err(error) if error.kind() == io::ErrorKind::NotFound => make(path)?,
            _ => {
                tracing::error!(
                    "{} is damaged and made anew: executors that are there are no longer known by \
                     their tokens, only by their own sockets and addresses",
                    path.display()
                );
                make(path)?
            }
        };
        Ok(Self {
            secret: hmac::Key::new(hmac::HMAC_SHA256, &secret),
        })
    }

    pub(crate) fn sign(&self, claims: &Claims) -> String {
        let claims = serde_json::to_vec(claims).expect("three strings become JSON");
        let signed = format!("{HEADER}.{}", BASE64.encode(claims));
        let tag = hmac::sign(&self.secret, signed.as_bytes());
        format!("{signed}.{}", BASE64.encode(tag))
    }

    /// Whom a token is for; None unless it was signed here.
    pub(crate) fn verify(&self, token: &str) -> Option<Claims> {
        if token.len() > TOKEN_MAX_BYTES {
            return None;
        }
        let (signed, tag) = token.rsplit_once('.')?;
        // Only what is signed here has this header, so that no other algorithm is ever asked for.
        let claims = signed.strip_prefix(HEADER)?.strip_prefix('.')?;
        let tag = BASE64.decode(tag).ok()?;
        hmac::verify(&self.secret, signed.as_bytes(), &tag).ok()?;
        serde_json::from_slice(&BASE64.decode(claims).ok()?).ok()
    }
}

fn make(path: &Path) -> io::Result<Vec<u8>> {
    let mut secret = vec![0; SECRET_BYTES];
    aws_lc_rs::rand::fill(&mut secret).map_err(|_| io::Error::other("no randomness"))?;
    durable::replace(path, &secret, true)?;
    if let Some(dir) = path.parent() {
        durable::sync_dir(dir)?;
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn claims(eid: &str) -> Claims {
        Claims {
            cid: "c".into(),
            eid: eid.into(),
            fid: "f".into(),
        }
    }

    #[test]
    fn tokens_outlive_the_agent_and_are_of_this_node_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let token = Tokens::open(&path).unwrap().sign(&claims("e"));
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = Tokens::open(&path).unwrap();
        assert_eq!(again.verify(&token), Some(claims("e")));
        assert_eq!(again.sign(&claims("e")), token);
        let other = Tokens::open(&dir.path().join("other")).unwrap();
        assert_eq!(other.verify(&token), None);
        std::fs::write(&path, "short").unwrap();
        assert_eq!(Tokens::open(&path).unwrap().verify(&token), None);
    }

    #[test]
    fn what_was_not_signed_here_is_nobodys() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(&dir.path().join("key")).unwrap();
        let token = tokens.sign(&claims("e"));
        let parts: Vec<&str> = token.split('.').collect();
        let none = BASE64.encode(r#"{"alg":"none","typ":"JWT"}"#);
        let forged = BASE64.encode(serde_json::to_vec(&claims("other")).unwrap());
        for bad in [
            String::new(),
            "..".to_owned(),
            format!("{}.{}", parts[0], parts[1]),
            format!("{}.{}.", parts[0], parts[1]),
            format!("{none}.{}.", parts[1]),
            format!("{none}.{}.{}", parts[1], parts[2]),
            format!("{}.{forged}.{}", parts[0], parts[2]),
            format!("{token}="),
            format!("{token}."),
            "a".repeat(1 << 20),
        ] {
            assert_eq!(tokens.verify(&bad), None, "{bad:.80}");
        }
    }

    #[test]
    fn the_header_says_what_it_is() {
        let header = BASE64.decode(HEADER).unwrap();
        assert_eq!(header, br#"{"alg":"HS256","typ":"JWT"}"#);
    }
}
