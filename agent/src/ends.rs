//! Who waits for the end of which container. It decides nothing: the loop says which ones are over.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::oneshot;

/// Who may wait at a time; one more is told at once, as if it were over.
const WAITERS_MAX: usize = 1_024;

#[derive(Debug, Default)]
pub(crate) struct Ends {
    waiting: BTreeMap<String, Vec<oneshot::Sender<()>>>,
    count: usize,
}

impl Ends {
    /// Answers at the end of a container that is not over.
    pub(crate) fn wait(&mut self, container: String, reply: oneshot::Sender<()>) {
        if self.count >= WAITERS_MAX {
            self.prune(|_| true);
        }
        if self.count < WAITERS_MAX {
            self.count += 1;
            self.waiting.entry(container).or_default().push(reply);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Answers all who wait for others than these.
    pub(crate) fn settle(&mut self, live: &BTreeSet<&str>) {
        self.prune(|container| live.contains(container));
    }

    /// Drops those who went away meanwhile, too.
    fn prune(&mut self, lives: impl Fn(&str) -> bool) {
        self.waiting.retain(|container, replies| {
            replies.retain(|reply| lives(container) && !reply.is_closed());
            !replies.is_empty()
        });
        self.count = self.waiting.values().map(Vec::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_who_wait_for_what_is_over_are_answered() {
        let mut ends = Ends::default();
        let mut wait = |container: &str| {
            let (reply, answer) = oneshot::channel();
            ends.wait(container.to_owned(), reply);
            answer
        };
        let (mut a, mut other, mut b) = (wait("a"), wait("a"), wait("b"));
        ends.settle(&BTreeSet::from(["b", "c"]));
        // An answer is the end of the question.
        assert_eq!(a.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert_eq!(other.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert_eq!(b.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        drop(b);
        ends.settle(&BTreeSet::from(["b"]));
        assert!(ends.is_empty());
    }

    #[test]
    fn only_so_many_wait() {
        let mut ends = Ends::default();
        let mut kept = Vec::new();
        for _ in 0..=WAITERS_MAX {
            let (reply, answer) = oneshot::channel();
            ends.wait("a".to_owned(), reply);
            kept.push(answer);
        }
        assert_eq!(ends.count, WAITERS_MAX);
        let last = kept.last_mut().unwrap().try_recv();
        assert_eq!(last, Err(oneshot::error::TryRecvError::Closed));
        kept.clear();
        ends.settle(&BTreeSet::from(["a"]));
        assert!(ends.is_empty());
    }
}
