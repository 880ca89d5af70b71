//! OCI images: registry client, content store, layer unpacking.
//!
//! It decides what an image reference means, which bytes of a registry are believed (those whose
//! digest matches, within stated bounds) and how a layer becomes a directory that overlayfs can
//! stack, and what may be removed. It deliberately does not start, mount or delete anything that a
//! container uses, and it writes no credentials
//! anywhere.
//!
//! Invariants: nothing below `layers/` is ever a part of a layer; nothing is written outside of
//! the store's directory, whatever a layer says; no input from a registry panics.
//!
//! ```text
//! Reference ──pull──▶ registry: manifest, config ──▶ per layer, several at once:
//!   HTTP body ─▶ sha256(blob) ─▶ gunzip ─▶ sha256(diff) ─▶ tar entries ─▶ tmp/… ─▶ layers/…
//! ```

mod archive;
mod auth;
mod config;
mod error;
#[cfg(test)]
mod fuzz;
mod manifest;
mod pipe;
mod platform;
mod progress;
mod pull;
mod recipe;
mod reference;
mod registry;
mod stages;
mod store;
mod unpack;

pub use archive::ArchiveError;
pub use archive::export::{ArchiveFormat, Export, Written};
pub use archive::import::{Archive, ImportOptions, Imported};
pub use auth::credentials::{Credentials, CredentialsError};
pub use config::{ConfigError, ImageConfig};
pub use error::{PullError, PullFailure, Trouble};
pub use gantry_intake::{Cause, Digest, DigestError, PathError, TarError, Timeouts};
pub use manifest::ManifestError;
pub use platform::{Platform, PlatformError};
pub use progress::{LayerProgress, LayerState, Progress, ProgressFn};
pub use reference::{DEFAULT_REGISTRY, Reference, ReferenceError};
pub use registry::{Mirror, MirrorError, RegistryConfig, RegistryError};
pub use store::collect::{Headroom, Prune, Report, StoreError};
pub use store::list::{Details, Part, Summary};
pub use store::uses::Hold;
pub use store::{Image, OpenError, PullOptions, Store, StoreConfig};
pub use unpack::UnpackError;
pub use unpack::meter::Limits;
