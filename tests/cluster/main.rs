//! Tests of several members: the real binary, each in a network namespace of its own, as on machines
//! of their own. Need root; without it they fail and say so.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod apart;
mod drain;
mod offer;
mod settings;
