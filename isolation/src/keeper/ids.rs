//! Ranges of host ids for containers with users of their own, each with its user namespace.
//!
//! A range is 65,536 numbers above 2^20, in no other use by this keeper. Making a user namespace
//! costs a clone, so that a range is handed on with its namespace; not when the container before
//! could have left keys in it, which belong to a namespace's users and not to a container
//! (`user-keyring(7)`). Several keepers of a machine begin at different ranges. Invariant: no number
//! reaches 2^31, beyond which `ping_group_range` does not take groups.

use std::cell::Cell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use super::container::Failure;
use crate::plan::USERS;
use crate::userns::{self, IdRange};

/// First number of the first range.
const FIRST: u32 = 1 << 20;
/// How many ranges there are.
const RANGES: u32 = ((1 << 31) - FIRST) / USERS;

/// The numbers of one container, or of several that share them.
#[derive(Debug)]
pub(super) struct Users {
    range: u32,
    namespace: OwnedFd,
    /// Whether something may be left in the namespace by a container that had it.
    stained: Cell<bool>,
}

impl Users {
    /// The host's number of the container's root.
    pub(super) fn base(&self) -> u32 {
        base(self.range)
    }

    /// The user namespace.
    pub(super) fn namespace(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }
}

fn base(range: u32) -> u32 {
    FIRST + range * USERS
}

#[derive(Debug)]
struct Spare {
    range: u32,
    namespace: Option<OwnedFd>,
}

/// All ranges.
#[derive(Debug)]
pub(super) struct UserPool {
    first: u32,
    made: u32,
    spare: Vec<Spare>,
}

impl UserPool {
    /// The ranges of the keeper of `dir`.
    pub(super) fn new(dir: &Path) -> Self {
        let mut hasher = DefaultHasher::new();
        dir.hash(&mut hasher);
        let first = hasher.finish() % u64::from(RANGES);
        Self {
            first: u32::try_from(first).unwrap_or(0),
            made: 0,
            spare: Vec::new(),
        }
    }

    /// A range that nobody has.
    pub(super) fn take(&mut self) -> Result<Rc<Users>, Failure> {
        let failed = |error: String| Failure {
            step: "make a user namespace".to_owned(),
            error,
        };
        let spare = match self.spare.pop() {
            Some(spare) => spare,
            None if self.made == RANGES => {
                return Err(failed("no range of ids is left".to_owned()));
            }
            None => {
                let range = (self.first + self.made) % RANGES;
                self.made += 1;
                Spare {
                    range,
                    namespace: None,
                }
            }
        };
        let range = spare.range;
        let namespace = spare.namespace.map_or_else(|| make(range), Ok);
        match namespace {
            Ok(namespace) => Ok(Rc::new(Users {
                range,
                namespace,
                stained: Cell::new(false),
            })),
            Err(error) => {
                self.spare.push(Spare {
                    range,
                    namespace: None,
                });
                Err(failed(error))
            }
        }
    }

    /// Takes numbers back from a container of which nothing is left; others may still share them.
    /// `clean`: it could leave nothing that belongs to its users.
    pub(super) fn give_back(&mut self, users: Rc<Users>, clean: bool) {
        if !clean {
            users.stained.set(true);
        }
        if let Ok(users) = Rc::try_unwrap(users) {
            self.spare.push(Spare {
                range: users.range,
                namespace: Some(users.namespace).filter(|_| !users.stained.get()),
            });
        }
    }
}

fn make(range: u32) -> Result<OwnedFd, String> {
    let map = IdRange {
        inside: 0,
        outside: base(range),
        count: USERS,
    };
    userns::make(&[map], &[map]).map_err(|error| {
        let cause = std::error::Error::source(&error).map_or(String::new(), |e| format!(": {e}"));
        format!("{error}{cause}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_range_reaches_what_the_kernel_cannot_take() {
        assert!(base(0) >= 1 << 20);
        let last = u64::from(base(RANGES - 1)) + u64::from(USERS) - 1;
        assert!(last < 1 << 31, "{last}");
    }

    #[test]
    fn keepers_begin_elsewhere_and_ranges_are_told_apart() {
        let (one, two) = (
            UserPool::new(Path::new("/a")),
            UserPool::new(Path::new("/b")),
        );
        assert_ne!(one.first, two.first);
        assert!(one.first < RANGES && two.first < RANGES);
        assert_eq!(base(1) - base(0), USERS);
    }
}
