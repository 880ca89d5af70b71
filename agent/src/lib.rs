//! The node agent: takes launches from the coordinator, has containers made for them, reports what
//! becomes of them, and comes back after a crash as if nothing had happened.
//!
//! ```text
//! coordinator ◀──frames──▶ session ─┐                   ┌─▶ checkpoints (disk)
//! keeper ◀──seqpacket──▶ keeper ────┤                   ├─▶ keeper: start, signal, forget
//! HTTP clients ─────────▶ http ─────┼─▶ inbox ─▶ daemon ┼─▶ provision: image, network
//! clock ────────────────────────────┘    (gantry-agent- └─▶ session: status updates
//!                                         core decides)
//! ```
//! It deliberately decides nothing about the life of a task: that is `gantry_agent_core`. It makes
//! no container either: that is the keeper's, a process of its own that outlives this one.
//! Invariants: one loop owns all state; every queue is bounded; nothing a coordinator, a disk, a
//! registry or a workload says makes it panic.

mod checkpoints;
mod checks;
mod config;
mod container;
mod coordinators;
mod daemon;
mod disks;
mod durable;
mod ends;
mod environment;
mod execs;
mod executors;
mod facts;
mod fetches;
mod gauge;
mod gpus;
mod http;
mod identity;
mod ids;
mod image_server;
mod inbox;
mod keeper;
mod launched;
mod layout;
mod logger;
mod metrics;
mod offer;
mod provision;
mod resources;
mod running;
mod sandboxes;
mod saves;
mod session;
mod shield;
mod start;
mod statistics;
mod verbosity;
mod volumes;

pub use config::{Config, Domain, HTTP_PORT, Secured};
pub use coordinators::{Connect, Coordinators, Stream, Target, TargetError};
pub use disks::DiskError;
/// How long executors of frameworks' own may take.
pub use gantry_agent_core::ExecutorTimes;
/// Images, for the flags and commands that are about them.
pub use gantry_fetch as fetch;
pub use gantry_image as images;
/// The role `keeper` of the binary, for `cli/main.rs`.
pub use gantry_isolation::keeper::main as keeper_main;
pub use identity::IdentityError;
pub use image_server::{ImageServer, ImagesError};
pub use keeper::KeeperError;
pub use logger::{OutputLimits, OutputLimitsError};
pub use offer::{OfferError, Overrides};
pub use resources::ResourcesError;
pub use running::Running;
pub use shield::protect_ports;
pub use start::{StartError, start};
pub use verbosity::Verbosity;

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
