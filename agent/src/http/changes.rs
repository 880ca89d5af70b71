//! Tells those who follow files that something was written to them: one inotify(7) instance for all,
//! and one watch for a file, however many follow it.
//!
//! It watches files, never directories, so that nothing else that a task does in its sandbox costs
//! anything here. A file that is written to without pause is told of once in [`REST`]; one that was
//! quiet, at once. It deliberately says only that there was a change. Invariant: who asked for a file
//! before reading it misses no change after.

use std::collections::HashMap;
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Between two looks at what has changed.
const REST: Duration = Duration::from_millis(10);
/// Bytes of events taken in at a time.
const EVENTS_BYTES: usize = 4_096;

/// How often a file's attributes have changed: what it was told, and whether it was rotated.
pub(super) type Attributes = u64;

#[derive(Debug)]
struct Watch {
    told: watch::Sender<Attributes>,
    followers: usize,
}

#[derive(Debug)]
struct Inner {
    inotify: AsyncFd<OwnedFd>,
    watches: Mutex<HashMap<i32, Watch>>,
}

impl Inner {
    fn watches(&self) -> MutexGuard<'_, HashMap<i32, Watch>> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All watches of an agent.
#[derive(Debug)]
pub(super) struct Changes {
    inner: Arc<Inner>,
    reader: JoinHandle<()>,
}

/// A file that is watched until this is dropped.
#[derive(Debug)]
pub(super) struct Watched {
    inner: Arc<Inner>,
    number: i32,
    told: watch::Receiver<Attributes>,
}

impl Changes {
    /// Must be called on a runtime.
    #[expect(
        deprecated,
        reason = "its successor is unsafe; an owned descriptor is the same until it is dropped"
    )]
    pub(super) fn new() -> std::io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let inner = Arc::new(Inner {
            inotify: AsyncFd::new(inotify)?,
            watches: Mutex::default(),
        });
        let reader = tokio::spawn(read(inner.clone()));
        Ok(Self { inner, reader })
    }

    /// Watches what is open, whatever its name is by now.
    pub(super) fn watch(&self, file: &File) -> std::io::Result<Watched> {
        let itself = format!("/proc/self/fd/{}", file.as_raw_fd());
        let flags = WatchFlags::MODIFY | WatchFlags::ATTRIB;
        let mut watches = self.inner.watches();
        // The same file has the same number again.
        let number = inotify::add_watch(&self.inner.inotify, itself, flags)?;
        let watch = watches.entry(number).or_insert_with(|| Watch {
            told: watch::Sender::new(0),
            followers: 0,
        });
        watch.followers += 1;
        Ok(Watched {
            inner: self.inner.clone(),
            number,
            told: watch.told.subscribe(),
        })
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Watched {
    /// What is told from here on counts as new.
    pub(super) fn mark(&mut self) -> Attributes {
        *self.told.borrow_and_update()
    }

    /// Returns when something changed since the mark.
    pub(super) async fn changed(&mut self) {
        // The sender goes only with this.
        let _ = self.told.changed().await;
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut watches = self.inner.watches();
        let Some(watch) = watches.get_mut(&self.number) else {
            return;
        };
        watch.followers -= 1;
        if watch.followers == 0 {
            watches.remove(&self.number);
            // It is gone already when the file is.
            let _ = inotify::remove_watch(&self.inner.inotify, self.number);
        }
    }
}

async fn read(inner: Arc<Inner>) {
    loop {
        let Ok(mut ready) = inner.inotify.readable().await else {
            return;
        };
        if take(&inner) {
            ready.clear_ready();
        }
        drop(ready);
        tokio::time::sleep(REST).await;
    }
}

/// Tells of what has changed so far; whether that was all.
fn take(inner: &Inner) -> bool {
    let mut buffer = [MaybeUninit::uninit(); EVENTS_BYTES];
    let mut events = Reader::new(&inner.inotify, &mut buffer);
    loop {
        match events.next() {
            Ok(event) => {
                let flags = event.events();
                let is_attribute = flags.contains(ReadFlags::ATTRIB);
                let lost = flags.contains(ReadFlags::QUEUE_OVERFLOW);
                for (number, watch) in inner.watches().iter() {
                    if lost || *number == event.wd() {
                        let more = u64::from(lost || is_attribute);
                        watch.told.send_modify(|told| *told += more);
                    }
                }
            }
            Err(Errno::INTR) => {}
            Err(_) => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    const PATIENCE: Duration = Duration::from_secs(20);

    async fn soon(watched: &mut Watched) {
        tokio::time::timeout(PATIENCE, watched.changed())
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn all_who_watch_a_file_hear_of_it_whatever_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stdout");
        let mut writer = File::create(&path).unwrap();
        let other = File::create(dir.path().join("other")).unwrap();
        let changes = Changes::new().unwrap();
        let file = File::open(&path).unwrap();
        let mut first = changes.watch(&file).unwrap();
        let mut second = changes.watch(&File::open(&path).unwrap()).unwrap();
        let mut elsewhere = changes.watch(&other).unwrap();
        let before = (first.mark(), second.mark());
        elsewhere.mark();
        writer.write_all(b"x").unwrap();
        soon(&mut first).await;
        soon(&mut second).await;
        assert_eq!(
            (first.mark(), second.mark()),
            before,
            "no attribute changed"
        );
        std::fs::remove_file(&path).unwrap();
        soon(&mut first).await;
        assert_ne!(first.mark(), before.0, "the number of its names changed");
        drop(second);
        writer.write_all(b"y").unwrap();
        soon(&mut first).await;
        assert!(!elsewhere.told.has_changed().unwrap());
        drop((first, elsewhere));
        assert!(changes.inner.watches().is_empty());
    }
}
