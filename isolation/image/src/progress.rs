//! How far a pull is, per layer, told to whoever asked at a bounded rate.
//!
//! The callback runs on the threads that pull, so it must be quick and must not block; it is called
//! at the start, then at most once per [`INTERVAL_MS`], and once at the end. Who waits for another's
//! pull of the same name is told what that one is told.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::Digest;

/// The least time between two calls, in milliseconds.
const INTERVAL_MS: u64 = 200;

/// Called with each report.
pub type ProgressFn = Arc<dyn Fn(&Progress) + Send + Sync>;

/// One report: every layer of the image, bottom first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// The image as the user named it.
    pub image: String,
    /// Bottom layer first, as in the manifest.
    pub layers: Vec<LayerProgress>,
}

impl Progress {
    /// Bytes fetched of the layers that had to be fetched.
    #[must_use]
    pub fn done_bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.done_bytes).sum()
    }

    /// Bytes that the registry sends for this image if no layer is here yet.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.total_bytes).sum()
    }
}

/// For a task's status: `pulling image: 3/5 layers, 120/300 MB`.
impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MB: u64 = 1_000_000;
        let is_here = |layer: &&LayerProgress| match layer.state {
            LayerState::Present | LayerState::Done => true,
            LayerState::Waiting | LayerState::Fetching => false,
        };
        let (here, all) = (
            self.layers.iter().filter(is_here).count(),
            self.layers.len(),
        );
        // Small images would otherwise stay at 0/0.
        let (done, total) = (
            self.done_bytes().div_ceil(MB),
            self.total_bytes().div_ceil(MB),
        );
        write!(f, "pulling image: {here}/{all} layers, {done}/{total} MB")
    }
}

/// One layer of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LayerProgress {
    /// The digest of the compressed blob, as the registry names the layer.
    pub digest: Digest,
    /// The compressed size in bytes.
    pub total_bytes: u64,
    /// Compressed bytes received; equal to `total_bytes` where the layer was here already.
    pub done_bytes: u64,
    /// Where the layer is.
    pub state: LayerState,
}

/// What happens to a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerState {
    /// Not begun, or another pull is fetching the same layer.
    Waiting,
    /// Bytes are arriving and are unpacked as they arrive.
    Fetching,
    /// It was on this node already.
    Present,
    /// Fetched, verified and unpacked by this pull.
    Done,
}

/// Who is to be told of the pull of which name: the one that pulls, and all that wait for it.
///
/// Invariant: holds no more than there are [`Seat`]s.
#[derive(Default)]
pub(crate) struct Audiences {
    listeners: Mutex<HashMap<String, Vec<(u64, ProgressFn)>>>,
    next: AtomicU64,
}

/// A place in an audience; dropping it leaves.
pub(crate) struct Seat<'a> {
    audiences: &'a Audiences,
    name: String,
    number: u64,
}

impl Audiences {
    /// Listens to the pull of `name` until the seat is dropped.
    pub(crate) fn join(&self, name: String, callback: Option<ProgressFn>) -> Seat<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if let Some(callback) = callback {
            let mut listeners = self.lock();
            let audience = listeners.entry(name.clone()).or_default();
            audience.push((number, callback));
        }
        Seat {
            audiences: self,
            name,
            number,
        }
    }

    /// Tells everybody who listens to `name`.
    pub(crate) fn tell(&self, name: &str, progress: &Progress) {
        // Called without the lock: a callback may take its time, and another seat may be left.
        let audience = self.lock().get(name).cloned().unwrap_or_default();
        for (_, callback) in audience {
            callback(progress);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<(u64, ProgressFn)>>> {
        // Each change is one call of a collection: whole or not at all.
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut listeners = self.audiences.lock();
        if let Some(audience) = listeners.get_mut(&self.name) {
            audience.retain(|(number, _)| *number != self.number);
            if audience.is_empty() {
                listeners.remove(&self.name);
            }
        }
    }
}

/// The state behind the reports of one pull.
pub(crate) struct Tracker {
    callback: Option<ProgressFn>,
    inner: Mutex<Inner>,
}

struct Inner {
    progress: Progress,
    last: Option<Instant>,
}

impl Tracker {
    pub(crate) fn new(
        image: String,
        layers: Vec<LayerProgress>,
        callback: Option<ProgressFn>,
    ) -> Self {
        let tracker = Self {
            callback,
            inner: Mutex::new(Inner {
                progress: Progress { image, layers },
                last: None,
            }),
        };
        tracker.report(tracker.lock(), true);
        tracker
    }

    pub(crate) fn state(&self, layer: usize, state: LayerState) {
        let mut inner = self.lock();
        if let Some(layer) = inner.progress.layers.get_mut(layer) {
            layer.state = state;
            match state {
                LayerState::Present | LayerState::Done => layer.done_bytes = layer.total_bytes,
                // Begun, or begun anew.
                LayerState::Waiting | LayerState::Fetching => layer.done_bytes = 0,
            }
        }
        self.report(inner, false);
    }

    pub(crate) fn received(&self, layer: usize, bytes: u64) {
        let mut inner = self.lock();
        if let Some(layer) = inner.progress.layers.get_mut(layer) {
            layer.done_bytes = layer
                .done_bytes
                .saturating_add(bytes)
                .min(layer.total_bytes);
        }
        self.report(inner, false);
    }

    pub(crate) fn finish(&self) {
        self.report(self.lock(), true);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panicking callback does not make the counts wrong.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(&self, mut inner: MutexGuard<'_, Inner>, always: bool) {
        let Some(callback) = &self.callback else {
            return;
        };
        let due = inner
            .last
            .is_none_or(|last| last.elapsed() >= Duration::from_millis(INTERVAL_MS));
        if always || due {
            inner.last = Some(Instant::now());
            let progress = inner.progress.clone();
            drop(inner);
            callback(&progress);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_report_is_one_short_line() {
        let layer = |done_bytes, total_bytes, state| LayerProgress {
            digest: Digest::of(b"x"),
            total_bytes,
            done_bytes,
            state,
        };
        let layers = vec![
            layer(100, 100, LayerState::Present),
            layer(120_000_000, 299_000_000, LayerState::Fetching),
            layer(0, 900_000, LayerState::Waiting),
        ];
        let progress = Progress {
            image: "x".into(),
            layers,
        };
        assert_eq!(
            progress.to_string(),
            "pulling image: 1/3 layers, 121/300 MB"
        );
    }

    #[test]
    fn a_million_bytes_are_few_reports() {
        let calls = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&calls);
        let layer = LayerProgress {
            digest: Digest::of(b"x"),
            total_bytes: 1_000_000,
            done_bytes: 0,
            state: LayerState::Waiting,
        };
        let callback: ProgressFn = Arc::new(move |_| {
            seen.fetch_add(1, Ordering::Relaxed);
        });
        let tracker = Tracker::new("x".into(), vec![layer], Some(callback));
        let began = Instant::now();
        for _ in 0..1_000_000 {
            tracker.received(0, 1);
        }
        tracker.state(0, LayerState::Done);
        tracker.finish();
        let allowed = 3 + began.elapsed().as_millis() / u128::from(INTERVAL_MS);
        assert!(calls.load(Ordering::Relaxed) as u128 <= allowed);
    }
}
