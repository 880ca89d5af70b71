//! Resources as flags write them: `cpus:4;mem:1024;disk(role):10;ports:[31000-32000]`, or a JSON
//! array of `mesos.v1.Resource` (Mesos's `Resources::parse`). A role other than `*` is a static
//! reservation.

use super::v1::resource::{ReservationInfo, reservation_info};
use super::v1::value::Type;
use super::v1::{Resource, TaskResourceLimitation};
use super::value_text::{self, ValueError};
use super::{DecodeError, Encoding, decode};

/// The role of what is not reserved.
pub const NO_ROLE: &str = "*";

/// Why some text is no list of resources.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResourcesError {
    /// Not `name:value`.
    #[error("resource '{0}' is not written name:value or name(role):value")]
    Pair(String),
    /// The value of a name.
    #[error("the value of resource '{name}' cannot be read")]
    Value {
        /// Which resource.
        name: String,
        /// What is wrong.
        #[source]
        source: ValueError,
    },
    /// Text is no amount.
    #[error("resource '{0}' cannot be text")]
    Text(String),
    /// The JSON form.
    #[error("the list of resources cannot be read")]
    Json(#[source] DecodeError),
}

/// Reads resources in either form; a role for those that name none. Errors: see
/// [`ResourcesError`].
pub fn parse(text: &str, default_role: &str) -> Result<Vec<Resource>, ResourcesError> {
    let text = text.trim();
    if text.starts_with('[') {
        // A message with a list of resources, for want of a list by itself.
        let wrapped = format!("{{\"resources\":{text}}}");
        let list: TaskResourceLimitation =
            decode(Encoding::Json, wrapped.as_bytes()).map_err(ResourcesError::Json)?;
        return Ok(list.resources);
    }
    let parts = text.split(';').map(str::trim);
    parts
        .filter(|part| !part.is_empty())
        .map(|part| resource(part, default_role))
        .collect()
}

fn resource(text: &str, default_role: &str) -> Result<Resource, ResourcesError> {
    let pair = || ResourcesError::Pair(text.to_owned());
    let (name, value) = text.split_once(':').ok_or_else(pair)?;
    let (name, role) = match name.split_once('(') {
        Some((name, role)) => (name, role.trim_end().strip_suffix(')').ok_or_else(pair)?),
        None => (name, default_role),
    };
    let (name, role) = (name.trim(), role.trim());
    let bad = |part: &str| part.is_empty() || part.contains(['(', ')', ':']);
    if bad(name) || bad(role) || value.contains(':') {
        return Err(pair());
    }
    let name = name.to_owned();
    let value = value_text::parse(value).map_err(|source| ResourcesError::Value {
        name: name.clone(),
        source,
    })?;
    if value.r#type() == Type::Text {
        return Err(ResourcesError::Text(name));
    }
    let mut reservations = Vec::new();
    if role != NO_ROLE {
        reservations.push(ReservationInfo {
            r#type: Some(reservation_info::Type::Static as i32),
            role: Some(role.to_owned()),
            ..ReservationInfo::default()
        });
    }
    Ok(Resource {
        name,
        r#type: value.r#type,
        scalar: value.scalar,
        ranges: value.ranges,
        set: value.set,
        reservations,
        ..Resource::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms() {
        let found = parse("cpus:4; mem(a/b):1024;ports:[31000-32000];names:{x}", "*").unwrap();
        let names: Vec<_> = found
            .iter()
            .map(|r| (r.name.as_str(), r.r#type()))
            .collect();
        let want = [
            ("cpus", Type::Scalar),
            ("mem", Type::Scalar),
            ("ports", Type::Ranges),
            ("names", Type::Set),
        ];
        assert_eq!(names, want);
        assert_eq!(found[0].reservations, []);
        assert_eq!(found[1].reservations[0].role(), "a/b");
        assert_eq!(
            found[1].reservations[0].r#type(),
            reservation_info::Type::Static
        );
        let with_role = parse("cpus:4;mem(*):1", "dev").unwrap();
        assert_eq!(with_role[0].reservations[0].role(), "dev");
        assert_eq!(with_role[1].reservations, []);
        let json = r#" [{"name":"cpus","type":"SCALAR","scalar":{"value":4}}] "#;
        assert_eq!(parse(json, "*").unwrap(), parse("cpus:4", "*").unwrap());
        assert_eq!(parse("", "*"), Ok(Vec::new()));
    }

    #[test]
    fn wrong_texts_are_refused() {
        for text in [
            "cpus",
            "cpus:1:2",
            "cpus(a:1",
            "cpus(a)b:1",
            ":4",
            "cpus():1",
        ] {
            let found = parse(text, "*");
            assert!(matches!(found, Err(ResourcesError::Pair(_))), "{text}");
        }
        let found = parse("cpus:four", "*");
        assert_eq!(found, Err(ResourcesError::Text("cpus".to_owned())));
        assert!(matches!(
            parse("cpus:", "*"),
            Err(ResourcesError::Value { .. })
        ));
        assert!(matches!(parse("[{}]", "*"), Err(ResourcesError::Json(_))));
        assert!(matches!(parse("[1-2]", "*"), Err(ResourcesError::Json(_))));
    }
}
