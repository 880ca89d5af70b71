//! Tests of `gantry oci`: the real binary, the real kernel, and the engines that run it. Need root;
//! without it they fail and say so.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod bundle;
mod containerd;
mod devices;
mod failures;
mod groups;
mod inside;
mod joined;
mod lifecycle;
mod own_program;
mod podman;
mod terminal;
mod unified;
