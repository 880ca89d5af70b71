//! Pieces of JSON put together from flags.

use serde_json::{Map, Value};

use crate::failure::{Exit, Failure};

/// The value itself, made an empty object first when it is none: indexing it by a name is then
/// safe.
pub(super) fn object(value: &mut Value) -> &mut Value {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value
}

/// `KEY=VALUE` texts on top of a current object.
pub(super) fn pairs(field: &str, given: &[String], current: &Value) -> Result<Value, Failure> {
    let mut merged = current.as_object().cloned().unwrap_or_default();
    let flag = field.trim_end_matches('s');
    for text in given {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => {
                merged.insert(key.to_owned(), Value::from(value));
            }
            _ => {
                let message = format!("--{flag} {text}: want KEY=VALUE");
                return Err(Failure::new(Exit::Usage, message));
            }
        }
    }
    Ok(Value::Object(merged))
}

/// Every text read by `read`; the first error ends it.
pub(super) fn each(
    texts: &[String],
    read: impl Fn(&str) -> Result<Value, Failure>,
) -> Result<Vec<Value>, Failure> {
    texts.iter().map(|text| read(text)).collect()
}
