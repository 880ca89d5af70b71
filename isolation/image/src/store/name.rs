//! What a directory in `layers/` is called: `sha256-<hex>` for a layer, `patch-<hex>` for what goes
//! on top of one stack. The two cannot be taken for each other, whatever digests an image claims.

use serde::{Deserialize, Serialize};

use crate::Digest;

const PATCH: &str = "patch-";

/// The name of a layer's directory.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct LayerName(String);

impl TryFrom<String> for LayerName {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        Self::parse(&name).ok_or("not the name of a layer")
    }
}

impl From<LayerName> for String {
    fn from(name: LayerName) -> Self {
        name.0
    }
}

impl LayerName {
    /// A layer with this digest of its uncompressed archive.
    pub(crate) fn layer(diff_id: Digest) -> Self {
        Self(diff_id.file_name())
    }

    /// What goes on top of these layers.
    pub(crate) fn patch(diff_ids: &[Digest]) -> Self {
        let stack: String = diff_ids.iter().map(Digest::to_string).collect();
        Self(format!("{PATCH}{}", Digest::of(stack.as_bytes()).hex()))
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        let layer = name
            .strip_prefix(PATCH)
            .map_or_else(|| name.to_owned(), |hex| format!("sha256-{hex}"));
        Digest::from_file_name(&layer).map(|_| Self(name.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_back_and_nothing_else_is() {
        let digest = Digest::of(b"x");
        for name in [
            LayerName::layer(digest),
            LayerName::patch(&[digest, digest]),
        ] {
            assert_eq!(LayerName::parse(name.as_str()), Some(name));
        }
        for name in ["", "sha256-", "patch-", "patch-../../x", "sha256-x", "junk"] {
            assert_eq!(LayerName::parse(name), None, "{name}");
        }
    }
}
