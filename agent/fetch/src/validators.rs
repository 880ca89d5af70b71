//! What a server says about the version of a file, and how to ask for exactly that one again
//! (RFC 9110 §8.8, §13). Decides what is strong enough; sends nothing.

use reqwest::Response;
use reqwest::header::{
    ETAG, HeaderMap, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
};
use serde::{Deserialize, Serialize};

/// Longest validator that is kept, in bytes.
const MAX_BYTES: usize = 512;

/// The version of a file on its server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Validators {
    #[serde(default)]
    etag: Option<String>,
    #[serde(default)]
    modified: Option<String>,
}

impl Validators {
    pub(crate) fn of(response: &Response) -> Self {
        let text = |name| {
            let value = response.headers().get(name)?.to_str().ok()?;
            (value.len() <= MAX_BYTES).then(|| value.to_owned())
        };
        Self {
            etag: text(ETAG),
            modified: text(LAST_MODIFIED),
        }
    }

    /// Whether there is none: then nobody can say if something is still the same.
    pub(crate) fn is_empty(&self) -> bool {
        self.etag.is_none() && self.modified.is_none()
    }

    /// Asks for the file only if it is not this version any more.
    pub(crate) fn unless_same(&self, headers: &mut HeaderMap) {
        let fields = [
            (IF_NONE_MATCH, &self.etag),
            (IF_MODIFIED_SINCE, &self.modified),
        ];
        for (name, value) in fields {
            let value = value.as_deref().map(HeaderValue::from_str);
            if let Some(Ok(value)) = value {
                headers.insert(name, value);
            }
        }
    }

    /// For `If-Range`, which wants a strong one: no weak tag.
    pub(crate) fn strong(&self) -> Option<HeaderValue> {
        let etag = self.etag.as_deref().filter(|etag| etag.starts_with('"'));
        HeaderValue::from_str(etag.or(self.modified.as_deref())?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weak_tag_does_not_continue_a_file() {
        let of = |etag: Option<&str>, modified: Option<&str>| Validators {
            etag: etag.map(str::to_owned),
            modified: modified.map(str::to_owned),
        };
        for (validators, strong) in [
            (of(None, None), None),
            (of(Some("W/\"a\""), None), None),
            (of(Some("\"a\""), Some("then")), Some("\"a\"")),
            (of(Some("W/\"a\""), Some("then")), Some("then")),
        ] {
            let header = validators.strong();
            assert_eq!(header.as_ref().map(|h| h.to_str().unwrap()), strong);
        }
        let mut headers = HeaderMap::new();
        of(Some("W/\"a\""), Some("then")).unless_same(&mut headers);
        assert_eq!(headers[IF_NONE_MATCH], "W/\"a\"");
        assert_eq!(headers[IF_MODIFIED_SINCE], "then");
    }
}
