//! The fetcher as an agent uses it: a real server, real archives by the tools that people pack
//! with, and everything that a hostile author, server or neighbour may try. Needs root, as the
//! agent does.

#![expect(
    clippy::unwrap_used,
    reason = "tests; clippy sees only #[test] functions as such"
)]

mod archives;
mod attacks;
mod cached;
mod fixture;
mod fuzz;
mod server;
mod transfer;
