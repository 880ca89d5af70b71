//! Between wire's own states and reasons and those of `mesos.v1`: their numbers and names are the
//! same, ours may be fewer.

use super::v1;
use crate::task::{Reason, TaskState};

impl From<TaskState> for v1::TaskState {
    fn from(state: TaskState) -> Self {
        Self::try_from(state as i32).expect("a test holds every number of ours against the schema")
    }
}

impl From<v1::TaskState> for TaskState {
    fn from(state: v1::TaskState) -> Self {
        Self::try_from(state as i32).expect("a test holds every number of the schema against ours")
    }
}

impl From<Reason> for v1::task_status::Reason {
    fn from(reason: Reason) -> Self {
        Self::try_from(reason as i32).expect("a test holds every number of ours against the schema")
    }
}

impl TryFrom<v1::task_status::Reason> for Reason {
    type Error = prost::UnknownEnumValue;
    fn try_from(reason: v1::task_status::Reason) -> Result<Self, Self::Error> {
        Self::try_from(reason as i32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_those_of_the_schema() {
        for number in -1..200 {
            let (ours, theirs) = (TaskState::try_from(number), v1::TaskState::try_from(number));
            assert_eq!(ours.is_ok(), theirs.is_ok(), "{number}");
            if let (Ok(ours), Ok(theirs)) = (ours, theirs) {
                assert_eq!(ours.name(), theirs.name());
                assert_eq!(TaskState::from(v1::TaskState::from(ours)), ours);
            }
            if let Ok(ours) = Reason::try_from(number) {
                assert_eq!(ours.name(), v1::task_status::Reason::from(ours).name());
            }
        }
    }
}
