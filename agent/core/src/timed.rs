//! A map whose values have deadlines, in order: what is due is found without a look at the rest.
//!
//! It deliberately knows neither time nor what a deadline means. Invariant: once [`Timed::settle`]d
//! after a change, `order` has one entry for each value with a deadline, and no other.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

/// The map; reading it is reading a `BTreeMap`.
#[derive(Debug)]
pub(crate) struct Timed<K, V> {
    map: BTreeMap<K, V>,
    /// Whose deadline may have changed.
    touched: BTreeSet<K>,
    deadlines: BTreeMap<K, u64>,
    order: BTreeSet<(u64, K)>,
}

impl<K, V> Default for Timed<K, V> {
    fn default() -> Self {
        Self {
            map: BTreeMap::new(),
            touched: BTreeSet::new(),
            deadlines: BTreeMap::new(),
            order: BTreeSet::new(),
        }
    }
}

impl<K, V> Deref for Timed<K, V> {
    type Target = BTreeMap<K, V>;

    fn deref(&self) -> &BTreeMap<K, V> {
        &self.map
    }
}

impl<K: Ord + Clone, V> Timed<K, V> {
    pub(crate) fn insert(&mut self, key: K, value: V) {
        self.touched.insert(key.clone());
        self.map.insert(key, value);
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        self.touched.insert(key.clone());
        self.map.remove(key)
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let value = self.map.get_mut(key)?;
        if !self.touched.contains(key) {
            self.touched.insert(key.clone());
        }
        Some(value)
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.touch_all();
        self.map.values_mut()
    }

    /// What their deadlines depend on changed.
    pub(crate) fn touch_all(&mut self) {
        self.touched.extend(self.map.keys().cloned());
    }

    /// Takes in the deadlines of what was changed.
    pub(crate) fn settle(&mut self, deadline_ms: impl Fn(&V) -> Option<u64>) {
        while let Some(key) = self.touched.pop_first() {
            let new = self.map.get(&key).and_then(&deadline_ms);
            let old = match new {
                Some(at) => self.deadlines.insert(key.clone(), at),
                None => self.deadlines.remove(&key),
            };
            if old == new {
                continue;
            }
            let key = match old {
                Some(at) => {
                    let entry = (at, key);
                    self.order.remove(&entry);
                    entry.1
                }
                None => key,
            };
            self.order.extend(new.map(|at| (at, key)));
        }
    }

    /// The earliest deadline.
    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Whose deadline has come, by key.
    pub(crate) fn due(&self, now_ms: u64) -> BTreeSet<K> {
        let due = self.order.iter().take_while(|(at, _)| *at <= now_ms);
        due.map(|(_, key)| key.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_that_of_the_values() {
        let mut timed: Timed<u32, Option<u64>> = Timed::default();
        let mut state = 7_u64;
        let mut random = |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % below
        };
        for round in 0..2000 {
            for _ in 0..=random(3) {
                let key = u32::try_from(random(20)).unwrap();
                let at = Some(random(50)).filter(|at| *at > 10);
                match random(5) {
                    0 => drop(timed.remove(&key)),
                    1 => timed.insert(key, at),
                    2 => timed
                        .values_mut()
                        .for_each(|value| *value = value.map(|at| at + 1)),
                    _ => {
                        if let Some(value) = timed.get_mut(&key) {
                            *value = at;
                        }
                    }
                }
            }
            timed.settle(|value| *value);
            let now_ms = random(60);
            let due: BTreeSet<u32> = timed
                .iter()
                .filter(|(_, at)| at.is_some_and(|at| at <= now_ms))
                .map(|(key, _)| *key)
                .collect();
            assert_eq!(timed.due(now_ms), due, "round {round}");
            let first = timed.values().flatten().min();
            assert_eq!(timed.deadline_ms().as_ref(), first, "round {round}");
        }
    }
}
