//! Files that servers sent, kept for the next task of the same user.
//!
//! It decides what stays: within a bound on the bytes, the entry that was used last; nothing that
//! is in use goes. Space for a download is reserved before it begins. It downloads nothing itself.
//!
//! ```text
//! <key>-<number>.part   being written          gone at the next start
//! <key>-<number>.data   the content            key: hash of user and URI
//! <key>-<number>.json   what it is; renamed into place after the content
//! ```
//! It survives a restart: an entry counts only with its description, its size, and, since a crash
//! may have cut what was written, once its content was hashed again ([`Entry::check`], at its first
//! use, so that the start does not read gigabytes). Wiping it, as Mesos does, would make every
//! upgrade of the agent a download of everything. Invariants: an entry's file is never written
//! again; its name is never used again while anybody has the entry.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use gantry_intake::{Digest, Hasher};
use serde::{Deserialize, Serialize};

use crate::cache::flight::Flight;
use crate::download::Received;
use crate::validators::Validators;

pub(crate) mod flight;

/// Most entries: each is a few hundred bytes of memory and two files.
const ENTRIES_MAX: usize = 10_000;
/// Longest description that is read, in bytes.
const MAX_MEMO_BYTES: u64 = 64 * 1024;
const BUFFER_BYTES: usize = 256 * 1024;

/// Whose, and what: nobody is served what another user's task had fetched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key(String);

impl Key {
    /// The URI is hashed, user and password included: they are kept nowhere.
    pub(crate) fn new(user: &str, uri: &str) -> Self {
        Self(Digest::of(format!("{user}\0{uri}").as_bytes()).hex())
    }
}

/// What an entry is, as it is on disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Memo {
    bytes: u64,
    digest: Digest,
    validators: Validators,
}

/// A file that a server sent.
#[derive(Debug)]
pub(crate) struct Entry {
    memo: Memo,
    /// Without suffix.
    stem: PathBuf,
    /// Written by this process, or hashed again by it.
    checked: AtomicBool,
    last_use: AtomicU64,
    /// Not in the cache any more: its files go with its last user.
    dropped: AtomicBool,
}

impl Entry {
    pub(crate) fn digest(&self) -> Digest {
        self.memo.digest
    }

    pub(crate) fn validators(&self) -> &Validators {
        &self.memo.validators
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.memo.bytes
    }

    pub(crate) fn open(&self) -> io::Result<fs::File> {
        fs::File::open(self.stem.with_extension("data"))
    }

    /// Whether the content is what it was. Reads all of it, once. Blocking.
    pub(crate) fn check(&self) -> io::Result<bool> {
        if self.checked.load(Ordering::Acquire) {
            return Ok(true);
        }
        let mut file = self.open()?;
        let (mut hasher, mut buffer) = (Hasher::new(), vec![0; BUFFER_BYTES]);
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                length => hasher.update(&buffer[..length]),
            }
        }
        let is_same = hasher.finish() == self.memo.digest;
        self.checked.store(is_same, Ordering::Release);
        Ok(is_same)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if *self.dropped.get_mut() {
            remove(&self.stem);
        }
    }
}

pub(crate) struct Cache {
    dir: PathBuf,
    most_bytes: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: BTreeMap<Key, Arc<Entry>>,
    /// Downloads under way.
    flights: HashMap<Key, Weak<Flight>>,
    /// Of all entries, and of what is being downloaded.
    bytes: u64,
    reserved: u64,
    /// Counts uses and names.
    clock: u64,
    number: u64,
}

/// Space for one download; given back when dropped.
pub(crate) struct Reserved {
    cache: Arc<Cache>,
    bytes: u64,
    stem: PathBuf,
}

impl Cache {
    /// What is there, and nothing else: what is incomplete goes. Blocking.
    pub(crate) fn open(dir: PathBuf, most_bytes: u64) -> io::Result<Self> {
        let mut state = State::default();
        for file in fs::read_dir(&dir)? {
            let path = file?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
                && let Some((key, number, entry)) = load(&path)
            {
                state.number = state.number.max(number);
                state.admit(key, entry);
            }
        }
        for file in fs::read_dir(&dir)? {
            let path = file?.path();
            let kept = state
                .entries
                .values()
                .any(|entry| path.with_extension("") == entry.stem);
            if !kept {
                fs::remove_file(&path)?;
            }
        }
        while state.bytes > most_bytes && state.evict() {}
        Ok(Self {
            dir,
            most_bytes,
            state: Mutex::new(state),
        })
    }

    /// The entry, if there is one.
    pub(crate) fn find(&self, key: &Key) -> Option<Arc<Entry>> {
        let mut state = self.lock();
        state.clock += 1;
        let clock = state.clock;
        let entry = state.entries.get(key)?;
        entry.last_use.store(clock, Ordering::Relaxed);
        Some(Arc::clone(entry))
    }

    /// Forgets an entry that turned out to be broken, if it is still that one.
    pub(crate) fn forget(&self, key: &Key, entry: &Arc<Entry>) {
        let mut state = self.lock();
        if state
            .entries
            .get(key)
            .is_some_and(|known| Arc::ptr_eq(known, entry))
        {
            state.expel(key);
        }
    }

    /// Makes room for a download; entries that nobody uses go, those first that were not used for
    /// the longest time.
    pub(crate) fn reserve(self: &Arc<Self>, key: &Key, bytes: u64) -> Option<Reserved> {
        let mut state = self.lock();
        if bytes > self.most_bytes {
            return None;
        }
        let is_full = |state: &State| {
            state.bytes + state.reserved + bytes > self.most_bytes
                || state.entries.len() >= ENTRIES_MAX
        };
        while is_full(&state) {
            if !state.evict() {
                return None;
            }
        }
        state.reserved += bytes;
        state.number += 1;
        let stem = self.dir.join(format!("{}-{}", key.0, state.number));
        Some(Reserved {
            cache: Arc::clone(self),
            bytes,
            stem,
        })
    }

    /// The download of this file that is under way, or a new one.
    pub(crate) fn join(&self, key: &Key, begin: impl FnOnce() -> Flight) -> Arc<Flight> {
        let mut state = self.lock();
        if let Some(flight) = state.flights.get(key).and_then(Weak::upgrade) {
            return flight;
        }
        state.flights.retain(|_, flight| flight.strong_count() > 0);
        let flight = Arc::new(begin());
        state.flights.insert(key.clone(), Arc::downgrade(&flight));
        flight
    }

    /// A download ended: who comes now asks anew.
    pub(crate) fn landed(&self, key: &Key) {
        self.lock().flights.remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn admit(&mut self, key: Key, entry: Entry) {
        self.expel(&key);
        self.clock += 1;
        entry.last_use.store(self.clock, Ordering::Relaxed);
        self.bytes += entry.memo.bytes;
        self.entries.insert(key, Arc::new(entry));
    }

    /// Takes an entry out. Its files go when nobody has it any more.
    fn expel(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= entry.memo.bytes;
            entry.dropped.store(true, Ordering::Release);
        }
    }

    /// Whether there was one that could go.
    fn evict(&mut self) -> bool {
        let unused = self
            .entries
            .iter()
            .filter(|(_, entry)| Arc::strong_count(entry) == 1);
        let oldest = unused.min_by_key(|(_, entry)| entry.last_use.load(Ordering::Relaxed));
        let Some(key) = oldest.map(|(key, _)| key.clone()) else {
            return false;
        };
        self.expel(&key);
        true
    }
}

impl Reserved {
    /// Where the content is to be written.
    pub(crate) fn part(&self) -> PathBuf {
        self.stem.with_extension("part")
    }

    /// The content is there: from now on it is the entry. Blocking.
    pub(crate) fn admit(self, key: &Key, received: Received) -> io::Result<Arc<Entry>> {
        let memo = Memo {
            bytes: received.bytes,
            digest: received.digest,
            validators: received.validators,
        };
        fs::rename(self.part(), self.stem.with_extension("data"))?;
        // The .part name is free again; the description takes its place on the way.
        fs::write(self.part(), serde_json::to_vec(&memo)?)?;
        fs::rename(self.part(), self.stem.with_extension("json"))?;
        let entry = Entry {
            memo,
            stem: self.stem.clone(),
            checked: AtomicBool::new(true),
            last_use: AtomicU64::new(0),
            dropped: AtomicBool::new(false),
        };
        let mut state = self.cache.lock();
        state.admit(key.clone(), entry);
        let admitted = state.entries.get(key).map(Arc::clone);
        admitted.ok_or_else(|| io::Error::other("the entry is gone"))
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.cache.lock().reserved -= self.bytes;
        // There is one only if the download did not end well.
        let _ = fs::remove_file(self.part());
    }
}

/// `<key>-<number>.json` and the content beside it.
fn load(path: &Path) -> Option<(Key, u64, Entry)> {
    let stem = path.with_extension("");
    let (key, number) = stem.file_name()?.to_str()?.split_once('-')?;
    let mut text = Vec::new();
    let file = fs::File::open(path).ok()?;
    file.take(MAX_MEMO_BYTES).read_to_end(&mut text).ok()?;
    let memo: Memo = serde_json::from_slice(&text).ok()?;
    let content = fs::symlink_metadata(stem.with_extension("data")).ok()?;
    if !content.is_file() || content.len() != memo.bytes {
        return None;
    }
    let (key, number) = (Key(key.to_owned()), number.parse().ok()?);
    let entry = Entry {
        memo,
        stem,
        checked: AtomicBool::new(false),
        last_use: AtomicU64::new(0),
        dropped: AtomicBool::new(false),
    };
    Some((key, number, entry))
}

/// The description first: without it the content does not count.
fn remove(stem: &Path) {
    for extension in ["json", "data"] {
        let path = stem.with_extension(extension);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::error!(?path, "removing a fetched file: {error}");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(content: &[u8]) -> Received {
        Received {
            bytes: content.len() as u64,
            digest: Digest::of(content),
            validators: Validators::default(),
        }
    }

    fn put(cache: &Arc<Cache>, name: &str, content: &[u8]) -> Option<Arc<Entry>> {
        let key = Key::new("", name);
        let reserved = cache.reserve(&key, content.len() as u64)?;
        fs::write(reserved.part(), content).unwrap();
        Some(reserved.admit(&key, received(content)).unwrap())
    }

    fn open(dir: &Path, most_bytes: u64) -> Arc<Cache> {
        Arc::new(Cache::open(dir.to_owned(), most_bytes).unwrap())
    }

    fn has(cache: &Cache, name: &str) -> bool {
        cache.lock().entries.contains_key(&Key::new("", name))
    }

    fn files(dir: &Path) -> usize {
        fs::read_dir(dir).unwrap().count()
    }

    #[test]
    fn what_was_not_used_for_longest_goes_and_never_what_is_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let cache = open(dir.path(), 100);
        for name in ["a", "b", "c"] {
            put(&cache, name, &[0; 30]).unwrap();
        }
        let used = cache.find(&Key::new("", "a")).unwrap();
        put(&cache, "d", &[0; 30]).unwrap();
        assert_eq!(
            ["a", "b", "c", "d"].map(|n| has(&cache, n)),
            [true, false, true, true]
        );
        assert_eq!(files(dir.path()), 6);
        put(&cache, "e", &[0; 60]).unwrap();
        assert_eq!(
            ["a", "c", "d", "e"].map(|n| has(&cache, n)),
            [true, false, false, true]
        );
        // With one in use and one reserved there is no room, and then there is.
        assert!(cache.reserve(&Key::new("", "f"), 80).is_none());
        assert!(cache.reserve(&Key::new("", "f"), 101).is_none());
        drop(used);
        assert!(put(&cache, "f", &[0; 80]).is_some());
        let state = cache.lock();
        assert_eq!((state.bytes, state.reserved), (80, 0));
    }

    #[test]
    fn an_entry_that_is_replaced_stays_for_who_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let cache = open(dir.path(), 100);
        let old = put(&cache, "a", b"old").unwrap();
        put(&cache, "a", b"newer").unwrap();
        let mut text = String::new();
        old.open().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), cache.lock().bytes), ("old", 5));
        assert_eq!(files(dir.path()), 4);
        drop(old);
        assert_eq!(files(dir.path()), 2);
    }

    #[test]
    fn users_do_not_share() {
        assert_ne!(Key::new("a", "http://x"), Key::new("b", "http://x"));
        assert_ne!(Key::new("a", "bhttp://x"), Key::new("ab", "http://x"));
    }

    /// Every step of [`Reserved::admit`] and of the download before it, left off there.
    #[test]
    fn a_crash_leaves_nothing_half() {
        let dir = tempfile::tempdir().unwrap();
        let cache = open(dir.path(), 100);
        for name in ["whole", "cut", "torn", "orphan", "empty"] {
            put(&cache, name, b"content").unwrap();
        }
        let stem = |name: &str| {
            let state = cache.lock();
            state.entries[&Key::new("", name)].stem.clone()
        };
        let part = cache.reserve(&Key::new("", "part"), 7).unwrap();
        fs::write(part.part(), b"cont").unwrap();
        fs::write(stem("cut").with_extension("data"), b"cont").unwrap();
        fs::write(stem("torn").with_extension("data"), b"\0\0\0\0\0\0\0").unwrap();
        fs::remove_file(stem("orphan").with_extension("json")).unwrap();
        fs::write(stem("empty").with_extension("json"), b"").unwrap();
        let again = open(dir.path(), 100);
        let there = ["whole", "cut", "torn", "orphan", "empty", "part"].map(|n| has(&again, n));
        assert_eq!(there, [true, false, true, false, false, false]);
        assert_eq!(files(dir.path()), 4);
        let check = |name| again.find(&Key::new("", name)).unwrap().check().unwrap();
        assert!(check("whole") && !check("torn"));
        let torn = again.find(&Key::new("", "torn")).unwrap();
        again.forget(&Key::new("", "torn"), &torn);
        drop(torn);
        assert_eq!((files(dir.path()), has(&again, "torn")), (2, false));
        // Numbers go on where they were: no name is used twice.
        put(&again, "whole", b"other").unwrap();
        assert_eq!(files(dir.path()), 2);
        assert!(open(dir.path(), 4).lock().entries.is_empty());
    }
}
