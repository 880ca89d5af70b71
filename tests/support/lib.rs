//! Shared code of the tests of the whole: a real node in a directory of its own, a real registry,
//! and a look at what the kernel holds for a node.
//!
//! Nothing here fakes anything. Waiting is polling for a condition with a deadline.

pub mod apart;
pub mod kernel;
pub mod line;
pub mod node;
pub mod poll;
pub mod registry;
