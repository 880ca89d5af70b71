//! Everything that a task has fetched, brought to this node: some items at a time, each from the
//! cache, from its server, or from the node itself.
//!
//! It decides when the cache counts: never without asking the server whether the entry is still
//! what it has, unless a checksum says so; a server that cannot be asked does not take it away.
//! Whatever is wrong with the cache itself, the item is fetched without it.

use std::fmt;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use gantry_intake::{ArchivePath, Digest};
use tokio::sync::{Semaphore, watch};

use crate::cache::flight::{Flight, Landing, Stage};
use crate::cache::{Cache, Entry, Key};
use crate::download::{Ask, Client, Opened, Received, Told};
use crate::error::{Cause, FetchError, printable};
use crate::local;
use crate::target::{Source, Target, file_name, shown};

/// Most items of one task, and how many of them are downloaded at a time.
const ITEMS_MAX: usize = 256;
const ITEMS_AT_A_TIME: usize = 3;

/// One thing to fetch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Item {
    /// From where: http, https, `file://`, an absolute path or one below the home of frameworks.
    pub uri: String,
    /// To be run: it gets the permission, and is not extracted.
    pub executable: bool,
    /// Extracted if its name says that it is an archive.
    pub extract: bool,
    /// May come from the cache, and go there.
    pub cache: bool,
    /// Its name in the sandbox; may have directories in it. None: the last component of the URI.
    pub output_file: Option<String>,
    /// `sha256:` and 64 hexadecimal digits, or only these: of what is downloaded.
    pub sha256: Option<String>,
}

/// What a node allows.
#[derive(Debug, Clone)]
pub struct Config {
    /// Most bytes in the cache; 0 is none.
    pub cache_bytes: u64,
    /// Most bytes of one download.
    pub max_bytes: u64,
    /// A server that sends less than a byte a second for so long is given up.
    pub stall: Duration,
    /// `host[:port]` that may be fetched from although they are this machine, or a link-local or
    /// otherwise special address.
    pub hosts: Vec<String>,
    /// Directories of this node whose files a task may have whatever their permissions.
    pub local: Vec<PathBuf>,
    /// What relative paths are relative to.
    pub frameworks_home: Option<PathBuf>,
    /// Downloads at a time, of all tasks.
    pub downloads: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cache_bytes: 2 << 30,
            max_bytes: 32 << 30,
            stall: Duration::from_secs(60),
            hosts: Vec::new(),
            local: Vec::new(),
            frameworks_home: None,
            downloads: 8,
        }
    }
}

/// How far a download is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Without credentials.
    pub uri: String,
    /// Bytes that came.
    pub received: u64,
    /// Of so many, if the server said.
    pub of: Option<u64>,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mb = |bytes: u64| bytes / 1_000_000;
        write!(f, "Fetching '{}': {}", self.uri, mb(self.received))?;
        match self.of {
            Some(of) => write!(f, " of {} MB", mb(of)),
            None => write!(f, " MB"),
        }
    }
}

/// Hears of progress, for every piece that comes: it must be quick.
pub type ProgressFn = Arc<dyn Fn(&Progress) + Send + Sync>;

/// Something that is on this node now, until it is dropped.
#[derive(Debug)]
pub struct Fetched {
    pub(crate) shown: String,
    pub(crate) name: ArchivePath,
    pub(crate) executable: bool,
    pub(crate) extract: bool,
    pub(crate) keep_archive: bool,
    pub(crate) file: std::fs::File,
    /// Not evicted meanwhile.
    _entry: Option<Arc<Entry>>,
}

/// An item whose words were understood.
struct Wanted {
    item: Item,
    shown: String,
    source: Source,
    name: ArchivePath,
    digest: Option<Digest>,
}

/// Fetches; one for a node, shared by all tasks.
#[derive(Clone)]
pub struct Fetcher(Arc<Inner>);

struct Inner {
    client: Client,
    cache: Arc<Cache>,
    parts: PathBuf,
    config: Config,
    slots: Semaphore,
}

impl Fetcher {
    /// Takes `dir` for itself, and removes what a former life left half there. Blocking.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub fn open(dir: &Path, config: Config) -> io::Result<Self> {
        let (cache, parts) = (dir.join("cache"), dir.join("parts"));
        for dir in [&cache, &parts] {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)?;
        }
        for file in std::fs::read_dir(&parts)? {
            std::fs::remove_file(file?.path())?;
        }
        let cache = Arc::new(Cache::open(cache, config.cache_bytes)?);
        let client = Client::new(config.hosts.clone(), config.stall, config.max_bytes);
        Ok(Self(Arc::new(Inner {
            client,
            cache,
            parts,
            slots: Semaphore::new(config.downloads.max(1)),
            config,
        })))
    }

    /// Brings everything here; `user` is whose task it is, for the cache. Dropping the future stops
    /// every download that nobody else waits for. Needs a tokio runtime.
    ///
    /// # Errors
    /// The first item that cannot be had.
    pub async fn fetch(
        &self,
        items: &[Item],
        user: &str,
        progress: Option<&ProgressFn>,
    ) -> Result<Vec<Fetched>, FetchError> {
        if let Some(beyond) = items.get(ITEMS_MAX) {
            return Err(failed(&beyond.uri, Cause::TooMany(ITEMS_MAX)));
        }
        // All of them are understood before any is downloaded.
        let mut wanted = Vec::with_capacity(items.len());
        for item in items {
            let understood = self.0.understand(item);
            wanted.push(understood.map_err(|cause| failed(&item.uri, cause))?);
        }
        let fetches = wanted.into_iter().map(|wanted| async move {
            let uri = wanted.shown.clone();
            let fetched = self.0.fetch(wanted, user, progress).await;
            fetched.map_err(|cause| FetchError { uri, cause })
        });
        stream::iter(fetches)
            .buffered(ITEMS_AT_A_TIME)
            .try_collect()
            .await
    }
}

fn failed(uri: &str, cause: Cause) -> FetchError {
    FetchError {
        uri: shown(uri),
        cause: Arc::new(cause),
    }
}

impl Inner {
    fn understand(&self, item: &Item) -> Result<Wanted, Cause> {
        let source = Source::parse(&item.uri, self.config.frameworks_home.as_deref())?;
        let digest = item.sha256.as_deref().map(|text| {
            let text = text.to_ascii_lowercase();
            let whole = if text.contains(':') {
                text
            } else {
                format!("sha256:{text}")
            };
            whole.parse().map_err(Cause::Checksum)
        });
        let name = match item.output_file.as_deref().filter(|name| !name.is_empty()) {
            None => file_name(&item.uri)?,
            Some(name) if name.starts_with('/') || name.ends_with('/') => {
                return Err(Cause::OutputPath(printable(name.as_bytes())));
            }
            Some(name) => name,
        };
        let path = ArchivePath::parse(name.as_bytes()).map_err(|error| Cause::Output {
            name: printable(name.as_bytes()),
            error,
        })?;
        if path.name().is_none() {
            return Err(Cause::OutputPath(printable(name.as_bytes())));
        }
        Ok(Wanted {
            item: item.clone(),
            shown: shown(&item.uri),
            source,
            name: path,
            digest: digest.transpose()?,
        })
    }

    async fn fetch(
        self: &Arc<Self>,
        wanted: Wanted,
        user: &str,
        progress: Option<&ProgressFn>,
    ) -> Result<Fetched, Arc<Cause>> {
        let told = |received, of| {
            if let Some(progress) = progress {
                let uri = wanted.shown.clone();
                progress(&Progress { uri, received, of });
            }
        };
        let item = &wanted.item;
        let (file, entry) = match &wanted.source {
            Source::Local(path) => (self.local(path, wanted.digest).await?, None),
            Source::Server(target) => {
                let key = Key::new(user, &item.uri);
                let cached = match item.cache && self.config.cache_bytes > 0 {
                    true => self.cached(key, target, wanted.digest, &told).await?,
                    false => None,
                };
                match cached {
                    Some((file, entry)) => (file, Some(entry)),
                    None => (self.direct(target, wanted.digest, &told).await?, None),
                }
            }
        };
        Ok(Fetched {
            keep_archive: !item.cache || matches!(wanted.source, Source::Local(_)),
            executable: item.executable,
            extract: item.extract && !item.executable,
            shown: wanted.shown,
            name: wanted.name,
            file,
            _entry: entry,
        })
    }

    async fn local(&self, path: &Path, digest: Option<Digest>) -> Result<std::fs::File, Cause> {
        let (path, allowed) = (path.to_owned(), self.config.local.clone());
        let opened = tokio::task::spawn_blocking(move || {
            let file = local::open(&path, &allowed)?;
            if let Some(expected) = digest {
                let read = digest_of(&file);
                let actual = read
                    .map_err(|error| Cause::io("read", path.as_os_str().as_encoded_bytes(), error));
                same(expected, actual?)?;
            }
            Ok(file)
        });
        opened.await.unwrap_or_else(|_| Err(Cause::Cancelled))
    }

    /// Without the cache: into a file that nobody else can name, so that a crash leaves nothing.
    async fn direct(
        &self,
        target: &Target,
        digest: Option<Digest>,
        told: Told<'_>,
    ) -> Result<std::fs::File, Cause> {
        let _slot = self.slots.acquire().await.map_err(|_| Cause::Cancelled)?;
        let pinned = digest.is_some();
        let ask = Ask { target, pinned };
        let Opened::New(body) = self.client.open(ask, None).await? else {
            return Err(Cause::Cancelled);
        };
        let fail = |error| Cause::io("create", b"a download", error);
        let path = self.parts.join(unique());
        // Not beside the loop: a file that is made after this was given up would stay.
        let file = create(&path).map_err(fail)?;
        std::fs::remove_file(&path).map_err(fail)?;
        let mut file = tokio::fs::File::from_std(file);
        let received = self.client.receive(ask, body, &mut file, told).await?;
        if let Some(expected) = digest {
            same(expected, received.digest)?;
        }
        Ok(file.into_std().await)
    }

    /// From the cache, or into it; `None` if the cache cannot be used.
    async fn cached(
        self: &Arc<Self>,
        key: Key,
        target: &Target,
        digest: Option<Digest>,
        told: Told<'_>,
    ) -> Result<Option<(std::fs::File, Arc<Entry>)>, Arc<Cause>> {
        let known = self.checked(&key).await;
        // The same content by its checksum: nobody has to be asked.
        let entry = match known.filter(|entry| Some(entry.digest()) == digest) {
            Some(entry) => entry,
            None => {
                let flight = self.cache.join(&key, || self.flight(&key, target));
                match flight.landing(told).await {
                    Landing::Cached(entry) => entry,
                    Landing::Uncached => return Ok(None),
                    Landing::Failed(cause) => return Err(cause),
                }
            }
        };
        if let Some(expected) = digest {
            same(expected, entry.digest())?;
        }
        match entry.open() {
            Ok(file) => Ok(Some((file, entry))),
            Err(error) => {
                tracing::warn!("a fetched file cannot be read, fetching it again: {error}");
                self.cache.forget(&key, &entry);
                Ok(None)
            }
        }
    }

    /// The entry that the cache has, if its content is still what it was.
    async fn checked(&self, key: &Key) -> Option<Arc<Entry>> {
        let entry = self.cache.find(key)?;
        let looked = Arc::clone(&entry);
        let check = tokio::task::spawn_blocking(move || looked.check());
        if matches!(check.await, Ok(Ok(true))) {
            return Some(entry);
        }
        tracing::warn!("a fetched file is not what it was, fetching it again");
        self.cache.forget(key, &entry);
        None
    }

    fn flight(self: &Arc<Self>, key: &Key, target: &Target) -> Flight {
        let (inner, key, target) = (Arc::clone(self), key.clone(), target.clone());
        Flight::begin(move |stage| async move {
            let landing = match inner.refresh(&key, &target, &stage).await {
                Ok(Some(entry)) => Landing::Cached(entry),
                Ok(None) => Landing::Uncached,
                Err(cause) => Landing::Failed(Arc::new(cause)),
            };
            inner.cache.landed(&key);
            stage.send_replace(Stage::Over(landing));
        })
    }

    /// Makes the cache have what the server has; `None` if it cannot.
    async fn refresh(
        &self,
        key: &Key,
        target: &Target,
        stage: &watch::Sender<Stage>,
    ) -> Result<Option<Arc<Entry>>, Cause> {
        let _slot = self.slots.acquire().await.map_err(|_| Cause::Cancelled)?;
        let ask = Ask {
            target,
            pinned: false,
        };
        let known = self.checked(key).await;
        let opened = self
            .client
            .open(ask, known.as_ref().map(|entry| entry.validators()));
        let body = match (opened.await, known) {
            (Ok(Opened::Same), Some(entry)) => return Ok(Some(entry)),
            (Ok(Opened::Same), None) => return Ok(None),
            (Ok(Opened::New(body)), Some(entry))
                // It cannot say whether it is the same, and does not say that it is not.
                if entry.validators().is_empty()
                    && body.validators.is_empty()
                    && body.length == Some(entry.bytes()) =>
            {
                return Ok(Some(entry));
            }
            (Ok(Opened::New(body)), _) => body,
            (Err(cause), Some(entry)) if cause.is_silence() => {
                tracing::warn!(%cause, "the server cannot be asked, taking what was fetched before");
                return Ok(Some(entry));
            }
            (Err(cause), _) => return Err(cause),
        };
        let Some(reserved) = body.length.and_then(|bytes| self.cache.reserve(key, bytes)) else {
            tracing::info!(
                length = body.length,
                "not cached: no room, or of unknown size"
            );
            return Ok(None);
        };
        let mut file = match create(&reserved.part()) {
            Ok(file) => tokio::fs::File::from_std(file),
            Err(error) => {
                tracing::warn!("not cached: {error}");
                return Ok(None);
            }
        };
        let told = |received, of| {
            stage.send_replace(Stage::Under(received, of));
        };
        let received = self.client.receive(ask, body, &mut file, &told).await?;
        drop(file);
        Ok(admit(reserved, key.clone(), received).await)
    }
}

async fn admit(
    reserved: crate::cache::Reserved,
    key: Key,
    received: Received,
) -> Option<Arc<Entry>> {
    let admitted = tokio::task::spawn_blocking(move || reserved.admit(&key, received));
    match admitted.await {
        Ok(Ok(entry)) => Some(entry),
        Ok(Err(error)) => {
            tracing::warn!("not cached: {error}");
            None
        }
        Err(_) => None,
    }
}

fn same(expected: Digest, actual: Digest) -> Result<(), Cause> {
    if expected == actual {
        return Ok(());
    }
    Err(Cause::WrongDigest { expected, actual })
}

/// Of all of a file; leaves it at its beginning.
fn digest_of(file: &std::fs::File) -> io::Result<Digest> {
    let mut file = file;
    let mut hasher = gantry_intake::Hasher::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match io::Read::read(&mut file, &mut buffer)? {
            0 => break,
            length => hasher.update(&buffer[..length]),
        }
    }
    io::Seek::rewind(&mut file)?;
    Ok(hasher.finish())
}

/// A name that nothing in the directory has: it is emptied at every start.
fn unique() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed).to_string()
}

/// A new file for what is downloaded, of nobody else.
fn create(path: &Path) -> io::Result<std::fs::File> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    options.open(path)
}
