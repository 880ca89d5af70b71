//! Proposals that wait for their entry to be applied, by index and term.
//!
//! Invariants: indexes rise; an entry that is applied at the index of a proposal but with another
//! term means that the proposal was replaced and will never be applied.

use std::collections::VecDeque;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{Answer, Refusal};

/// Where the answer of a proposal goes; holds its share of the queue until then.
pub(crate) struct Done<O> {
    answer: oneshot::Sender<Answer<O>>,
    _permit: OwnedSemaphorePermit,
}

impl<O> Done<O> {
    pub(crate) fn new(answer: oneshot::Sender<Answer<O>>, permit: OwnedSemaphorePermit) -> Self {
        Self {
            answer,
            _permit: permit,
        }
    }

    /// Answers; a proposer that no longer waits is no error.
    pub(crate) fn answer(self, result: Answer<O>) {
        let _ = self.answer.send(result);
    }
}

struct Waiting<O> {
    index: u64,
    term: u64,
    done: Done<O>,
}

/// The waiting proposals.
pub(crate) struct Pending<O> {
    waiting: VecDeque<Waiting<O>>,
}

impl<O> Pending<O> {
    pub(crate) fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The proposal became the entry with this index and term. Earlier ones at the same or a
    /// later index were replaced by it.
    pub(crate) fn add(&mut self, index: u64, term: u64, done: Done<O>) {
        while let Some(last) = self.waiting.pop_back_if(|last| last.index >= index) {
            last.done.answer(Err(Refusal::Superseded));
        }
        self.waiting.push_back(Waiting { index, term, done });
    }

    /// An entry is applied: the proposal that it is, if somebody here waits for it.
    pub(crate) fn take(&mut self, index: u64, term: u64) -> Option<Done<O>> {
        while let Some(first) = self.waiting.pop_front_if(|first| first.index <= index) {
            if first.index == index && first.term == term {
                return Some(first.done);
            }
            first.done.answer(Err(Refusal::Superseded));
        }
        None
    }

    /// Nothing will be applied any more.
    pub(crate) fn refuse_all(&mut self, refusal: &Refusal) {
        for waiting in self.waiting.drain(..) {
            waiting.done.answer(Err(refusal.clone()));
        }
    }
}
