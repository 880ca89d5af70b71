//! What a task wants in its sandbox before it starts: files from servers and from the node, taken
//! as they are or extracted.
//!
//! It decides which sources may be fetched, what of a download may be used again, and what of an
//! archive becomes a file. It deliberately knows no task, no container and no user names: whoever
//! calls says where the files go and whose they are.
//!
//! ```text
//! Item ─▶ Source ─▶ server ──▶ cache (user, uri) ─┐
//!                 ├▶ server ──▶ unnamed file ─────┼─▶ Fetched ── place ─▶ sandbox: as it is, or
//!                 └▶ file of the node ────────────┘                      gunzip… ─▶ tar, zip entries
//! ```
//! Invariants: nothing is written outside of the own directory and the sandbox, whatever an archive
//! says and whoever writes into the sandbox meanwhile; what is extracted has one owner, no set-id
//! bits, no attributes and no device; no credential of a URI is shown, kept or sent to another
//! host; no input from a server or an archive panics.

mod archive;
mod cache;
mod download;
mod error;
mod fetcher;
mod local;
mod meter;
mod place;
mod sandbox;
mod target;
mod validators;

pub use error::{Cause, FetchError};
pub use fetcher::{Config, Fetched, Fetcher, Item, Progress, ProgressFn};
pub use meter::Bounds;
pub use place::{Place, place};
pub use sandbox::Owner;
pub use target::shown;
