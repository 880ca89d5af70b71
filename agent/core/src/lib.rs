//! The decisions of an agent, pure.
