//! The only place of the coordinator that reads the clock and makes ids. The cores get both as
//! arguments, so that they stay deterministic.
//!
//! Invariant: no id is ever handed out twice, also not by several coordinators: version 1 ids
//! carry a random node id of this process (with the multicast bit set, RFC 9562 §6.10) and a
//! counter, version 4 ids are random.

use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use gantry_coordinator_core::service::IdSource;
use gantry_wire::time::Millis;
use uuid::Uuid;

static NODE: LazyLock<[u8; 6]> = LazyLock::new(|| {
    let random = Uuid::new_v4().into_bytes();
    let mut node = [0; 6];
    node.copy_from_slice(&random[..6]);
    node[0] |= 1;
    node
});

/// Now, by the wall clock. A clock before 1970 counts as 1970.
pub(crate) fn now() -> Millis {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A random id as text.
pub(crate) fn uuid() -> String {
    Uuid::new_v4().to_string()
}

/// A random number.
pub(crate) fn seed() -> u64 {
    Uuid::new_v4().as_u64_pair().1
}

/// A random salt.
pub(crate) fn salt() -> u32 {
    Uuid::new_v4().as_fields().0
}

/// Random ids (version 4): deployments and all else that is not an instance.
pub(crate) struct RandomIds;

impl IdSource for RandomIds {
    fn uuid(&mut self) -> String {
        uuid()
    }

    fn seed(&mut self) -> u64 {
        seed()
    }
}

/// Ids that begin with the time (version 1), as Marathon gives to instances.
pub(crate) struct InstanceIds;

impl IdSource for InstanceIds {
    fn uuid(&mut self) -> String {
        Uuid::now_v1(&NODE).to_string()
    }

    fn seed(&mut self) -> u64 {
        seed()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{IdSource, InstanceIds, now};

    #[test]
    fn instance_ids_differ_and_carry_the_version() {
        let ids: BTreeSet<_> = (0..10_000).map(|_| InstanceIds.uuid()).collect();
        assert_eq!(ids.len(), 10_000);
        assert!(ids.iter().all(|id| id.as_bytes()[14] == b'1'));
        assert!(now().0 > 1_700_000_000_000);
    }
}
