//! Attributes of an agent as its flag writes them: `rack:r1;zone:a;level:10;ports:[1-2]`, and as the
//! endpoints print them.

use super::v1::{Attribute, Value};
use super::value_text::{self, ValueError};

/// Why some text is no list of attributes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttributesError {
    /// Not `name:value`.
    #[error("attribute '{0}' is not written name:value")]
    Pair(String),
    /// The value of a name.
    #[error("the value of attribute '{name}' cannot be read")]
    Value {
        /// Which attribute.
        name: String,
        /// What is wrong.
        #[source]
        source: ValueError,
    },
}

/// Reads attributes between `;` or line feeds. The first colon ends the name. Errors: see
/// [`AttributesError`].
pub fn parse(text: &str) -> Result<Vec<Attribute>, AttributesError> {
    let parts = text.split([';', '\n']).map(str::trim);
    parts
        .filter(|part| !part.is_empty())
        .map(attribute)
        .collect()
}

fn attribute(text: &str) -> Result<Attribute, AttributesError> {
    let pair = text.split_once(':');
    let (name, value) = pair
        .map(|(name, value)| (name.trim(), value.trim()))
        .filter(|(name, value)| !name.is_empty() && !value.is_empty())
        .ok_or_else(|| AttributesError::Pair(text.to_owned()))?;
    let name = name.to_owned();
    let value = value_text::parse(value).map_err(|source| AttributesError::Value {
        name: name.clone(),
        source,
    })?;
    Ok(Attribute {
        name,
        r#type: value.r#type,
        scalar: value.scalar,
        ranges: value.ranges,
        set: value.set,
        text: value.text,
    })
}

/// The value of an attribute as Mesos prints it.
#[must_use]
pub fn print_value(attribute: &Attribute) -> String {
    let Attribute {
        r#type,
        scalar,
        ranges,
        set,
        text,
        ..
    } = attribute.clone();
    value_text::print(&Value {
        r#type,
        scalar,
        ranges,
        set,
        text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesos::v1::value::Type;

    #[test]
    fn attributes_of_every_type() {
        let found =
            parse("rack:r1; zone : a ;level:10;ports:[1-2,3-4]\nset:{x,y};url:http://h:1/;")
                .unwrap();
        let printed: Vec<_> = found
            .iter()
            .map(|a| (a.name.as_str(), a.r#type(), print_value(a)))
            .collect();
        let want = [
            ("rack", Type::Text, "r1"),
            ("zone", Type::Text, "a"),
            ("level", Type::Scalar, "10"),
            ("ports", Type::Ranges, "[1-4]"),
            ("set", Type::Set, "{x, y}"),
            ("url", Type::Text, "http://h:1/"),
        ];
        assert_eq!(printed, want.map(|(n, t, v)| (n, t, v.to_owned())));
        assert_eq!(parse(""), Ok(Vec::new()));
        for text in ["rack", "rack:", ":r1", "a:b;c"] {
            assert!(
                matches!(parse(text), Err(AttributesError::Pair(_))),
                "{text}"
            );
        }
        assert!(matches!(parse("a:[1"), Err(AttributesError::Value { .. })));
    }
}
