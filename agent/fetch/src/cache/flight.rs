//! One download that several fetches wait for. It goes on as long as anybody does.
//!
//! Invariant: when the last who waits goes away, the download is stopped.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Entry;
use crate::error::Cause;

/// What came of it.
#[derive(Debug, Clone)]
pub(crate) enum Landing {
    /// An entry of the cache.
    Cached(Arc<Entry>),
    /// The cache cannot have it; whoever wants it fetches it without.
    Uncached,
    /// Nobody can have it.
    Failed(Arc<Cause>),
}

#[derive(Debug, Clone)]
pub(crate) enum Stage {
    /// So much came, of so much.
    Under(u64, Option<u64>),
    Over(Landing),
}

/// A download under way, or over.
#[derive(Debug)]
pub(crate) struct Flight {
    stage: watch::Receiver<Stage>,
    task: JoinHandle<()>,
}

impl Flight {
    /// Needs a tokio runtime.
    pub(crate) fn begin<F>(download: impl FnOnce(watch::Sender<Stage>) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (sender, stage) = watch::channel(Stage::Under(0, None));
        Self {
            stage,
            task: tokio::spawn(download(sender)),
        }
    }

    /// Waits for the end; `told` hears how far it is meanwhile.
    pub(crate) async fn landing(&self, told: &(dyn Fn(u64, Option<u64>) + Send + Sync)) -> Landing {
        let mut stage = self.stage.clone();
        loop {
            let seen = stage.borrow_and_update().clone();
            match seen {
                Stage::Over(landing) => return landing,
                Stage::Under(received, of) => told(received, of),
            }
            if stage.changed().await.is_err() {
                // It panicked, and its last words may have been the end.
                return match &*stage.borrow() {
                    Stage::Over(landing) => landing.clone(),
                    Stage::Under(..) => Landing::Uncached,
                };
            }
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.task.abort();
    }
}
