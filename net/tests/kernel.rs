//! Container networks on the real kernel, each test in network namespaces of its own.
//!
//! Needs root; without it the tests fail and say so. Uses the programs `ip` and `nft` to look,
//! never the code under test.

#![expect(
    clippy::unwrap_used,
    reason = "a test's helpers fail the test like the test itself"
)]

#[path = "kernel/host.rs"]
mod host;

#[path = "kernel/crash.rs"]
mod crash;
#[path = "kernel/limits.rs"]
mod limits;
#[path = "kernel/outside.rs"]
mod outside;
#[path = "kernel/protection.rs"]
mod protection;
#[path = "kernel/quiet.rs"]
mod quiet;
#[path = "kernel/reach.rs"]
mod reach;
#[path = "kernel/restart.rs"]
mod restart;
