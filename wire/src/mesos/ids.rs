//! Between wire's own ids, which are checked, and those of `mesos.v1`, which are messages of one
//! string.

use super::v1;
use crate::ids::{AgentId, ContainerId, FrameworkId, IdError, TaskId};

macro_rules! same {
    ($($name:ident),+) => {$(
        impl From<&$name> for v1::$name {
            fn from(id: &$name) -> Self {
                Self { value: id.as_str().to_owned() }
            }
        }

        impl TryFrom<&v1::$name> for $name {
            type Error = IdError;
            /// Errors: the text is no id of ours.
            fn try_from(id: &v1::$name) -> Result<Self, IdError> {
                Self::parse(id.value.as_str())
            }
        }
    )+};
}

same!(AgentId, FrameworkId, TaskId);

impl From<&ContainerId> for v1::ContainerId {
    fn from(id: &ContainerId) -> Self {
        Self {
            value: id.as_str().to_owned(),
            parent: None,
        }
    }
}

impl TryFrom<&v1::ContainerId> for ContainerId {
    type Error = IdError;
    /// The container itself, whatever it is inside of. Errors: the text is no id of ours.
    fn try_from(id: &v1::ContainerId) -> Result<Self, IdError> {
        Self::parse(id.value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_there_and_back() {
        let id = TaskId::parse("web.1").unwrap();
        let theirs = v1::TaskId::from(&id);
        assert_eq!(theirs.value, "web.1");
        assert_eq!(TaskId::try_from(&theirs), Ok(id));
        let parent = v1::ContainerId::from(&ContainerId::parse("a").unwrap());
        let nested = v1::ContainerId {
            value: "b".to_owned(),
            parent: Some(parent.into()),
        };
        assert_eq!(ContainerId::try_from(&nested).unwrap().as_str(), "b");
        let bad = v1::AgentId {
            value: "../x".to_owned(),
        };
        assert!(AgentId::try_from(&bad).is_err());
    }
}
