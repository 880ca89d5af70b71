//! Which links of detached containers still have to go, and when to look.
//!
//! Decides: a link is given a moment to go with its namespace, which costs nothing; what is still
//! there then is deleted in one go. Until then its address stays out of use. Time is an argument;
//! touches nothing.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// How long a namespace is given to end by itself: the kernel ends them in batches, some 100 ms
/// each.
const LINGER: Duration = Duration::from_millis(100);
/// How long to wait after a failed deletion.
const RETRY: Duration = Duration::from_secs(5);

/// A link that should be gone, and the address to free with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leaving {
    pub(crate) name: String,
    pub(crate) address: Ipv4Addr,
}

/// The links that are leaving. Bounded: each keeps an address of the subnet out of use.
#[derive(Debug, Default)]
pub(crate) struct Reaper {
    leaving: Vec<(Leaving, Instant)>,
}

impl Reaper {
    pub(crate) fn add(&mut self, leaving: Leaving, now: Instant) {
        self.leaving.push((leaving, now + LINGER));
    }

    /// Puts back one that could not be deleted.
    pub(crate) fn retry(&mut self, leaving: Leaving, now: Instant) {
        self.leaving.push((leaving, now + RETRY));
    }

    /// Whether a link of that name is leaving.
    pub(crate) fn holds(&self, name: &str) -> bool {
        self.leaving.iter().any(|(leaving, _)| leaving.name == name)
    }

    /// Takes those of that name.
    pub(crate) fn take(&mut self, name: &str) -> Vec<Leaving> {
        let (taken, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.leaving)
            .into_iter()
            .partition(|(leaving, _)| leaving.name == name);
        self.leaving = rest;
        taken.into_iter().map(|(leaving, _)| leaving).collect()
    }

    /// When to look next.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.leaving.iter().map(|(_, due)| *due).min()
    }

    /// Takes those whose time has come.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<Leaving> {
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.leaving)
            .into_iter()
            .partition(|(_, due)| *due <= now);
        self.leaving = later;
        due.into_iter().map(|(leaving, _)| leaving).collect()
    }

    /// Takes all.
    pub(crate) fn all(&mut self) -> Vec<Leaving> {
        std::mem::take(&mut self.leaving)
            .into_iter()
            .map(|(leaving, _)| leaving)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_gets_its_moment() {
        let start = Instant::now();
        let mut reaper = Reaper::default();
        assert_eq!(reaper.next(), None);
        let leaving = |n: u8| Leaving {
            name: n.to_string(),
            address: Ipv4Addr::new(10, 0, 0, n),
        };
        reaper.add(leaving(2), start);
        reaper.add(leaving(3), start + LINGER / 2);
        assert_eq!(reaper.next(), Some(start + LINGER));
        assert_eq!(reaper.due(start), vec![]);
        assert_eq!(reaper.due(start + LINGER), vec![leaving(2)]);
        assert_eq!(reaper.next(), Some(start + LINGER + LINGER / 2));
        assert_eq!(reaper.all(), vec![leaving(3)]);
        assert_eq!(reaper.next(), None);
    }
}
