//! stub
use std::path::{Path, PathBuf};
use std::sync::Arc;
use crate::{Digest, ImageConfig, ProgressFn, Reference};

/// An image on this node, ready to be mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Digest of the manifest for this platform.
    pub digest: Digest,
    /// Unpacked layer directories, topmost first.
    pub layers: Vec<PathBuf>,
    /// What to run.
    pub config: ImageConfig,
}
#[derive(Debug, Clone, Default)]
pub struct StoreConfig {}
#[derive(Clone, Default)]
pub struct PullOptions {
    pub force: bool,
    pub insecure_registries: Vec<String>,
    pub progress: Option<ProgressFn>,
}
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct OpenError;
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct PullError;
impl PullError { pub fn message(&self) -> String { String::new() } pub fn is_permanent(&self) -> bool { false } }
#[derive(Clone)]
pub struct Store { _dir: Arc<PathBuf> }
impl Store {
    pub fn open(dir: &Path) -> Result<Self, OpenError> { Ok(Self { _dir: Arc::new(dir.to_owned()) }) }
    pub fn open_with(dir: &Path, _config: StoreConfig) -> Result<Self, OpenError> { Self::open(dir) }
    pub async fn pull(&self, _reference: &Reference, _options: PullOptions) -> Result<Image, PullError> { Err(PullError) }
    pub async fn local(&self, _reference: &Reference) -> Option<Image> { None }
}
