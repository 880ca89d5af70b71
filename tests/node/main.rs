//! Tests of one node: the real binary, the real kernel, real registries. Need root; without it
//! they fail and say so.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod bad_input;
mod bridge;
mod cli;
mod fetch;
mod image;
mod images;
mod lost_log;
mod pull;
mod reach;
mod scale;
mod service;
mod stop;
mod survival;
mod users;
