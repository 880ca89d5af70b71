//! What a task has fetched: brought to the node while its image is pulled, and placed in its
//! sandbox once the image says whose the files are.
//!
//! It decides nothing about the task and nothing about URIs (`gantry-fetch` does). Invariants: what
//! is placed is placed into a sandbox that was made for it a moment ago, so that a start that was
//! cut short (the agent died, say) leaves nothing in the next one; whoever drops the future of
//! [`Fetches::place`] stops the writing.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gantry_fetch::{Bounds, Fetched, Fetcher, Item, Owner, Place, ProgressFn};
use gantry_image::Image;
use gantry_isolation::disk::Backend;
use gantry_isolation::identity;
use gantry_isolation::spec::User;
use gantry_wire::agent::{Launch, Uri};
use tokio::sync::Semaphore;

use crate::{container, sandboxes};

/// Sandboxes that are filled at the same time: it is the disk that they wait for.
const PLACES_MAX: usize = 2;

/// Fetches for all tasks of a node.
#[derive(Clone)]
pub(crate) struct Fetches {
    fetcher: Fetcher,
    backend: Backend,
    places: Arc<Semaphore>,
}

impl Fetches {
    pub(crate) fn new(fetcher: Fetcher, backend: Backend) -> Self {
        Self {
            fetcher,
            backend,
            places: Arc::new(Semaphore::new(PLACES_MAX)),
        }
    }

    /// Brings everything to this node. An error is a sentence.
    pub(crate) async fn fetch(
        &self,
        launch: &Launch,
        progress: &ProgressFn,
    ) -> Result<Vec<Fetched>, String> {
        let items: Vec<Item> = launch.uris.iter().map(item).collect();
        let fetched = self.fetcher.fetch(&items, &launch.user, Some(progress));
        fetched.await.map_err(|error| crate::chain(&error))
    }

    /// Makes the sandbox (`nested`: in that of an executor), empty, and puts everything there. An error is a sentence.
    pub(crate) async fn place(
        &self,
        launch: &Launch,
        image: Option<&Image>,
        (sandbox, nested): (PathBuf, bool),
        fetched: Vec<Fetched>,
    ) -> Result<(), String> {
        if fetched.is_empty() {
            return Ok(());
        }
        let slot = Arc::clone(&self.places).acquire_owned().await;
        let slot = slot.map_err(|_| "the agent ends".to_owned())?;
        let stop = Stop::default();
        let job = Job {
            backend: self.backend,
            user: container::user(launch, image),
            layers: image.map_or_else(|| vec![PathBuf::from("/")], |image| image.layers.clone()),
            limit_bytes: sandboxes::limit_bytes(launch),
            cancel: Arc::clone(&stop.0),
            sandbox,
            nested,
            fetched,
        };
        let placed = tokio::task::spawn_blocking(move || {
            let _slot = slot;
            job.run()
        });
        placed
            .await
            .map_err(|_| "placing what was fetched failed (a bug)".to_owned())?
    }
}

fn item(uri: &Uri) -> Item {
    let some = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    Item {
        uri: uri.value.clone(),
        executable: uri.executable,
        extract: uri.extract,
        cache: uri.cache,
        output_file: some(&uri.output_file),
        sha256: some(&uri.sha256),
    }
}

/// Tells a blocking thread that nobody waits for it any more.
#[derive(Default)]
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Job {
    backend: Backend,
    user: User,
    layers: Vec<PathBuf>,
    limit_bytes: Option<u64>,
    cancel: Arc<AtomicBool>,
    sandbox: PathBuf,
    nested: bool,
    fetched: Vec<Fetched>,
}

impl Job {
    /// Blocks.
    fn run(self) -> Result<(), String> {
        let numbers = identity::of(&self.user, &self.layers);
        let (uid, gid) = numbers.map_err(|error| crate::chain(&error))?;
        let path = &self.sandbox;
        let failed = |why: String| format!("making the sandbox {}: {why}", path.display());
        // What an earlier attempt left: its container never ran.
        let as_root = self.user == User::Root;
        let place = (path.as_path(), self.nested);
        let made = sandboxes::create_anew(self.backend, place, as_root, self.limit_bytes);
        made.map_err(|error| failed(error.to_string()))?;
        let sandbox = File::open(path).map_err(|error| failed(error.to_string()))?;
        let place = Place {
            sandbox: sandbox.as_fd(),
            owner: Owner { uid, gid },
            limit_bytes: self.limit_bytes,
            bounds: Bounds::default(),
            cancel: &self.cancel,
        };
        let placed = gantry_fetch::place(&self.fetched, &place);
        placed.map_err(|error| crate::chain(&error))
    }
}
