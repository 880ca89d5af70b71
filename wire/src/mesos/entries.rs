//! Maps of Mesos messages. On the wire a map is a repeated message of `key` and `value`, and that is
//! what the types hold: prost's own maps leave out a value that equals its default, and Mesos then
//! refuses the entry because the value's required fields are missing.

use std::collections::BTreeMap;

/// An entry of a map.
pub trait Entry {
    /// What the map holds.
    type Value;
    /// From its parts.
    fn new(key: String, value: Self::Value) -> Self;
    /// Into its parts.
    fn pair(self) -> (String, Self::Value);
    /// The key.
    fn key(&self) -> &str;
    /// The value.
    fn value(&self) -> &Self::Value;
}

/// The map of some entries; the last one of a key counts.
pub fn into_map<E: Entry>(entries: impl IntoIterator<Item = E>) -> BTreeMap<String, E::Value> {
    entries.into_iter().map(E::pair).collect()
}

/// The entries of a map, in the order of keys.
pub fn from_map<E: Entry>(map: BTreeMap<String, E::Value>) -> Vec<E> {
    let entries = map.into_iter();
    entries.map(|(key, value)| E::new(key, value)).collect()
}

/// The value of a key; the last one counts.
pub fn get<'e, E: Entry>(entries: &'e [E], key: &str) -> Option<&'e E::Value> {
    let mut found = entries.iter().rev();
    found.find(|entry| entry.key() == key).map(E::value)
}
