//! Pulling for real: Debian's registry with images that umoci made, and servers that misbehave.
//!
//! Needs root (owners, device nodes, overlay mounts) and the packages docker-registry, openssl,
//! skopeo and umoci; without them the tests fail and say so.

#![expect(
    clippy::unwrap_used,
    reason = "tests; clippy sees only #[test] functions as such"
)]

mod archive;
mod collect;
mod fixture;
mod hostile;
mod leaks;
mod mirrors;
mod platforms;
mod real;
mod resume;
mod secured;
mod select;
mod server;
mod sharing;
